"""The kinds of requests that use the journal job, and how each must end despite disturbances."""

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
        type: The request type.
        ends: The final state, with or without disturbances.
        args: The request args.
        sequence_retries: How many times a sequence may be retried.
        is_stopped: Whether the user stops the request.
        is_poison: Whether a job of it ends its runner's process.
    """

    type: str
    ends: State
    args: dict[str, Any] = field(default_factory=dict)
    sequence_retries: int = 0
    is_stopped: bool = False
    is_poison: bool = False


KINDS = [
    Kind("row", State.COMPLETE),
    Kind("retried", State.COMPLETE),
    Kind("failing", State.FAIL),
    Kind("sequence-retried", State.COMPLETE, sequence_retries=3),
    Kind("hosts", State.COMPLETE, {"hosts": ["a", "b", "c", "d"]}),
    Kind("timed-out", State.FAIL),
    Kind("conditional", State.COMPLETE, {"way": "long"}),
    Kind("conditional", State.COMPLETE, {"way": "short"}),
    Kind("cleaned-up", State.COMPLETE),
    Kind("cleaned-up", State.FAIL, {"times": "99"}),
    Kind("limited", State.COMPLETE, {"hosts": ["a", "b", "c"]}, sequence_retries=3),
]

CHAOS_KINDS = [
    *KINDS,
    Kind("row", State.COMPLETE, {"ms": "500"}),
    Kind("hosts", State.COMPLETE, {"hosts": ["a", "b", "c"], "ms": "300"}),
    Kind("row", State.STOPPED, {"ms": "3600000"}, is_stopped=True),
    Kind("never-done", State.STOPPED, sequence_retries=1_000_000, is_stopped=True),
    Kind("newer", State.COMPLETE),
]
"""Adds jobs that run long enough to be killed, requests that run until a user stops them, and requests that
only runners of a newer version can run."""

POISON = Kind("poison", State.FAIL, is_poison=True)


def assert_ended_right(kind: Kind, request: dict[str, Any], log: list[dict[str, Any]]) -> None:
    """Checks the final state and the counters of a request, and that its log has no job twice.

    Raises:
        AssertionError: The request or its log is not as the kind requires.
    """
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
