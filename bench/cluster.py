"""An installation for benchmarks: a private database, a Request Manager, and a Job Runner as processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.databases import DATABASES, DatabaseServer, database_server

REPOSITORY = Path(__file__).resolve().parent.parent
SPECS = Path(__file__).parent / "data" / "specs"
START_LIMIT = 60.0
STOP_LIMIT = 40.0

__all__ = [
    "DATABASES",
    "Cluster",
    "Program",
    "Server",
    "private_database",
    "running_cluster",
    "running_program",
]


@dataclass(frozen=True)
class Program:
    """The program that an installation runs.

    Attributes:
        directory: The directory of its source.
        python: The interpreter of its environment.
    """

    directory: Path = REPOSITORY
    python: Path = Path(sys.executable)

    def command(self, *arguments: str) -> list[str]:
        """Returns the command line of `spincycle` with arguments."""
        return [str(self.python), "-m", "spincycle_server", *arguments]

    def environment(self, **variables: str) -> dict[str, str]:
        """Returns the environment of its processes: this one's, without another source directory."""
        own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return {**own, **variables}


OWN = Program()
"""The program in this directory."""


@dataclass
class Server:
    """One running server process.

    Attributes:
        name: "job runner", "request manager", or with a number for further ones.
        http: The host:port of its HTTP listener.
        grpc: The host:port of its gRPC listener.
    """

    name: str
    process: subprocess.Popen[bytes]
    http: str
    grpc: str

    def cpu_seconds(self) -> float:
        """Returns the CPU time of the process so far, including its children."""
        return cpu_seconds(self.process.pid)

    def memory(self) -> int:
        """Returns the resident memory in bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)


@dataclass
class Cluster:
    """The installation that a benchmark measures.

    Attributes:
        kind: One of DATABASES.
        database: The database server, or None for SQLite.
        url: The URL of the database.
        manager: The Request Manager to which the runner reports.
        runner: The Job Runner.
        directory: The directory of the servers' logs.
        others: Further Request Managers, to which it does not report.
    """

    kind: str
    database: DatabaseServer | None
    url: str
    manager: Server
    runner: Server
    directory: Path
    others: Sequence[Server] = ()

    def logged(self) -> list[dict[str, str]]:
        """Returns the log lines of the servers so far."""
        events = []
        for log in sorted(self.directory.glob("*.log")):
            for line in log.read_bytes().splitlines():
                with contextlib.suppress(ValueError):
                    events.append(json.loads(line))
        return events

    def cpu_seconds(self) -> dict[str, float]:
        """Returns the CPU time of each process so far. This process is "load"."""
        own = os.times()
        seconds = {
            "request manager": sum(one.cpu_seconds() for one in (self.manager, *self.others)),
            "job runner": self.runner.cpu_seconds(),
            "load": own.user + own.system,
        }
        if self.database is not None:
            seconds["database"] = cpu_seconds(self.database.pid)
        return seconds

    def cpu_since(self, before: Mapping[str, float]) -> dict[str, float]:
        """Returns the CPU time of each process since an earlier call of `cpu_seconds`."""
        return {name: total - before[name] for name, total in self.cpu_seconds().items()}


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time of a process and all its descendants."""
    process = psutil.Process(pid)
    total = 0.0
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


@contextlib.contextmanager
def running_cluster(kind: str, **options: str) -> Iterator[Cluster]:
    """Runs a Request Manager and a Job Runner on a new database, and stops them at the end.

    Args:
        kind: One of DATABASES.
        options: Environment variables of the servers, in lower case and without the prefix SPINCYCLE_.
    """
    with contextlib.ExitStack() as stack:
        server = None if kind == "sqlite" else stack.enter_context(private_database(kind))
        yield stack.enter_context(running_program(kind, OWN, server, options))


@contextlib.contextmanager
def running_program(
    kind: str,
    program: Program,
    server: DatabaseServer | None,
    options: Mapping[str, str],
    *,
    managers: int = 1,
) -> Iterator[Cluster]:
    """Runs the servers of a program on a new database, and stops them at the end.

    Args:
        kind: One of DATABASES.
        program: What to run.
        server: Where the database is created; None for SQLite.
        options: As for `running_cluster`.
        managers: How many Request Managers to run.
    """
    directory = Path(tempfile.mkdtemp(prefix="spincycle-bench-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        url = f"sqlite:///{directory / 'bench.db'}" if server is None else server.fresh_database()
        environment = program.environment(
            SPINCYCLE_LOG_FORMAT="json",
            **{f"SPINCYCLE_{name.upper()}": value for name, value in options.items()},
        )
        subprocess.run(
            program.command("migrate", "--db", url),
            cwd=program.directory, env=environment, stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        names = ["request manager", *(f"request manager {number}" for number in range(2, managers + 1))]
        manager, *others = [
            stack.enter_context(
                _running(name, program, directory, environment, "--db", url, "--specs", str(SPECS))
            )
            for name in names
        ]
        runner = stack.enter_context(
            _running("job runner", program, directory, environment, "--rm", manager.grpc)
        )
        _wait_logged(directory / "job-runner.log", "reporting")
        yield Cluster(kind, server, url, manager, runner, directory, others)


@contextlib.contextmanager
def private_database(kind: str) -> Iterator[DatabaseServer]:
    """Runs a database server. If it is not installed, ends the program with a message."""
    try:
        with database_server(kind) as server:
            yield server
    except pytest.skip.Exception as missing:
        raise SystemExit(f"{missing}: install the {kind} server, or use --database sqlite") from None


@contextlib.contextmanager
def _running(
    name: str, program: Program, directory: Path, environment: dict[str, str], *arguments: str
) -> Iterator[Server]:
    command = "job-runner" if name == "job runner" else "request-manager"
    log = directory / f"{name.replace(' ', '-')}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            program.command(command, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", *arguments),
            cwd=program.directory,
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        listening = _wait_logged(log, "listening", process)
        yield Server(name, process, listening["http"], listening["grpc"])
    finally:
        process.terminate()
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_LIMIT)


def _wait_logged(log: Path, message: str, process: subprocess.Popen[bytes] | None = None) -> dict[str, str]:
    deadline = time.monotonic() + START_LIMIT
    while True:
        for line in log.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                event: dict[str, str] = json.loads(line)
                if event.get("message") == message:
                    return event
        ended = process is not None and process.poll() is not None
        if ended or time.monotonic() > deadline:
            raise RuntimeError(
                f"the log of the server has no {message!r}:\n{log.read_text(errors='replace')[-3000:]}"
            )
        time.sleep(0.02)
