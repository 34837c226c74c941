"""`spincycle prune` deletes old requests and old audit events."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType

import click

from spincycle_server.app.database import database_options
from spincycle_server.commands.options import overrides, server_options
from spincycle_server.commands.times import Age
from spincycle_server.config import load_config
from spincycle_server.maintenance.audit import command_event
from spincycle_server.maintenance.retention import Retention
from spincycle_server.utc_text import utc_text

_PROGRESS_INTERVAL = 10.0
"""Seconds between progress lines if standard error is not a terminal."""


@click.command("prune")
@click.option(
    "--older-than",
    metavar="DURATION",
    type=Age(),
    help="Delete requests that ended longer ago than this by the database's clock, for example 90d or 36h.",
)
@click.option(
    "--audit-older-than",
    metavar="DURATION",
    type=Age(),
    help="Delete audit events that are older than this, for example 400d.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be deleted, and delete nothing.")
@server_options("db")
def prune_command(
    config: str | None, older_than: int | None, audit_older_than: int | None, dry_run: bool, db: str | None
) -> None:
    """Delete requests that ended long ago, with their job chains, logs and args, and old audit events.

    Only requests in state COMPLETE, FAIL or STOPPED are deleted. Audit events have an age of their own:
    those of a deleted request stay. The command is safe to run while servers run, and again after an
    interruption. It adds an event to the audit log, if there is a log, before it deletes anything.

    CONFIG is a YAML file of options. The default is config/$ENVIRONMENT.yaml, if that file exists.

    Exit status: 0 success, 1 failure, 2 wrong usage or configuration, 130 interrupted.
    """
    if older_than is None and audit_older_than is None:
        raise click.UsageError("Missing option '--older-than' or '--audit-older-than'.")
    settings = load_config(config, overrides=overrides({"db": db}))
    retention = Retention(settings.store_url(), database_options(settings))
    with contextlib.closing(retention):
        retention.check()
        is_done = older_than is None or _prune_requests(retention, older_than, dry_run)
        if is_done and audit_older_than is not None:
            is_done = _prune_events(retention, audit_older_than, dry_run)
        if not is_done:
            sys.exit(130)


def _prune_requests(retention: Retention, age: int, dry_run: bool) -> bool:
    """Deletes old requests, and says what it did. Returns False if it was interrupted."""
    before = retention.cutoff(age)
    counts = retention.count(before)
    total = sum(counts.values())
    if not total:
        click.echo(f"no request ended before {utc_text(before)}")
        return True
    states = ", ".join(f"{count} {state.name}" for state, count in sorted(counts.items()))
    found = f"{_number(total, 'request')} that ended before {utc_text(before)}: {states}"
    if dry_run:
        click.echo(f"would delete {found}")
        return True
    retention.audit.record(command_event("spincycle prune", f"delete {found}"))
    deleted = entries = 0

    def add(more_requests: int, more_entries: int) -> None:
        nonlocal deleted, entries
        deleted += more_requests
        entries += more_entries
        show(min(deleted, total))

    with _interruption() as is_interrupted, _progress(total, "request") as show:
        is_done = retention.prune(before, add, is_interrupted)
    _report(is_done, deleted, total, "request", f" and {entries} job log entries")
    return is_done


def _prune_events(retention: Retention, age: int, dry_run: bool) -> bool:
    """Deletes old audit events, and says what it did. Returns False if it was interrupted."""
    before = retention.cutoff(age)
    total = retention.audit.count(before)
    if not total:
        click.echo(f"no audit event is older than {utc_text(before)}")
        return True
    found = f"{_number(total, 'audit event')} from before {utc_text(before)}"
    if dry_run:
        click.echo(f"would delete {found}")
        return True
    retention.audit.record(command_event("spincycle prune", f"delete {found}"))
    deleted = 0

    def add(more: int) -> None:
        nonlocal deleted
        deleted += more
        show(min(deleted, total))

    with _interruption() as is_interrupted, _progress(total, "audit event") as show:
        is_done = retention.audit.prune(before, add, is_interrupted)
    _report(is_done, deleted, total, "audit event")
    return is_done


def _report(is_done: bool, deleted: int, total: int, what: str, more: str = "") -> None:
    if is_done:
        click.echo(f"deleted {_number(deleted, what)}{more}")
    else:
        click.echo(
            f"interrupted after deleting {deleted} of {_number(total, what)}: "
            "run the command again to continue",
            err=True,
        )


def _number(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


@contextlib.contextmanager
def _progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Yields a function that shows progress: as a bar in a terminal, otherwise as lines."""
    if not sys.stderr.isatty():
        yield _progress_lines(total, what)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("deleting"), BarColumn(), MofNCompleteColumn(), TextColumn(f"{what}s"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda deleted: progress.update(task, completed=deleted)


def _progress_lines(total: int, what: str) -> Callable[[int], None]:
    printed_at = time.monotonic()

    def show(deleted: int) -> None:
        nonlocal printed_at
        if time.monotonic() - printed_at >= _PROGRESS_INTERVAL:
            printed_at = time.monotonic()
            click.echo(f"deleted {deleted} of {_number(total, what)}", err=True)

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
