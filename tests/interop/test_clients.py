"""The example clients do what they show, while servers are restarted, over TLS, and with tokens."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.certificates import write_ca, write_certificate
from tests.commands.in_process import spincycle
from tests.e2e.processes import ServerProcess, running
from tests.interop.clients import LANGUAGES, BuiltClient, Language
from tests.ports import free_port

pytestmark = pytest.mark.interop

Build = Callable[[Language, str], BuiltClient]

LOG = {
    "log noop, try 1: COMPLETE, exit 0": 2,
    "log flaky, try 1: FAIL, exit 2": 1,
    "log flaky, try 2: COMPLETE, exit 0": 1,
    "log after, try 1: COMPLETE, exit 0": 1,
    "  try 1": 1,
    "  boom": 1,
    "  try 2": 1,
}
"""How often each line is in the log of a request of type "job-retry" that fails once."""

every_language = pytest.mark.parametrize("language", LANGUAGES.values(), ids=lambda one: one.name)


def address_of(server: ServerProcess, language: Language) -> str:
    return server.address("request-manager", language.address[1])


@pytest.mark.parametrize(
    ("language", "source"),
    [
        (language, source)
        for language in LANGUAGES.values()
        for source in ("clone", "zip")
        if language.is_generated or source == "clone"
    ],
    ids=lambda one: one if isinstance(one, str) else one.name,
)
def test_a_client_follows_a_request_and_prints_its_log(
    build: Build, server: ServerProcess, language: Language, source: str
) -> None:
    done = build(language, source).run(address_of(server, language), "run", "job-retry", "times=1")
    assert done.status == 0, done.output()
    end = done.lines.index("COMPLETE, 4 of 4 jobs")
    assert done.lines[0].startswith("created ")
    log = [line for line in done.lines if line.startswith(("log ", "  "))]
    assert {line: log.count(line) for line in log} == LOG
    assert log == done.lines[end + 1 :]
    tries = [line for line in done.lines[:end] if line.startswith("tried flaky")]
    assert tries == ["tried flaky, try 1: FAIL", "tried flaky, try 2: COMPLETE"]


@every_language
def test_a_client_handles_an_error_by_its_reason(
    build: Build, server: ServerProcess, language: Language
) -> None:
    done = build(language, "clone").run(address_of(server, language), "run", "nosuch")
    assert done.status == 1
    *types, error = done.errors.splitlines()
    assert error == "error UNKNOWN_REQUEST_TYPE: cannot find definition for request: nosuch"
    assert "known type: nap" in types


@every_language
def test_a_client_stops_a_request(build: Build, server: ServerProcess, language: Language) -> None:
    client, address = build(language, "clone"), address_of(server, language)
    with client.start(address, "run", "nap", "ms=3600000") as following:
        _, request_id = following.read_until("created ").split()
        following.read_until("RUNNING")
        stopped = client.run(address, "stop", request_id)
        assert stopped.status == 0, stopped.output()
        assert following.wait() == 1
    assert any(line.startswith("STOPPED, ") for line in following.lines), following.output()


@every_language
def test_a_client_follows_a_request_while_the_server_is_killed_and_started_again(
    build: Build, language: Language, specs: Path, tmp_path: Path
) -> None:
    client = build(language, "clone")
    gate = tmp_path / "gate"
    with installation(tmp_path, specs) as servers:
        address = address_of(servers.manager, language)
        with client.start(address, "run", "gate", f"file={gate}") as following:
            following.read_until("RUNNING")
            servers.restart_manager()
            gate.touch()
            status = following.wait()
    assert status == 0, following.output()
    assert "COMPLETE, 4 of 4 jobs" in following.lines
    tries = [line for line in following.lines if line.startswith("tried ")]
    assert sorted(tries) == [
        "tried first, try 1: COMPLETE",
        "tried noop, try 1: COMPLETE",
        "tried noop, try 1: COMPLETE",
        "tried wait, try 1: COMPLETE",
    ], "each try arrives once, although the client has opened two streams"


@dataclass
class Installation:
    """A Request Manager, and a Job Runner that stays when the Request Manager is restarted."""

    manager: ServerProcess
    start_manager: Callable[[], ServerProcess]

    def restart_manager(self) -> None:
        self.manager.kill()
        self.manager = self.start_manager()
        self.manager.address("request-manager", "grpc")


@contextlib.contextmanager
def installation(directory: Path, specs: Path) -> Iterator[Installation]:
    environment = {"SPINCYCLE_SPECS_DIR": str(specs)}
    http = f"--http=127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> ServerProcess:
            return stack.enter_context(running(*arguments, directory=directory, environment=environment))

        manager = start("request-manager", http)
        runner = start(
            "job-runner", "--http=127.0.0.1:0", f"--rm={manager.address('request-manager', 'grpc')}"
        )
        runner.wait_for("reporting")
        yield Installation(manager, lambda: start("request-manager", http))


@dataclass(frozen=True)
class SecureServer:
    """A server with TLS, whose users have tokens.

    Attributes:
        variables: The environment variables that identify a user who may start requests.
        directory: Where to write further files with tokens.
    """

    process: ServerProcess
    variables: dict[str, str]
    directory: Path

    def address(self, language: Language) -> str:
        """Returns the address by name: not all clients accept certificates for IP addresses quietly."""
        return address_of(self.process, language).replace("127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def secure_server(tmp_path_factory: pytest.TempPathFactory, specs: Path) -> Iterator[SecureServer]:
    directory = tmp_path_factory.mktemp("secure")
    authority = trustme.CA()
    ca = write_ca(directory, authority)
    own = write_certificate(directory, "server", authority.issue_cert("127.0.0.1", "localhost"))
    options = {
        "server": {"tls": {"cert_file": own.cert, "key_file": own.key}},
        "auth": {"methods": "token", "strict": True, "admin_roles": "admin"},
    }
    (directory / "config.yaml").write_text(json.dumps(options))
    environment = {"SPINCYCLE_SPECS_DIR": str(specs)}
    with running(
        "server", "config.yaml", "--http=127.0.0.1:0", directory=directory, environment=environment
    ) as process:
        process.wait_for("reporting")
        url = f"--db=sqlite:///{directory}/spincycle.db"
        token = spincycle(directory, "token", "create", "ada", url, "--role=admin")
        assert token.returncode == 0, token.stderr
        file = directory / "ada.token"
        file.write_text(token.stdout)
        yield SecureServer(process, {"SPINC_CA": ca, "SPINC_TOKEN_FILE": str(file)}, directory)


@every_language
def test_a_client_uses_tls_and_a_token(build: Build, secure_server: SecureServer, language: Language) -> None:
    address = secure_server.address(language)
    done = build(language, "clone").run(address, "run", "job-retry", "times=0", **secure_server.variables)
    assert done.status == 0, done.output()
    assert "COMPLETE, 4 of 4 jobs" in done.lines


@every_language
def test_a_client_says_why_its_token_is_refused(
    build: Build, secure_server: SecureServer, language: Language
) -> None:
    file = secure_server.directory / "unknown.token"
    file.write_text("spincycle_" + "x" * 43)
    variables = {**secure_server.variables, "SPINC_TOKEN_FILE": str(file)}
    address = secure_server.address(language)
    done = build(language, "clone").run(address, "run", "nap", **variables)
    assert done.status == 1
    assert done.errors.startswith("error UNKNOWN_TOKEN: "), done.output()


@every_language
def test_a_client_does_not_send_a_token_in_plain_text(
    build: Build, language: Language, tmp_path: Path
) -> None:
    file = tmp_path / "ada.token"
    file.write_text("spincycle_" + "x" * 43)
    client = build(language, "clone")
    done = client.run("spin.invalid:1", "run", "nap", SPINC_TOKEN_FILE=str(file))
    assert done.status == 1
    assert any(word in done.errors for word in ("TLS", "transport level security", "plain text")), (
        done.output()
    )
