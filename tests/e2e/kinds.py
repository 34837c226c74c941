"""The kinds of requests of the journal specs, and what must be true of each however it was disturbed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spincycle_grpc.state import State

SPECS = Path(__file__).parent / "data" / "specs"


@dataclass(frozen=True)
class Kind:
    """A kind of request.

    Attributes:
        type: Its request type.
        ends: The state that it ends in, undisturbed or not.
        args: Its args.
        sequence_retries: How often a sequence in it may be tried again.
        is_stopped: Whether its user stops it.
    """

    type: str
    ends: State
    args: dict[str, Any] = field(default_factory=dict)
    sequence_retries: int = 0
    is_stopped: bool = False


KINDS = [
    Kind("row", State.COMPLETE),
    Kind("retried", State.COMPLETE),
    Kind("failing", State.FAIL),
    Kind("sequence-retried", State.COMPLETE, sequence_retries=3),
    Kind("hosts", State.COMPLETE, {"hosts": ["a", "b", "c", "d"]}),
    Kind("timed-out", State.FAIL),
    Kind("conditional", State.COMPLETE, {"way": "long"}),
    Kind("conditional", State.COMPLETE, {"way": "short"}),
]

CHAOS_KINDS = [
    *KINDS,
    Kind("row", State.COMPLETE, {"ms": "500"}),
    Kind("hosts", State.COMPLETE, {"hosts": ["a", "b", "c"], "ms": "300"}),
    Kind("row", State.STOPPED, {"ms": "3600000"}, is_stopped=True),
]
"""With jobs that run long enough to be killed at it, and requests that run until they are stopped."""


def assert_ended_right(kind: Kind, request: dict[str, Any], log: list[dict[str, Any]]) -> None:
    """Checks what became of a request: its state, its counters, and that no job was done twice."""
    assert State(request["state"]) is kind.ends, (kind, request["id"])
    complete = Counter(entry["jobId"] for entry in log if entry["state"] == State.COMPLETE)
    again = {job_id: count for job_id, count in complete.items() if count > 1 + kind.sequence_retries}
    assert not again, (kind, request["id"], again)
    if kind.ends is State.COMPLETE:
        assert request["finishedJobs"] == request["totalJobs"] == len(complete)
    tries: dict[str, list[int]] = {}
    for entry in log:
        tries.setdefault(entry["jobId"], []).append(entry["try"])
    for job_id, numbers in tries.items():
        assert sorted(numbers) == list(range(1, len(numbers) + 1)), (kind, request["id"], job_id, numbers)
