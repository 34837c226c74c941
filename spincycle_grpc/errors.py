"""The one tree of errors: what the servers raise, and what the clients raise again.

An error has a status (what kind of failure, for gRPC and HTTP alike), a stable reason (one
upper-case word for programs), a message (one sentence for people, which says what to do)
and, where it is about one request, the request's id.
"""

from __future__ import annotations

from enum import Enum


class Status(Enum):
    """The kinds of failure: their gRPC status numbers and HTTP status codes.

    The gRPC numbers are those of google.rpc.Code; this module does without the grpc
    package, so that code which does no I/O can raise errors too.
    """

    CANCELLED = (1, 499)
    UNKNOWN = (2, 500)
    INVALID_ARGUMENT = (3, 400)
    DEADLINE_EXCEEDED = (4, 504)
    NOT_FOUND = (5, 404)
    ALREADY_EXISTS = (6, 409)
    PERMISSION_DENIED = (7, 401)
    RESOURCE_EXHAUSTED = (8, 429)
    FAILED_PRECONDITION = (9, 409)
    UNIMPLEMENTED = (12, 501)
    INTERNAL = (13, 500)
    UNAVAILABLE = (14, 503)
    UNAUTHENTICATED = (16, 401)

    @property
    def grpc_code(self) -> int:
        """The number of the gRPC status."""
        return self.value[0]

    @property
    def http_status(self) -> int:
        """The HTTP status code."""
        return self.value[1]

    @classmethod
    def from_grpc_code(cls, code: int) -> Status:
        """Returns the status with this gRPC number; UNKNOWN for one that is not in use here."""
        return _BY_GRPC_CODE.get(code, cls.UNKNOWN)


_BY_GRPC_CODE = {status.grpc_code: status for status in Status}


class SpinCycleError(Exception):
    """The root of all errors that users meet.

    Attributes:
        status: The kind of failure.
        reason: A stable upper-case word for programs, as "REQUEST_NOT_FOUND".
        message: One sentence for people.
        request_id: The request that the error is about, or "".
    """

    status: Status = Status.UNKNOWN

    def __init__(self, message: str, *, reason: str = "", request_id: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.status.name
        self.request_id = request_id

    def __str__(self) -> str:
        return self.message


class InvalidArgumentError(SpinCycleError):
    """The call cannot succeed as it was made, whatever the state of the system."""

    status = Status.INVALID_ARGUMENT


class NotFoundError(SpinCycleError):
    """There is no such request, job or job chain."""

    status = Status.NOT_FOUND


class ConflictError(SpinCycleError):
    """What the call would make exists already, and differs."""

    status = Status.ALREADY_EXISTS


class FailedPreconditionError(SpinCycleError):
    """The request is in the wrong state for the call."""

    status = Status.FAILED_PRECONDITION


class UnauthenticatedError(SpinCycleError):
    """The server does not know who calls."""

    status = Status.UNAUTHENTICATED


class PermissionDeniedError(SpinCycleError):
    """The caller may not do this."""

    status = Status.PERMISSION_DENIED


class ResourceExhaustedError(SpinCycleError):
    """The server has more work than it holds; try again later."""

    status = Status.RESOURCE_EXHAUSTED


class UnavailableError(SpinCycleError):
    """The server cannot do this now: it shuts down, or something that it needs is away."""

    status = Status.UNAVAILABLE


class DeadlineExceededError(SpinCycleError):
    """The call took longer than its deadline. It may have had its effect."""

    status = Status.DEADLINE_EXCEEDED


class CallCancelledError(SpinCycleError):
    """The caller gave the call up. It may have had its effect."""

    status = Status.CANCELLED


class UnimplementedError(SpinCycleError):
    """The server does not know the method."""

    status = Status.UNIMPLEMENTED


class InternalError(SpinCycleError):
    """The server, a spec or a job's create is broken; the server's log says more."""

    status = Status.INTERNAL


class UnknownError(SpinCycleError):
    """A failure of another kind."""

    status = Status.UNKNOWN


ERROR_CLASSES: dict[Status, type[SpinCycleError]] = {
    subclass.status: subclass for subclass in SpinCycleError.__subclasses__()
}
"""The class to raise for each status."""
