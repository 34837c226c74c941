"""A Request Manager that listens on unix sockets, for HTTP and gRPC."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from spincycle_grpc import Client, State
from tests.e2e.processes import ServerProcess, running
from tests.limits import ANSWER, COMMAND, PROCESS_END, REQUEST_END

SOCKETS = ("s", "s.grpc")


def get(path: Path, target: str) -> httpx.Response:
    """Sends a GET over HTTP to a unix socket."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=ANSWER) as client:
        return client.get(f"http://here{target}")


def check_serves(server: ServerProcess, directory: Path) -> None:
    assert server.address("request-manager", "http") == f"unix:{directory}/s"
    assert server.address("request-manager", "grpc") == f"unix:{directory}/s.grpc"
    server.wait_for("runner reports")
    with Client(f"unix:{directory}/s.grpc") as client:
        request = client.create("diamond")
        assert State(client.wait(request.id, deadline=REQUEST_END).state) is State.COMPLETE
    answer = get(directory / "s", f"/api/v1/requests/{request.id}")
    assert (answer.status_code, answer.json()["id"]) == (200, request.id)
    assert get(directory / "s", "/nosuch").status_code == 404
    spinc = [
        str(Path(sys.executable).parent / "spinc"),
        f"--addr=unix:{directory}/s.grpc",
        "status",
        request.id,
    ]
    shown = subprocess.run(spinc, capture_output=True, text=True, timeout=COMMAND, check=True).stdout
    assert "COMPLETE" in shown


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory whose path is short enough for sockets."""
    short = Path("/tmp") / f"spincycle-{os.getpid()}"
    short.symlink_to(tmp_path)
    try:
        yield short
    finally:
        short.unlink()


def test_requests_run_over_unix_sockets_and_those_of_a_killed_server_are_replaced(
    directory: Path,
) -> None:
    arguments = ("server", f"--http=unix:{directory}/s")
    with running(*arguments, directory=directory) as server:
        check_serves(server, directory)
        for name in SOCKETS:
            assert stat.S_IMODE((directory / name).stat().st_mode) == 0o660
        with running(*arguments, "--db=sqlite:///other.db", directory=directory) as second:
            assert second.process.wait(PROCESS_END) == 1
            assert "cannot listen on" in second.log()
            assert "a server listens there" in second.log()
        check_serves(server, directory)
        server.kill()
    with running(*arguments, directory=directory) as server:
        check_serves(server, directory)
        assert server.terminate() == 0
    assert not [name for name in SOCKETS if (directory / name).exists()]


def test_another_file_is_not_replaced(directory: Path) -> None:
    (directory / "s").write_text("precious")
    with running("request-manager", f"--http=unix:{directory}/s", directory=directory) as server:
        assert server.process.wait(PROCESS_END) == 1
        assert "another file has this path" in server.log()
    assert (directory / "s").read_text() == "precious"


@pytest.mark.parametrize("option", ["--http=unix:s", "--grpc=unix:s"])
def test_a_job_runner_must_have_an_address_that_others_can_call(tmp_path: Path, option: str) -> None:
    with running("job-runner", "--rm=127.0.0.1:1", option, directory=tmp_path) as server:
        assert server.process.wait(PROCESS_END) == 2
        assert "must listen at host:port" in server.log()
