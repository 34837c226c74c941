"""`spincycle audit` prints the audit log."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import click
from google.protobuf.timestamp_pb2 import Timestamp

from spincycle_grpc.cli.output import printable, show, show_json
from spincycle_grpc.cli.times import time_text
from spincycle_grpc.v1.audit_pb2 import AuditEvent, AuditFilter
from spincycle_grpc.wire import encode
from spincycle_server.app.database import database_options
from spincycle_server.commands.options import overrides, server_options
from spincycle_server.commands.times import Moment
from spincycle_server.config import load_config
from spincycle_server.maintenance.audit import opened_audit

_COLUMNS = (
    ("TIME", 26), ("USER", 12), ("OPERATION", 22), ("REQUEST", 20), ("OUTCOME", 16), ("COUNT", 5),
    ("FROM", 15), ("DETAIL", 0),
)  # fmt: skip
"""The headings, and the widths of columns. A wider value shifts the rest of its line: rows are streamed."""

_BROKEN_PIPE = 141


@click.command("audit")
@click.option("--since", type=Moment(), metavar="TIME", help="Events at or after TIME. Default: all events.")
@click.option("--until", type=Moment(), metavar="TIME", help="Events before TIME.")
@click.option("--user", default="", help="Events of this user.")
@click.option("--request", "request_id", metavar="ID", default="", help="Events about this request.")
@click.option(
    "--operation", default="", help="Events of this method or command, for example RequestManager.Stop."
)
@click.option("--outcome", default="", help="Events with this outcome: OK, or the reason of a denial.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@server_options("db")
def audit_command(
    config: str | None,
    *,
    since: int | None,
    until: int | None,
    user: str,
    request_id: str,
    operation: str,
    outcome: str,
    as_json: bool,
    db: str | None,
) -> None:
    """Print the audit log, oldest event first: who did what, from where, with what outcome.

    TIME is a date, a date with a time, or a duration before now: 2026-11-23, 2026-11-23T15:47:18Z, 7d.
    A TIME without a time zone is local time.

    The command reads the database directly, so that it also works while no server runs. The log is empty
    unless users are authenticated.

    CONFIG is a YAML file of options. The default is config/$ENVIRONMENT.yaml, if that file exists.

    Exit status: 0 success, 1 failure, 2 wrong usage or configuration, 130 interrupted.
    """
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since must be before --until")
    settings = load_config(config, overrides=overrides({"db": db}))
    wanted = AuditFilter(
        since=_timestamp(since),
        until=_timestamp(until),
        user=user,
        request_id=request_id,
        operation=operation,
        outcome=outcome,
    )
    with (
        opened_audit(settings.store_url(), database_options(settings)) as audit,
        _quiet_after_a_broken_pipe(),
    ):
        if not as_json:
            show("  ".join(name.ljust(width) for name, width in _COLUMNS))
        for event in audit.events(wanted):
            if as_json:
                show_json(encode(event))
            else:
                show(_line(event))


def _line(event: AuditEvent) -> str:
    cells = (
        time_text(event.occurred_at),
        event.user,
        event.operation,
        event.request_id,
        event.outcome,
        str(event.count),
        event.peer,
        event.detail,
    )
    return "  ".join(
        printable(cell).ljust(width) for cell, (_, width) in zip(cells, _COLUMNS, strict=True)
    ).rstrip()


def _timestamp(microseconds: int | None) -> Timestamp | None:
    if microseconds is None:
        return None
    time = Timestamp()
    time.FromMicroseconds(microseconds)
    return time


@contextlib.contextmanager
def _quiet_after_a_broken_pipe() -> Iterator[None]:
    """Ends the process as other programs do when the reader of their output has closed the pipe."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Otherwise Python reports the broken pipe again when it flushes the output at its exit.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        sys.exit(_BROKEN_PIPE)
