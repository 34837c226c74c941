"""Benchmark of a plain request: what it costs now, compared with an earlier commit.

The earlier commit gets a git worktree with an environment of its own. In each round, both programs run the
same number of requests on databases of one server, one program after the other, in alternating order and with
new processes. The figure is the CPU time of the Request Manager and the Job Runner over that of the database
server, because a machine that slows down slows both. A program that uses the database more has a better
ratio, so the CPU times per request are shown too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from bench.cluster import OWN, REPOSITORY, Program, private_database, running_program
from bench.measures import create_many
from bench.medians import median_of

if TYPE_CHECKING:
    from tests.databases import DatabaseServer

KINDS = ("mariadb", "postgresql")
"""With SQLite, the database has no process of its own."""

CLIENTS = 8

WARM_UP = 0.2
"""Requests before a measurement, as a share of the measured ones."""

LIMIT = 3.0
"""The share in percent by which a plain request may cost more."""


@dataclass(frozen=True)
class Cost:
    """The CPU time per request in microseconds."""

    manager: float
    runner: float
    database: float

    @property
    def servers(self) -> float:
        """The time of the Request Manager and the Job Runner."""
        return self.manager + self.runner

    @property
    def ratio(self) -> float:
        """The time of the servers over that of the database."""
        return self.servers / self.database


@contextlib.contextmanager
def earlier(commit: str) -> Iterator[Program]:
    """Checks out a commit and installs it as its Makefile says. Removes it at the end."""
    with tempfile.TemporaryDirectory(prefix="spincycle-base-") as parent:
        directory = Path(parent) / "base"
        _git("worktree", "add", "--quiet", "--detach", str(directory), commit)
        try:
            print(f"installing {commit} ...", file=sys.stderr, flush=True)
            subprocess.run(
                ["make", "--silent", f"PYTHON={sys.executable}", ".venv/run.stamp"], cwd=directory, check=True
            )
            yield Program(directory, directory / ".venv" / "bin" / "python")
        finally:
            _git("worktree", "remove", "--force", str(directory))


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=REPOSITORY, check=True)


def cost(
    program: Program, server: DatabaseServer, kind: str, request_type: str, requests: int, clients: int
) -> Cost:
    """Returns what requests cost in a new installation."""
    with running_program(kind, program, server, {}) as cluster:
        create_many(cluster, clients, int(requests * WARM_UP), request_type)
        before = cluster.cpu_seconds()
        create_many(cluster, clients, requests, request_type)
        used = {name: seconds / requests for name, seconds in cluster.cpu_since(before).items()}
    return Cost(*(1e6 * used[name] for name in ("request manager", "job runner", "database")))


def measure(
    base: Program, kind: str, request_type: str, rounds: int, requests: int, clients: int
) -> list[tuple[Cost, Cost]]:
    """Returns the costs of the earlier program and of this one, for each round."""
    found = []
    with private_database(kind) as server:
        for number in range(rounds):
            programs = [base, OWN] if number % 2 else [OWN, base]
            costs = {one: cost(one, server, kind, request_type, requests, clients) for one in programs}
            found.append((costs[base], costs[OWN]))
            print(f"round {number + 1} of {rounds}: {change(*found[-1]):+.1f} %", file=sys.stderr, flush=True)
    return found


def change(before: Cost, now: Cost) -> float:
    """Returns by how many percent the ratio has grown."""
    return 100 * (now.ratio / before.ratio - 1)


def show(found: list[tuple[Cost, Cost]], console: Console) -> bool:
    """Prints the medians of the rounds. Returns whether the interval excludes a growth over the limit."""
    table = Table("CPU time per request", "before", "now", "change", "interval of the median", box=MARKDOWN)
    columns = (
        ("servers over database", "{:.3f}", attrgetter("ratio")),
        ("servers", "{:.0f} µs", attrgetter("servers")),
        ("Request Manager", "{:.0f} µs", attrgetter("manager")),
        ("Job Runner", "{:.0f} µs", attrgetter("runner")),
        ("database", "{:.0f} µs", attrgetter("database")),
    )
    is_excluded = False
    for name, form, figure in columns:
        before, now = ([figure(pair[side]) for pair in found] for side in (0, 1))
        median = median_of([100 * (new / old - 1) for old, new in zip(before, now, strict=True)])
        if name == columns[0][0]:
            is_excluded = median.high <= LIMIT
        table.add_row(
            name,
            form.format(median_of(before).value),
            form.format(median_of(now).value),
            f"{median.value:+.1f} %",
            f"{median.low:+.1f} to {median.high:+.1f} % ({100 * median.confidence:.0f} %)",
        )
    console.print(table)
    verdict = "excludes" if is_excluded else "does not exclude"
    console.print(f"The interval {verdict} a growth of the ratio by more than {LIMIT:g} %.")
    return is_excluded


def main() -> int:
    """Measures, prints a table, and exits with 1 if the interval does not exclude a growth over the limit."""
    parser = argparse.ArgumentParser(prog="bench.plain", description=__doc__)
    parser.add_argument("--base", required=True, metavar="COMMIT", help="the earlier commit")
    parser.add_argument("--database", choices=KINDS, default="mariadb")
    parser.add_argument("--type", default="one-effect", help="the type of request, in bench/data/specs")
    parser.add_argument("--clients", type=int, default=CLIENTS, help="clients that create requests at once")
    parser.add_argument("--rounds", type=int, default=10, help="at least 6")
    parser.add_argument("--requests", type=int, default=5000, help="requests in each measurement")
    parser.add_argument("--json", type=Path, help="where to write the results of each round")
    options = parser.parse_args()
    if options.rounds < 6:
        parser.error("fewer than 6 rounds say nothing about the median")
    with earlier(options.base) as base:
        found = measure(
            base, options.database, options.type, options.rounds, options.requests, options.clients
        )
    if options.json:
        results = [{"before": asdict(before), "now": asdict(now)} for before, now in found]
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if show(found, Console(width=160)) else 1


if __name__ == "__main__":
    sys.exit(main())
