"""Shows finished tries: as a table, or one by one with the output of the job."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import tzinfo

from spincycle_grpc.cli.counts import try_of
from spincycle_grpc.cli.job_paths import path_of
from spincycle_grpc.cli.output import plain_line, printable_lines, show, state_name
from spincycle_grpc.cli.tables import Column, show_fields, show_table
from spincycle_grpc.cli.times import age_text, span_text, time_text
from spincycle_grpc.v1.job_log_pb2 import JobLog

_NARROW_FIRST = ("STARTED", "EXIT", "AGE")


def show_entries(entries: Sequence[JobLog], zone: tzinfo | None) -> None:
    """Prints a row for each try. A narrow terminal shows ages instead of times."""
    now = time.time_ns()
    ages = Column("AGE", [age_text(entry.started_at, now) for entry in entries], may_drop=True)
    show_table(
        (
            Column("JOB", [path_of(entry) for entry in entries], least=20, has_paths=True),
            Column("ID", [entry.job_id for entry in entries]),
            Column("TRY", [str(try_of(entry)) for entry in entries]),
            Column("STATE", [state_name(entry.state) for entry in entries]),
            Column("EXIT", [str(entry.exit) for entry in entries], may_drop=True),
            Column("STARTED", [time_text(entry.started_at, zone) for entry in entries], narrow=ages),
            Column("TOOK", [_took(entry) for entry in entries]),
            Column("ERROR", [plain_line(entry.error) for entry in entries], least=8),
        ),
        _NARROW_FIRST,
    )


def show_entry(entry: JobLog, zone: tzinfo | None, most_lines: int | None) -> None:
    """Prints a try with the last lines of its output.

    Args:
        entry: The try.
        zone: The zone of times. None: the local one.
        most_lines: The maximum number of lines of each stream. None: all.
    """
    show_fields(
        [
            ("job", f"{path_of(entry)} (job {entry.job_id}, {entry.type})"),
            ("try", str(try_of(entry))),
            ("state", state_name(entry.state)),
            ("exit", str(entry.exit)),
            ("started", time_text(entry.started_at, zone)),
            ("took", _took(entry)),
        ]
    )
    for name, text in (("error", entry.error), ("stdout", entry.stdout), ("stderr", entry.stderr)):
        _show_text(name, text, most_lines)


def _show_text(name: str, text: str, most_lines: int | None) -> None:
    lines = printable_lines(text)
    if not lines:
        return
    cut = 0 if most_lines is None else max(0, len(lines) - most_lines)
    show(f"{name}:" if not cut else f"{name}: (last {most_lines} of {len(lines)} lines, --full shows all)")
    for line in lines[cut:]:
        show(f"  {line}")


def _took(entry: JobLog) -> str:
    return span_text(entry.finished_at - entry.started_at) if entry.started_at else ""
