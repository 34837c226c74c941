"""Converts between rows of the tables and messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from heapq import nsmallest
from typing import Any

import orjson
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from spincycle_grpc.state import FINAL_STATES, State
from spincycle_grpc.structs import from_value
from spincycle_grpc.trace_context import TraceContext
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.request_pb2 import Request, RequestArg
from spincycle_server.store.schema import MAX_ARG_VALUE, MAX_TEXT, ORIGINAL
from spincycle_server.utc_text import utc_text

_LONGEST_PATH = 16_000
"""The longest text of a path, in characters: it must not be truncated to fit its column."""

LIMITED = "limited"
"""In the mark of a request with limits, see `marked_request_of`."""

PAUSED = "paused"
"""How the text of a paused request begins in that mark."""

_MAY_WAIT = frozenset({State.PENDING, State.SUSPENDED})


def microseconds_of(time: Timestamp) -> int:
    """Returns a time in microseconds since the Unix epoch, rounded down."""
    return time.seconds * 1_000_000 + time.nanos // 1000


def set_microseconds(time: Timestamp, microseconds: int) -> None:
    """Sets a time from microseconds since the Unix epoch."""
    time.seconds, rest = divmod(microseconds, 1_000_000)
    time.nanos = rest * 1000


def trace_of(stored: str | None) -> TraceContext | None:
    """Returns the trace of a request from the column `trace_context`."""
    if stored is None:
        return None
    traceparent, _, tracestate = stored.partition(" ")
    return TraceContext.parse(traceparent, tracestate)


def request_of(row: Any) -> Request:
    """Returns the request of a row of `requests`, without args, job chain, and why it waits."""
    request = Request(
        id=row.request_id,
        type=row.type,
        state=row.state,
        user=row.user or "",
        total_jobs=row.total_jobs,
        finished_jobs=row.finished_jobs,
        job_runner_url=row.jr_url or "",
        retry_of=row.retry_of,
        trace_id="" if (trace := trace_of(row.trace_context)) is None else trace.trace_id,
    )
    if row.ending and row.state not in FINAL_STATES:
        request.ending = row.ending
    if row.stop_reason and row.state != State.COMPLETE:
        request.stop_reason = row.stop_reason
    if row.total_tasks and (finished_tasks := _finished_tasks(row)) is not None:
        request.total_tasks = row.total_tasks
        request.finished_tasks = finished_tasks
    set_microseconds(request.created_at, row.created_at)
    if row.started_at is not None:
        set_microseconds(request.started_at, row.started_at)
    if row.finished_at is not None:
        set_microseconds(request.finished_at, row.finished_at)
    return request


def _finished_tasks(row: Any) -> int | None:
    """Returns the number of finished tasks; None if nobody knows it, because an original has run jobs."""
    if row.state == State.COMPLETE:
        return int(row.total_tasks)
    if row.finished_tasks is None:
        return None
    finished_noops = row.finished_jobs - row.finished_tasks
    noops = row.total_jobs - row.total_tasks
    return int(row.finished_tasks) if 0 <= finished_noops <= noops else None


def marked_request_of(row: Any, *, shows_left: bool = False) -> Request:
    """Returns the request of a row, as `request_of`, but with a mark in the field `waiting`.

    The mark has the ids of the request's requirement and runner, whether it has limits, and how it ends or
    who has paused it. It is set if the request ends, is paused, or may wait for a runner. The Store replaces
    it by the reason.

    Args:
        row: The row.
        shows_left: Whether to mark a PENDING request of an original too, which nobody has started. In lists,
            many old ones would hide the requests that wait for a runner.
    """
    request = request_of(row)
    mark = _mark_text(row)
    if not mark and row.state == State.PENDING and row.runner_id == ORIGINAL and not shows_left:
        return request
    if row.state in _MAY_WAIT or (row.state == State.RUNNING and row.epoch):
        limited = LIMITED if row.has_limits else ""
        request.waiting = f"{row.requirement} {row.runner_id or ''} {limited} {mark}"
    return request


def _mark_text(row: Any) -> str:
    """Returns how the request of a row ends after its `finally` nodes, or who has paused it; else ""."""
    if row.ending and not row.skip_finally:
        often = "again" if row.stop_requested else "twice"
        return f"{State(row.ending).name} after its finally nodes: stop it {often} to skip them"
    if row.paused_at is None:
        return ""
    by = f" by {row.paused_by}" if row.paused_by else ""
    at = utc_text(row.paused_at)
    if row.state != State.RUNNING:
        return f"{PAUSED}{by} at {at}"
    return f"{PAUSED}{by} at {at}: its running jobs {'are told to stop' if row.pause_now else 'end first'}"


def log_entry_of(row: Any) -> JobLog:
    """Returns the entry of a row of `job_log`."""
    entry = entry_without_output(row, row[2])
    entry.stdout, entry.stderr = _text(row.stdout), _text(row.stderr)
    return entry


def entry_without_output(row: Any, number: Any) -> JobLog:
    """Returns the entry of a row of `job_log` without its output.

    Args:
        row: The row.
        number: The number of the try. Its column has a name that is a keyword of Python.
    """
    return JobLog(
        request_id=row.request_id,
        job_id=row.job_id,
        name=row.name,
        type=row.type,
        started_at=row.started_at,
        finished_at=row.finished_at or 0,
        state=row.state,
        exit=row.exit or 0,
        error=row.error or "",
        path=orjson.loads(row.path) if row.path else (),
        **{"try": number},
    )


def path_json(path: Sequence[str]) -> str | None:
    """Returns the text of a job's path for its column; None if it is too long, as no usual path is.

    It is ASCII, because the table of an original may not accept all characters.
    """
    text = json.dumps([*path])
    return text if len(text) <= _LONGEST_PATH else None


def arg_rows(request_id: str, created_at: int, args: Iterable[RequestArg]) -> list[dict[str, Any]]:
    """Returns the rows of `request_args` by which a request is found.

    Args:
        request_id: The request.
        created_at: When it was created, in microseconds since the Unix epoch.
        args: Its args.
    """
    return [
        {
            "request_id": request_id,
            "name": arg.name[:MAX_TEXT],
            "value": _arg_text(arg)[:MAX_ARG_VALUE],
            "created_at": created_at,
        }
        for arg in args
    ]


def _arg_text(arg: RequestArg) -> str:
    """Returns an arg's value as `arg=` filters compare it: a string unchanged, any other value as JSON.

    Of a long list or map, it returns more than MAX_ARG_VALUE characters, but not all.
    """
    value = _beginning(arg.value)
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _beginning(value: Value) -> object:
    items, fields = value.list_value.values, value.struct_value.fields
    if len(items) > MAX_ARG_VALUE:
        return [from_value(item) for item in items[:MAX_ARG_VALUE]]
    if len(fields) > MAX_ARG_VALUE:
        return {name: from_value(fields[name]) for name in nsmallest(MAX_ARG_VALUE, fields)}
    return from_value(value)


def _text(data: bytes | None) -> str:
    return data.decode(errors="replace") if data else ""
