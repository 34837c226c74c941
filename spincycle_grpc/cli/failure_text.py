"""Failed jobs as text for people: the path, the tries, the error, and the last lines of stderr."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import tzinfo

from spincycle_grpc.cli.counts import try_of
from spincycle_grpc.cli.cutting import cut_text
from spincycle_grpc.cli.failed_jobs import FailedJob
from spincycle_grpc.cli.output import paint, plain_lines, printable, state_name
from spincycle_grpc.cli.times import span_text, time_text
from spincycle_grpc.v1.job_log_pb2 import JobLog

MOST_JOBS = 5
"""The maximum number of failed jobs that are shown without --failed."""

_MOST_TRIES = 5
LONGEST_LINE = 500
"""The longest line of a job's text that is shown without --full, in terminal columns."""

_ERROR_LINES = 3
_STDERR_LINES = 5


def failure_lines(job: FailedJob, zone: tzinfo | None, *, most_lines: int = _STDERR_LINES) -> Iterator[str]:
    """Yields the lines about one failed job.

    Args:
        job: The job.
        zone: The zone of times. None: the local one.
        most_lines: The maximum number of lines of its stderr.
    """
    yield f"{printable(job.path)} (job {printable(job.job_id)})"
    earlier = len(job.tries) - _MOST_TRIES
    if earlier > 0:
        yield f"  {earlier} earlier {'try' if earlier == 1 else 'tries'}"
    for entry in job.tries[-_MOST_TRIES:]:
        yield f"  {try_text(entry, try_of(job.newest), zone)}"
    yield from _block("error", job.newest.error, _ERROR_LINES)
    yield from _block("stderr", job.newest.stderr, most_lines)


def try_text(entry: JobLog, most: int, zone: tzinfo | None) -> str:
    """Returns a try on one line: its number, when it started, how long it took, and how it ended.

    Args:
        entry: The try.
        most: The number of the job's newest try.
        zone: The zone of times. None: the local one.
    """
    words = [f"try {try_of(entry)} of {most}: {time_text(entry.started_at or entry.finished_at, zone)}"]
    if entry.started_at:
        words.append(span_text(entry.finished_at - entry.started_at))
    words.append(end_text(entry))
    return ", ".join(words)


def end_text(entry: JobLog) -> str:
    """Returns how a try ended: its exit code, or its state if there is none."""
    return f"exit {entry.exit}" if entry.exit else paint(state_name(entry.state))


def last_lines(text: str, most: int) -> tuple[list[str], bool]:
    """Returns the last lines of a job's text, printable and bounded, and whether there are more."""
    lines = plain_lines(text)
    return [cut_text(line, LONGEST_LINE) for line in lines[-most:]], len(lines) > most


def _block(name: str, text: str, most: int) -> Iterator[str]:
    lines, is_cut = last_lines(text, most)
    if len(lines) == 1 and not is_cut:
        yield f"  {name}: {lines[0]}"
    elif lines:
        yield f"  {name}, the last {_number(lines)}:" if is_cut else f"  {name}:"
        yield from (f"    {line}" for line in lines)


def _number(lines: Sequence[str]) -> str:
    return "line" if len(lines) == 1 else f"{len(lines)} lines"
