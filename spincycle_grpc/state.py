"""Short names for the states of requests, job chains and jobs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from spincycle_grpc.v1 import state_pb2


class State(IntEnum):
    """The values of `spincycle.v1.State` without the prefix. state.proto explains them.

    Members are equal to the numbers in generated messages, and can be used in their place.
    """

    UNKNOWN = state_pb2.STATE_UNKNOWN
    PENDING = state_pb2.STATE_PENDING
    RUNNING = state_pb2.STATE_RUNNING
    COMPLETE = state_pb2.STATE_COMPLETE
    FAIL = state_pb2.STATE_FAIL
    RESERVED = state_pb2.STATE_RESERVED
    STOPPED = state_pb2.STATE_STOPPED
    SUSPENDED = state_pb2.STATE_SUSPENDED


STATES: Mapping[int, State] = {state.value: state for state in State}
"""The members by number. A lookup takes a tenth of the time of `State(number)`."""

FINAL_STATES: frozenset[int] = frozenset({State.COMPLETE, State.FAIL, State.STOPPED})
"""The states that a request can end in."""

UNFINISHED_STATES: frozenset[int] = frozenset({State.PENDING, State.RUNNING, State.SUSPENDED})
"""The states of requests that have not ended."""
