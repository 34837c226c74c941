"""Real processes under a seeded schedule of deaths, pauses and restarts, and what must hold afterwards."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import httpx

from spincycle_grpc.state import State
from tests.databases import DatabaseServer
from tests.e2e.chaos_checks import Troubles, assert_done_once
from tests.e2e.kinds import CHAOS_KINDS, SPECS, Kind, assert_ended_right
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import free_port
from tests.journal_jobs import JOURNAL, read_journal
from tests.limits import REQUEST_END

LEASE = 2.0
"""Seconds that a runner's lease lasts: short, so that much can happen in a test."""

ENDED = {State.COMPLETE, State.FAIL, State.STOPPED}


@dataclass
class Member:
    """One process of the system, which is replaced by a fresh one when it dies.

    Attributes:
        servers: All processes that it has been so far; the last one is the present.
    """

    name: str
    start: Callable[[], ServerProcess]
    servers: list[ServerProcess] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begin()

    @property
    def server(self) -> ServerProcess:
        return self.servers[-1]

    @property
    def pid(self) -> int:
        return self.server.process.pid

    def begin(self) -> None:
        """Starts a fresh process."""
        self.servers.append(self.start())

    def revive(self) -> None:
        """Starts a fresh process if the present one could not be started, as when the database was away."""
        if self.server.process.poll() is not None:
            self.begin()


class System:
    """Request Managers and Job Runners on one database.

    Args:
        directory: Where they run.
        database: The server of the database, or None for an SQLite file of one Request Manager.
        url: The URL of the database, migrated; "" for an SQLite file.
        managers: How many Request Managers.
        runners: How many Job Runners.
        stack: Ends what was started.
    """

    def __init__(
        self,
        directory: Path,
        *,
        database: DatabaseServer | None,
        url: str,
        managers: int,
        runners: int,
        stack: contextlib.ExitStack,
    ) -> None:
        self._directory = directory
        self._stack = stack
        self.database = database
        self.journal = directory / "journal"
        self._environment = {
            JOURNAL: str(self.journal),
            "SPINCYCLE_JOBS": "tests.journal_jobs:factory",
            "SPINCYCLE_SPECS_DIR": str(SPECS),
            "SPINCYCLE_RESUME_INTERVAL": "200ms",
            "SPINCYCLE_JOB_RUNNER_LEASE": f"{LEASE}s",
            "SPINCYCLE_JOB_RUNNER_STOP_TIMEOUT": "5s",
            **({"SPINCYCLE_DATABASE_URL": url} if url else {}),
        }
        self.ports = [free_port() for _ in range(managers)]
        self.troubles = Troubles()
        self.done: list[tuple[int, str]] = []
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

    def note(self, what: str) -> None:
        """Remembers what is done to the system, for the history of a request."""
        self.done.append((time.time_ns(), what))

    def kill(self, member: Member) -> None:
        """SIGKILL, and a fresh process in its place."""
        self.troubles.kills.setdefault(member.pid, time.time_ns())
        member.server.kill()
        member.begin()

    def terminate(self, member: Member) -> None:
        """SIGTERM, which must end it cleanly, and a fresh process in its place."""
        member.server.wait_for("listening")  # before that there is nothing to end cleanly
        status = member.server.terminate()
        assert status == 0, f"{member.name} ended with {status}:\n{member.server.log()[-5000:]}"
        member.begin()

    def pause(self, member: Member, seconds: float) -> None:
        """SIGSTOP for a while, then SIGCONT: a machine that hangs and comes back."""
        pid, began = member.pid, time.time_ns()
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)
            self.troubles.pauses.append((pid, began, time.time_ns()))

    def restart_database(self) -> None:
        """SIGKILL of the database server, which recovers when it is started again."""
        assert self.database is not None
        self.database.kill()
        self.database.start()

    def revive(self) -> None:
        """Has all members running."""
        for member in (*self.managers, *self.runners):
            member.revive()

    def all_troubles(self) -> Troubles:
        """Returns what runners were in for, with what their logs say of their leases."""
        for runner in self.runners:
            for server in runner.servers:
                self.troubles.lapses += [
                    (server.process.pid, _nanoseconds(event["timestamp"]))
                    for event in server.events
                    if "chains are suspended" in event.get("message", "")
                ]
        return self.troubles

    def errors(self) -> str:
        """Returns what any process has logged as an error, or has written without the log."""
        return "\n".join(
            f"{member.name} ({server.process.pid}): {event}"
            for member in (*self.managers, *self.runners)
            for server in member.servers
            for event in list(server.events)
            if event.get("level") in ("error", "critical", "raw")
        )

    def history(self, request_id: str) -> str:
        """Returns all that any process has logged of a request, its journal, and what was done meanwhile."""
        lines = [
            (_nanoseconds(event["timestamp"]), f"{member.name} ({server.process.pid}): {event}")
            for member in (*self.managers, *self.runners)
            for server in member.servers
            for event in list(server.events)
            if "timestamp" in event
            and (request_id in str(event) or "lease" in event["message"] or "reporting" in event["message"])
        ]
        lines += [(line["time"], f"journal: {line}") for line in read_journal(self.journal, about=request_id)]
        about = [time for time, line in lines if request_id in line]
        lines += [(time, f"CHAOS: {what}") for time, what in self.done]
        margin = int(3 * LEASE * 1e9)
        first, last = min(about, default=0) - margin, max(about, default=0) + margin
        return "\n".join(f"{time} {line}" for time, line in sorted(lines) if first <= time <= last)


