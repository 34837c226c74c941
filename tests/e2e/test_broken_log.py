"""A server whose log cannot be written serves on, and ends with its usual status."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from spincycle_grpc.v1 import state_pb2
from spincycle_server.logs import LOST_LINES
from tests.e2e.processes import REPOSITORY, SPECS
from tests.e2e.waiting import eventually, wait_state
from tests.limits import ANSWER, PROCESS_END
from tests.ports import free_port


@contextlib.contextmanager
def serving(
    directory: Path, standard_error: int | None
) -> Iterator[tuple[httpx.Client, subprocess.Popen[Any]]]:
    """Runs a server with an open file as standard error; None for a closed one."""
    port = free_port()
    script = 'exec 2>&-; exec "$@"' if standard_error is None else 'exec "$@"'
    arguments = ["server", f"--http=127.0.0.1:{port}", f"--grpc=127.0.0.1:{free_port()}"]
    process = subprocess.Popen(
        ["sh", "-c", script, "sh", sys.executable, "-m", "spincycle_server", *arguments],
        cwd=directory,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "SPINCYCLE_JOBS": "tests.fixture_jobs:factory",
            "SPINCYCLE_SPECS_DIR": str(SPECS),
            "SPINCYCLE_JOB_RUNNER_ADDR": "127.0.0.1:0",
            "SPINCYCLE_LOG_LEVEL": "debug",
        },
        stdout=standard_error,
        stderr=standard_error,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=ANSWER) as http:
            eventually(lambda: _answers(http))
            yield http, process
    finally:
        process.kill()
        process.wait(PROCESS_END)


def _answers(http: httpx.Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return http.get("/api/v1/requests").status_code == 200
    return False


def run_requests(http: httpx.Client) -> None:
    """Runs a request that completes, and one that fails."""
    for kind, args, state in (
        ("nap", {"ms": "1"}, state_pb2.STATE_COMPLETE),
        ("panics", {}, state_pb2.STATE_FAIL),
    ):
        created = http.post("/api/v1/requests", json={"type": kind, "args": args})
        assert created.status_code == 201
        wait_state(http, created.json()["id"], state)


def end(process: subprocess.Popen[Any]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(PROCESS_END)


@pytest.mark.parametrize("kind", ["closed", "full disk"])
def test_a_server_without_a_log_from_the_start(kind: str, tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with serving(tmp_path, None if kind == "closed" else full) as (http, process):
        run_requests(http)
        assert end(process) == 0
    os.close(full)


def test_a_server_whose_log_reader_ends(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with serving(tmp_path, writer) as (http, process):
        os.close(writer)
        os.close(reader)
        run_requests(http)
        assert end(process) == 0


def test_a_server_whose_log_reader_pauses_reports_the_lost_lines(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with serving(tmp_path, writer) as (http, process):
        os.set_blocking(writer, False)  # Fills the pipe, as a reader that pauses does.
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"\n")
        os.set_blocking(writer, True)
        os.close(writer)
        run_requests(http)
        kept = bytearray(os.read(reader, 1 << 20))
        assert end(process) == 0
        while part := os.read(reader, 1 << 20):
            kept += part
    os.close(reader)
    events = [json.loads(line) for line in kept.splitlines() if line.startswith(b"{")]
    (report,) = [event for event in events if event["message"] == LOST_LINES]
    assert report["lines"] > 0
    assert events[-1]["message"] == "shut down"
