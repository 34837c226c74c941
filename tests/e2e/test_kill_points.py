"""When a server is killed at a named point, each accepted request still ends correctly and runs once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from spincycle_grpc.state import State
from tests.e2e.chaos_checks import Troubles, assert_done_once
from tests.e2e.dying_server import MANAGER_POINTS, RUNNER_POINTS
from tests.e2e.kinds import SPECS, Kind, assert_ended_right
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import eventually
from tests.journal_jobs import JOURNAL, read_journal
from tests.limits import ANSWER
from tests.ports import free_port

ENDED = {State.COMPLETE, State.FAIL, State.STOPPED}
LEASE = "3s"
"""Takeovers wait for it to expire, and a slow machine must be able to renew it in time."""

ROW = Kind("row", State.COMPLETE)
SLOW = Kind("row", State.COMPLETE, {"ms": "200"})
ENDLESS = Kind("row", State.STOPPED, {"ms": "3600000"}, is_stopped=True)
MIXED = [
    ROW,
    Kind("retried", State.COMPLETE),
    Kind("sequence-retried", State.COMPLETE, sequence_retries=3),
    Kind("failing", State.FAIL),
]


class Scene:
    """A Request Manager and Job Runners, one of which dies at its point."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._port = free_port()
        self._journal = directory / "journal"
        self._environment = {
            JOURNAL: str(self._journal),
            "SPINCYCLE_JOBS": "tests.journal_jobs:factory",
            "SPINCYCLE_SPECS_DIR": str(SPECS),
            "SPINCYCLE_RESUME_INTERVAL": "100ms",
            "SPINCYCLE_JOB_RUNNER_LEASE": LEASE,
            "SPINCYCLE_JOB_RUNNER_STOP_TIMEOUT": "5s",
        }
        self._http = stack.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{self._port}/api/v1", timeout=ANSWER)
        )
        self.kinds: dict[str, Kind] = {}
        self.runners: list[ServerProcess] = []

    def _run(self, *arguments: str, point: str, **environment: str) -> ServerProcess:
        program = ("tests.e2e.dying_server", point) if point else ("spincycle_server",)
        return self._stack.enter_context(
            running(
                *arguments,
                directory=self._directory,
                environment=self._environment | environment,
                program=program,
            )
        )

    def start_manager(self, point: str = "") -> ServerProcess:
        return self._run("request-manager", f"--http=127.0.0.1:{self._port}", point=point)

    def start_runner(self, point: str = "", **environment: str) -> None:
        arguments = ("job-runner", "--http=127.0.0.1:0", f"--rm=127.0.0.1:{self._port + 10}")
        self.runners.append(self._run(*arguments, point=point, **environment))

    def create(self, kind: Kind) -> None:
        """Calls Create once. The call fails if the server dies meanwhile."""
        with contextlib.suppress(httpx.TransportError):
            answer = self._http.post("/requests", json={"type": kind.type, "args": kind.args})
            assert answer.status_code == 201, answer.text
            self.kinds[answer.json()["id"]] = kind

    def create_at_once(self, kinds: list[Kind]) -> None:
        with concurrent.futures.ThreadPoolExecutor(len(kinds)) as threads:
            list(threads.map(self.create, kinds))

    def stop(self) -> None:
        """Calls Stop once for each request that has to be stopped. It fails if the server dies."""
        for request_id in [request_id for request_id, kind in self.kinds.items() if kind.is_stopped]:
            with contextlib.suppress(httpx.TransportError):
                answer = self._http.put(f"/requests/{request_id}/stop")
                assert answer.status_code == 200, answer.text

    def wait_for_job(self) -> None:
        eventually(lambda: read_journal(self._journal))

    def wait_until_all_ended(self) -> None:
        def have_all_ended() -> bool:
            requests = self._get("/requests")
            assert {request["id"] for request in requests} >= set(self.kinds)
            return all(State(request["state"]) in ENDED for request in requests)

        eventually(have_all_ended)

    def check(self) -> None:
        """Checks how the requests ended and what their jobs did."""
        troubles = Troubles()
        for server in self.runners:
            if server.process.returncode == -signal.SIGKILL:
                troubles.kills[server.process.pid] = 0
            troubles.add_lapses(server)
        journals: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for line in read_journal(self._journal):
            journals[line["request"]].append(line)
        for request_id, kind in self.kinds.items():
            request = self._get(f"/requests/{request_id}")
            log = self._get(f"/requests/{request_id}/log")
            assert_ended_right(kind, request, log)
            assert_done_once(kind, request, log, journals[request_id], troubles)

    def _get(self, path: str) -> Any:
        answer = self._http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()