def _nanoseconds(timestamp: str) -> int:
    return int(datetime.fromisoformat(timestamp).timestamp() * 1_000_000) * 1000


class Users:
    """Those who make requests, stop some, and ask for them, again and again until they get an answer."""

    def __init__(self, system: System) -> None:
        self._urls = itertools.cycle(f"http://127.0.0.1:{port}" for port in system.ports)
        self._http = httpx.Client(timeout=5.0)
        self.kinds: dict[str, Kind] = {}
        self._to_stop: dict[str, float] = {}

    def close(self) -> None:
        self._http.close()

    def create(self, kind: Kind, patience: float) -> None:
        """Makes a request once; one that was not answered may exist all the same.

        One that is to be stopped is stopped after as many seconds as its user has patience.
        """
        with contextlib.suppress(httpx.TransportError):
            answer = self._http.post(
                next(self._urls) + "/api/v1/requests", json={"type": kind.type, "args": kind.args}
            )
            if answer.status_code == 201:
                self.kinds[answer.json()["id"]] = kind
                if kind.is_stopped:
                    self._to_stop[answer.json()["id"]] = time.monotonic() + patience
                return
            assert answer.status_code in (429, 503, 504), answer.text

    def stop_one(self) -> None:
        """Tries once to stop the request that is to be stopped next, if there is one."""
        if not self._to_stop:
            return
        request_id = min(self._to_stop, key=self._to_stop.__getitem__)
        if self._to_stop[request_id] > time.monotonic():
            return
        with contextlib.suppress(httpx.TransportError):
            answer = self._http.put(f"{next(self._urls)}/api/v1/requests/{request_id}/stop")
            if answer.status_code == 200:
                del self._to_stop[request_id]
            else:
                assert answer.status_code in (429, 503, 504), answer.text

    def stop_all(self) -> None:
        """Stops what is to be stopped, however often it takes."""
        deadline = time.monotonic() + REQUEST_END
        while self._to_stop:
            assert time.monotonic() < deadline, f"nobody stops {self._to_stop}"
            self.stop_one()
            time.sleep(0.02)

    def make(self, count: int, seconds: float, random: Random, is_over: threading.Event) -> None:
        """Makes so many requests in about so many seconds, and some more until it is over."""
        turn = itertools.cycle(CHAOS_KINDS)
        while len(self.kinds) < count or not is_over.is_set():
            if len(self.kinds) < count or random.random() < 0.1:
                for _ in range(random.randint(1, 5)):
                    self.create(next(turn), random.uniform(0, 3 * LEASE))
            self.stop_one()
            # Three at a time on the average, and a fifth of the time to spare.
            time.sleep(random.uniform(0, 2 * 3 * 0.8 * seconds / count))
        self.stop_all()

    def get(self, path: str) -> Any:
        """Returns what a GET answers, as soon as one is answered."""
        deadline = time.monotonic() + REQUEST_END
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


