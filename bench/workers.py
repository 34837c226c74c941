"""Benchmark of a Request Manager with workers, and what more cores would carry.

The database and the load share one core, so that they do not take turns with the servers. The servers run on
the other cores ("apart"), or on all cores ("together"). In each round, each number of workers runs alone, on
a new database and with new processes, and the order changes from round to round. There are at least four
connections for each worker.

The model of `bench.core_model` takes the CPU times of one request from the runs apart. The runs together show
how good it is. Then it says what 4, 16 and 64 cores would carry, and what is used up first.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from bench import measures
from bench.calibration import INSERTS, inserts_per_second
from bench.cluster import DATABASES, Cluster, running_cluster
from bench.core_model import Costs, median_costs, predict, rate_of, use_of
from bench.peers import LEAST_ROUNDS, in_turn, spread

CLIENTS = 64
WORKERS = (1, 2, 4)
PREDICTED = (4, 16, 64)
PLACES = ("apart", "together")

_COMMITS = "spincycle_commit_seconds_count"


@dataclass(frozen=True)
class Result:
    """What one number of workers did in one round at one place. Times are in seconds.

    Attributes:
        cores: The cores that servers and database had together.
        cpu: The CPU time of one request, by process.
        commits: Transactions for one request.
        p50: From createdAt to finishedAt.
        p99: Likewise.
    """

    workers: int
    place: str
    round: int
    cores: int
    rate: float
    cpu: dict[str, float]
    commits: float
    p50: float
    p99: float

    @property
    def costs(self) -> Costs:
        """What one request cost."""
        cpu = self.cpu
        return Costs(cpu["request manager"], cpu["job runner"], cpu["database"], self.commits)


def place_processes(cluster: Cluster, place: str) -> int:
    """Binds database and load to the first core, the servers to the others or to all. Returns how many."""
    cores = sorted(os.sched_getaffinity(cluster.manager.process.pid))
    _pin(os.getpid(), cores[:1])
    if cluster.database is not None:
        _pin(cluster.database.pid, cores[:1])
    for server in (cluster.manager, cluster.runner):
        _pin(server.process.pid, cores[1:] if place == "apart" else cores)
    return len(cores)


def _pin(pid: int, cores: Sequence[int]) -> None:
    """Binds a process, its threads and its descendants to some cores."""
    process = psutil.Process(pid)
    for one in [process, *process.children(recursive=True)]:
        for thread in one.threads():
            os.sched_setaffinity(thread.id, cores)


@contextmanager
def _on_all_cores() -> Iterator[None]:
    """Gives this process its cores back at the end, so that its next children have them too."""
    cores = os.sched_getaffinity(0)
    try:
        yield
    finally:
        _pin(os.getpid(), sorted(cores))


def _commits(cluster: Cluster) -> float:
    """Returns how many transactions the Request Manager has committed. Any worker shows those of all."""
    answer = httpx.get(f"http://{cluster.manager.http}/metrics", timeout=30)
    answer.raise_for_status()
    return sum(
        sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == _COMMITS
    )


def measure_one(
    database: str, workers: int, place: str, number: int, seconds: float, inserts: int
) -> tuple[Result, float]:
    """Measures a number of workers. Returns the figures, and the one-row inserts a second of the database."""
    with _on_all_cores(), running_cluster(database, server_workers=str(workers)) as cluster:
        cores = place_processes(cluster, place)
        measures.throughput(cluster, CLIENTS, max(1.0, seconds / 5))  # The first requests load code.
        before = _commits(cluster)
        found = measures.throughput(cluster, CLIENTS, seconds)
        commits = (_commits(cluster) - before) / found["requests"]
        calibrated = inserts_per_second(cluster, inserts)
    return Result(
        workers, place, number, cores, found["requests_a_second"], found["cpu_a_request"], commits,
        found["complete_p50"], found["complete_p99"],
    ), calibrated  # fmt: skip


def table_of(results: Sequence[Result]) -> Table:
    """Returns the table of what was measured: a row for each place and number of workers."""
    columns = ("servers", "workers", "requests/s", "of one worker", "COMPLETE p50", "p99", "commits/request")
    table = Table(*columns, "CPU per request", box=MARKDOWN)
    for place in PLACES:
        alone = {one.round: one.rate for one in results if (one.place, one.workers) == (place, WORKERS[0])}
        for workers in WORKERS:
            found = [one for one in results if (one.place, one.workers) == (place, workers)]
            cpu = [
                f"{part} {1e6 * statistics.median(one.cpu[part] for one in found):.0f}"
                for part in found[0].cpu
            ]
            table.add_row(
                place,
                str(workers),
                spread((one.rate for one in found), "{:,.0f}".format),
                spread((one.rate / alone[one.round] for one in found), "{:.2f}".format),
                spread((one.p50 * 1e3 for one in found), "{:,.0f}".format) + " ms",
                spread((one.p99 * 1e3 for one in found), "{:,.0f}".format) + " ms",
                f"{statistics.median(one.commits for one in found):.2f}",
                ", ".join(cpu) + " µs",
            )
    return table


def model_table(results: Sequence[Result], most_commits: float) -> Table:
    """Returns the table of what the model says of the runs together, and of more cores."""
    table = Table(
        "cores", "workers", "runners", "requests/s", "measured", "used up first", "shares", box=MARKDOWN
    )
    costs = {
        workers: median_costs(
            [one.costs for one in results if (one.place, one.workers) == ("apart", workers)]
        )
        for workers in WORKERS
    }
    together = [one for one in results if one.place == "together"]
    use = statistics.median(
        use_of(one.costs, one.cores, one.rate) for one in together if one.workers == WORKERS[-1]
    )
    for workers in WORKERS:
        found = [one for one in together if one.workers == workers]
        rate = rate_of(costs[workers], cores=found[0].cores, use=use, workers=workers, runners=1)
        measured = spread((one.rate for one in found), "{:,.0f}".format)
        table.add_row(str(found[0].cores), str(workers), "1", f"{rate:,.0f}", measured, "", "")
    for cores in PREDICTED:
        one = predict(costs[WORKERS[-1]], cores, use=use, most_commits=most_commits)
        shares = ", ".join(f"{part} {100 * share:.0f} %" for part, share in one.shares.items())
        table.add_row(
            str(cores), str(one.workers), str(one.runners), f"{one.rate:,.0f}", "", one.limit, shares
        )
    return table


def main() -> int:
    """Measures, prints tables, and writes JSON."""
    parser = argparse.ArgumentParser(prog="bench.workers", description=__doc__)
    parser.add_argument(
        "--database", choices=[one for one in DATABASES if one != "sqlite"], default="mariadb"
    )
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help=f"at least {LEAST_ROUNDS}")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each load lasts")
    parser.add_argument(
        "--short", action="store_true", help="one round of short loads, only to see that it works"
    )
    parser.add_argument(
        "--json", type=Path, default=Path("bench-workers.json"), help="where to write the figures"
    )
    options = parser.parse_args()
    if options.rounds < LEAST_ROUNDS:
        parser.error(f"fewer than {LEAST_ROUNDS} rounds say nothing about the spread")
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("this benchmark needs two cores: the database and the load take one of them")
    rounds, seconds = (1, 1.0) if options.short else (options.rounds, options.seconds)
    results, inserts = list[Result](), list[float]()
    kinds = [(place, workers) for place in PLACES for workers in WORKERS]
    for number in range(rounds):
        for place, workers in in_turn(kinds, number):
            found, calibrated = measure_one(
                options.database, workers, place, number, seconds, INSERTS // 10 if options.short else INSERTS
            )
            results.append(found)
            inserts.append(calibrated)
            print(
                f"round {number + 1}, {place}, {workers} workers: {found.rate:.0f} a second",
                file=sys.stderr,
                flush=True,
            )
    console = Console(width=250)
    console.print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end, {CLIENTS} clients")
    console.print(f"{spread(inserts, '{:,.0f}'.format)} one-row inserts a second on the core of the database")
    console.print(table_of(results))
    console.print(model_table(results, statistics.median(inserts)))
    figures = {"inserts": inserts, "results": [asdict(one) for one in results]}
    options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
