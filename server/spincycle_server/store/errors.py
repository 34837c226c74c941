"""The errors that several parts of the store raise."""

from __future__ import annotations

from spincycle_grpc.errors import ConflictError, FailedPreconditionError, NotFoundError
from spincycle_grpc.state import State


def not_found(request_id: str) -> NotFoundError:
    """Returns the error for a request that does not exist."""
    return NotFoundError(f"request {request_id} not found", reason="REQUEST_NOT_FOUND", request_id=request_id)


def wrong_state(request_id: str, state: int, expected: State) -> FailedPreconditionError:
    """Returns the error for a request in a state that a write does not fit."""
    return FailedPreconditionError(
        f"request in state {State(state).name}, expected state {expected.name}",
        reason="WRONG_STATE",
        request_id=request_id,
    )


class CreatedBeforeError(ConflictError):
    """The request of a key exists already, and is what the call asks for. Its id is `request_id`."""
