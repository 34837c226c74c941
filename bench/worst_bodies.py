"""Measures how long other callers wait while one client sends the worst requests back to back.

It prints, for each kind of request: how many were sent, how they were answered, and how long the calls of
another client took over HTTP and gRPC. At the end it says whether a lease lapsed. Run `make bench-worst`.
"""

from __future__ import annotations

import argparse
import http.client
import multiprocessing
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from typing import Any

import grpc

from bench.cluster import DATABASES, Cluster, running_cluster
from bench.worst_inputs import GRPC, HTTP
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest, FindRequest, RequestManagerVersionRequest
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub

LIMIT = 0.25
"""The longest 99th percentile of other callers' calls in seconds."""

_LAPSES = ("lease expired", "lease had expired", "runner left", "reporting interrupted")
_PAUSE = 0.005
_SERVICE = "/spincycle.v1.RequestManager"


@dataclass
class Waits:
    """How long the calls of the other client took, in seconds, by the name of the call."""

    calls: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def seconds(self) -> list[float]:
        """The times of all calls."""
        return [seconds for times in self.calls.values() for seconds in times]

    @property
    def slowest(self) -> str:
        """The name of the call that took longest."""
        return max(self.calls, key=lambda name: max(self.calls[name]))

    def percentile(self, share: float) -> float:
        """Returns the time within which this share of the calls ended."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def main() -> None:
    """Runs the benchmark. Exits with 1 if other callers wait too long, or a lease lapses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=DATABASES, default="sqlite")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each kind of request")
    parser.add_argument("--only", nargs="*", default=[""], help="only kinds whose names contain one of these")
    options = parser.parse_args()
    worst = 0.0
    with running_cluster(options.database) as cluster:
        print(f"{'':42}{'sent':>5}{'p50':>8}{'p99':>8}{'max':>8}  {'slowest':14}answers (times in ms)")
        report("nothing", *measured(cluster, None, options.seconds))
        for side, kinds in (("HTTP", HTTP), ("gRPC", GRPC)):
            for name in kinds:
                if any(text in f"{side} {name}" for text in options.only):
                    waits, answers = measured(cluster, (side, name), options.seconds)
                    report(f"{side} {name}", waits, answers)
                    worst = max(worst, waits.percentile(0.99))
        lapses = [event for event in cluster.logged() if event.get("message", "").startswith(_LAPSES)]
        memory = cluster.manager.memory() / 2**20
    print(f"\nworst p99: {worst * 1000:.0f} ms; lapsed leases: {len(lapses)}; memory: {memory:.0f} MiB")
    sys.exit(worst > LIMIT or bool(lapses))


def report(name: str, waits: Waits, answers: Counter[str]) -> None:
    """Prints one line of the table."""
    times = "".join(f"{value * 1000:8.0f}" for value in (waits.percentile(0.5), waits.percentile(0.99)))
    longest = max(waits.seconds) * 1000
    shown = ", ".join(f"{answer}: {count}" for answer, count in answers.items())
    print(f"{name:42}{answers.total():5}{times}{longest:8.0f}  {waits.slowest:14}{shown}", flush=True)


def measured(cluster: Cluster, kind: tuple[str, str] | None, seconds: float) -> tuple[Waits, Counter[str]]:
    """Sends requests of one kind from another process. Returns the waits of other calls, and the answers."""
    context = multiprocessing.get_context("spawn")
    ready, end = context.Event(), context.Event()
    receiving, sending = context.Pipe(duplex=False)
    sender = context.Process(
        target=send, args=(kind, cluster.manager.http, cluster.manager.grpc, ready, end, sending)
    )
    sender.start()
    ready.wait()
    waits = Waits()
    stop_at = time.monotonic() + seconds
    callers = [
        threading.Thread(target=call_repeatedly, args=(calls, stop_at, waits))
        for calls in (http_calls(cluster.manager.http), grpc_calls(cluster.manager.grpc))
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    end.set()
    answers: Counter[str] = receiving.recv()
    sender.join()
    return waits, answers


def call_repeatedly(calls: dict[str, Callable[[], object]], stop_at: float, waits: Waits) -> None:
    """Makes one call after the other, with short pauses."""
    while time.monotonic() < stop_at:
        for name, call in calls.items():
            started = time.monotonic()
            call()
            waits.calls[name].append(time.monotonic() - started)
            time.sleep(_PAUSE)


def http_calls(address: str) -> dict[str, Callable[[], object]]:
    """Returns calls over one HTTP connection."""
    connection = http.client.HTTPConnection(address, timeout=120)

    def call(method: str, path: str, body: bytes | None = None) -> None:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        response.read()
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status}")

    return {
        "HTTP Version": lambda: call("GET", "/version"),
        "HTTP Create": lambda: call("POST", "/api/v1/requests", b'{"type":"three-jobs"}'),
        "HTTP Find": lambda: call("GET", "/api/v1/requests?limit=5&type=three-jobs"),
    }


def grpc_calls(address: str) -> dict[str, Callable[[], object]]:
    """Returns calls over one gRPC connection."""
    stub: Any = RequestManagerStub(grpc.insecure_channel(address))
    find = FindRequest()
    find.filter.limit, find.filter.type = 5, "three-jobs"
    return {
        "gRPC Version": lambda: stub.Version(RequestManagerVersionRequest(), timeout=120),
        "gRPC Create": lambda: stub.Create(CreateRequest(type="three-jobs"), timeout=120),
        "gRPC Find": lambda: stub.Find(find, timeout=120),
    }


def send(
    kind: tuple[str, str] | None, http_address: str, grpc_address: str, ready: Event, end: Event, answers: Any
) -> None:
    """Sends requests of one kind back to back until `end` is set. Runs in a process of its own."""
    counts: Counter[str] = Counter()
    if kind is None:
        ready.set()
        end.wait()
    elif kind[0] == "HTTP":
        body, headers = HTTP[kind[1]]()
        ready.set()
        while not end.is_set():
            counts[post(http_address, body, headers)] += 1
    else:
        method, message = GRPC[kind[1]]()
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        call: Any = grpc.insecure_channel(grpc_address, options).unary_unary(f"{_SERVICE}/{method}")
        ready.set()
        while not end.is_set():
            try:
                call(message, timeout=120)
                counts["OK"] += 1
            except grpc.RpcError as error:
                counts[error.code().name] += 1
    answers.send(counts)


def post(address: str, body: bytes, headers: dict[str, str]) -> str:
    """Creates a request over a new connection. Returns the status."""
    connection = http.client.HTTPConnection(address, timeout=120)
    try:
        connection.request("POST", "/api/v1/requests", body, headers)
        response = connection.getresponse()
        response.read()
        return str(response.status)
    except OSError as error:
        return type(error).__name__
    finally:
        connection.close()


if __name__ == "__main__":
    main()
