"""Servers that shut down during calls, and runners that do not answer."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from spincycle_grpc.client import Client
from spincycle_grpc.errors import UnavailableError
from spincycle_grpc.state import State
from tests.e2e.kinds import SPECS
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import eventually, wait_state
from tests.journal_jobs import JOURNAL, read_journal
from tests.limits import ANSWER, PROCESS_END
from tests.ports import free_port


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        JOURNAL: str(tmp_path / "journal"),
        "SPINCYCLE_JOBS": "tests.journal_jobs:factory",
        "SPINCYCLE_SPECS_DIR": str(SPECS),
        "SPINCYCLE_RESUME_INTERVAL": "100ms",
    }


@pytest.fixture
def two_runners(tmp_path: Path, environment: dict[str, str]) -> Iterator[list[ServerProcess]]:
    """A Request Manager with two Job Runners."""
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(
            running("request-manager", "--http=127.0.0.1:0", directory=tmp_path, environment=environment)
        )
        arguments = (
            "job-runner", "--http=127.0.0.1:0", f"--rm={manager.address('request-manager', 'grpc')}"
        )  # fmt: skip
        runners = [
            stack.enter_context(running(*arguments, directory=tmp_path, environment=environment))
            for _ in range(2)
        ]
        for runner in runners:
            runner.wait_for("reporting")
        yield [manager, *runners]


def http_of(manager: ServerProcess) -> httpx.Client:
    return httpx.Client(base_url=f"http://{manager.address('request-manager', 'http')}", timeout=ANSWER)


def test_a_request_manager_that_shuts_down_finishes_calls_in_flight_and_refuses_new_ones(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    gate = tmp_path / "gate"
    held = {"type": "gated", "args": {"gate": str(gate)}}
    with (
        running(
            "request-manager", "--http=127.0.0.1:0", directory=tmp_path, environment=environment
        ) as manager,
        http_of(manager) as http,
        concurrent.futures.ThreadPoolExecutor(1) as threads,
    ):
        creating = threads.submit(http.post, "/api/v1/requests", json=held)
        client = Client(manager.address("request-manager", "grpc"))
        eventually(gate.with_name("gate.waited-for").exists)
        manager.process.send_signal(signal.SIGTERM)
        manager.wait_for("shutting down")
        refused = eventually(lambda: _refusal(http))
        assert refused == (503, "the server is shutting down")
        with pytest.raises(UnavailableError) as raised:
            client.create("row", {})
        assert raised.value.reason == "SHUTTING_DOWN"
        gate.touch()
        assert creating.result(ANSWER).status_code == 201
        client.close()
        assert manager.process.wait(PROCESS_END) == 0, manager.log()


def _refusal(http: httpx.Client) -> tuple[int, str] | None:
    answer = http.post("/api/v1/requests", json={"type": "row", "args": {}})
    if answer.status_code == 201:
        return None
    return answer.status_code, answer.json()["message"]


def test_reports_are_kept_until_the_request_manager_is_back(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    port = free_port()
    arguments = ("request-manager", f"--http=127.0.0.1:{port}")
    runner_arguments = ("job-runner", "--http=127.0.0.1:0", f"--rm=127.0.0.1:{port + 10}")
    with running(*runner_arguments, directory=tmp_path, environment=environment) as runner:
        with (
            running(*arguments, directory=tmp_path, environment=environment) as manager,
            http_of(manager) as http,
        ):
            runner.wait_for("reporting")
            created = http.post("/api/v1/requests", json={"type": "row", "args": {"ms": "600"}})
            request_id = created.json()["id"]
            eventually(lambda: read_journal(environment[JOURNAL]))
            assert manager.terminate() == 0, manager.log()
        eventually(lambda: [line["event"] for line in read_journal(environment[JOURNAL])][1:] == ["COMPLETE"])
        with (
            running(*arguments, directory=tmp_path, environment=environment) as manager,
            http_of(manager) as http,
        ):
            request = wait_state(http, request_id, State.COMPLETE, State.FAIL, State.STOPPED)
            assert (request["state"], request["finishedJobs"]) == (State.COMPLETE, 5)
            log = http.get(f"/api/v1/requests/{request_id}/log").json()
            assert sorted((entry["try"], entry["state"]) for entry in log) == [(1, State.COMPLETE)] * 5
    events = [(line["name"], line["event"]) for line in read_journal(environment[JOURNAL])]
    assert events == [
        (name, event) for name in ("first", "second", "third") for event in ("start", "COMPLETE")
    ]


def test_the_status_omits_a_runner_that_does_not_answer(
    two_runners: list[ServerProcess],
) -> None:
    manager, _, away = two_runners
    with http_of(manager) as http:
        for _ in range(2):
            http.post("/api/v1/requests", json={"type": "row", "args": {"ms": "3600000"}})
        eventually(lambda: len(http.get("/api/v1/status/running").json()["jobs"]) == 2)
        os.kill(away.process.pid, signal.SIGSTOP)
        try:
            answer = http.get("/api/v1/status/running")
            # The answer has the other runner's job, and no error about the frozen runner.
            assert answer.status_code == 200
            assert len(answer.json()["jobs"]) == 1
            assert set(answer.json()) == {"jobs", "requests"}
            manager.wait_for("runner did not list its running jobs")
        finally:
            os.kill(away.process.pid, signal.SIGCONT)


def test_a_second_server_on_the_same_sqlite_file_says_so_and_exits(tmp_path: Path) -> None:
    with running("server", "--http=127.0.0.1:0", directory=tmp_path) as first:
        first.wait_for("listening", server="request-manager")
        with running("server", "--http=127.0.0.1:0", directory=tmp_path) as second:
            assert second.process.wait(PROCESS_END) == 1
            second.close()
            assert "another server uses the SQLite file" in second.log()
            assert "Traceback" not in second.log()
        assert first.terminate() == 0
    with running("server", "--http=127.0.0.1:0", directory=tmp_path) as third:
        third.wait_for("listening", server="request-manager")
