"""Real processes under a seeded schedule of deaths, pauses and restarts, and what must hold afterwards."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx

from spincycle_grpc.state import State
from tests.e2e.kinds import KINDS, SPECS, Kind, assert_ended_right
from tests.e2e.processes import ServerProcess, running
from tests.e2e.test_one_request import free_port
from tests.journal_jobs import JOURNAL, read_journal

LEASE = 1.5
"""Seconds that a runner's lease lasts: short, so that much can happen in a test."""

LIMIT = 30.0
ENDED = {State.COMPLETE, State.FAIL, State.STOPPED}


@dataclass
class Member:
    """One process of the system, which is replaced by a fresh one when it dies.

    Attributes:
        deaths: When it was killed, or found out to be another's: from then on it does nothing more.
    """

    name: str
    start: Callable[[], ServerProcess]
    server: ServerProcess = field(init=False)

    def __post_init__(self) -> None:
        self.server = self.start()


class System:
    """Request Managers and Job Runners on one database.

    Args:
        directory: Where they run.
        database: The URL of the database, or "" for an SQLite file of one Request Manager.
        managers: How many Request Managers.
        runners: How many Job Runners.
        stack: Ends what was started.
    """

    def __init__(
        self, directory: Path, database: str, managers: int, runners: int, stack: contextlib.ExitStack
    ) -> None:
        self._directory = directory
        self._stack = stack
        self.journal = directory / "journal"
        self._environment = {
            JOURNAL: str(self.journal),
            "SPINCYCLE_JOBS": "tests.journal_jobs:factory",
            "SPINCYCLE_SPECS_DIR": str(SPECS),
            "SPINCYCLE_RESUME_INTERVAL": "200ms",
            "SPINCYCLE_JOB_RUNNER_LEASE": f"{LEASE}s",
            "SPINCYCLE_JOB_RUNNER_STOP_TIMEOUT": "2s",
            **({"SPINCYCLE_DATABASE_URL": database} if database else {}),
        }
        self.ports = [free_port() for _ in range(managers)]
        self.killed_pids: set[int] = set()
        self.pauses: list[tuple[int, int, int]] = []
        self.managers = [
            Member(f"manager {index}", lambda port=port: self._start_manager(port))  # type: ignore[misc]
            for index, port in enumerate(self.ports)
        ]
        for manager in self.managers:
            manager.server.wait_for("listening")
        self.runners = [Member(f"runner {index}", self._start_runner) for index in range(runners)]
        for runner in self.runners:
            runner.server.wait_for("reporting")

    def _run(self, *arguments: str) -> ServerProcess:
        return self._stack.enter_context(
            running(*arguments, directory=self._directory, environment=self._environment)
        )

    def _start_manager(self, port: int) -> ServerProcess:
        return self._run("request-manager", f"--http=127.0.0.1:{port}")

    def _start_runner(self) -> ServerProcess:
        addresses = ",".join(f"127.0.0.1:{port + 10}" for port in self.ports)
        return self._run("job-runner", "--http=127.0.0.1:0", f"--rm={addresses}")

    def kill(self, member: Member) -> None:
        """SIGKILL, and a fresh process in its place."""
        self.killed_pids.add(member.server.process.pid)
        member.server.kill()
        member.server = member.start()

    def terminate(self, member: Member) -> None:
        """SIGTERM, which must end it cleanly, and a fresh process in its place."""
        member.server.wait_for("listening")  # before that there is nothing to end cleanly
        status = member.server.terminate()
        assert status == 0, f"{member.name} ended with {status}:\n{member.server.log()[-5000:]}"
        member.server = member.start()

    def pause(self, member: Member, seconds: float) -> None:
        """SIGSTOP for a while, then SIGCONT: a machine that hangs and comes back."""
        pid, began = member.server.process.pid, time.monotonic_ns()
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)
            self.pauses.append((pid, began, time.monotonic_ns()))

    def may_have_lost_its_lease(self, pid: int, now: int) -> bool:
        """Whether a process was killed, or was paused before this time for as long as its lease lasted.

        There may have been half of the lease left, since it is renewed at that time at the latest.
        """
        lease = int(LEASE * 1e9)
        return pid in self.killed_pids or any(
            paused == pid and began + lease // 2 <= now <= ended + lease
            for paused, began, ended in self.pauses
        )

    def urls(self) -> Iterator[str]:
        """The addresses of the Request Managers, round and round."""
        return itertools.cycle(f"http://127.0.0.1:{port}" for port in self.ports)

    def history(self, request_id: str) -> str:
        """Returns all that any process has logged of a request, and its journal."""
        lines = [
            (event.get("timestamp", ""), f"{member.name}: {event}")
            for member in (*self.managers, *self.runners)
            for event in member.server.events
            if request_id in str(event)
        ]
        journal = [str(line) for line in read_journal(self.journal, about=request_id)]
        return "\n".join([line for _, line in sorted(lines)] + journal)


