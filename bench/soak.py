"""Sends many mixed requests to a Request Manager and a Job Runner, and looks whether the servers grow.

Some requests complete, others fail, are retried, are stopped, or are refused. Ten times, when all requests
have ended, the memory, threads and descriptors of each server are counted. The exit status is 1 if a server
has grown since the warm-up, an answer or a final state is wrong, or a server has logged an error.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import grpc.aio
import httpx
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from bench import measures
from bench.cluster import DATABASES, Cluster, running_cluster
from bench.http_load import connect
from bench.soak_requests import KINDS, Caller, UnexpectedAnswerError
from bench.system import machine, write
from spincycle_grpc.state import State
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub

Figures = dict[str, Any]

REQUESTS, SHORT = 50_000, 5_000
CLIENTS = 32
PARTS = 10
WARM_UP = 5
"""How many of the parts are the warm-up, in which caches and pools of threads fill."""

GROWTH = {"MB": 10.0, "threads": 2, "descriptors": 4, "children": 0}
"""By how much a server may grow after the warm-up. 10 MB are 400 bytes for each of 25,000 requests.

The allocator keeps more memory after each new peak, so without any leak, a server may grow by some MB.
"""

LIMIT = 1800.0
"""Seconds in which all requests must have been sent."""

SETTLE = 5.0
"""The maximum number of seconds until the last connections and processes of a part are gone."""


@dataclass
class Outcome:
    """What has happened.

    Attributes:
        sent: The number of requests by kind.
        made: The number of created requests, by the state in which they must end.
        wrong: The number of wrong answers by their text.
    """

    sent: Counter[str] = field(default_factory=Counter)
    made: Counter[State] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)


def measure(database: str, requests: int, seed: int) -> Figures:
    """Returns all figures for a database."""
    figures: Figures = {"database": database, "machine": machine(), "requests": requests, "seed": seed}
    outcome, random = Outcome(), Random(seed)
    began = time.perf_counter()
    with running_cluster(database) as cluster:
        grown = [_sizes(cluster)]
        for part in range(PARTS):
            count = requests * (part + 1) // PARTS - requests * part // PARTS
            uvloop.run(_send(cluster, count, random, outcome))
            measures.wait_ended(cluster)
            grown.append(_settled(cluster))
            took = time.perf_counter() - began
            print(f"{sum(outcome.sent.values()):,} requests in {took:.0f} s", file=sys.stderr, flush=True)
            if took > LIMIT:
                raise SystemExit(f"the soak took longer than {LIMIT:g} s")
        figures |= {"seconds": took, "sizes": grown, "states": _states(cluster)}
        figures["errors"] = _errors(cluster)
    figures |= {"sent": dict(outcome.sent), "wrong": dict(outcome.wrong)}
    figures["made"] = {state.name: count for state, count in outcome.made.items()}
    return figures


async def _send(cluster: Cluster, count: int, random: Random, outcome: Outcome) -> None:
    """Sends requests from some clients, each one after another."""
    shares = [share for _, share, _ in KINDS]
    left = iter(random.choices(KINDS, shares, k=count))
    async with grpc.aio.insecure_channel(cluster.manager.grpc) as channel:
        stub: Any = RequestManagerStub(channel)

        async def client() -> None:
            connection = await connect(cluster.manager.http)
            caller = Caller(connection, cluster.manager.http, stub)
            for name, _, run in left:
                outcome.sent[name] += 1
                try:
                    await run(caller)
                except UnexpectedAnswerError as error:
                    outcome.wrong[f"{name}: {error}"] += 1
                except grpc.aio.AioRpcError as error:
                    outcome.wrong[f"{name}: gRPC {error.code().name} {error.details()}"] += 1
            connection.close()
            outcome.made.update(caller.made)

        await asyncio.gather(*(client() for _ in range(CLIENTS)))


def _sizes(cluster: Cluster) -> dict[str, dict[str, float]]:
    """Returns the memory, threads, descriptors and children of each server."""
    sizes = {}
    for server in (cluster.manager, cluster.runner):
        process = psutil.Process(server.process.pid)
        sizes[server.name] = {
            "MB": server.memory() / 1e6,
            "threads": process.num_threads(),
            "descriptors": process.num_fds(),
            "children": len(process.children(recursive=True)),
        }
    return sizes


def _settled(cluster: Cluster) -> dict[str, dict[str, float]]:
    """Returns the sizes once they no longer fall."""
    sizes = _sizes(cluster)
    end = time.monotonic() + SETTLE
    while time.monotonic() < end:
        time.sleep(0.5)
        before, sizes = sizes, _sizes(cluster)
        if all(sizes[name][what] >= before[name][what] for name in sizes for what in GROWTH):
            break
    return sizes


def _states(cluster: Cluster) -> dict[str, int]:
    """Returns how many requests are in each final state."""
    with httpx.Client(base_url=f"http://{cluster.manager.http}", timeout=120) as http:
        return {
            state.name: len(http.get(measures.PATH, params={"state": state.name}).json())
            for state in (State.COMPLETE, State.FAIL, State.STOPPED)
        }


def _errors(cluster: Cluster) -> list[str]:
    """Returns the errors that the servers have logged, and all that is not a line of the log."""
    errors = [str(event) for event in cluster.logged() if event.get("level") in ("error", "critical")]
    for log in cluster.directory.glob("*.log"):
        errors += [line for line in log.read_text(errors="replace").splitlines() if not line.startswith("{")]
    return errors


def failures(figures: Figures) -> list[str]:
    """Returns a sentence for each requirement that is not met."""
    found = []
    after, end = figures["sizes"][WARM_UP], figures["sizes"][-1]
    for name, sizes in end.items():
        for what, bound in GROWTH.items():
            growth = sizes[what] - after[name][what]
            if growth > bound:
                found.append(
                    f"The {name} grew by {growth:.1f} {what} after the warm-up, more than {bound:g}."
                )
    if figures["wrong"]:
        found.append(f"Some answers are wrong: {figures['wrong']}.")
    made = {state: figures["made"].get(state, 0) for state in figures["states"]}
    if made != figures["states"]:
        found.append(f"The requests ended as {figures['states']}, but must end as {made}.")
    if figures["errors"]:
        found.append(f"The servers logged {len(figures['errors'])} errors, first {figures['errors'][:3]}.")
    return found


def show(figures: Figures, console: Console) -> None:
    """Prints the figures."""
    console.print(f"{figures['database']} on {figures['machine']}")
    mix = ", ".join(f"{count:,} {name}" for name, count in sorted(figures["sent"].items()))
    console.print(f"{figures['requests']:,} requests in {figures['seconds']:.0f} s: {mix}")
    names = figures["sizes"][0]
    table = Table("requests", *(f"{what}, {name}" for name in names for what in GROWTH))
    for part, sizes in enumerate(figures["sizes"]):
        note = " (warm-up)" if part == WARM_UP else ""
        cells = [f"{sizes[name][what]:,.0f}" for name in sizes for what in GROWTH]
        table.add_row(f"{figures['requests'] * part // PARTS:,}{note}", *cells)
    console.print(table)


def main() -> int:
    """Runs the soak, prints a table, and writes JSON. Returns 1 if a requirement is not met."""
    parser = argparse.ArgumentParser(prog="bench.soak", description=__doc__)
    parser.add_argument("--database", choices=DATABASES, default="mariadb")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="how many requests to send")
    parser.add_argument("--short", action="store_true", help=f"send {SHORT:,} requests")
    parser.add_argument("--seed", type=int, default=1, help="the order of the kinds of requests")
    parser.add_argument("--json", type=Path, help="where to write the figures; default: soak-DATABASE.json")
    options = parser.parse_args()
    figures = measure(options.database, SHORT if options.short else options.requests, options.seed)
    failed = figures["failures"] = failures(figures)
    show(figures, Console(width=160))
    write(figures, options.json or Path(f"soak-{options.database}.json"))
    for sentence in failed:
        print(sentence, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
