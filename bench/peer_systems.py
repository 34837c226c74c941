"""The systems that `bench.peers` compares. Each runs on a new database of one PostgreSQL server."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
from sqlalchemy.engine import make_url

from bench.cluster import OWN, REPOSITORY, cpu_seconds, running_program
from tests.databases import DatabaseServer
from tests.ports import free_port

PYTHON = REPOSITORY / ".build" / "peers" / "bin" / "python"
"""The interpreter of the environment with the other systems."""

POOL = 20
"""The connections of the server of Prefect to the database. Its default of 5 is for small installations."""

START_LIMIT = 300.0
STOP_LIMIT = 60.0
ANSWER_LIMIT = 600.0
"""Seconds after the last workflow of a measurement has begun until it must be complete."""


@dataclass(frozen=True)
class Measured:
    """What clients of a system have measured.

    Attributes:
        took: The seconds of each workflow, from its creation until it was complete.
        wall: The seconds from the first creation until the last workflow was complete.
        cpu: The CPU time of each part of the system in seconds.
    """

    took: list[float]
    wall: float
    cpu: dict[str, float]


@dataclass
class Process:
    """A running program of `bench.peer_programs`. Its log is for errors."""

    popen: subprocess.Popen[str]
    log: IO[bytes]

    def send(self, order: dict[str, Any]) -> None:
        """Sends an order."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps(order) + "\n")
        self.popen.stdin.flush()

    def answer(self, limit: float) -> dict[str, Any]:
        """Returns the next answer.

        Raises:
            RuntimeError: It ended, or did not answer within `limit` seconds. The message has its log.
        """
        assert self.popen.stdout is not None
        timer = threading.Timer(limit, self.popen.kill)
        timer.start()
        line = self.popen.stdout.readline()
        timer.cancel()
        if not line:
            self.popen.wait(STOP_LIMIT)
            self.log.seek(0)
            log = self.log.read().decode(errors="replace")[-5000:]
            raise RuntimeError(f"{self.popen.args!r} gave no answer:\n{log}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Program:
    """One or several running processes of a program with the same arguments.

    Args:
        processes: The processes. The clients are divided among them.
    """

    def __init__(self, processes: list[Process]) -> None:
        self._processes = processes

    def cpu_seconds(self) -> float:
        """Returns the CPU time of all processes."""
        return sum(cpu_seconds(process.popen.pid) for process in self._processes)

    def run(self, clients: int, seconds: float) -> list[float]:
        """Runs clients for some seconds. Returns what each workflow took."""
        used = self._processes[:clients]
        for number, process in enumerate(used):
            share = clients // len(used) + (number < clients % len(used))
            process.send({"clients": share, "seconds": seconds})
        return [one for process in used for one in process.answer(seconds + ANSWER_LIMIT)["seconds"]]


class System(ABC):
    """One system.

    Attributes:
        name: Its name in tables.
        program: The name of the process that has the clients, in tables.
    """

    name: str
    program: str

    @abstractmethod
    def version(self) -> str:
        """Returns the version of its package."""

    @abstractmethod
    def running(self, server: DatabaseServer) -> contextlib.AbstractContextManager[Running]:
        """Runs the system on a new database."""


@dataclass
class Running:
    """A running system.

    Attributes:
        program: The program with the clients.
        parts: The pids of the processes by the part that they belong to, without those of the program.
        name: What the program is called in tables.
    """

    program: Program
    parts: Mapping[str, int]
    name: str

    def measure(self, clients: int, seconds: float) -> Measured:
        """Runs clients for some seconds."""
        before, began = self._cpu(), time.perf_counter()
        took = self.program.run(clients, seconds)
        wall = time.perf_counter() - began
        return Measured(took, wall, {name: used - before[name] for name, used in self._cpu().items()})

    def _cpu(self) -> dict[str, float]:
        parts = {name: cpu_seconds(pid) for name, pid in self.parts.items()}
        return {self.name: self.program.cpu_seconds(), **parts}


class SpinCycle(System):
    """This project: a Request Manager and a Job Runner.

    Args:
        name: The name in tables.
        request_type: The type of the requests.
    """

    program = "clients"

    def __init__(self, name: str, request_type: str) -> None:
        self.name = name
        self._type = request_type

    def version(self) -> str:
        """Returns the version of the package."""
        return importlib.metadata.version("spincycle-grpc")

    @contextlib.contextmanager
    def running(self, server: DatabaseServer) -> Iterator[Running]:
        """Starts the system on a new database, and ends it at the end."""
        with contextlib.ExitStack() as stack:
            cluster = stack.enter_context(running_program("postgresql", OWN, server, {}))
            command = [
                sys.executable,
                "-m",
                "bench.peer_programs.spincycle",
                cluster.manager.http,
                self._type,
            ]
            program = stack.enter_context(programs(command, {}, 1))
            parts = {
                "request manager": cluster.manager.process.pid,
                "job runner": cluster.runner.process.pid,
                "database": server.pid,
            }
            yield Running(program, parts, self.program)


class Dbos(System):
    """DBOS: workflows in the processes of an application, one for each core."""

    name = "DBOS"
    program = "application"

    def version(self) -> str:
        """Returns the version of the package."""
        return peer_version("dbos")

    @contextlib.contextmanager
    def running(self, server: DatabaseServer) -> Iterator[Running]:
        """Starts the system on a new database, and ends it at the end."""
        command = [str(PYTHON), "-m", "bench.peer_programs.dbos_workflows", _plain_url(server)]
        with programs(command, {}, os.cpu_count() or 1) as program:
            yield Running(program, {"database": server.pid}, self.program)


class Prefect(System):
    """Prefect: its server, and flows in the processes of an application, one for each core."""

    name = "Prefect"
    program = "application"

    def version(self) -> str:
        """Returns the version of the package."""
        return peer_version("prefect")

    @contextlib.contextmanager
    def running(self, server: DatabaseServer) -> Iterator[Running]:
        """Starts the system on a new database, and ends it at the end."""
        port = free_port()
        with contextlib.ExitStack() as stack:
            home = stack.enter_context(tempfile.TemporaryDirectory(prefix="prefect-bench-"))
            environment = _prefect_settings(home, port, _plain_url(server))
            log = stack.enter_context((Path(home) / "server.log").open("wb"))
            command = [
                str(PYTHON),
                "-m",
                "prefect",
                "server",
                "start",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
            ]
            process = subprocess.Popen(
                command, cwd=home, env=OWN.environment(**environment), stdout=log, stderr=log
            )
            stack.callback(_end, process)
            _wait_healthy(process, f"http://127.0.0.1:{port}/api/health", Path(home) / "server.log")
            flows = [str(PYTHON), "-m", "bench.peer_programs.prefect_flows"]
            program = stack.enter_context(programs(flows, environment, os.cpu_count() or 1))
            yield Running(program, {"server": process.pid, "database": server.pid}, self.program)


def _prefect_settings(home: str, port: int, url: str) -> dict[str, str]:
    """Returns the settings of the server and of the application.

    PostgreSQL is what Prefect's documents recommend for production. What the flows do not need is off: logs
    that are sent to the server, the page, and reports of usage. Results are kept, because a flow that runs
    again would otherwise repeat its tasks.
    """
    return {
        "PREFECT_HOME": home,
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": url.replace("postgresql://", "postgresql+asyncpg://"),
        "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE": str(POOL),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
    }


def peer_version(package: str) -> str:
    """Returns the version of a package in the environment of the other systems."""
    code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    return subprocess.run([PYTHON, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def _plain_url(server: DatabaseServer) -> str:
    url = make_url(server.fresh_database())
    return url.set(password="trusted").render_as_string(hide_password=False)  # The server asks for none.


@contextlib.contextmanager
def programs(
    command: list[str], environment: Mapping[str, str], processes: int, limit: float = START_LIMIT
) -> Iterator[Program]:
    """Runs processes of a program, one started after the other, and ends them at the end.

    Raises:
        RuntimeError: A process ended, or was not ready within `limit` seconds. The message has its log.
    """
    with contextlib.ExitStack() as stack:
        started = []
        for _ in range(processes):
            log = stack.enter_context(tempfile.TemporaryFile())
            popen = stack.enter_context(
                subprocess.Popen(
                    command,
                    cwd=REPOSITORY,
                    env=OWN.environment(**environment),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
            )
            stack.callback(_end, popen)
            started.append(Process(popen, log))
            started[-1].answer(limit)
        yield Program(started)


def _wait_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"the server of Prefect does not answer:\n{log.read_text(errors='replace')[-5000:]}")


def _end(process: subprocess.Popen[Any]) -> None:
    if process.stdin is None:
        process.terminate()
    else:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # A program ends when its input does.
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_LIMIT)
