"""Offers a Request Manager and a Job Runner twice the load that they carry, for a minute.

The carried load is measured first. Then calls start at twice that rate, whatever the answers are.
The exit status is 1 unless each call succeeds or is refused within its deadline, memory stays bounded,
no lease expires, all accepted requests end, and the servers then still carry at least half the load.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import httpx
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.table import Table

from bench import measures
from bench.cluster import DATABASES, Cluster, running_cluster
from bench.http_load import closed_loop, percentile, request_bytes
from bench.open_load import Kind, OpenLoad, Outcome
from bench.system import machine, write

Figures = dict[str, Any]

DEADLINE = 15.0
"""Seconds within which a call must be answered: far less than `server.call_timeout`."""

CONNECTIONS = 1500
"""HTTP connections: more than `server.max_requests`."""

MEMORY = {"request manager": 400e6, "job runner": 400e6}
"""The maximum resident memory of each server, in bytes."""

GROWTH, GROWTH_FLOOR = 1.25, 30e6
"""How much a server may grow in the second half of the load over the first: a factor, plus bytes."""

END_LIMIT = 60.0
"""Seconds after the load within which all accepted requests must end."""

AS_FAST = 0.5
"""The share of the earlier throughput that must remain after the load. It is low because of noise."""

FREEZE, AFTER_FREEZE = 1.5, 8.0
"""Seconds for which the runner is frozen (less than its lease), and for which the load then continues."""

FLEET_HOSTS = 500
FLEET_RATE = 0.5
READ_SHARE, GRPC_SHARE, CONNECT_SHARE = 0.15, 0.05, 0.02
MISHAPS = frozenset(
    {
        "call raised an unexpected exception",
        "answering failed",
        "reporting interrupted",
        "request taken over",
        "runner does not have a request",
        "lease had expired when it was renewed, chains are suspended",
        "lease expired: no Request Manager was reachable, job chains are suspended",
    }
)
"""Messages that the servers must not log."""

MISHAPS_SHOWN = 20
"""How many of these log lines are written to the figures completely."""


def measure(database: str, *, seconds: float, calibration: float, **options: str) -> Figures:
    """Returns all figures for a database.

    Args:
        database: One of DATABASES.
        seconds: How long the load lasts.
        calibration: How long the carried load is measured, before and after.
        options: Environment of the servers, as for `running_cluster`.
    """
    figures: Figures = {"database": database, "machine": machine(), "time": int(time.time())}
    with running_cluster(database, **options) as cluster:
        measures.throughput(cluster, 16, 2.0)  # Warm up, so that one-time costs are not measured.
        carried = measures.throughput(cluster, 64, calibration)["requests_a_second"]
        print(f"carries {carried:,.0f} requests/s; now offering twice that ...", file=sys.stderr, flush=True)
        held: list[dict[str, int]] = []
        load = OpenLoad(
            cluster.manager.http,
            cluster.manager.grpc,
            _mix(cluster, 2 * carried),
            connections=CONNECTIONS,
            deadline=DEADLINE,
        )
        outcome = uvloop.run(load.run(seconds, lambda: held.append(measures.memory(cluster))))
        took, left = _ended(cluster)
        held.append(measures.memory(cluster))
        figures |= {
            "seconds": seconds,
            "carried": carried,
            "until_all_had_ended": took,
            "not_ended": left,
            "memory": held,
        }
        figures |= _figures(outcome)
        figures["serving"] = [_serves(server.grpc) for server in (cluster.manager, cluster.runner)]
        figures["while_the_runner_stood_still"] = _frozen(cluster)
        figures["carried_afterwards"] = measures.throughput(cluster, 64, calibration)["requests_a_second"]
        figures["lost"] = _lost(cluster, set(outcome.made))
        mishaps = [event for event in cluster.logged() if event.get("message") in MISHAPS]
        figures["mishaps"] = dict(Counter(event["message"] for event in mishaps))
        figures["first_mishaps"] = mishaps[:MISHAPS_SHOWN]
    return figures


def _mix(cluster: Cluster, rate: float) -> list[Kind]:
    """Returns the mix: mostly creates of three jobs, some reads, gRPC, new connections, and fleets."""
    http = cluster.manager.http
    names = [f"host-{number:05d}" for number in range(FLEET_HOSTS)]

    def create(body: Figures) -> bytes:
        return request_bytes("POST", measures.PATH, http, json.dumps(body).encode())

    with httpx.Client(base_url=f"http://{http}", timeout=30) as client:
        request_id = client.get(f"{measures.PATH}?limit=1").json()[0]["id"]
    return [
        Kind(
            "three-jobs",
            rate * (1 - READ_SHARE - GRPC_SHARE - CONNECT_SHARE),
            create({"type": "three-jobs"}),
            True,
        ),
        Kind("reads", rate * READ_SHARE, request_bytes("GET", f"{measures.PATH}/{request_id}", http), False),
        Kind(
            "new connections",
            rate * CONNECT_SHARE,
            create({"type": "three-jobs"}),
            creates=True,
            connects=True,
        ),
        Kind("gRPC", rate * GRPC_SHARE, None, True),
        Kind("fleets", FLEET_RATE, create({"type": "fleet", "args": {"hosts": names}}), True),
    ]


def _frozen(cluster: Cluster) -> dict[int, int]:
    """Creates requests while the runner is frozen for a while. Returns the number of answers by status.

    Under the same load, the requests that waited meanwhile must become fewer, not more.
    """
    data = request_bytes(
        "POST", measures.PATH, cluster.manager.http, json.dumps({"type": "three-jobs"}).encode()
    )
    pid = cluster.runner.process.pid
    timers = [
        threading.Timer(1.0, os.kill, (pid, signal.SIGSTOP)),
        threading.Timer(1.0 + FREEZE, os.kill, (pid, signal.SIGCONT)),
    ]
    for timer in timers:
        timer.start()
    answers = uvloop.run(
        closed_loop(cluster.manager.http, lambda: data, clients=64, seconds=1.0 + FREEZE + AFTER_FREEZE)
    )
    for timer in timers:
        timer.join()
    measures.wait_ended(cluster)
    return answers.statuses


def _ended(cluster: Cluster) -> tuple[float, int]:
    """Waits until all requests have ended. Returns the seconds, and the number of requests still open."""
    began = time.perf_counter()
    with httpx.Client(base_url=f"http://{cluster.manager.http}", timeout=60) as http:
        path = f"{measures.PATH}?state=PENDING&state=RUNNING&state=SUSPENDED"
        while http.get(f"{path}&limit=1").json():
            if time.perf_counter() - began > END_LIMIT:
                return time.perf_counter() - began, len(http.get(path).json())
            time.sleep(0.05)
    return time.perf_counter() - began, 0


def _lost(cluster: Cluster, made: set[str]) -> int:
    """Returns how many of the created requests are not COMPLETE."""
    with httpx.Client(base_url=f"http://{cluster.manager.http}", timeout=120) as http:
        complete = {one["id"] for one in http.get(f"{measures.PATH}?state=COMPLETE").json()}
    return len(made - complete)


def _serves(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _figures(outcome: Outcome) -> Figures:
    return {
        "offered": dict(outcome.offered),
        "held_back": dict(outcome.held_back),
        "accepted": len(outcome.made),
        "answers": dict(outcome.answers),
        "unanswered": outcome.unanswered,
        "latency": {name: _latency(seconds) for name, seconds in outcome.good.items()}
        | {"refused": _latency(outcome.refused)},
    }


def _latency(seconds: list[float]) -> Figures:
    return {
        "calls": len(seconds),
        "p50": percentile(seconds, 0.5),
        "p99": percentile(seconds, 0.99),
        "max": max(seconds, default=0.0),
    }


def failures(figures: Figures) -> list[str]:
    """Returns a sentence for each requirement that is not met."""
    found = []
    wrong = {text: count for text, count in figures["answers"].items() if not _is_proper(text)}
    if wrong:
        found.append(f"Some answers are neither a success nor a refusal: {wrong}.")
    if figures["unanswered"]:
        found.append(f"{figures['unanswered']} calls had no answer within {DEADLINE:g} s.")
    slowest = max(one["max"] for one in figures["latency"].values())
    if slowest > DEADLINE:
        found.append(f"The slowest answer took {slowest:.1f} s, more than {DEADLINE:g} s.")
    found += _memory_failures(figures["memory"])
    if figures["not_ended"]:
        found.append(f"{figures['not_ended']} requests had not ended {END_LIMIT:g} s after the load.")
    if figures["lost"]:
        found.append(f"{figures['lost']} accepted requests are not COMPLETE.")
    if figures["mishaps"]:
        found.append(f"The servers logged events that must not happen under load: {figures['mishaps']}.")
    if set(figures["while_the_runner_stood_still"]) != {201}:
        found.append(
            f"Some of 64 clients were refused after the runner was frozen for {FREEZE:g} s: "
            f"{figures['while_the_runner_stood_still']}."
        )
    if not all(figures["serving"]):
        found.append("A server is not healthy after the load.")
    if figures["carried_afterwards"] < AS_FAST * figures["carried"]:
        found.append(
            f"The servers carry {figures['carried_afterwards']:,.0f} requests/s after the load, "
            f"compared with {figures['carried']:,.0f} before."
        )
    return found


def _is_proper(answer: str) -> bool:
    if answer in ("200", "201", "gRPC OK", "gRPC RESOURCE_EXHAUSTED", "gRPC UNAVAILABLE"):
        return True
    return answer.startswith(("429 ", "503 ")) and "without Retry-After" not in answer


def _memory_failures(held: list[dict[str, int]]) -> list[str]:
    found = []
    half = len(held) // 2
    for name, bound in MEMORY.items():
        first, second = (max((one[name] for one in part), default=0) for part in (held[:half], held[half:]))
        if max(first, second) > bound:
            found.append(
                f"The {name} held {max(first, second) / 1e6:.0f} MB, more than {bound / 1e6:.0f} MB."
            )
        if second > GROWTH * first + GROWTH_FLOOR:
            found.append(
                f"The {name} grew: {first / 1e6:.0f} MB in the first half of the load, "
                f"{second / 1e6:.0f} MB in the second."
            )
    return found


def show(figures: Figures, console: Console) -> None:
    """Prints the figures."""
    console.print(f"{figures['database']} on {figures['machine']}")
    table = Table("what", "figures")
    seconds = figures["seconds"]
    offered = sum(figures["offered"].values())
    table.add_row("carried before the load", f"{figures['carried']:,.0f} requests/s")
    mix = ", ".join(f"{count:,} {name}" for name, count in figures["offered"].items())
    table.add_row("offered", f"{offered:,} calls in {seconds:g} s, {offered / seconds:,.0f}/s: {mix}")
    if figures["held_back"]:
        table.add_row("held back because no connection was idle", f"{sum(figures['held_back'].values()):,}")
    table.add_row("accepted", f"{figures['accepted']:,} requests, {figures['accepted'] / seconds:,.0f}/s")
    for answer, count in sorted(figures["answers"].items()):
        table.add_row(f"answered {answer}", f"{count:,}")
    for name, one in figures["latency"].items():
        times = ", ".join(f"{key} {one[key] * 1e3:,.0f} ms" for key in ("p50", "p99", "max"))
        table.add_row(f"{name}: time to answer", times)
    peaks = {name: max(one[name] for one in figures["memory"]) for name in MEMORY}
    table.add_row("peak memory", ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in peaks.items()))
    table.add_row("all accepted requests ended", f"{figures['until_all_had_ended']:.1f} s after the load")
    frozen = ", ".join(
        f"{count:,} answered {status}" for status, count in figures["while_the_runner_stood_still"].items()
    )
    table.add_row(f"64 clients, runner frozen for {FREEZE:g} s", frozen)
    table.add_row("carried after the load", f"{figures['carried_afterwards']:,.0f} requests/s")
    console.print(table)


def main() -> int:
    """Runs the load, prints a table, and writes JSON. Returns 1 if a requirement is not met."""
    parser = argparse.ArgumentParser(prog="bench.load", description=__doc__)
    parser.add_argument("--database", choices=DATABASES, default="mariadb")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the load lasts")
    parser.add_argument("--short", action="store_true", help="run each part for a few seconds")
    parser.add_argument("--json", type=Path, help="where to write the figures; default: load-DATABASE.json")
    options = parser.parse_args()
    seconds, calibration = (6.0, 2.0) if options.short else (options.seconds, 10.0)
    figures = measure(options.database, seconds=seconds, calibration=calibration)
    failed = figures["failures"] = failures(figures)
    show(figures, Console(width=160))
    write(figures, options.json or Path(f"load-{options.database}.json"))
    for sentence in failed:
        print(sentence, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
