"""Benchmark of the whole system: a Request Manager and a Job Runner on a private database, under load.

Everything runs on this machine, including the load. A calibration in the same run measures the database,
so that ratios can be compared across machines. See docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from bench import client_calls, measures
from bench.calibration import INSERTS, inserts_per_second
from bench.cluster import DATABASES, Cluster, running_cluster
from spincycle_server.python_build import python_build

Figures = dict[str, Any]

CLIENTS = (1, 16, 64)
FLEETS = (500, 2000, 10_000)


def measure(database: str, *, seconds: float, short: bool) -> Figures:
    """Returns all figures for a database.

    Args:
        database: One of DATABASES.
        seconds: How long each load lasts.
        short: Whether to skip the measures that take minutes.
    """
    figures: Figures = {"database": database, "machine": machine(), "time": int(time.time())}
    with running_cluster(database) as cluster:
        calibrations = [_calibrated(cluster)]
        measures.throughput(cluster, 16, 2.0)  # Warm up, so that one-time costs are not measured.
        figures["throughput"] = [_throughput(cluster, clients, seconds) for clients in CLIENTS]
        calibrations.append(_calibrated(cluster))
        figures["calibrations"] = calibrations
        figures["inserts_a_second"] = statistics.mean(rate for rate, _ in calibrations)
        figures["cpu_an_insert"] = statistics.mean(cpu for _, cpu in calibrations)
        for one in figures["throughput"]:
            one["requests_for_each_insert"] = one["requests_a_second"] / figures["inserts_a_second"]
            one["inserts_of_cpu"] = _inserts_of_cpu(one, figures["cpu_an_insert"])
        figures["one_effect"] = [
            _throughput(cluster, clients, seconds, "one-effect") for clients in CLIENTS[1:]
        ]
        figures["alone"] = _said("one request alone", lambda: measures.one_alone(cluster, 300))
        figures["grpc"] = _said("gRPC, 16 clients", lambda: measures.grpc_throughput(cluster, 16, seconds))
        figures["calls"] = [
            _said("idempotency keys", lambda: client_calls.with_keys(cluster, 16, seconds)),
            _said("GETs", lambda: client_calls.looks(cluster, 16, seconds)),
            *(_waits(cluster, clients, seconds) for clients in CLIENTS),
        ]
        figures["get"] = _said("GET under load", lambda: measures.get_under_load(cluster, 16, seconds))
        figures["fleets"] = [_fleet(cluster, "fleet", hosts) for hosts in FLEETS]
        figures["fleets"] += [_fleet(cluster, "fleet-by-two", hosts) for hosts in (500,)]
    with running_cluster(database) as cluster:
        figures["sleepers"] = _said("sleepers", lambda: measures.sleepers(cluster, 5000, 15_000))
    if not short:
        with running_cluster(database) as cluster:
            figures["endurance"] = _said("100,000 requests", lambda: measures.memory_over(cluster, 100_000))
    return figures


def _throughput(cluster: Cluster, clients: int, seconds: float, request_type: str = "three-jobs") -> Figures:
    figures: Figures = _said(
        f"{request_type}, {clients} clients",
        lambda: measures.throughput(cluster, clients, seconds, request_type),
    )
    return figures


def _waits(cluster: Cluster, clients: int, seconds: float) -> Figures:
    figures: Figures = _said(
        f"waits, {clients} clients", lambda: client_calls.waits(cluster, clients, seconds)
    )
    return figures


def _calibrated(cluster: Cluster) -> tuple[float, float]:
    """Returns how many inserts the database does in a second, and its CPU time for one; 0 for SQLite."""
    before = cluster.cpu_seconds().get("database", 0.0)
    rate: float = _said("calibration", lambda: inserts_per_second(cluster))
    return rate, (cluster.cpu_seconds().get("database", 0.0) - before) / INSERTS


def _inserts_of_cpu(figures: Figures, cpu_an_insert: float) -> float | None:
    """Returns how many inserts take as much CPU time of the database as a request; None for SQLite."""
    used = figures["cpu_a_request"].get("database")
    return None if used is None else used / cpu_an_insert


def _fleet(cluster: Cluster, request_type: str, hosts: int) -> Figures:
    """Measures two requests in a row. The table shows the second, and the JSON figures have both."""
    runs = [
        _said(f"{request_type}, {hosts} hosts", lambda: measures.fleet(cluster, request_type, hosts))
        for _ in range(2)
    ]
    return {**runs[-1], "runs": [[one["create"], one["run"]] for one in runs]}


def _said(what: str, work: Callable[[], Any]) -> Any:
    print(f"{what} ...", file=sys.stderr, flush=True)
    return work()


def machine() -> str:
    """Returns a description of this machine."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else "unknown processor"
    system = f"{platform.system()} {platform.release()}, Python {python_build()}"
    return f"{os.cpu_count()} cores, {model}, {system}"


