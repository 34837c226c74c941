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

from tests.e2e.processes import running
from tests.limits import COMMAND

TOKEN = "s3cret-token"
PLUGIN = f"""
from spincycle_grpc import Caller, UnauthenticatedError

class Tokens:
    async def authenticate(self, metadata, peer):
        if metadata.get("authorization") != "Bearer {TOKEN}":
            raise UnauthenticatedError("unknown token", reason="UNKNOWN_TOKEN")
        return Caller(name="ann")
"""
CONFIG = """
server: {addr: "127.0.0.1:0", tls: {cert_file: server.pem, key_file: server.key}}
auth: {plugin: "my_tokens:Tokens"}
cluster: {key_file: cluster.key}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a Request Manager, and the file of its CA."""
    directory = tmp_path_factory.mktemp("server")
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    (directory / "ca.pem").write_bytes(authority.cert_pem.bytes())
    (directory / "server.pem").write_bytes(b"".join(pem.bytes() for pem in own.cert_chain_pems))
    (directory / "server.key").write_bytes(own.private_key_pem.bytes())
    (directory / "cluster.key").write_text("k" * 40)
    (directory / "my_tokens.py").write_text(PLUGIN)
    (directory / "config.yaml").write_text(CONFIG)
    with running("request-manager", "config.yaml", directory=directory) as manager:
        yield manager.address("request-manager", "grpc"), directory / "ca.pem"


def spinc(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs spinc with a home directory, and with no other settings."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SPINC_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-m", "spincycle_grpc.cli", *arguments],
        env={**own, "HOME": str(home)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=COMMAND, check=False,
    )  # fmt: skip
    assert TOKEN not in done.stdout + done.stderr
    return done


@pytest.fixture
def home(tmp_path: Path, server: tuple[str, Path]) -> Path:
    """A home directory with the profiles `prod`, `stranger` and `nobody`."""
    address, ca = server
    directory = tmp_path / ".config" / "spinc"
    directory.mkdir(parents=True)
    profiles = {"prod": "token_file = 'prod.token'", "stranger": "token = 'wrong'", "nobody": ""}
    file = directory / "profiles.toml"
    file.write_text(
        "\n".join(f"[{name}]\naddr = '{address}'\nca = '{ca}'\n{rest}" for name, rest in profiles.items())
    )
    (directory / "prod.token").write_text(f"{TOKEN}\n")
    for path in directory.iterdir():
        path.chmod(0o600)
    return tmp_path


def test_a_profile_is_enough_to_create_and_find_requests(home: Path) -> None:
    created = spinc(home, "--profile=prod", "--json", "start", "nap", "ms=1")
    assert created.returncode == 0, created.stderr
    request_id = json.loads(created.stdout)["id"]
    found = spinc(home, "--profile=prod", "--json", "find", "--user=ann")
    assert [request["id"] for request in json.loads(found.stdout)] == [request_id]


def test_options_and_variables_are_enough_without_a_profile(home: Path, server: tuple[str, Path]) -> None:
    address, ca = server
    token = home / ".config" / "spinc" / "prod.token"
    done = spinc(home, f"--addr={address}", f"--ca={ca}", f"--token-file={token}", "find")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("profile", "advice"), [("nobody", "Identify yourself with --token-file"), ("stranger", "get a new one")]
)
def test_an_unknown_caller_learns_what_to_do(profile: str, advice: str, home: Path) -> None:
    refused = spinc(home, f"--profile={profile}", "find")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert refused.stderr.startswith("spinc: unknown token. ")
    assert advice in refused.stderr
