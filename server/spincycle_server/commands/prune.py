"""`spincycle prune`."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from types import FrameType

import click

from spincycle_grpc.duration import parse_duration
from spincycle_grpc.state import State
from spincycle_server.app.database import database_options
from spincycle_server.commands.options import overrides, server_options
from spincycle_server.config import load_config
from spincycle_server.maintenance.retention import Retention

_LINE_PAUSE = 10.0
"""Seconds between the lines that tell the progress where there is no terminal."""


class _Age(click.ParamType[int]):
    name = "duration"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            age = parse_duration(value, days=True) // 1000
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)
        if age <= 0:
            self.fail("must be longer than nothing: what has just ended is still looked at", param, ctx)
        return age


@click.command("prune")
@click.option(
    "--older-than",
    metavar="DURATION",
    type=_Age(),
    required=True,
    help="Delete requests that ended longer ago than this, as 90d or 36h, by the database's clock.",
)
@click.option("--dry-run", is_flag=True, help="Only say how many requests would be deleted.")
@server_options("db")
def prune_command(config: str | None, older_than: int, dry_run: bool, db: str | None) -> None:
    """Delete requests that ended long ago, with their chains, logs and args.

    Only requests that are COMPLETE, FAIL or STOPPED are deleted. Servers can run meanwhile, and it can be
    interrupted and run again. CONFIG is a YAML file with options; without it, config/$ENVIRONMENT.yaml is
    read if it is there.

    Exit status: 0 done, 1 it could not be done, 2 wrong usage or configuration, 130 interrupted.
    """
    settings = load_config(config, overrides=overrides({"db": db}))
    retention = Retention(settings.store_url(), database_options(settings))
    with contextlib.closing(retention):
        retention.check()
        before = retention.cutoff(older_than)
        counts = retention.count(before)
        total = sum(counts.values())
        if dry_run or not total:
            click.echo(_would(counts, before))
        elif not _prune(retention, before, total):
            sys.exit(130)


def _would(counts: Mapping[State, int], before: int) -> str:
    ended = datetime.fromtimestamp(before // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if not counts:
        return f"no request ended before {ended}"
    states = ", ".join(f"{count} {state.name}" for state, count in sorted(counts.items()))
    return f"{_requests(sum(counts.values()))} would be deleted, which ended before {ended}: {states}"


def _prune(retention: Retention, before: int, total: int) -> bool:
    deleted = entries = 0

    def add(more_requests: int, more_entries: int) -> None:
        nonlocal deleted, entries
        deleted += more_requests
        entries += more_entries
        show(min(deleted, total))

    with _interrupted() as is_interrupted, _shown(total) as show:
        is_done = retention.prune(before, add, is_interrupted)
    if is_done:
        click.echo(f"{_requests(deleted)} deleted, with {entries} entries of job logs")
    else:
        click.echo(
            f"interrupted when {deleted} of {_requests(total)} were deleted: run it again to go on", err=True
        )
    return is_done


def _requests(number: int) -> str:
    return f"{number} request{'s' if number != 1 else ''}"


@contextlib.contextmanager
def _shown(total: int) -> Iterator[Callable[[int], None]]:
    """Gives what shows how many are deleted: a bar at a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _lines(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("deleting"), BarColumn(), MofNCompleteColumn(), TextColumn("requests"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda deleted: progress.update(task, completed=deleted)


def _lines(total: int) -> Callable[[int], None]:
    told_at = time.monotonic()

    def show(deleted: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _LINE_PAUSE:
            told_at = time.monotonic()
            click.echo(f"{deleted} of {_requests(total)} deleted", err=True)

    return show


@contextlib.contextmanager
def _interrupted() -> Iterator[Callable[[], bool]]:
    """Gives what says whether Ctrl-C or SIGTERM has come. The second Ctrl-C interrupts at once."""
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
