"""Jobs that fork: their children neither end a server nor keep its ports and connections."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spincycle_grpc import Client
from spincycle_grpc.state import State
from tests.e2e.processes import ServerProcess, running
from tests.limits import REQUEST_END
from tests.ports import free_port

SPEC = """
sequences:
  {kind}:
    request: true
    args: {{required: [{{name: how, desc: name of a function}}]}}
    nodes:
      {kind}: {{category: job, type: {kind}, args: [{{expected: how}}]}}
"""


@contextlib.contextmanager
def forking_server(directory: Path, url: str = "sqlite:///x.db") -> Iterator[ServerProcess]:
    (directory / "specs").mkdir()
    for kind in ("plain", "async"):
        (directory / "specs" / f"{kind}.yaml").write_text(SPEC.format(kind=kind))
    environment = {
        "SPINCYCLE_JOBS": "tests.forking_jobs:factory",
        "SPINCYCLE_JOB_RUNNER_ADDR": f"127.0.0.1:{free_port()}",
    }
    with running(
        "server", f"--http=127.0.0.1:{free_port()}", "--specs=specs", f"--db={url}",
        directory=directory, environment=environment, anew=True,
    ) as server:  # fmt: skip
        server.wait_for("runner reports")
        yield server


def result(server: ServerProcess, how: str, kind: str = "plain") -> Any:
    """Runs one request, and returns what its job returned."""
    with Client(server.address("request-manager", "grpc")) as client:
        created = client.create(kind, {"how": how})
        ended = client.wait(created.id, deadline=REQUEST_END)
        [entry] = [entry for entry in client.log(created.id) if entry.type == kind]
    assert State(ended.state) is State.COMPLETE, entry
    return json.loads(entry.stdout)


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_signals_of_children_do_not_reach_the_server(kind: str, tmp_path: Path) -> None:
    expected = {
        "pool": 4950,
        "executor": 4950,
        "terminated-process": -signal.SIGTERM,
        "sigterm": -signal.SIGTERM,
        "sighup": -signal.SIGHUP,
        "sigint": 77,  # Python raises KeyboardInterrupt
    }
    with forking_server(tmp_path) as server:
        for _ in range(3):
            assert {how: result(server, how, kind) for how in expected} == expected
        assert [event for event in server.events if "signal" in event] == []
        assert server.terminate() == 0


def test_a_child_that_returns_from_a_job_ends(tmp_path: Path) -> None:
    with forking_server(tmp_path) as server:
        assert [result(server, "returning-child") for _ in range(3)] == [0, 0, 0]
        assert server.terminate() == 0


@pytest.mark.parametrize("how", ["left-process", "left-executor", "left-fork"])
def test_children_keep_neither_the_server_nor_its_ports(how: str, tmp_path: Path) -> None:
    with forking_server(tmp_path) as server:
        left = result(server, how)
        addresses = [
            server.address(name, side)
            for name in ("request-manager", "job-runner")
            for side in ("http", "grpc")
        ]
        try:
            assert server.terminate() == 0
            for address in addresses:
                host, _, port = address.rpartition(":")
                with socket.socket() as free:
                    # Connections that were closed do not count, but whoever listens does.
                    free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    free.bind((host, int(port)))
        finally:
            for child in left if isinstance(left, list) else [left]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_child_has_the_descriptors_of_the_job_alone(kind: str, tmp_path: Path) -> None:
    with forking_server(tmp_path) as server:
        check_descriptors(result(server, "descriptors", kind))


def test_a_child_has_no_connection_to_the_database(migrated_url: str, tmp_path: Path) -> None:
    with forking_server(tmp_path, migrated_url) as server:
        check_descriptors(result(server, "descriptors"))


def check_descriptors(found: dict[str, Any]) -> None:
    own = {str(number) for number in found["own"]}
    server, child = found["server"], found["child"]
    assert {number: child[number] for number in own} == {number: server[number] for number in own}
    servers = {number: link for number, link in server.items() if number not in own and int(number) > 2}
    kept = {
        number: link
        for number, link in servers.items()
        if child.get(number) == link and link != "/dev/null" and not link.startswith("/proc/")
    }
    assert len(servers) > 10
    assert kept == {}
