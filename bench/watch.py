"""Benchmark of Watch: the throughput with many watchers, as a share of the throughput without any.

Long requests, each a sleep after the other, run all the time. Clients create other requests, in turn without
watchers and while a process of its own watches the long requests, so that a busy machine slows both down
alike. All processes share this machine, so the share includes what the watching clients themselves cost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvloop
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from bench.cluster import DATABASES, Cluster, cpu_seconds, running_cluster
from bench.http_load import closed_loop, request_bytes
from bench.measures import PATH
from bench.system import machine, write
from spincycle_grpc.state import State

Figures = dict[str, Any]

CLIENTS = 64
REQUESTS = 200
WATCHERS = 2000
STEP = 5.0
"""Seconds of each sleep of a watched request. All of them together change forty times a second."""

STEPS = 30
WARM_UP = 3.0
TARGET = 0.9
"""The share of the throughput that must remain."""

_LAPSED = "lease had expired when it was renewed, chains are suspended"
_UNFINISHED = f"{PATH}?type=three-jobs&state=PENDING&state=RUNNING&state=SUSPENDED&limit=1"


def measure(database: str, *, rounds: int, seconds: float) -> Figures:
    """Returns the figures of each round, without and with watchers.

    Args:
        database: One of DATABASES.
        rounds: How often each is measured.
        seconds: How long each load lasts.
    """
    found: dict[str, list[Figures]] = {"without": [], "with": []}
    with running_cluster(database, server_max_watchers=str(2 * WATCHERS)) as cluster:
        _throughput(cluster, WARM_UP)
        for number in range(rounds):
            print(f"round {number + 1} of {rounds} ...", file=sys.stderr, flush=True)
            with _long_requests(cluster) as ids:
                for kind in ("without", "with") if number % 2 else ("with", "without"):
                    with _watching(cluster, ids if kind == "with" else []) as watched:
                        lapses = _lapses(cluster)
                        figures = _throughput(cluster, seconds)
                    figures["lapses"] = _lapses(cluster) - lapses
                    figures["messages_a_second"] = watched.messages / figures["seconds"]
                    figures["watchers_cpu"] = watched.cpu / figures["seconds"]
                    found[kind].append(figures)
        return {
            "database": database,
            "machine": machine(),
            "time": int(time.time()),
            "rounds": found,
            "share": _share(found, "requests_a_second"),
            "manager_share": _share(found, "manager_cpu"),
        }


@contextlib.contextmanager
def _long_requests(cluster: Cluster) -> Iterator[list[str]]:
    """Runs requests that last for a round, and yields their ids.

    Raises:
        RuntimeError: One of them has ended before the round.
    """
    args = {"steps": [str(number) for number in range(STEPS)], "ms": str(int(STEP * 1000))}
    with httpx.Client(base_url=f"http://{cluster.manager.http}{PATH}", timeout=60) as http:
        answers = [http.post("", json={"type": "steps", "args": args}) for _ in range(REQUESTS)]
        ids = [answer.raise_for_status().json()["id"] for answer in answers]
        yield ids
        if http.get(f"/{ids[0]}").json()["state"] != State.RUNNING:
            raise RuntimeError("the watched requests have ended: use fewer --seconds")
        for one in ids:
            http.put(f"/{one}/stop").raise_for_status()
    time.sleep(STEP)


@dataclass
class Watched:
    """What a process of watchers did after its watchers had the current state.

    Attributes:
        messages: The number of messages that it received.
        cpu: The seconds of CPU time that it used.
    """

    messages: int = 0
    cpu: float = 0.0


@contextlib.contextmanager
def _watching(cluster: Cluster, ids: list[str]) -> Iterator[Watched]:
    """Watches requests, if there are any. What was received is known at the end."""
    watched = Watched()
    if not ids:
        yield watched
        return
    with subprocess.Popen(
        [sys.executable, "-m", "bench.watchers", cluster.manager.grpc, str(WATCHERS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("".join(f"{one}\n" for one in ids) + "\n")
        process.stdin.flush()
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the watchers have failed")
        before = cpu_seconds(process.pid)
        yield watched
        watched.cpu = cpu_seconds(process.pid) - before
        process.stdin.close()
        watched.messages = int(process.stdout.readline())


def _throughput(cluster: Cluster, seconds: float) -> Figures:
    """Creates three-job requests for a while, and waits until they have ended."""
    data = request_bytes("POST", PATH, cluster.manager.http, json.dumps({"type": "three-jobs"}).encode())
    cpu, began = cluster.manager.cpu_seconds(), time.perf_counter()
    answers = uvloop.run(closed_loop(cluster.manager.http, lambda: data, clients=CLIENTS, seconds=seconds))
    with httpx.Client(base_url=f"http://{cluster.manager.http}", timeout=30) as http:
        while http.get(_UNFINISHED).json():
            time.sleep(0.01)
    took = time.perf_counter() - began
    if set(answers.statuses) != {201}:
        raise RuntimeError(f"not all creates were answered with 201: {answers.statuses}")
    made = answers.statuses[201]
    return {
        "seconds": took,
        "requests_a_second": made / took,
        "manager_cpu": (cluster.manager.cpu_seconds() - cpu) / made,
    }


def _lapses(cluster: Cluster) -> int:
    """Returns how often the Job Runner's lease has lapsed. All its chains are then resumed."""
    return sum(event.get("message") == _LAPSED for event in cluster.logged())


def _share(found: dict[str, list[Figures]], name: str) -> float:
    """Returns the median, over the rounds, of a figure with watchers divided by the one without."""
    pairs = zip(found["with"], found["without"], strict=True)
    return float(statistics.median(one[name] / other[name] for one, other in pairs))


def show(figures: Figures, console: Console) -> None:
    """Prints the medians and the share."""
    console.print(f"{figures['database']} on {figures['machine']}")
    table = Table("watchers", "requests/s", "CPU per request", "messages/s", "their CPU", box=MARKDOWN)
    for kind, count in (("without", 0), ("with", WATCHERS)):
        rounds = figures["rounds"][kind]
        table.add_row(
            f"{count:,}",
            f"{statistics.median(one['requests_a_second'] for one in rounds):,.0f}",
            f"request manager {statistics.median(one['manager_cpu'] for one in rounds) * 1e6:.0f} µs",
            f"{statistics.median(one['messages_a_second'] for one in rounds):,.0f}",
            f"{statistics.median(one['watchers_cpu'] for one in rounds):.1%} of a core",
        )
    console.print(table)
    console.print(
        f"throughput with {WATCHERS:,} watchers of {REQUESTS} requests: {figures['share']:.1%} "
        f"(target: above {TARGET:.0%}); CPU of the Request Manager: {figures['manager_share']:.1%}"
    )
    lapses = sum(one["lapses"] for rounds in figures["rounds"].values() for one in rounds)
    if lapses:
        console.print(
            f"The machine is too busy: the Job Runner's lease lapsed {lapses} times, so this says nothing."
        )


def main() -> int:
    """Measures, prints a table, and writes JSON. The exit status is 1 below the target."""
    parser = argparse.ArgumentParser(prog="bench.watch", description=__doc__)
    parser.add_argument("--database", choices=DATABASES, default="mariadb")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2 * STEP, help="how long each load lasts")
    parser.add_argument("--json", type=Path, help="where to write the figures; default: bench-watch.json")
    options = parser.parse_args()
    figures = measure(options.database, rounds=options.rounds, seconds=options.seconds)
    show(figures, Console(width=160))
    write(figures, options.json or Path("bench-watch.json"))
    return 0 if figures["share"] >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
