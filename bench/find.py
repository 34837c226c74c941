"""Measures finds of a page of fifty requests in a small and in a large table, and the cost of indexes.

The database server is private (SQLite uses a temporary file). Times are medians of interleaved finds with
the store's own code, including the connection and the messages. Inserts create and finish requests with two
args each, fifty in a transaction.

    python -m bench.find --database mariadb --large 1000000
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import insert, text
from sqlalchemy.engine import Connection, Engine

from bench.cluster import private_database
from spincycle_grpc.state import State
from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_server.database.engine import make_engine, parse_url
from spincycle_server.database.transaction import Transaction
from spincycle_server.request_ids import RequestIdGenerator
from spincycle_server.store import DatabaseOptions, migrations
from spincycle_server.store.creation import CreateRequest
from spincycle_server.store.finding import find_requests
from spincycle_server.store.rows import set_microseconds
from spincycle_server.store.schema import request_args, requests
from spincycle_server.store.states import Finish
from tests.databases import DATABASES

PAGE = 50
CHUNK = 5_000
NEWEST = 1_790_000_000_000_000
SPAN = 100 * 86_400_000_000
"""Microseconds between the oldest and the newest request."""

UNFINISHED = 30
HOST_REQUESTS = 10
USERS = 20
RATIO = 3.0
"""How much longer a find may take in the large table. A lower limit would measure noise."""

NEW_INDEXES = {"requests_type": "requests", "requests_user": "requests"}
INSERTED = 5_000
BATCH = 50


def time_of(index: int, count: int) -> int:
    """Returns the creation time of a request by its index, in microseconds. The newest comes last."""
    return NEWEST - SPAN + SPAN * (index + 1) // count


def rows_of(count: int) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yields a row of `requests` and its rows of `request_args`, oldest first.

    Half of the requests have the type "nap" and never fail, and one in a thousand is "rare". The newest few
    are unfinished. Nine in ten have env=prod, and groups of ten share a host.
    """
    chance = random.Random(1)
    ids = RequestIdGenerator()
    for index in range(count):
        created_at = time_of(index, count)
        number = chance.random()
        kind = "rare" if index % 1000 == 7 else "nap" if number < 0.5 else f"type-{chance.randrange(10)}"
        state = State.COMPLETE if kind == "nap" or chance.random() < 0.9 else State.FAIL
        finished_at: int | None = created_at + chance.randrange(1_000_000, 600_000_000)
        if index >= count - UNFINISHED:
            state, finished_at = (State.RUNNING if index % 3 else State.PENDING), None
        request_id = ids.next()
        request = {
            "request_id": request_id,
            "type": kind,
            "state": state,
            "user": f"user-{chance.randrange(USERS)}",
            "created_at": created_at,
            "started_at": created_at,
            "finished_at": finished_at,
            "total_jobs": 3,
            "finished_jobs": 3,
            "jr_url": None,
            "epoch": 1,
            "runner_id": "runner",
        }
        args = {
            "env": "test" if index % 10 == 0 else "prod",
            "host": f"host-{index % max(1, count // HOST_REQUESTS)}",
        }
        yield (
            request,
            [
                {"request_id": request_id, "name": name, "value": value, "created_at": created_at}
                for name, value in args.items()
            ],
        )


def fill(engine: Engine, count: int) -> float:
    """Stores requests and returns the seconds that this took."""
    began = time.monotonic()
    source = rows_of(count)
    for _ in range(0, count, CHUNK):
        chunk = [row for row, _ in zip(source, range(CHUNK), strict=False)]
        with engine.begin() as connection:
            connection.execute(insert(requests), [request for request, _ in chunk])
            connection.execute(insert(request_args), [arg for _, args in chunk for arg in args])
    with engine.begin() as connection:
        # PostgreSQL would do this later by itself. Servers never analyze SQLite, so the benchmark does not.
        for statement in {
            "postgresql": ["ANALYZE"],
            "mysql": ["ANALYZE TABLE requests", "ANALYZE TABLE request_args"],
        }.get(connection.dialect.name, []):
            connection.execute(text(statement))
    return time.monotonic() - began