def show(figures: Figures, console: Console) -> None:
    """Prints the figures as tables."""
    console.print(f"{figures['database']} on {figures['machine']}")
    console.print(
        f"calibration: {figures['inserts_a_second']:,.0f} one-row inserts a second over 16 connections, "
        f"{figures['cpu_an_insert'] * 1e6:.0f} µs of CPU time of the database each"
    )
    console.print(_throughput_table(figures))
    console.print(_other_table(figures))


def _throughput_table(figures: Figures) -> Table:
    columns = (
        "clients",
        "requests/s",
        "per insert",
        "create p50",
        "p99",
        "COMPLETE p50",
        "p99",
        "CPU per request",
        "database in inserts",
    )
    table = Table(*columns, box=MARKDOWN)
    for one in figures["throughput"]:
        cpu = ", ".join(f"{name} {seconds * 1e6:.0f}" for name, seconds in one["cpu_a_request"].items())
        table.add_row(
            str(one["clients"]),
            f"{one['requests_a_second']:,.0f}",
            f"{one['requests_for_each_insert']:.3f}",
            *(
                f"{one[name] * 1e3:.1f} ms"
                for name in ("create_p50", "create_p99", "complete_p50", "complete_p99")
            ),
            f"{cpu} µs",  # microseconds of one core
            "" if one["inserts_of_cpu"] is None else f"{one['inserts_of_cpu']:.1f}",
        )
    return table


def _other_table(figures: Figures) -> Table:
    table = Table("what", "figures", box=MARKDOWN)
    alone, grpc, get = figures["alone"], figures["grpc"], figures["get"]
    table.add_row(
        "one request alone",
        f"create p50 {alone['create_p50'] * 1e3:.1f} ms, "
        f"seen COMPLETE p50 {alone['complete_p50'] * 1e3:.1f} ms",
    )
    for one in figures["one_effect"]:
        table.add_row(
            f"{one['clients']} clients, one job with an effect",
            f"{one['requests_a_second']:,.0f} requests/s, create p50 {one['create_p50'] * 1e3:.1f} ms, "
            f"COMPLETE p50 {one['complete_p50'] * 1e3:.1f} ms",
        )
    table.add_row(
        "gRPC, 16 clients",
        f"{grpc['requests_a_second']:,.0f} requests/s, p50 {grpc['create_p50'] * 1e3:.1f} ms",
    )
    for one in figures["calls"]:
        cpu = ", ".join(f"{name} {seconds * 1e6:.0f}" for name, seconds in one["cpu_a_call"].items())
        table.add_row(
            f"{one['what']}, {one['clients']} clients",
            f"{one['calls_a_second']:,.0f} a second, p50 {one['p50'] * 1e3:.1f} ms, "
            f"p99 {one['p99'] * 1e3:.1f} ms; {cpu} µs",
        )
    table.add_row(
        "GET of a request, 16 clients creating",
        f"p50 {get['get_p50'] * 1e3:.1f} ms, p99 {get['get_p99'] * 1e3:.1f} ms",
    )
    for one in figures["fleets"]:
        table.add_row(
            f"{one['type']}, {one['hosts']:,} hosts, {one['jobs']:,} jobs",
            f"create {one['create']:.2f} s, run {one['run']:.2f} s, {one['microseconds_a_job']:.0f} µs a job",
        )
    sleepers = figures["sleepers"]
    table.add_row(
        f"{sleepers['running_at_once']:,} jobs asleep at once",
        f"{_memory(sleepers['memory'])}, runner answers in p50 {sleepers['answer_p50'] * 1e3:.1f} ms, "
        f"p99 {sleepers['answer_p99'] * 1e3:.1f} ms; while they start and end at most "
        f"{sleepers['answer_max'] * 1e3:.0f} ms",
    )
    if "endurance" in figures:
        endurance = figures["endurance"]
        table.add_row(
            f"memory over {endurance['requests']:,} requests",
            f"after a fifth {_memory(endurance['memory_after_a_fifth'])}; "
            f"after all {_memory(endurance['memory'])}",
        )
    return table


def _memory(held: dict[str, int]) -> str:
    return ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in held.items())


def write(figures: Figures, path: Path) -> None:
    """Writes figures as JSON."""
    path.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"wrote the figures to {path}", file=sys.stderr)


def main() -> int:
    """Measures, prints tables, and writes JSON."""
    parser = argparse.ArgumentParser(prog="bench.system", description=__doc__)
    parser.add_argument("--database", choices=DATABASES, default="mariadb")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each load lasts")
    parser.add_argument("--short", action="store_true", help="skip the measures that take minutes")
    parser.add_argument("--json", type=Path, help="where to write the figures; default: bench-DATABASE.json")
    options = parser.parse_args()
    figures = measure(options.database, seconds=options.seconds, short=options.short)
    show(figures, Console(width=200))
    write(figures, options.json or Path(f"bench-{options.database}.json"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
