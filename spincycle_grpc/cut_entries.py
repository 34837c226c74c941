"""Job log entries whose output is too large for one message. FollowOutput has the rest of it."""

from __future__ import annotations

from spincycle_grpc.output import note_of
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.output_pb2 import (
    OUTPUT_GAP_REASON_TRUNCATED,
    OUTPUT_STREAM_STDERR,
    OUTPUT_STREAM_STDOUT,
    OutputStream,
)
from spincycle_grpc.v1.request_manager_pb2 import FollowOutputRequest, FollowOutputResponse


def is_cut(entry: JobLog) -> bool:
    """Whether a part of the output is missing."""
    return bool(entry.stdout_omitted or entry.stderr_omitted)


class CutEntry:
    """Completes the output of an entry.

    Args:
        entry: The entry.
    """

    def __init__(self, entry: JobLog) -> None:
        self._entry = entry
        self._parts: dict[OutputStream.ValueType, list[str]] = {
            OUTPUT_STREAM_STDOUT: [entry.stdout],
            OUTPUT_STREAM_STDERR: [entry.stderr],
        }

    def request(self) -> FollowOutputRequest:
        """Returns the request of FollowOutput for the missing part."""
        return FollowOutputRequest(
            request_id=self._entry.request_id,
            job_id=self._entry.job_id,
            stdout_offset=len(self._entry.stdout.encode()),
            stderr_offset=len(self._entry.stderr.encode()),
            **{"try": getattr(self._entry, "try")},
        )

    def add(self, response: FollowOutputResponse) -> None:
        """Adds the next response."""
        if response.HasField("text"):
            self._parts[response.text.stream].append(response.text.text)
        elif response.HasField("gap") and response.gap.reason == OUTPUT_GAP_REASON_TRUNCATED:
            self._parts[response.gap.stream].append(note_of(response.gap.to - getattr(response.gap, "from")))

    def finish(self) -> None:
        """Sets the complete output of the entry, with the notes of what the Job Runner did not keep."""
        self._entry.stdout = "".join(self._parts[OUTPUT_STREAM_STDOUT])
        self._entry.stderr = "".join(self._parts[OUTPUT_STREAM_STDERR])
        self._entry.ClearField("stdout_omitted")
        self._entry.ClearField("stderr_omitted")