def filters(count: int) -> dict[str, RequestFilter]:
    """Returns the finds by name, for a table with `count` requests."""

    def at(name: str, index: int, **fields: Any) -> RequestFilter:
        wanted = RequestFilter(limit=PAGE, **fields)
        set_microseconds(getattr(wanted, name), time_of(index, count))
        return wanted

    middle, newest = count // 2, count - 21
    window = at("since", middle, type="")
    set_microseconds(window.until, time_of(middle + 200, count))
    states: Any = {"failed": [State.FAIL], "over": [State.FAIL, State.STOPPED], "runs": [State.RUNNING]}
    fields: dict[str, dict[str, Any]] = {
        "all": {},
        "type, common": {"type": "nap"},
        "type, rare": {"type": "rare"},
        "state, common": {"states": [State.COMPLETE]},
        "state, rare": {"states": states["runs"]},
        "two states": {"states": states["over"]},
        "user": {"user": "user-7"},
        "arg, many matches": {"args": ["env=prod"]},
        "arg, few matches": {"args": ["host=host-3"]},
        "arg, no match": {"args": ["host=nosuch"]},
        "args, many and few": {"args": ["env=prod", "host=host-3"]},
        "type and state": {"type": "type-3", "states": states["failed"]},
        "type and state, none": {"type": "nap", "states": states["failed"]},
        "user and state": {"user": "user-7", "states": states["failed"]},
        "type and user": {"type": "nap", "user": "user-7"},
        "type, user and state": {"type": "nap", "user": "user-7", "states": [State.COMPLETE]},
        "arg and type": {"args": ["env=prod"], "type": "nap"},
        "arg and rare type": {"args": ["env=prod"], "type": "rare"},
        "arg and rare state": {"args": ["env=prod"], "states": states["runs"]},
        "few args and state": {"args": ["host=host-3"], "states": [State.COMPLETE]},
        "offset 200": {"offset": 200},
        "type, offset 200": {"type": "nap", "offset": 200},
    }
    return {
        **{name: RequestFilter(limit=PAGE, **given) for name, given in fields.items()},
        "since, recent": at("since", newest),
        "since, long ago": at("since", middle),
        "since, ahead": at("since", count + count // 10),
        "until": at("until", middle),
        "since and until": window,
        "since and type": at("since", middle, type="nap"),
        "since and state": at("since", middle, states=states["failed"]),
        "since, recent, and type": at("since", newest, type="nap"),
        "until and user": at("until", middle, user="user-7"),
    }


def measured(connections: dict[int, Connection], rounds: int) -> list[dict[str, Any]]:
    """Returns a row for each find: milliseconds by table size, and their ratio."""
    sizes = sorted(connections)
    finds = {size: filters(size) for size in sizes}
    rows = []
    for name in finds[sizes[0]]:
        times: dict[int, list[float]] = {size: [] for size in sizes}
        found: dict[int, int] = {}
        for number in range(rounds + 3):
            for size in sizes:
                began = time.perf_counter()
                found[size] = len(find_requests(connections[size], finds[size][name]))
                if number >= 3:
                    times[size].append(time.perf_counter() - began)
        medians = {size: statistics.median(times[size]) * 1000 for size in sizes}
        rows.append(
            {
                "find": name,
                "milliseconds": medians,
                "found": found,
                "ratio": medians[sizes[-1]] / medians[sizes[0]],
            }
        )
    return rows


def insert_cost(engine: Engine) -> float:
    """Returns the microseconds to create and finish one request, in transactions of BATCH requests."""
    ids = RequestIdGenerator()
    chance = random.Random(2)
    began = time.monotonic()
    for _ in range(0, INSERTED, BATCH):
        now = time.time_ns() // 1000
        creates, finishes = [], []
        for _ in range(BATCH):
            request_id = ids.next()
            request = {
                "request_id": request_id, "type": f"type-{chance.randrange(10)}", "state": State.RUNNING,
                "user": f"user-{chance.randrange(USERS)}", "created_at": now, "started_at": now,
                "finished_at": None, "total_jobs": 3, "finished_jobs": 0, "jr_url": None, "epoch": 1,
                "runner_id": "runner", "stop_requested": False,
            }  # fmt: skip
            args = [
                {"request_id": request_id, "name": name, "value": f"{name}-{chance.randrange(1000)}",
                 "created_at": now}
                for name in ("env", "host")
            ]  # fmt: skip
            archive = {"request_id": request_id, "create_request": b"{}", "args": b"[]", "job_chain": b"{}"}
            creates.append(CreateRequest(request, archive, args))
            finishes.append(Finish(request_id, State.COMPLETE, now + 1, 3))
        steps: list[tuple[Any, list[Any]]] = [(CreateRequest, creates), (Finish, finishes)]
        for kind, writes in steps:
            with engine.connect() as connection:
                connection.begin()
                transaction = Transaction(connection)
                kind.apply_all(transaction, writes)
                transaction.commit()
    return (time.monotonic() - began) / INSERTED * 1e6


def insert_costs(engine: Engine) -> dict[str, float]:
    """Returns the microseconds for one request with and without the indexes of finds, the best of three."""
    best = {"with": float("inf"), "without": float("inf")}
    indexes = [index for index in requests.indexes if index.name in NEW_INDEXES]
    for _ in range(3):
        best["with"] = min(best["with"], insert_cost(engine))
        with engine.begin() as connection:
            for index in indexes:
                index.drop(connection)
        best["without"] = min(best["without"], insert_cost(engine))
        with engine.begin() as connection:
            for index in indexes:
                index.create(connection)
    return best


@contextlib.contextmanager
def databases(kind: str) -> Iterator[Any]:
    """Yields a function that makes an empty, migrated database and returns engines for writes and reads."""
    with contextlib.ExitStack() as stack:
        if kind == "sqlite":
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="spincycle-find-"))
            urls = (f"sqlite:///{directory}/{number}.db" for number in range(10))
        else:
            server = stack.enter_context(private_database(kind))
            urls = (server.fresh_database() for _ in range(10))

        def make() -> tuple[Engine, Engine]:
            options, url = DatabaseOptions(timeout=600.0), parse_url(next(urls))
            writes, reads = (make_engine(url, options, connections=1, reads=only) for only in (False, True))
            stack.callback(writes.dispose)
            stack.callback(reads.dispose)
            with writes.begin() as connection:
                migrations.upgrade(connection)
            return writes, reads.execution_options(readonly=True)

        yield make


