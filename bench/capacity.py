"""Benchmark of a full runner with two Request Managers: how long requests take at each of them.

The runner reports to the first Request Manager only. More clients than it has places create requests and
wait for their end, half of them at each Request Manager, or all of them at the second one. In each round, an
earlier commit and this program run the same load on new databases of one server, in alternating order.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select

from bench.cluster import OWN, Cluster, Program, private_database, running_program
from bench.http_load import connect, percentile, request_bytes
from bench.measures import PATH, wait_ended
from bench.plain import earlier
from bench.system import machine, write
from spincycle_grpc.state import State
from spincycle_server.database.engine import make_engine, parse_url
from spincycle_server.store import DatabaseOptions
from spincycle_server.store.schema import requests

if TYPE_CHECKING:
    from tests.databases import DatabaseServer

Figures = dict[str, Any]

KINDS = ("mariadb", "postgresql")
"""SQLite allows one Request Manager."""

PLACES = 10
"""Chains that the runner takes."""

CLIENTS = 12
"""Clients together: a few more than the places, so that the runner is nearly always full."""

LOADS: Mapping[str, tuple[int, int]] = {"even": (CLIENTS // 2, CLIENTS // 2), "other": (0, CLIENTS)}
"""The clients of the Request Manager that has the runner's stream, and of the one that has not."""

SHORTEST, LONGEST = 200, 400
"""Milliseconds that the job of a request sleeps."""

LOOK_EVERY = 0.05
"""Seconds between two looks of a client whether its request has ended."""

WARM_UP = 3.0


async def _clients(clients: tuple[int, int], cluster: Cluster, seconds: float) -> list[list[Figures]]:
    """Runs the clients. Returns the ended requests of each Request Manager."""
    managers = (cluster.manager, *cluster.others)
    found: list[list[Figures]] = [[] for _ in managers]
    end = time.perf_counter() + seconds
    await asyncio.gather(
        *(
            _client(managers[number].http, end, found[number])
            for number, count in enumerate(clients)
            for _ in range(count)
        )
    )
    return found


async def _client(address: str, end: float, found: list[Figures]) -> None:
    """Creates one request after another, each when the one before has ended."""
    connection = await connect(address)
    while time.perf_counter() < end:
        milliseconds = random.randint(SHORTEST, LONGEST)
        body = json.dumps({"type": "nap", "args": {"ms": str(milliseconds)}}).encode()
        began = time.perf_counter()
        status, _, answer = await connection.send(request_bytes("POST", PATH, address, body))
        took = time.perf_counter() - began
        if status != 201:
            raise RuntimeError(f"a create was answered with {status}: {answer!r}")
        look = request_bytes("GET", f"{PATH}/{json.loads(answer)['id']}", address)
        await asyncio.sleep(milliseconds / 1000)
        while True:
            _, _, answer = await connection.send(look)
            if (request := json.loads(answer))["finishedAt"]:
                break
            await asyncio.sleep(LOOK_EVERY)
        if request["state"] != State.COMPLETE:
            raise RuntimeError(f"a request is not COMPLETE: {request}")
        found.append({**request, "create": took})
    connection.close()


def measure(program: Program, server: DatabaseServer, kind: str, load: str, seconds: float) -> Figures:
    """Returns the figures of a new installation under a load."""
    options = {"job_runner_max_chains": str(PLACES)}
    with running_program(kind, program, server, options, managers=2) as cluster:
        uvloop.run(_clients(LOADS[load], cluster, WARM_UP))
        wait_ended(cluster)
        refused_before = _refused(cluster)
        before = cluster.cpu_seconds()
        began = time.perf_counter()
        found = uvloop.run(_clients(LOADS[load], cluster, seconds))
        took = time.perf_counter() - began
        made = sum(map(len, found))
        cpu = {name: used / made for name, used in cluster.cpu_since(before).items()}
        return {
            "requests_a_second": made / took,
            "busy_places": sum(_seconds(one, "startedAt", "finishedAt") for one in chain(*found)) / took,
            "refused": (_refused(cluster) - refused_before) / made,
            "cpu": cpu,
            "managers": [_latencies(requests) for requests in found],
        }


