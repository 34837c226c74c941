"""Runs real servers under a seeded schedule of kills, pauses, and restarts, and checks the result."""

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
from pathlib import Path
from random import Random
from typing import Any

import httpx

from spincycle_grpc.state import State
from tests.databases import DatabaseServer
from tests.e2e.chaos_checks import Troubles, assert_done_once, nanoseconds
from tests.e2e.chaos_security import Security
from tests.e2e.chaos_watchers import Watchers
from tests.e2e.kinds import CHAOS_KINDS, SPECS, Kind, assert_ended_right
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import free_port
from tests.journal_jobs import JOURNAL, read_journal
from tests.limits import REQUEST_END

LEASE = 2.0
"""Length of a runner's lease in seconds. It is short so that many leases expire during a test."""

ENDED = {State.COMPLETE, State.FAIL, State.STOPPED}


@dataclass
class Member:
    """One server of the system. A new process replaces its process when that dies.

    Attributes:
        servers: All processes so far. The last one is the current process.
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
        """Starts a new process."""
        self.servers.append(self.start())

    def revive(self) -> None:
        """Starts a new process if the current one has exited, for example because the database was down."""
        if self.server.process.poll() is not None:
            self.begin()


class System:
    """Request Managers and Job Runners on one database.

    The servers know each other by certificates, which change while they run. Users have a token.

    Args:
        directory: The working directory of the servers.
        database: The database server, or None for an SQLite file, which allows one Request Manager.
        url: The URL of the migrated database, or "" for an SQLite file.
        managers: The number of Request Managers.
        runners: The number of Job Runners.
        stack: Stops the processes that were started.
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
        self.security = Security(directory)
        self.ports = [free_port() for _ in range(managers)]
        self._servers_ports = [free_port() for _ in range(managers)]
        # Each process of the first runner replaces the one before at its address. The others move.
        self._runner_addresses = [f"127.0.0.1:{free_port()}", *["127.0.0.1:0"] * (runners - 1)]
        self.troubles = Troubles()
        self.done: list[tuple[int, str]] = []
        self.managers = [
            Member(f"manager {index}", lambda index=index: self._start_manager(index))  # type: ignore[misc]
            for index in range(managers)
        ]
        for manager in self.managers:
            manager.server.wait_for("listening")
        self.runners = [
            Member(f"runner {index}", lambda index=index: self._start_runner(index))  # type: ignore[misc]
            for index in range(runners)
        ]
        for runner in self.runners:
            runner.server.wait_for("reporting")
        self.token = self.security.new_token(url or f"sqlite:///{directory / 'spincycle.db'}")

    def _run(self, name: str, listen: str, *arguments: str) -> ServerProcess:
        environment = {**self._environment, **self.security.environment(name, listen)}
        return self._stack.enter_context(
            running(*arguments, directory=self._directory, environment=environment)
        )

    def _start_manager(self, index: int) -> ServerProcess:
        listen = f"127.0.0.1:{self._servers_ports[index]}"
        return self._run("manager", listen, "request-manager", f"--http=127.0.0.1:{self.ports[index]}")

    def _start_runner(self, index: int) -> ServerProcess:
        addresses = ",".join(f"127.0.0.1:{port}" for port in self._servers_ports)
        listen = self._runner_addresses[index]
        return self._run("runner", listen, "job-runner", "--http=127.0.0.1:0", f"--rm={addresses}")

    def note(self, what: str) -> None:
        """Records a disturbance for the history of requests."""
        self.done.append((time.time_ns(), what))

    def kill(self, member: Member) -> None:
        """Kills a member with SIGKILL and starts a new process."""
        self.troubles.kills.setdefault(member.pid, time.time_ns())
        member.server.kill()
        member.begin()

    def terminate(self, member: Member) -> None:
        """Sends SIGTERM, checks that the member exits with status 0, and starts a new process."""
        member.server.wait_for("listening")  # Only a listening server can exit cleanly.
        status = member.server.terminate()
        assert status == 0, f"{member.name} exited with status {status}:\n{member.server.log()[-5000:]}"
        member.begin()

    def pause(self, member: Member, seconds: float) -> None:
        """Freezes a member with SIGSTOP for some seconds, like a machine that hangs and recovers."""
        pid, began = member.pid, time.time_ns()
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)
            self.troubles.pauses.append((pid, began, time.time_ns()))

    def restart_database(self) -> None:
        """Kills the database server with SIGKILL and starts it again, so that it has to recover."""
        assert self.database is not None
        self.database.kill()
        self.database.start()

    def revive(self) -> None:
        """Starts all members that have exited."""
        for member in (*self.managers, *self.runners):
            member.revive()

    def all_troubles(self) -> Troubles:
        """Returns all disturbances of the runners, including the lease expiries that they logged."""
        for runner in self.runners:
            for server in runner.servers:
                self.troubles.add_lapses(server)
        return self.troubles

    def errors(self) -> str:
        """Returns all errors that any process has logged, and all output that is not a log line."""
        return "\n".join(
            f"{member.name} ({server.process.pid}): {event}"
            for member in (*self.managers, *self.runners)
            for server in member.servers
            for event in list(server.events)
            if event.get("level") in ("error", "critical", "raw")
        )

    def history(self, request_id: str) -> str:
        """Returns the log lines about a request, its journal, and the disturbances around that time."""
        lines = [
            (nanoseconds(event["timestamp"]), f"{member.name} ({server.process.pid}): {event}")
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


class Users:
    """Users who create requests, stop some of them, and repeat their calls until they get an answer.

    Args:
        system: The system.

    Attributes:
        kinds: The kinds of the requests, by id.
        on_created: Called with the id of each request.
    """

    def __init__(self, system: System) -> None:
        self._urls = itertools.cycle(f"https://127.0.0.1:{port}" for port in system.ports)
        self._http = httpx.Client(
            timeout=5.0,
            verify=system.security.context(),
            headers={"authorization": f"Bearer {system.token}"},
        )
        self.kinds: dict[str, Kind] = {}
        self.on_created: Callable[[str], None] = lambda request_id: None
        self._to_stop: dict[str, float] = {}

    def close(self) -> None:
        self._http.close()

    def wait_until_known(self) -> None:
        """Waits until the servers know the token: they look for new tokens at intervals."""
        deadline = time.monotonic() + REQUEST_END
        known = 0
        while known < 10:  # in a row, so that each server has answered
            assert time.monotonic() < deadline, "the servers do not know the token"
            answer = self._http.get(next(self._urls) + "/api/v1/requests?limit=1")
            known = known + 1 if answer.status_code == 200 else 0
            time.sleep(0.02)

    def create(self, kind: Kind, patience: float) -> None:
        """Calls Create once. If the call gets no answer, the request may still exist.

        If the user stops requests of this kind, the stop follows after `patience` seconds.
        """
        with contextlib.suppress(httpx.TransportError):
            answer = self._http.post(
                next(self._urls) + "/api/v1/requests", json={"type": kind.type, "args": kind.args}
            )
            if answer.status_code == 201:
                self.kinds[answer.json()["id"]] = kind
                self.on_created(answer.json()["id"])
                if kind.is_stopped:
                    self._to_stop[answer.json()["id"]] = time.monotonic() + patience
                return
            assert answer.status_code in (429, 503, 504), answer.text

    def stop_one(self) -> None:
        """Calls Stop once for the next request whose time to be stopped has come, if there is one."""
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
        """Repeats stops until each request that has to be stopped is stopped."""
        deadline = time.monotonic() + REQUEST_END
        while self._to_stop:
            assert time.monotonic() < deadline, f"these requests could not be stopped: {self._to_stop}"
            self.stop_one()
            time.sleep(0.02)

    def make(self, count: int, seconds: float, random: Random, is_over: threading.Event) -> None:
        """Creates `count` requests in about `seconds`, and then a few more until `is_over` is set."""
        turn = itertools.cycle(CHAOS_KINDS)
        while len(self.kinds) < count or not is_over.is_set():
            if len(self.kinds) < count or random.random() < 0.1:
                for _ in range(random.randint(1, 5)):
                    self.create(next(turn), random.uniform(0, 3 * LEASE))
            self.stop_one()
            # On average, three requests at a time. This uses four fifths of the time.
            time.sleep(random.uniform(0, 2 * 3 * 0.8 * seconds / count))
        self.stop_all()

    def get(self, path: str) -> Any:
        """Repeats a GET until it succeeds, and returns the JSON body."""
        deadline = time.monotonic() + REQUEST_END
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = self._http.get(next(self._urls) + path)
                if answer.status_code == 200:
                    return answer.json()
                assert answer.status_code in (429, 503, 504), answer.text
            assert time.monotonic() < deadline, f"no server answers {path}"
            time.sleep(0.05)

    def state(self, request_id: str) -> State:
        return State(self.get(f"/api/v1/requests/{request_id}")["state"])


def disturb(system: System, random: Random) -> None:
    """Disturbs the system once, in a random way."""
    what = random.choice(
        [
            "kill runner", "kill runner", "pause runner", "pause runner", "end runner",
            "kill manager", "pause manager", "end manager", "renew certificates",
            "kill database" if system.database is not None else "kill runner",
        ]
    )  # fmt: skip
    if what == "kill database":
        system.note(what)
        system.restart_database()
        system.note("database is back")
        return
    if what == "renew certificates":
        system.note(what)
        system.security.renew()
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
    """Creates requests while the system is disturbed, then checks how each of them ended.

    Raises:
        AssertionError: A request did not end as its kind requires. The message has the seed and a history.
    """
    random = Random(seed)
    users = Users(system)
    is_over = threading.Event()
    failures: list[BaseException] = []

    def make() -> None:
        try:
            users.make(requests, seconds, Random(seed), is_over)
        except BaseException as error:
            failures.append(error)

    users.wait_until_known()
    watchers = Watchers(system, seed)
    users.on_created = watchers.follow
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
        _check(system, users, watchers, seed)
    finally:
        is_over.set()
        making.join(REQUEST_END)
        watchers.close()
        users.close()
        what = ", ".join(what for _, what in system.done)
        print(f"seed {seed}: {len(users.kinds)} requests; {what}")  # noqa: T201 (pytest shows it when the test fails)


def _wait_until_all_ended(system: System, users: Users, seed: int) -> None:
    deadline = time.monotonic() + REQUEST_END
    waiting = set(users.kinds)
    while waiting:
        waiting = {request_id for request_id in waiting if users.state(request_id) not in ENDED}
        if time.monotonic() > deadline:
            first = min(waiting)
            raise AssertionError(
                f"seed {seed}: {len(waiting)} requests have not ended, for example {first}:\n"
                f"{users.get(f'/api/v1/requests/{first}/log')}\n{system.history(first)}"
            )
        time.sleep(0.2)


def _check(system: System, users: Users, watchers: Watchers, seed: int) -> None:
    journals: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in read_journal(system.journal):
        journals[line["request"]].append(line)
    troubles = system.all_troubles()
    logs = {request_id: users.get(f"/api/v1/requests/{request_id}/log") for request_id in users.kinds}
    watchers.wait({request_id: kind.type for request_id, kind in users.kinds.items()}, logs)
    for request_id, kind in users.kinds.items():
        request = users.get(f"/api/v1/requests/{request_id}")
        log = logs[request_id]
        try:
            assert_ended_right(kind, request, log)
            assert_done_once(kind, request, log, journals[request_id], troubles)
            watchers.check(request, log)
        except AssertionError as error:
            raise AssertionError(
                f"seed {seed}: {error}\nlog:\n"
                + "\n".join(map(str, log))
                + f"\nhistory:\n{system.history(request_id)}"
            ) from error
