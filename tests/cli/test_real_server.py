"""spinc as a user runs it, with a server that requires TLS and tokens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.commands.in_process import spincycle
from tests.e2e.processes import running
from tests.limits import COMMAND

CONFIG = """
server: {addr: "127.0.0.1:0", tls: {cert_file: server.pem, key_file: server.key}}
auth: {methods: [token]}
cluster: {key_file: cluster.key}
database: {url_file: database.url}
"""


class Installation:
    """A Request Manager that requires TLS and tokens.

    Attributes:
        directory: The working directory of the server and of its administrator.
        ca: The file of its CA.
        token: The token of the user `ann`.
        address: host:port of its gRPC port.
    """

    def __init__(self, directory: Path) -> None:
        self.directory, self.ca = directory, directory / "ca.pem"
        authority = trustme.CA()
        own = authority.issue_cert("127.0.0.1")
        self.ca.write_bytes(authority.cert_pem.bytes())
        (directory / "server.pem").write_bytes(b"".join(pem.bytes() for pem in own.cert_chain_pems))
        (directory / "server.key").write_bytes(own.private_key_pem.bytes())
        (directory / "cluster.key").write_text("k" * 40)
        (directory / "config.yaml").write_text(CONFIG)
        (directory / "database.url").write_text(f"sqlite:///{directory}/spin.db\n")
        self.administer("migrate")
        self.token = self.administer("token", "create", "ann").strip()
        self.address = ""

    def administer(self, *arguments: str) -> str:
        """Runs a command of the administrator, and returns its output."""
        done = spincycle(self.directory, *arguments, "config.yaml")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def spinc(self, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs spinc with a home directory, and with no other settings."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SPINC_", "XDG_"))}
        done = subprocess.run(
            [sys.executable, "-m", "spincycle_grpc.cli", *arguments],
            env={**own, "HOME": str(home)}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=COMMAND, check=False,
        )  # fmt: skip
        assert self.token not in done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = Installation(tmp_path_factory.mktemp("server"))
    with running("request-manager", "config.yaml", directory=made.directory) as manager:
        made.address = manager.address("request-manager", "grpc")
        yield made


@pytest.fixture
def home(tmp_path: Path, installation: Installation) -> Path:
    """A home directory with the profiles `prod`, `stranger` and `nobody`."""
    directory = tmp_path / ".config" / "spinc"
    directory.mkdir(parents=True)
    profiles = {"prod": "token_file = 'prod.token'", "stranger": "token = 'wrong'", "nobody": ""}
    server = f"addr = '{installation.address}'\nca = '{installation.ca}'\n"
    file = directory / "profiles.toml"
    file.write_text("\n".join(f"[{name}]\n{server}{rest}" for name, rest in profiles.items()))
    (directory / "prod.token").write_text(f"{installation.token}\n")
    for path in directory.iterdir():
        path.chmod(0o600)
    return tmp_path


def test_a_profile_is_enough_to_create_and_find_requests(home: Path, installation: Installation) -> None:
    created = installation.spinc(home, "--profile=prod", "--json", "start", "nap", "ms=1")
    assert created.returncode == 0, created.stderr
    request_id = json.loads(created.stdout)["id"]
    found = installation.spinc(home, "--profile=prod", "--json", "find", "--user=ann")
    assert [request["id"] for request in json.loads(found.stdout)] == [request_id]


def test_options_are_enough_without_a_profile(home: Path, installation: Installation) -> None:
    token = home / ".config" / "spinc" / "prod.token"
    options = (f"--addr={installation.address}", f"--ca={installation.ca}", f"--token-file={token}")
    done = installation.spinc(home, *options, "find")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("profile", "advice"), [("nobody", "Use --token-file, "), ("stranger", "Check that your token is for ")]
)
def test_an_unknown_caller_learns_what_to_do(
    profile: str, advice: str, home: Path, installation: Installation
) -> None:
    refused = installation.spinc(home, f"--profile={profile}", "find")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert advice in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_renewed_token_counts_at_once(home: Path, installation: Installation) -> None:
    file = home / ".config" / "spinc" / "prod.token"
    file.write_text("expired")
    assert installation.spinc(home, "--profile=prod", "find").returncode == 3
    file.write_text(installation.administer("token", "create", "bob"))
    assert installation.spinc(home, "--profile=prod", "find").returncode == 0
