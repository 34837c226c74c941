"""Benchmark of other systems beside this one: DBOS and Prefect, which do the same work in the same run.

Clients run workflows of three steps, one after the other. Each client creates a workflow, waits until it is
complete, and creates the next one. All systems use one PostgreSQL server with durable commits. In each round,
each system runs alone, on a new database and with new processes, and the order changes from round to round.
The table shows medians of the rounds with the lowest and the highest value, and each system's rate over that
of this project in the same round. CPU times are medians. One-row inserts before each round show how fast the
database was.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from bench.calibration import INSERTS, postgresql_inserts
from bench.cluster import private_database
from bench.http_load import percentile
from bench.peer_systems import PYTHON, Dbos, Measured, Prefect, SpinCycle, System

if TYPE_CHECKING:
    from tests.databases import DatabaseServer

CLIENTS = (1, 16, 64)

SYSTEMS: tuple[System, ...] = (
    SpinCycle("Spin Cycle, noop jobs", "three-jobs"),
    SpinCycle("Spin Cycle, jobs with effects", "three-effects"),
    Dbos(),
    Prefect(),
)
"""The first one is what the others are compared with."""

LEAST_ROUNDS = 3

_Measured = TypeVar("_Measured")


@dataclass(frozen=True)
class Result:
    """What one system did in one round with some number of clients. Times are in seconds."""

    system: str
    clients: int
    round: int
    workflows: int
    rate: float
    p50: float
    p99: float
    cpu: dict[str, float]


def result_of(system: str, clients: int, number: int, measured: Measured) -> Result:
    """Returns the figures of a measurement. The CPU time is that of one workflow."""
    workflows = len(measured.took)
    return Result(
        system=system,
        clients=clients,
        round=number,
        workflows=workflows,
        rate=workflows / measured.wall,
        p50=percentile(measured.took, 0.5),
        p99=percentile(measured.took, 0.99),
        cpu={part: seconds / workflows for part, seconds in measured.cpu.items()},
    )


def in_turn(measured: Sequence[_Measured], number: int) -> list[_Measured]:
    """Returns what is measured in the order of a round: each is first in turn."""
    first = number % len(measured)
    return [*measured[first:], *measured[:first]]


def measure_round(server: DatabaseServer, number: int, seconds: float) -> list[Result]:
    """Runs each system with each number of clients."""
    results = []
    for system in in_turn(SYSTEMS, number):
        with system.running(server) as running:
            running.measure(CLIENTS[1], seconds / 5)  # The first workflows load code and open connections.
            for clients in CLIENTS:
                found = result_of(system.name, clients, number, running.measure(clients, seconds))
                results.append(found)
                print(f"round {number + 1}, {system.name}, {clients} clients: {found.rate:.1f} a second",
                      file=sys.stderr, flush=True)  # fmt: skip
    return results


def spread(values: Iterable[float], text: Callable[[float], str]) -> str:
    """Returns the median with the lowest and the highest value, such as "12 (10 to 15)"."""
    ordered = sorted(values)
    return f"{text(statistics.median(ordered))} ({text(ordered[0])} to {text(ordered[-1])})"


def table_of(results: Sequence[Result]) -> Table:
    """Returns the table of all rounds: a row for each system and number of clients."""
    columns = ("clients", "system", "workflows/s", "of the first", "p50", "p99", "CPU per workflow")
    table = Table(*columns, box=MARKDOWN)
    names = list(dict.fromkeys(system.name for system in SYSTEMS))
    for clients in dict.fromkeys(result.clients for result in results):
        first = {one.round: one.rate for one in results if (one.system, one.clients) == (names[0], clients)}
        for name in names:
            found = [one for one in results if (one.system, one.clients) == (name, clients)]
            cpu = [
                f"{part} {1e3 * statistics.median(one.cpu[part] for one in found):.2f}"
                for part in found[0].cpu
            ]
            table.add_row(
                str(clients),
                name,
                spread((one.rate for one in found), "{:,.1f}".format),
                spread((one.rate / first[one.round] for one in found), "{:.3f}".format),
                spread((one.p50 * 1e3 for one in found), "{:,.1f}".format) + " ms",
                spread((one.p99 * 1e3 for one in found), "{:,.1f}".format) + " ms",
                ", ".join(cpu) + " ms",
            )
    return table


def main() -> int:
    """Measures, prints the versions and a table, and writes JSON."""
    parser = argparse.ArgumentParser(prog="bench.peers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help=f"at least {LEAST_ROUNDS}")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each load lasts")
    parser.add_argument(
        "--short", action="store_true", help="one round of short loads, only to see that it works"
    )
    parser.add_argument(
        "--json", type=Path, default=Path("bench-peers.json"), help="where to write the figures"
    )
    options = parser.parse_args()
    if not PYTHON.exists():
        parser.error("the other systems are not installed: run make bench-peers")
    if options.rounds < LEAST_ROUNDS:
        parser.error(f"fewer than {LEAST_ROUNDS} rounds say nothing about the spread")
    rounds, seconds = (1, 1.0) if options.short else (options.rounds, options.seconds)
    versions = {system.name: system.version() for system in SYSTEMS}
    inserts, results = [], list[Result]()
    with private_database("postgresql") as server:
        for number in range(rounds):
            inserts.append(postgresql_inserts(server, INSERTS // 10 if options.short else INSERTS))
            results += measure_round(server, number, seconds)
    console = Console(width=250)
    console.print(", ".join(f"{name}: {version}" for name, version in versions.items()))
    console.print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end")
    console.print(f"{spread(inserts, '{:,.0f}'.format)} one-row inserts a second over 16 connections")
    console.print(table_of(results))
    figures = {"versions": versions, "inserts": inserts, "results": [asdict(one) for one in results]}
    options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
