"""Benchmark of API tokens: the CPU time of a Request Manager per call, with and without tokens.

Each client calls an installation without authentication and one with tokens in turn, so that a busy machine
slows both down alike. Two servers with equal settings differ by 1 or 2 % for as long as they run, so new
ones are started after every other run, in alternating order. Reads have no audit log, so they show the cost
of the token alone. Creates with tokens also write the audit log.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from sqlalchemy import insert

from bench.cluster import DATABASES, Cluster, running_cluster
from bench.http_load import connect, request_bytes
from bench.measures import PATH, wait_ended
from spincycle_server.database.engine import make_engine, parse_url
from spincycle_server.store import DatabaseOptions
from spincycle_server.store.schema import api_tokens
from spincycle_server.token_text import hash_token, new_token

TOKENS = 5000
"""The number of valid tokens in the database."""

CLIENTS = 8

RUNS = 2
"""How many runs of each kind use the same two installations."""

WARM_UP = 1.0


@dataclass
class Target:
    """An installation, and what its callers send."""

    cluster: Cluster
    token: str

    def call(self, kind: str) -> bytes:
        """Returns the bytes of a call: "read" lists one request, "create" creates one."""
        host = self.cluster.manager.http
        data = (
            request_bytes("GET", f"{PATH}?limit=1", host)
            if kind == "read"
            else request_bytes("POST", PATH, host, json.dumps({"type": "three-jobs"}).encode())
        )
        if not self.token:
            return data
        return data.replace(b"\r\n", f"\r\nAuthorization: Bearer {self.token}\r\n".encode(), 1)


async def _call_in_turn(targets: Sequence[Target], kind: str, seconds: float) -> int:
    """Runs clients that call each installation in turn. Returns how often they called each."""
    rounds, end = 0, time.perf_counter() + seconds
    data = [target.call(kind) for target in targets]

    async def client() -> None:
        nonlocal rounds
        connections = [await connect(target.cluster.manager.http) for target in targets]
        while time.perf_counter() < end:
            for connection, request in zip(connections, data, strict=True):
                status, _, _ = await connection.send(request)
                if status not in (200, 201):
                    raise RuntimeError(f"a call failed with status {status}")
            rounds += 1
        for connection in connections:
            connection.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return rounds


def _run(plain: Target, tokens: Target, kind: str, seconds: float) -> tuple[float, float]:
    """Returns the CPU time per call in microseconds, without and with tokens."""
    targets = (plain, tokens)
    processes = [target.cluster.manager.process.pid for target in targets]
    before = [_cpu_seconds(process) for process in processes]
    calls = uvloop.run(_call_in_turn(targets, kind, seconds))
    if kind == "create":
        for target in targets:
            wait_ended(target.cluster, target.token)
    used = [_cpu_seconds(process) - start for process, start in zip(processes, before, strict=True)]
    return used[0] / calls * 1e6, used[1] / calls * 1e6


def _cpu_seconds(pid: int) -> float:
    """Returns the CPU time of a process, from the scheduler: other counters have steps of 10 ms."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


@contextlib.contextmanager
def _target(database: str, *, with_tokens: bool) -> Iterator[Target]:
    with tempfile.NamedTemporaryFile("w", suffix=".key") as key:
        key.write(os.urandom(32).hex())
        key.flush()
        options = {"cluster_key_file": key.name}
        if with_tokens:
            options["auth_methods"] = "token"
        with running_cluster(database, **options) as cluster:
            yield Target(cluster, _add_tokens(cluster.url) if with_tokens else "")


def _add_tokens(url: str) -> str:
    """Adds tokens to a database. Returns one of them."""
    tokens = [new_token() for _ in range(TOKENS)]
    rows = [
        {
            "name": f"caller-{number}",
            "active_name": f"caller-{number}",
            "token_hash": hash_token(token),
            "roles": '["ops"]',
            "created_at": 1,
        }
        for number, token in enumerate(tokens)
    ]
    engine = make_engine(parse_url(url), DatabaseOptions(), connections=1, reads=False)
    with engine.begin() as connection:
        connection.execute(insert(api_tokens), rows)
    engine.dispose()
    return tokens[0]


def measure(database: str, rounds: int, seconds: float) -> dict[str, list[tuple[float, float]]]:
    """Returns the CPU time per call in microseconds, without and with tokens, for each kind and round."""
    found: dict[str, list[tuple[float, float]]] = {"read": [], "create": []}
    for pair in range(rounds // RUNS):
        first = bool(pair % 2)  # whether the first installation is the one with tokens
        with _target(database, with_tokens=first) as one, _target(database, with_tokens=not first) as other:
            plain, tokens = (other, one) if first else (one, other)
            for kind, results in found.items():
                _run(plain, tokens, kind, WARM_UP)
                for _ in range(RUNS):
                    results.append(_run(plain, tokens, kind, seconds))
                    print(f"{kind} {len(results)} of {rounds} ...", file=sys.stderr, flush=True)
    return found


def show(found: dict[str, list[tuple[float, float]]], console: Console) -> None:
    """Prints the medians, and the median and spread of the differences."""
    table = Table("call", "without", "with tokens", "difference", "spread", box=MARKDOWN)
    for kind, results in found.items():
        plain, tokens = zip(*results, strict=True)
        shares = [100 * (after - before) / before for before, after in results]
        low, _, high = statistics.quantiles(shares, n=4, method="inclusive")
        table.add_row(
            kind,
            f"{statistics.median(plain):.0f} µs",
            f"{statistics.median(tokens):.0f} µs",
            f"{statistics.median(shares):+.1f} %",
            f"{low:+.1f} to {high:+.1f} % (quartiles), {min(shares):+.1f} to {max(shares):+.1f} %",
        )
    console.print(table)


def main() -> int:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(prog="bench.tokens", description=__doc__)
    parser.add_argument("--database", choices=DATABASES, default="sqlite")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each run lasts")
    parser.add_argument("--json", type=Path, help="where to write the results of each round")
    options = parser.parse_args()
    found = measure(options.database, options.rounds, options.seconds)
    show(found, Console(width=160))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