def _latencies(found: list[Figures]) -> Figures:
    creates = [one["create"] for one in found]
    waits = [_seconds(one, "createdAt", "startedAt") for one in found]
    ends = [_seconds(one, "createdAt", "finishedAt") for one in found]
    return {
        "requests": len(found),
        **{
            f"{name}_p{share}": percentile(values, share / 100)
            for name, values in (("create", creates), ("start", waits), ("complete", ends))
            for share in (50, 99)
        },
        "complete_max": max(ends, default=0.0),
    }


def _seconds(request: Figures, start: str, end: str) -> float:
    return (datetime.fromisoformat(request[end]) - datetime.fromisoformat(request[start])).total_seconds()


def _refused(cluster: Cluster) -> int:
    """Returns how many assignments have ended without a start, because the runner refused the chain."""
    engine = make_engine(parse_url(cluster.url), DatabaseOptions(), connections=1, reads=True)
    try:
        with engine.connect() as connection:
            statement = select(func.sum(requests.c.epoch) - func.count()).select_from(requests)
            return int(connection.execute(statement).scalar() or 0)
    finally:
        engine.dispose()


def rounds_of(
    programs: Mapping[str, Program], kind: str, rounds: int, seconds: float
) -> dict[str, dict[str, list[Figures]]]:
    """Returns the figures of each round, by load and by the name of the program."""
    found: dict[str, dict[str, list[Figures]]] = {load: {name: [] for name in programs} for load in LOADS}
    with private_database(kind) as server:
        for number in range(rounds):
            names = list(programs) if number % 2 else list(programs)[::-1]
            for load in LOADS:
                for name in names:
                    figures = measure(programs[name], server, kind, load, seconds)
                    found[load][name].append(figures)
                    print(f"round {number + 1}, {load}, {name}: {figures}", file=sys.stderr, flush=True)
    return found


def show(found: Mapping[str, Mapping[str, list[Figures]]], console: Console) -> None:
    """Prints the medians of the rounds, with their ranges."""
    table = Table(
        "load", "program", "requests/s", "busy places", "Request Manager", "create p50", "p99",
        "COMPLETE p50", "p99", "refused", "CPU per request", box=MARKDOWN,
    )  # fmt: skip
    for load, programs in found.items():
        for name, rounds in programs.items():
            for number, manager in enumerate(("with the stream", "without")):
                if LOADS[load][number]:
                    table.add_row(
                        load,
                        name,
                        _range([one["requests_a_second"] for one in rounds], 1, "{:.0f}"),
                        _range([one["busy_places"] for one in rounds], 1, "{:.1f}"),
                        manager,
                        *(
                            _range([one["managers"][number][figure] for one in rounds], 1000, "{:.0f}")
                            for figure in ("create_p50", "create_p99", "complete_p50", "complete_p99")
                        ),
                        _range([one["refused"] for one in rounds], 1, "{:.3f}"),
                        _cpu([one["cpu"] for one in rounds]),
                    )
    console.print(table)
    console.print("Times in ms: the median of the rounds, with the least and the largest.")


def _range(values: list[float], factor: float, form: str) -> str:
    low, middle, high = (
        form.format(factor * one) for one in (min(values), statistics.median(values), max(values))
    )
    return f"{middle} ({low} to {high})"


def _cpu(rounds: list[dict[str, float]]) -> str:
    medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0] if name != "load"}
    return ", ".join(f"{name} {seconds * 1e3:.1f}" for name, seconds in medians.items()) + " ms"


def main() -> int:
    """Measures, prints a table, and writes JSON."""
    parser = argparse.ArgumentParser(prog="bench.capacity", description=__doc__)
    parser.add_argument("--base", required=True, metavar="COMMIT", help="the earlier commit")
    parser.add_argument("--database", choices=KINDS, default="mariadb")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15.0, help="how long each load lasts")
    parser.add_argument(
        "--json", type=Path, default=Path("bench-capacity.json"), help="where to write the figures"
    )
    options = parser.parse_args()
    with earlier(options.base) as base:
        found = rounds_of({"before": base, "now": OWN}, options.database, options.rounds, options.seconds)
    show(found, Console(width=200))
    write({"machine": machine(), "database": options.database, "loads": found}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
