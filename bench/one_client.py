"""Where the time of a create goes if there is one client.

One client creates requests over HTTP, one after the other: first without pauses, and then with a pause after
each one, in which the request runs to its end. The client and the Request Manager note the time of each step
on the same clock. The table shows the medians of the steps.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from bisect import bisect
from collections.abc import Sequence
from pathlib import Path

import uvloop
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from bench.cluster import DATABASES, Program, private_database, running_program
from bench.http_load import connect, request_bytes
from bench.marked_manager import MARKS
from bench.measures import PATH

PAUSE = 0.02
"""Seconds after an answer, within which a request with three jobs ends."""

STEPS = {
    "received": "the request reaches the event loop of the Request Manager",
    "called": "HTTP and JSON are parsed, the caller is known, the method is called",
    "queued": "the chain is built, and its rows are encoded",
    "taken": "the thread that writes has the creation",
    "sent": "the statements of the transaction are text",
    "committed": "the database answers",
    "resumed": "the event loop has the result",
    "answered": "the answer is JSON",
    "read": "the client has read it",
}
"""The steps in their order, each with what has happened since the one before."""

Span = tuple[int, int]
Mark = tuple[int, str]


class MarkedProgram(Program):
    """The program with a Request Manager that writes marks."""

    def command(self, *arguments: str) -> list[str]:
        """Returns the command line of `spincycle` with arguments."""
        command = super().command(*arguments)
        return (
            [command[0], "-m", "bench.marked_manager", *arguments]
            if arguments[0] == "request-manager"
            else command
        )


def steps_of(spans: Sequence[Span], marks: Sequence[Mark]) -> list[dict[str, int]]:
    """Returns how many nanoseconds each step of each create took.

    Args:
        spans: When the client sent each create, and when it had read the answer.
        marks: What the Request Manager noted, in the order of time.
    """
    times = [at for at, _ in marks]
    found = []
    for sent, read in spans:
        passed = {step: at for at, step in marks[bisect(times, sent) : bisect(times, read)]} | {"read": read}
        ends = [passed[step] for step in STEPS]
        starts = [sent, *ends[:-1]]
        found.append(
            {step: end - start for step, start, end in zip(STEPS, starts, ends, strict=True)}
            | {"in all": read - sent}
        )
    return found


async def _create(address: str, count: int, pause: float) -> list[Span]:
    """Creates requests one after the other. Returns when each was sent and its answer read."""
    data = request_bytes("POST", PATH, address, json.dumps({"type": "three-jobs", "args": {}}).encode())
    connection = await connect(address)
    spans = []
    for _ in range(count):
        sent = time.monotonic_ns()
        status, _, _ = await connection.send(data)
        spans.append((sent, time.monotonic_ns()))
        assert status == 201, status
        if pause:
            await asyncio.sleep(pause)
    connection.close()
    return spans


def measure(database: str, creates: int) -> dict[str, list[dict[str, int]]]:
    """Returns the steps of all creates: "back to back", and "with pauses"."""
    with tempfile.TemporaryDirectory() as directory, private_database(database) as server:
        path = Path(directory, "marks.json")
        os.environ[MARKS] = str(path)
        spans = {}
        with running_program(database, MarkedProgram(), server, {}) as cluster:
            for name, pause in (("warm-up", 0.0), ("back to back", 0.0), ("with pauses", PAUSE)):
                spans[name] = uvloop.run(_create(cluster.manager.http, creates, pause))
                time.sleep(1)  # The last requests end.
        marks = sorted((at, step) for at, step in json.loads(path.read_text()))
    return {name: steps_of(found, marks) for name, found in spans.items() if name != "warm-up"}


def table_of(measured: dict[str, list[dict[str, int]]]) -> Table:
    """Returns the table of the medians in milliseconds."""
    table = Table("until", *(f"{name}, ms" for name in measured), box=MARKDOWN)
    for step in [*STEPS, "in all"]:
        medians = [statistics.median(one[step] for one in creates) / 1e6 for creates in measured.values()]
        table.add_row(STEPS.get(step, step), *(f"{median:.2f}" for median in medians))
    return table


def main() -> int:
    """Measures, and prints the table."""
    parser = argparse.ArgumentParser(prog="bench.one_client", description=__doc__)
    parser.add_argument(
        "--database", choices=[one for one in DATABASES if one != "sqlite"], default="mariadb"
    )
    parser.add_argument("--creates", type=int, default=1000)
    options = parser.parse_args()
    measured = measure(options.database, options.creates)
    console = Console(width=200)
    console.print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end, {options.creates} creates"
    )
    console.print(table_of(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