def disturb(system: System, random: Random) -> None:
    """Does one thing to the system."""
    what = random.choice(
        [
            "kill runner", "kill runner", "pause runner", "pause runner", "end runner",
            "kill manager", "pause manager", "end manager",
            "kill database" if system.database is not None else "kill runner",
        ]
    )  # fmt: skip
    if what == "kill database":
        system.note(what)
        system.restart_database()
        system.note("database is back")
        return
    member = random.choice(system.runners if "runner" in what else system.managers)
    seconds = random.uniform(0.25 * LEASE, 2.5 * LEASE)
    system.note(f"{what}: {member.name} ({member.pid})")
    if what.startswith("kill"):
        system.kill(member)
    elif what.startswith("pause"):
        system.pause(member, seconds)
        system.note(f"goes on: {member.name}")
    else:
        system.terminate(member)


def run_chaos(system: System, *, seed: int, requests: int, seconds: float) -> None:
    """Makes requests and disturbs the system, then checks that all have ended right."""
    random = Random(seed)
    users = Users(system)
    is_over = threading.Event()
    failures: list[BaseException] = []

    def make() -> None:
        try:
            users.make(requests, seconds, Random(seed), is_over)
        except BaseException as error:
            failures.append(error)

    making = threading.Thread(target=make)
    making.start()
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not failures:
            time.sleep(random.uniform(0, 1.0))
            system.revive()
            disturb(system, random)
        system.revive()
        is_over.set()
        making.join(2 * REQUEST_END)
        assert not failures, f"seed {seed}: {failures}\n{system.errors()}"
        _wait_until_all_ended(system, users, seed)
        _check(system, users, seed)
    finally:
        is_over.set()
        making.join(REQUEST_END)
        users.close()
        what = ", ".join(what for _, what in system.done)
        print(f"seed {seed}: {len(users.kinds)} requests; {what}")  # noqa: T201 (shown when it failed)


def _wait_until_all_ended(system: System, users: Users, seed: int) -> None:
    deadline = time.monotonic() + REQUEST_END
    waiting = set(users.kinds)
    while waiting:
        waiting = {request_id for request_id in waiting if users.state(request_id) not in ENDED}
        if time.monotonic() > deadline:
            first = min(waiting)
            raise AssertionError(
                f"seed {seed}: {len(waiting)} requests have not ended, {first} among them:\n"
                f"{users.get(f'/api/v1/requests/{first}/log')}\n{system.history(first)}"
            )
        time.sleep(0.2)


def _check(system: System, users: Users, seed: int) -> None:
    journals: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in read_journal(system.journal):
        journals[line["request"]].append(line)
    troubles = system.all_troubles()
    for request_id, kind in users.kinds.items():
        request = users.get(f"/api/v1/requests/{request_id}")
        log = users.get(f"/api/v1/requests/{request_id}/log")
        try:
            assert_ended_right(kind, request, log)
            assert_done_once(kind, request, log, journals[request_id], troubles)
        except AssertionError as error:
            raise AssertionError(
                f"seed {seed}: {error}\nlog:\n"
                + "\n".join(map(str, log))
                + f"\nhistory:\n{system.history(request_id)}"
            ) from error
