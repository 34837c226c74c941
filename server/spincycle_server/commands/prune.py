"""`spincycle prune` deletes old requests."""

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

_PROGRESS_INTERVAL = 10.0
"""Seconds between progress lines if standard error is not a terminal."""


class _Age(click.ParamType[int]):
    name = "duration"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            age = parse_duration(value, days=True) // 1000
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)
        if age <= 0:
            self.fail("must be positive", param, ctx)
        return age


@click.command("prune")
@click.option(
    "--older-than",
    metavar="DURATION",
    type=_Age(),
    required=True,
    help="Delete requests that ended longer ago than this by the database's clock, for example 90d or 36h.",
)
@click.option("--dry-run", is_flag=True, help="Print how many requests would be deleted, and delete none.")
@server_options("db")
def prune_command(config: str | None, older_than: int, dry_run: bool, db: str | None) -> None:
    """Delete requests that ended long ago, with their job chains, logs and args.

    Only requests in state COMPLETE, FAIL or STOPPED are deleted. The command is safe to run while servers
    run, and again after an interruption.

    CONFIG is a YAML file of options. The default is config/$ENVIRONMENT.yaml, if that file exists.

    Exit status: 0 success, 1 failure, 2 wrong usage or configuration, 130 interrupted.
    """
    settings = load_config(config, overrides=overrides({"db": db}))
    retention = Retention(settings.store_url(), database_options(settings))
    with contextlib.closing(retention):
        retention.check()
        before = retention.cutoff(older_than)
        counts = retention.count(before)
        total = sum(counts.values())
        if dry_run or not total:
            click.echo(_forecast(counts, before))
        elif not _prune(retention, before, total):
            sys.exit(130)


def _forecast(counts: Mapping[State, int], before: int) -> str:
    ended = datetime.fromtimestamp(before // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if not counts:
        return f"no request ended before {ended}"
    states = ", ".join(f"{count} {state.name}" for state, count in sorted(counts.items()))
    return f"would delete {_requests(sum(counts.values()))} that ended before {ended}: {states}"


def _prune(retention: Retention, before: int, total: int) -> bool:
    deleted = entries = 0

    def add(more_requests: int, more_entries: int) -> None:
        nonlocal deleted, entries
        deleted += more_requests
        entries += more_entries
        show(min(deleted, total))

    with _interruption() as is_interrupted, _progress(total) as show:
        is_done = retention.prune(before, add, is_interrupted)
    if is_done:
        click.echo(f"deleted {_requests(deleted)} and {entries} job log entries")
    else:
        click.echo(
            f"interrupted after deleting {deleted} of {_requests(total)}: run the command again to continue",
            err=True,
        )
    return is_done


def _requests(number: int) -> str:
    return f"{number} request{'s' if number != 1 else ''}"


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function that shows progress: as a bar in a terminal, otherwise as lines."""
    if not sys.stderr.isatty():
        yield _progress_lines(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("deleting"), BarColumn(), MofNCompleteColumn(), TextColumn("requests"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda deleted: progress.update(task, completed=deleted)


def _progress_lines(total: int) -> Callable[[int], None]:
    printed_at = time.monotonic()

    def show(deleted: int) -> None:
        nonlocal printed_at
        if time.monotonic() - printed_at >= _PROGRESS_INTERVAL:
            printed_at = time.monotonic()
            click.echo(f"deleted {deleted} of {_requests(total)}", err=True)

    return show


@contextlib.contextmanager
def _interruption() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether SIGINT or SIGTERM arrived. The second raises KeyboardInterrupt."""
    has_arrived = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal has_arrived
        if has_arrived:
            raise KeyboardInterrupt
        has_arrived = True

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: has_arrived
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
