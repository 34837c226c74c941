"""The result of a try: its log entry and the job data that it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.struct_pb2 import Struct

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.structs import to_struct
from spincycle_grpc.v1 import job_pb2
from spincycle_grpc.v1.job_log_pb2 import JobLog

MAX_JOB_DATA = 1024 * 1024
"""The maximum size of a job's data after a try in bytes. The data is stored, and copied to dependent jobs."""


@dataclass(frozen=True, slots=True)
class TryResult:
    """The result of a try.

    Attributes:
        entry: The log entry.
        data: The job's data after a COMPLETE try, or None if there is none.
        is_last: The job failed and must not be retried, whatever its `retry` is.
    """

    entry: JobLog
    data: Struct | None = None
    is_last: bool = False


def log_entry(job: job_pb2.Job, request_id: str, number: int, **fields: Any) -> JobLog:
    """Returns the log entry of a try. `fields` are those that the job itself does not have."""
    entry = JobLog(request_id=request_id, job_id=job.id, name=job.name, type=job.type, **fields)
    setattr(entry, "try", number)  # `try` is a keyword in Python
    return entry


def checked_job_data(data: Mapping[str, Any]) -> Struct:
    """Returns job data as a Struct.

    Raises:
        InvalidArgumentError: The data is not JSON, or has more than MAX_JOB_DATA bytes.
    """
    struct = to_struct(data, "data")
    size = struct.ByteSize()
    if size > MAX_JOB_DATA:
        raise InvalidArgumentError(f"{size} bytes, but the limit is {MAX_JOB_DATA}: keep less in it")
    return struct


def error_text(error: BaseException) -> str:
    """Returns the text of an exception, or the name of its class if it has no text."""
    try:
        return str(error) or type(error).__name__
    except Exception:
        return type(error).__name__
