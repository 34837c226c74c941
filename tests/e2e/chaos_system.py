"""The system of the chaos test: real servers that are killed, paused, cut off and replaced."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.databases import DatabaseServer
from tests.e2e.chaos_checks import Troubles, nanoseconds
from tests.e2e.chaos_links import Link, Links
from tests.e2e.chaos_security import Security
from tests.e2e.kinds import SPECS
from tests.e2e.link_process import Direction
from tests.e2e.processes import ServerProcess, running
from tests.journal_jobs import JOURNAL, POISON_STATUS, UNKNOWN, read_journal
from tests.ports import free_port

DAY = 86_400

LEASE = 2.0
"""Length of a runner's lease in seconds. It is short so that many leases expire during a test."""


@dataclass
class Member:
    """One server of the system. A new process replaces its process when that dies.

    Attributes:
        skew: How many seconds its clock is ahead.
        is_silent: Whether its log is lost, because its disk is full.
        servers: All processes so far. The last one is the current process.
    """

    name: str
    start: Callable[[], ServerProcess]
    skew: int = 0
    is_silent: bool = False
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

    The servers know each other by certificates, which change while they run. Users have a token. Each server
    has another day on its clock, and calls the others over links that can lose what goes in one direction.
    The log of the last Job Runner is lost, because its disk is full. At first, the Job Runners have a
    version that lacks a job type.

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
            "SPINCYCLE_JOB_RUNNER_ADVERTISE": "127.0.0.2",
            **({"SPINCYCLE_DATABASE_URL": url} if url else {}),
        }
        self.security = Security(directory)
        self.ports = [free_port() for _ in range(managers)]
        self._servers_ports = [free_port() for _ in range(managers)]
        self.links = stack.enter_context(Links())
        # Each process of a runner replaces the one before at its address, but the last runner moves.
        self._runner_ports = [*(free_port() for _ in range(runners - 1)), 0]
        for index, port in enumerate(self._runner_ports):
            if port:
                self.links.add(f"managers to runner {index}", port, ("127.0.0.1", port))
        self._to_managers = [
            [
                self.links.add(f"runner {runner} to manager {manager}", 0, ("127.0.0.1", port)).listen
                for manager, port in enumerate(self._servers_ports)
            ]
            for runner in range(runners)
        ]
        self.is_deployed = [False] * runners
        self.troubles = Troubles()
        self.done: list[tuple[int, str]] = []
        self.managers = [
            Member(f"manager {index}", partial(self._start_manager, index), skew=index * 3 * DAY)
            for index in range(managers)
        ]
        for manager in self.managers:
            manager.server.wait_for("listening")
        self.runners = [
            Member(
                f"runner {index}",
                partial(self._start_runner, index),
                skew=(index - 1) * 2 * DAY,
                is_silent=index == runners - 1,
            )
            for index in range(runners)
        ]
        for runner in self.runners:
            if not runner.is_silent:
                runner.server.wait_for("reporting")
        self.token = self.security.new_token(url or f"sqlite:///{directory / 'spincycle.db'}")

    def _run(
        self, name: str, listen: str, *arguments: str, skew: int, full_log: bool = False, **environment: str
    ) -> ServerProcess:
        return self._stack.enter_context(
            running(
                *arguments,
                directory=self._directory,
                environment={**self._environment, **self.security.environment(name, listen), **environment},
                program=("tests.e2e.skewed_server", str(skew)),
                anew=True,
                full_log=full_log,
            )
        )

    def _start_manager(self, index: int) -> ServerProcess:
        listen = f"127.0.0.1:{self._servers_ports[index]}"
        http = f"--http=127.0.0.1:{self.ports[index]}"
        return self._run("manager", listen, "request-manager", http, skew=index * 3 * DAY)

    def _start_runner(self, index: int) -> ServerProcess:
        addresses = ",".join(f"{host}:{port}" for host, port in self._to_managers[index])
        port = self._runner_ports[index]
        # Nothing forwards to a runner that moves.
        moves = {} if port else {"SPINCYCLE_JOB_RUNNER_ADVERTISE": "127.0.0.1"}
        lacks = {} if self.is_deployed[index] else {UNKNOWN: "newer"}
        return self._run(
            "runner",
            f"127.0.0.1:{port}",
            "job-runner",
            "--http=127.0.0.1:0",
            f"--rm={addresses}",
            skew=(index - 1) * 2 * DAY,
            full_log=index == len(self._runner_ports) - 1,
            **moves,
            **lacks,
        )

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
        if not member.is_silent:
            member.server.wait_for("listening")  # Only a listening server can exit cleanly.
        status = member.server.terminate()
        # A silent server may not have listened yet.
        # A job may end the process at the same moment.
        is_clean = status in (0, POISON_STATUS) or (member.is_silent and status == -signal.SIGTERM)
        assert is_clean, f"{member.name} exited with status {status}:\n{member.server.log()[-5000:]}"
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

    def deploy(self) -> Member | None:
        """Restarts the next runner that lacks a job type in the version that has it. Returns that runner."""
        for index, runner in enumerate(self.runners):
            if not self.is_deployed[index]:
                self.is_deployed[index] = True
                self.terminate(runner)
                return runner
        return None

    def cut(self, link: Link, direction: Direction, seconds: float) -> None:
        """Loses what goes over a link in one direction for some seconds."""
        with self.links.cut(link, direction):
            time.sleep(seconds)

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
                self.troubles.add_lapses(server, runner.skew)
                if runner.is_silent:
                    self.troubles.silent.add(server.process.pid)
        for line in read_journal(self.journal, about='"poison"'):
            self.troubles.kills.setdefault(line["pid"], line["time"])
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

    def unexplained(self) -> str:
        """Returns what no disturbance explains: tracebacks, and exceptions that nobody handled."""
        return "\n".join(
            f"{member.name} ({server.process.pid}): {event}"
            for member in (*self.managers, *self.runners)
            for server in member.servers
            for event in list(server.events)
            if "Traceback" in str(event) or "never retrieved" in str(event)
        )

    def history(self, request_id: str) -> str:
        """Returns the log lines about a request, its journal, and the disturbances around that time."""
        lines = [
            (
                nanoseconds(event["timestamp"]) - member.skew * 10**9,
                f"{member.name} ({server.process.pid}): {event}",
            )
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
