"""Pages of the job log of a request.

A page starts behind the last entry of the page before. The sizes of the next entries are read first, so that
no output is read that does not fit into the page.
"""

from __future__ import annotations

import codecs
from typing import Any, NamedTuple

from sqlalchemy import func
from sqlalchemy.engine import Connection

from spincycle_grpc.output import first_of_middle
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_server.store.job_logs import LOG_COLUMNS, check_request
from spincycle_server.store.log_filter import ALL, LogFilter, LogPosition, position_of
from spincycle_server.store.pages import PageRoom
from spincycle_server.store.rows import log_entry_of
from spincycle_server.store.schema import job_log

MAX_OUTPUT = 1024 * 1024
"""The maximum size in bytes of the output of one entry in a page: stdout and stderr together."""

_FIRST_SIZES = 16
_MOST_SIZES = 4096
"""Entries whose sizes are read at once. MariaDB and MySQL read the whole output to tell its size."""

_SIZED = (job_log.c.stdout, job_log.c.stderr, job_log.c.error)

_OTHER_FIELDS = 200
"""The approximate bytes of an entry without its output and its error."""


class LogPage(NamedTuple):
    """Entries, and the position of the last one; None if there are no more entries."""

    entries: list[JobLog]
    last: LogPosition | None


def get_log_page(
    connection: Connection,
    request_id: str,
    behind: LogPosition | None,
    page_size: int,
    max_output: int | None = MAX_OUTPUT,
    *,
    wanted: LogFilter = ALL,
) -> LogPage:
    """Returns a page of the job log of a request.

    Args:
        connection: An open connection.
        request_id: The request.
        behind: The last entry of the page before; None for the first page.
        page_size: The maximum number of entries; 0 for no maximum.
        max_output: The maximum size of an entry's output in bytes; None for no maximum.
        wanted: Which entries, and in which order.

    Raises:
        NotFoundError: The request does not exist.
    """
    count, has_more = _estimated_count(
        connection, request_id, wanted, behind, room=PageRoom(page_size), max_output=max_output
    )
    if not count:
        check_request(connection, request_id)
        return LogPage([], None)
    room = PageRoom(page_size)
    entries: list[JobLog] = []
    last = None
    for row in wanted.read(connection, request_id, _columns(max_output), behind, count):
        entry = log_entry_of(row)
        if max_output is not None:
            _note_omitted(entry, row, max_output)
        if not room.take(entry.ByteSize()):
            has_more = True
            break
        entries.append(entry)
        last = position_of(row)
    return LogPage(entries, last if has_more else None)


def cut_output(entry: JobLog, max_output: int) -> None:
    """Cuts the output of an entry to at most `max_output` bytes, and notes how much is left out."""
    _cut(entry, len(entry.stdout.encode()), len(entry.stderr.encode()), max_output)


def _note_omitted(entry: JobLog, row: Any, max_output: int) -> None:
    # The row may have a part of the output. Bytes that are not UTF-8 have become three bytes each.
    stdout = max(row.stdout_size or 0, len(entry.stdout.encode()))
    stderr = max(row.stderr_size or 0, len(entry.stderr.encode()))
    _cut(entry, stdout, stderr, max_output)


def _cut(entry: JobLog, stdout: int, stderr: int, max_output: int) -> None:
    """Cuts output of `stdout` and `stderr` bytes in total. Each has half, or what the other leaves."""
    if stdout + stderr <= max_output:
        return
    half = max_output // 2
    entry.stdout = _beginning(entry.stdout, stdout, max(half, max_output - stderr))
    entry.stderr = _beginning(entry.stderr, stderr, max(half, max_output - stdout))
    entry.stdout_omitted = stdout - len(entry.stdout.encode())
    entry.stderr_omitted = stderr - len(entry.stderr.encode())


def _beginning(text: str, whole: int, size: int) -> str:
    """Returns the beginning of a text of `whole` bytes, with at most `size` bytes and only whole characters.

    The runner may have cut out the middle of the output. What is left here ends before that, so that its size
    is also its size in the output that the job wrote. FollowOutput begins there.
    """
    if size >= whole:
        return text
    size = min(size, first_of_middle(whole))
    return codecs.getincrementaldecoder("utf-8")().decode(text.encode()[:size])


def _columns(max_output: int | None) -> list[Any]:
    if max_output is None:
        return list(LOG_COLUMNS)
    outputs = (job_log.c.stdout, job_log.c.stderr)
    return [
        *LOG_COLUMNS[: -len(outputs)],
        # One byte more, so that a character that is cut in two lies behind the limit.
        *(func.substr(output, 1, max_output + 1, type_=output.type).label(output.name) for output in outputs),
        *(func.length(output).label(f"{output.name}_size") for output in outputs),
    ]


def _estimated_count(
    connection: Connection,
    request_id: str,
    wanted: LogFilter,
    behind: LogPosition | None,
    *,
    room: PageRoom,
    max_output: int | None,
) -> tuple[int, bool]:
    """Returns how many entries fit into a page by their sizes, and whether there are further ones."""
    sizes = [func.length(column).label(f"{column.name}_size") for column in _SIZED]
    fits = 0
    count = _FIRST_SIZES
    while True:
        rows = wanted.read(connection, request_id, sizes, behind, count)
        for row in rows:
            output = (row.stdout_size or 0) + (row.stderr_size or 0)
            shown = output if max_output is None else min(output, max_output)
            if not room.take(shown + (row.error_size or 0) + _OTHER_FIELDS):
                return fits, True
            fits += 1
            behind = position_of(row)
        if len(rows) < count:
            return fits, False
        count = min(4 * count, _MOST_SIZES)
