"""The errors that several modules of the store raise."""

from __future__ import annotations

from spincycle_grpc.errors import ConflictError, FailedPreconditionError, NotFoundError
from spincycle_grpc.state import State


def not_found(request_id: str) -> NotFoundError:
    """Returns the error for a request that does not exist."""
    return NotFoundError(f"request {request_id} not found", reason="REQUEST_NOT_FOUND", request_id=request_id)


def wrong_state(request_id: str, state: int, expected: State) -> FailedPreconditionError:
    """Returns the error for a request that is not in the state that a change expects."""
    return FailedPreconditionError(
        f"request in state {State(state).name}, expected state {expected.name}",
        reason="WRONG_STATE",
        request_id=request_id,
    )


def request_paused(request_id: str) -> FailedPreconditionError:
    """Returns the error for a request that cannot start because it is paused."""
    return FailedPreconditionError(
        f"request {request_id} is paused: resume it", reason="REQUEST_PAUSED", request_id=request_id
    )


class CreatedBeforeError(ConflictError):
    """The call's idempotency key has created the same request before. Its id is `request_id`."""
