"""The result of a try: the report with its log entry, and the job data that it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.struct_pb2 import Struct

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.jobs import Return
from spincycle_grpc.state import State
from spincycle_grpc.structs import MAX_DEPTH, to_struct
from spincycle_grpc.v1 import job_pb2, state_pb2
from spincycle_grpc.v1.runner_reports_pb2 import TryReport

MAX_JOB_DATA = 1024 * 1024
"""The maximum size of a job's data after a try in bytes. The data is stored, and copied to dependent jobs."""

_MAX_VALUES = MAX_JOB_DATA // 4
"""The maximum number of values in a job's data. Each takes four bytes or more, with its tags and lengths."""


class TryResult:
    """The result of a try.

    Args:
        report: The report with the log entry of the try. `ChainReports` adds all other fields.
        data: The job's data after a COMPLETE try, or None if there is none.
        is_last: The job failed and must not be retried, whatever its `retry` is.

    Attributes:
        report: See there.
        entry: The log entry in the report.
        data: See there.
        is_last: See there.
    """

    __slots__ = ("data", "entry", "is_last", "report")

    def __init__(self, report: TryReport, data: Struct | None = None, *, is_last: bool = False) -> None:
        self.report = report
        self.entry = report.entry
        self.data = data
        self.is_last = is_last


def try_report(
    job: job_pb2.Job,
    request_id: str,
    number: int,
    *,
    started_at: int,
    finished_at: int,
    state: state_pb2.State.ValueType,
) -> TryReport:
    """Returns a report with the log entry of a try, which has no output and no error yet.

    The entry is filled in place, because protobuf copies a message that is put into another.
    """
    report = TryReport()
    entry = report.entry
    entry.request_id = request_id
    entry.job_id = job.id
    entry.name = job.name
    entry.type = job.type
    setattr(entry, "try", number)  # `try` is a keyword in Python
    entry.started_at = started_at
    entry.finished_at = finished_at
    entry.state = state
    return report


def checked_job_data(data: Mapping[str, Any]) -> Struct:
    """Returns job data as a Struct.

    Raises:
        InvalidArgumentError: The data is not JSON, or has more than MAX_JOB_DATA bytes.
    """
    try:
        _check_count(data)
        struct = to_struct(data, "data")
        size = struct.ByteSize()
    except InvalidArgumentError:
        raise
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # raised by a class of the job's values
        raise InvalidArgumentError(f"it has no JSON form: {error_text(error)}") from error
    if size > MAX_JOB_DATA:
        raise InvalidArgumentError(f"{size} bytes, but the limit is {MAX_JOB_DATA}: keep less in it")
    return struct


def _check_count(data: Mapping[str, Any]) -> None:
    """Counts the values before they are converted. A value counts as often as the data contains it.

    A few lists that contain each other many times would have billions of values.
    """
    left = _MAX_VALUES
    waiting: list[tuple[Any, int]] = [(data, 0)]
    while waiting:
        value, depth = waiting.pop()
        left -= len(value)
        if left < 0:
            raise InvalidArgumentError(f"more than {_MAX_VALUES} values: keep less in it")
        if depth <= MAX_DEPTH:  # The conversion refuses what is deeper.
            items = value.values() if isinstance(value, dict) else value
            waiting += [(item, depth + 1) for item in items if isinstance(item, dict | list | tuple)]


def checked_return(returned: object) -> Return:
    """Returns what `run` of a job returned as a plain Return.

    An object of another class, or a Return whose values have wrong types, becomes a FAIL.
    """
    if type(returned) is Return:
        return returned
    try:
        if isinstance(returned, Return):  # a subclass, which may not have checked its values
            texts = [_exact_text(text) for text in (returned.error, returned.stdout, returned.stderr)]
            return Return(returned.state, returned.exit, *texts)
        shown = f"{returned!r:.200}"
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        shown = f"an invalid {type(returned).__name__} ({error_text(error)})"
    return Return(State.FAIL, exit=1, error=f"job.Run returned {shown}, which is not a Return")


def error_text(error: BaseException) -> str:
    """Returns the text of an exception, or the name of its class if it has no text.

    Characters that UTF-8 cannot encode become escapes.
    """
    try:
        return plain_text(str(error)) or type(error).__name__
    except (Exception, SystemExit, KeyboardInterrupt):
        return type(error).__name__


def plain_text(value: object) -> str:
    """Returns the text of a value. Characters that UTF-8 cannot encode become escapes."""
    text = value if isinstance(value, str) else str(value)
    return _exact_text(text).encode("utf-8", "backslashreplace").decode()


def _exact_text(text: str) -> str:
    """Returns a text without the methods of a subclass.

    Raises:
        TypeError: The value is not text.
    """
    return str.__str__(text)