def run(kind: str, sizes: list[int], rounds: int) -> dict[str, Any]:
    """Fills the tables, measures, and returns all results."""
    with databases(kind) as make, contextlib.ExitStack() as stack:
        engines = {size: make() for size in sizes}
        filled = {size: fill(writes, size) for size, (writes, _) in engines.items()}
        connections = {size: stack.enter_context(reads.connect()) for size, (_, reads) in engines.items()}
        finds = measured(connections, rounds)
        return {
            "database": kind,
            "sizes": sizes,
            "seconds_to_fill": filled,
            "finds": finds,
            "microseconds_a_request": insert_costs(make()[0]),
        }


def print_table(results: dict[str, Any]) -> None:
    """Prints the results as a table."""
    small, large = results["sizes"]
    print(f"{results['database']}: milliseconds of a page of {PAGE}, median")
    print(f"{'':26}{f'of {small:,}':>13}{f'of {large:,}':>14}{'ratio':>8}{'found':>11}")
    for row in results["finds"]:
        times, found = row["milliseconds"], row["found"]
        print(
            f"{row['find']:26}{times[small]:13.2f}{times[large]:14.2f}{row['ratio']:8.2f}"
            f"{found[small]:>7}{found[large]:>4}"
        )
    costs = results["microseconds_a_request"]
    print(
        f"create and finish of a request, {BATCH} in a transaction: {costs['with']:.0f} us with the indexes "
        f"{', '.join(NEW_INDEXES)}, {costs['without']:.0f} us without"
    )


def main() -> int:
    """Measures and prints a table. Returns 1 if a find is more than RATIO times slower when large."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--database", choices=DATABASES, default=os.environ.get("DB", "sqlite"))
    parser.add_argument("--small", type=int, default=1_000, help="requests in the small table")
    parser.add_argument("--large", type=int, default=1_000_000, help="requests in the large table")
    parser.add_argument("--rounds", type=int, default=21, help="how many times to run each find")
    parser.add_argument("--json", type=Path, help="a file for the results")
    options = parser.parse_args()
    results = run(options.database, [options.small, options.large], options.rounds)
    print_table(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    missed = [row["find"] for row in results["finds"] if row["ratio"] > RATIO]
    if missed:
        print(f"more than {RATIO:g} times slower in the large table: " + "; ".join(missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
