"""A client that knows two Request Managers follows a request while one after the other is away."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.databases import SharedServers, migrate
from tests.e2e.processes import ServerProcess, running
from tests.interop.clients import LANGUAGES, BuiltClient, Language
from tests.interop.name_server import ADDRESSES, name_server
from tests.ports import free_port

pytestmark = pytest.mark.interop


def one_name(names: str, port: int) -> str:
    return f"dns://{names}/spin.test:{port}"


def two_addresses(_: str, port: int) -> str:
    return "ipv4:" + ",".join(f"{address}:{port}" for address in ADDRESSES)


@pytest.mark.parametrize(
    ("language", "target_of"),
    [(LANGUAGES["go"], one_name), (LANGUAGES["typescript"], two_addresses)],
    ids=["go", "typescript"],
)
def test_a_client_continues_on_the_other_server(
    build: Callable[[Language, str], BuiltClient],
    database_servers: SharedServers,
    language: Language,
    target_of: Callable[[str, int], str],
    specs: Path,
    tmp_path: Path,
) -> None:
    url = database_servers.url("mariadb", tmp_path)
    migrate(url)
    http_port = free_port()
    grpc_port = http_port + 10
    environment = {"SPINCYCLE_SPECS_DIR": str(specs)}
    client = build(language, "clone")
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> ServerProcess:
            return stack.enter_context(running(*arguments, directory=tmp_path, environment=environment))

        def start_manager(address: str) -> ServerProcess:
            process = start("request-manager", f"--db={url}", f"--http={address}:{http_port}")
            process.address("request-manager", "grpc")
            return process

        managers = [start_manager(address) for address in ADDRESSES]
        known = ",".join(f"{address}:{grpc_port}" for address in ADDRESSES)
        start("job-runner", "--http=127.0.0.1:0", f"--rm={known}").wait_for("reporting")
        names = stack.enter_context(name_server())
        target = target_of(names, grpc_port)
        gate = tmp_path / "gate"
        following = stack.enter_context(client.start(target, "run", "gate", f"file={gate}"))
        following.read_until("RUNNING")
        for number, address in enumerate(ADDRESSES):
            managers[number].kill()
            stopped = client.run(target, "stop", "nosuch")
            assert "REQUEST_NOT_FOUND" in stopped.errors, stopped.output()
            managers[number] = start_manager(address)
        gate.touch()
        assert following.wait() == 0, following.output()
    assert "COMPLETE, 4 of 4 jobs" in following.lines
    tries = [line for line in following.lines if line.startswith("tried ")]
    assert len(tries) == 4, "each try arrives once, whichever server sends it"