def several(scene: Scene) -> None:
    scene.create_at_once(MIXED * 4)


def mixed(scene: Scene) -> None:
    for kind in MIXED:
        scene.create(kind)


def before_there_is_a_runner(scene: Scene) -> None:
    mixed(scene)
    scene.start_runner()


def more_than_a_runner_takes(scene: Scene) -> None:
    scene.start_runner(SPINCYCLE_JOB_RUNNER_MAX_CHAINS="1")
    scene.runners[0].wait_for("reporting")
    for _ in range(3):
        scene.create(SLOW)


def runner_ends(scene: Scene) -> None:
    scene.create(SLOW)
    scene.wait_for_job()
    scene.start_runner()
    scene.runners[0].process.send_signal(signal.SIGTERM)


def runner_dies(scene: Scene) -> None:
    scene.create(SLOW)
    scene.wait_for_job()
    scene.start_runner()
    scene.runners[0].kill()


def stopped(scene: Scene) -> None:
    scene.create(ENDLESS)
    scene.wait_for_job()
    scene.stop()


def stopped_while_it_waits(scene: Scene) -> None:
    scene.create(ENDLESS)
    scene.stop()


SCENARIOS: dict[str, Callable[[Scene], None]] = {
    "several creates are not committed": several,
    "several creates are committed": several,
    "waiting request is assigned": before_there_is_a_runner,
    "suspension is not committed": runner_ends,
    "suspension is committed": runner_ends,
    "resume is assigned": runner_ends,
    "resume is sent": runner_ends,
    "resumed chain is dropped": runner_ends,
    "unassign is committed": more_than_a_runner_takes,
    "stop is recorded": stopped,
    "stop is delivered": stopped,
    "stop of a waiting request is committed": stopped_while_it_waits,
    "takeover is not committed": runner_dies,
    "takeover is committed": runner_dies,
    "takeover is not sent": runner_dies,
    "suspension is requested": runner_ends,
    "chain is suspended": runner_ends,
    "all are suspended": runner_ends,
}
WITHOUT_A_RUNNER = {before_there_is_a_runner, more_than_a_runner_takes, stopped_while_it_waits}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        yield Scene(tmp_path, stack)


def wait_until_dead(server: ServerProcess) -> None:
    eventually(lambda: server.process.poll() is not None)
    assert server.process.returncode == -signal.SIGKILL, server.log()


@pytest.mark.parametrize("point", MANAGER_POINTS)
def test_requests_end_correctly_if_a_request_manager_dies(scene: Scene, point: str) -> None:
    play = SCENARIOS.get(point, mixed)
    manager = scene.start_manager(point)
    if play not in WITHOUT_A_RUNNER:
        scene.start_runner()
        scene.runners[0].wait_for("reporting")
    manager.wait_for("listening")
    play(scene)
    wait_until_dead(manager)
    scene.start_manager().wait_for("listening")
    if not scene.runners:
        scene.start_runner()
    if point != "stop is recorded":  # The recorded stop must suffice: nobody calls Stop again.
        scene.stop()
    scene.wait_until_all_ended()
    scene.check()


@pytest.mark.parametrize("point", RUNNER_POINTS)
def test_requests_end_correctly_if_a_job_runner_dies(scene: Scene, point: str) -> None:
    scene.start_manager()
    scene.start_runner(point)
    scene.runners[0].wait_for("reporting")
    SCENARIOS.get(point, mixed)(scene)
    wait_until_dead(scene.runners[0])
    if len(scene.runners) == 1:
        scene.start_runner()
    scene.wait_until_all_ended()
    scene.check()