class Users:
    """Those who make requests and ask for them, again and again until they get an answer."""

    def __init__(self, system: System) -> None:
        self._urls = system.urls()
        self._http = httpx.Client(timeout=5.0)
        self.kinds: dict[str, Kind] = {}

    def close(self) -> None:
        self._http.close()

    def create(self, kind: Kind) -> bool:
        """Makes a request once. Returns whether it was answered; one that was not may exist all the same."""
        with contextlib.suppress(httpx.TransportError):
            answer = self._http.post(
                next(self._urls) + "/api/v1/requests", json={"type": kind.type, "args": kind.args}
            )
            if answer.status_code == 201:
                self.kinds[answer.json()["id"]] = kind
                return True
            assert answer.status_code in (429, 503, 504), answer.text
        return False

    def get(self, path: str) -> Any:
        """Returns what a GET answers, as soon as one is answered."""
        deadline = time.monotonic() + LIMIT
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = self._http.get(next(self._urls) + path)
                if answer.status_code == 200:
                    return answer.json()
                assert answer.status_code in (429, 503, 504), answer.text
            assert time.monotonic() < deadline, f"nobody answers {path}"
            time.sleep(0.05)

    def state(self, request_id: str) -> State:
        return State(self.get(f"/api/v1/requests/{request_id}")["state"])


def disturb(system: System, random: Random) -> str:
    """Does one thing to the system. Returns what."""
    what = random.choice(
        ["kill runner", "kill runner", "pause runner", "end runner", "kill manager", "end manager"]
    )
    member = random.choice(system.runners if "runner" in what else system.managers)
    if what.startswith("kill"):
        system.kill(member)
    elif what.startswith("pause"):
        system.pause(member, random.uniform(0.2, 2 * LEASE))
    else:
        system.terminate(member)
    return f"{what}: {member.name}"


def run_chaos(system: System, *, seed: int, requests: int, seconds: float) -> None:
    """Makes requests and disturbs the system, then checks that all have ended right."""
    random = Random(seed)
    users = Users(system)
    done: list[str] = []
    try:
        turn = itertools.cycle(KINDS)
        end = time.monotonic() + seconds
        while time.monotonic() < end and len(users.kinds) < requests:
            for _ in range(random.randint(1, 8)):
                users.create(next(turn))
            if random.random() < 0.5:
                done.append(disturb(system, random))
        while len(users.kinds) < requests:
            if not users.create(next(turn)):
                time.sleep(0.05)
        deadline = time.monotonic() + 90
        waiting = set(users.kinds)
        while waiting:
            waiting = {request_id for request_id in waiting if users.state(request_id) not in ENDED}
            if time.monotonic() > deadline:
                first = min(waiting)
                raise AssertionError(
                    f"seed {seed}: {len(waiting)} requests have not ended, {first} among them:\n"
                    f"{users.get(f'/api/v1/requests/{first}/log')}\n{system.history(first)}"
                )
            time.sleep(0.1)
        for request_id, kind in users.kinds.items():
            request = users.get(f"/api/v1/requests/{request_id}")
            log = users.get(f"/api/v1/requests/{request_id}/log")
            try:
                assert_ended_right(kind, request, log)
                assert_done_once(kind, system, request_id, request, log)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}\n{log}\n{system.history(request_id)}") from error
    finally:
        users.close()
        print(f"seed {seed}: {len(users.kinds)} requests; " + ", ".join(done))  # noqa: T201 (shown when it failed)


def assert_done_once(
    kind: Kind, system: System, request_id: str, request: dict[str, Any], log: list[dict[str, Any]]
) -> None:
    """Checks the journal of a request: what really happened, whatever the log says."""
    chain = request["JobChain"]
    before: dict[str, set[str]] = {}
    for job_id, following in chain["adjacencyList"].items():
        for child in following:
            before.setdefault(child, set()).add(job_id)
    jobs = {job_id for job_id, job in chain["jobs"].items() if job["type"] == "journal"}
    complete_in_log = {entry["jobId"] for entry in log if entry["state"] == State.COMPLETE}
    running: dict[str, int] = {}
    ended: dict[str, list[str]] = {}
    for line in read_journal(system.journal, about=request_id):
        job_id, event, pid = line["job"], line["event"], line["pid"]
        if event != "start":
            if running.get(job_id) == pid:
                del running[job_id]
            ended.setdefault(job_id, []).append(event)
            continue
        other = running.get(job_id)
        assert other is None or system.may_have_lost_its_lease(other, line["time"]), (
            f"two tries at once: {line}"
        )
        for parent in before.get(job_id, set()) & jobs:
            assert "COMPLETE" in ended.get(parent, []), f"{job_id} before {parent}: {line}"
        running[job_id] = pid
    for job_id in complete_in_log & jobs:
        assert "COMPLETE" in ended[job_id], f"{job_id} is COMPLETE in the log alone"
