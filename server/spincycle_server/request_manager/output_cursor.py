"""How far a caller has read the output of a try, and the cursor that says so."""

from __future__ import annotations

import re
from dataclasses import dataclass

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.v1.output_pb2 import (
    OUTPUT_GAP_REASON_LOST,
    OUTPUT_STREAM_STDERR,
    OUTPUT_STREAM_STDOUT,
    OutputGap,
    OutputStream,
)
from spincycle_grpc.v1.request_manager_pb2 import FollowOutputRequest

_CURSOR = re.compile(r"([^/]{1,64})/([^/]{1,64})/(\d{1,18})/(\d{1,18})/(\d{1,18})/(\d{1,18})", re.ASCII)


@dataclass(slots=True)
class OutputPosition:
    """How far the output of a try was read.

    Attributes:
        request_id: The request.
        job_id: The job.
        number: The number of the try; 0 until the newest one is known.
        epoch: The epoch of the assignment whose run of the try the offsets belong to; 0 if it is unknown. A
            try whose runner is lost runs again under the same number, with a new output.
        offsets: The offset in each stream, in bytes of UTF-8.
    """

    request_id: str
    job_id: str
    number: int
    epoch: int
    offsets: dict[OutputStream.ValueType, int]

    @classmethod
    def of(cls, request: FollowOutputRequest) -> OutputPosition:
        """Returns the position where a call begins.

        Raises:
            InvalidArgumentError: The cursor is malformed, or belongs to another job. Reason: BAD_CURSOR.
        """
        position = cls(
            request.request_id,
            request.job_id,
            getattr(request, "try"),
            0,
            {OUTPUT_STREAM_STDOUT: request.stdout_offset, OUTPUT_STREAM_STDERR: request.stderr_offset},
        )
        if request.cursor:
            position._go_to(request.cursor)
        return position

    @property
    def cursor(self) -> str:
        """The cursor of this position."""
        offsets = "/".join(str(self.offsets[stream]) for stream in sorted(self.offsets))
        return f"{self.request_id}/{self.job_id}/{self.number}/{self.epoch}/{offsets}"

    def begin(self, number: int, epoch: int) -> list[OutputGap]:
        """Goes on with a run of a try.

        Args:
            number: The number of the try.
            epoch: The epoch of the assignment in which it runs.

        Returns:
            The gaps, if the offsets belong to an earlier run. Its output is lost with its runner, and the
            output of the new run starts again.
        """
        gaps: list[OutputGap] = []
        if self.epoch not in (0, epoch):
            for stream, offset in self.offsets.items():
                self.offsets[stream] = 0
                if offset:
                    gap = OutputGap(stream=stream, reason=OUTPUT_GAP_REASON_LOST, **{"from": offset})
                    gaps.append(gap)
        self.number, self.epoch = number, epoch
        return gaps

    def _go_to(self, cursor: str) -> None:
        match = _CURSOR.fullmatch(cursor)
        if match is None or match.group(1, 2) != (self.request_id, self.job_id):
            raise InvalidArgumentError(
                "the cursor is malformed, or belongs to another job: send the cursor of the newest message "
                "as it was received, or none",
                reason="BAD_CURSOR",
                field="cursor",
            )
        self.number, self.epoch, stdout, stderr = (int(part) for part in match.groups()[2:])
        self.offsets = {OUTPUT_STREAM_STDOUT: stdout, OUTPUT_STREAM_STDERR: stderr}
