"""A server without file descriptors says so once a second, and works again when there are some."""

from __future__ import annotations

import itertools
import resource
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from spincycle_server.app.descriptors import AVAILABLE, EXHAUSTED
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import eventually
from tests.limits import ANSWER


def times_of(server: ServerProcess) -> list[float]:
    """Returns when the log says that descriptors are exhausted, in seconds."""
    return [
        datetime.fromisoformat(event["timestamp"]).timestamp()
        for event in server.events
        if event["message"] == EXHAUSTED
    ]


@pytest.mark.parametrize("command", ["server", "request-manager", "job-runner"])
def test_exhausted_descriptors_are_logged_once_a_second(command: str, tmp_path: Path) -> None:
    name = "job-runner" if command == "job-runner" else "request-manager"
    with running(command, "--http=127.0.0.1:0", directory=tmp_path) as server:
        address = server.address(name, "http")
        if command == "server":
            server.wait_for("reporting")  # Both servers of the process have started.
        pid = server.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        # A higher number than those of the standard streams may be free.
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        eventually(lambda: len(times_of(server)) >= 3)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        server.wait_for(AVAILABLE)
        times = times_of(server)
        assert all(later - earlier >= 0.9 for earlier, later in itertools.pairwise(times))
        assert httpx.get(f"http://{address}/openapi.json", timeout=ANSWER).status_code == 200
        assert server.terminate() == 0
