"""Request Managers with workers, for tests: their processes, and which of them serves a connection."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import grpc
import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import eventually
from tests.journal_jobs import JOURNAL
from tests.limits import ANSWER

WORKERS = 3

SPECS = """
sequences:
  work:
    request: true
    args: {optional: [{name: ms, desc: milliseconds, default: "0"}]}
    nodes:
      first: {category: job, type: journal, args: [{expected: ms, given: ms}]}
      second: {category: job, type: journal, deps: [first]}
  gated:
    request: true
    args: {required: [{name: gate, desc: a file}]}
    nodes:
      only: {category: job, type: gated, args: [{expected: gate}]}
  talk:
    request: true
    args: {required: [{name: script, desc: a program}]}
    nodes:
      only: {category: job, type: shell-command, args: [{expected: cmd, given: script}]}
  held:
    request: true
    args: {required: [{name: gate, desc: a file}]}
    nodes:
      only: {category: job, type: held, args: [{expected: gate}]}
"""

ASKS = """
sequences:
  asks:
    request: true
    nodes:
      permit: {category: approval, roles: [dba], approvals: 2}
"""
"""Specs for servers that authenticate users, because others refuse approvals."""


class WorkerServer:
    """A Request Manager with workers.

    Attributes:
        process: The supervisor.
        http: Its HTTP address.
        grpc: Its gRPC address.
    """

    def __init__(self, process: ServerProcess) -> None:
        self.process = process
        self.http = process.address("request-manager", "http")
        self.grpc = process.address("request-manager", "grpc")

    def pids(self) -> dict[int, int]:
        """Returns the newest process of each worker, by its number."""
        return {
            event["worker"]: event["pid"]
            for event in self.process.events
            if event.get("message") == "worker started"
        }

    def connections(self, address: str) -> dict[int, int]:
        """Returns how many connections at an address each worker has, by its number."""
        port = port_of(address)
        return {number: open_connections(pid, port) for number, pid in self.pids().items()}

    def connect(self) -> httpx.Client:
        """Returns a client with connections of its own."""
        return httpx.Client(base_url=f"http://{self.http}", timeout=ANSWER)

    def metrics(self, address: str = "") -> dict[str, float]:
        """Returns the series of a scrape over a new connection."""
        answer = httpx.get(f"http://{address or self.http}/metrics", timeout=ANSWER)
        assert answer.status_code == 200, answer.text
        return {
            f"{sample.name}{json.dumps(sample.labels, sort_keys=True)}": sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    def total(self, name: str, **labels: str) -> float:
        """Returns the sum of the series with a name and some labels."""
        wanted = labels.items()
        return sum(
            value
            for series, value in self.metrics().items()
            if series.startswith(name + "{") and wanted <= json.loads(series[len(name) :]).items()
        )

    def wait_replaced(self, number: int, earlier: int) -> int:
        """Waits until a worker has another process than an earlier one that listens. Returns its pid."""

        def newest() -> int | None:
            pid = self.pids()[number]
            return pid if pid != earlier and listens(pid, port_of(self.grpc)) else None

        pid: int = eventually(newest)
        return pid


def port_of(address: str) -> int:
    """Returns the port of an address."""
    return int(address.rpartition(":")[2])


def open_connections(pid: int, port: int) -> int:
    """Returns how many open connections to a port a process has accepted."""
    return sum(
        one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port
        for one in psutil.Process(pid).net_connections()
    )


def listens(pid: int, port: int) -> bool:
    """Whether a process listens on a port."""
    try:
        found = psutil.Process(pid).net_connections()
    except psutil.NoSuchProcess:
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in found)


@contextlib.contextmanager
def own_channel(address: str) -> Iterator[RequestManagerStub]:
    """Yields a stub with a connection that no other stub of the test shares."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options) as channel:
        yield RequestManagerStub(channel)


@contextlib.contextmanager
def all_workers(server: WorkerServer) -> Iterator[list[RequestManagerStub]]:
    """Yields stubs with connections to all workers: the system chooses one for each connection."""
    with contextlib.ExitStack() as stack:
        stubs: list[RequestManagerStub] = []
        while not all(server.connections(server.grpc).values()):
            for _ in range(WORKERS):
                stubs.append(stack.enter_context(own_channel(server.grpc)))
                stubs[-1].Version(messages.RequestManagerVersionRequest(), timeout=ANSWER)
            assert len(stubs) < 300, server.connections(server.grpc)
        yield stubs


@contextlib.contextmanager
def each_worker(server: WorkerServer) -> Iterator[list[RequestManagerStub]]:
    """Yields one stub for each worker, in the order of their numbers."""
    with contextlib.ExitStack() as stack:
        found: dict[int, RequestManagerStub] = {}
        for _ in range(300):
            before = server.connections(server.grpc)
            stub = stack.enter_context(own_channel(server.grpc))
            stub.Version(messages.RequestManagerVersionRequest(), timeout=ANSWER)
            after = server.connections(server.grpc)
            [number] = [number for number in after if after[number] > before[number]]
            found[number] = stub
            if len(found) == len(after):
                break
        assert len(found) == len(server.pids())
        yield [found[number] for number in sorted(found)]


@contextlib.contextmanager
def worker_server(
    directory: Path,
    url: str,
    *arguments: str,
    workers: int = WORKERS,
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] = ("spincycle_server",),
) -> Iterator[WorkerServer]:
    """Runs a Request Manager with workers, which writes the journal of jobs in the directory."""
    with running(
        "request-manager",
        *([] if any(one.startswith("--http") for one in arguments) else ["--http=127.0.0.1:0"]),
        f"--workers={workers}",
        f"--db={url}",
        *arguments,
        directory=directory,
        environment=variables(directory) | dict(environment or {}),
        program=program,
    ) as process:
        server = WorkerServer(process)
        for number in range(1, workers + 1):  # The first one may listen before the others are started.
            process.wait_for("worker started", worker=number)
        yield server


@contextlib.contextmanager
def job_runner(
    directory: Path,
    server: WorkerServer,
    *,
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] = ("spincycle_server",),
) -> Iterator[ServerProcess]:
    """Runs a Job Runner that reports to the workers."""
    with running(
        "job-runner", "--http=127.0.0.1:0", f"--rm={server.grpc}", directory=directory,
        environment=variables(directory) | dict(environment or {}), program=program,
    ) as runner:  # fmt: skip
        runner.wait_for("reporting")
        yield runner


def variables(directory: Path) -> dict[str, str]:
    """Returns the environment of the servers, and writes their specs if there are none."""
    specs = directory / "specs"
    if not specs.exists():
        specs.mkdir()
        (specs / "specs.yaml").write_text(SPECS)
    return {
        JOURNAL: str(directory / "journal"),
        "SPINCYCLE_JOBS": "tests.journal_jobs:factory",
        "SPINCYCLE_SPECS_DIR": str(specs),
    }


def refuses(address: str) -> bool:
    """Whether nobody listens at an address."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port_of(address))) != 0
