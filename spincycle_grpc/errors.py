"""The errors that the servers raise, and that the clients raise again.

An error has a status (the kind of failure, for gRPC and HTTP), a stable reason (an upper-case word for
programs) and a message (a sentence for people that says what to do). An error about one request also has
the id of the request.
"""

from __future__ import annotations

from enum import Enum


class Status(Enum):
    """The kinds of failure, with their gRPC and HTTP status codes.

    The gRPC codes are those of google.rpc.Code. This module does not import grpc, so code without I/O can
    raise errors too.
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
        """The gRPC status code."""
        return self.value[0]

    @property
    def http_status(self) -> int:
        """The HTTP status code. Routes that the original does not have send 403 for PERMISSION_DENIED."""
        return self.value[1]

    @classmethod
    def from_grpc_code(cls, code: int) -> Status:
        """Returns the status with this gRPC code. UNKNOWN if there is none."""
        return _BY_GRPC_CODE.get(code, cls.UNKNOWN)


_BY_GRPC_CODE = {status.grpc_code: status for status in Status}


class SpinCycleError(Exception):
    """The base class of all errors.

    Attributes:
        status: The kind of failure.
        reason: A stable upper-case word for programs, for example "REQUEST_NOT_FOUND". errors.proto lists
            all reasons.
        message: One sentence for people.
        request_id: The id of the request that the error is about. Empty: no single request.
        field: The field of the call that is not valid, for example "args.host". Empty: no single field.
    """

    status: Status = Status.UNKNOWN

    def __init__(self, message: str, *, reason: str = "", request_id: str = "", field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.status.name
        self.request_id = request_id
        self.field = field

    def __str__(self) -> str:
        return self.message


class InvalidArgumentError(SpinCycleError):
    """The call is not valid in any state of the system. Correct it before you try again."""

    status = Status.INVALID_ARGUMENT


class NotFoundError(SpinCycleError):
    """The request, job or job chain does not exist."""

    status = Status.NOT_FOUND


class ConflictError(SpinCycleError):
    """The idempotency key was already used for a request with another type, user or args."""

    status = Status.ALREADY_EXISTS


class FailedPreconditionError(SpinCycleError):
    """The request is in the wrong state for the call."""

    status = Status.FAILED_PRECONDITION


class UnauthenticatedError(SpinCycleError):
    """The caller is not authenticated."""

    status = Status.UNAUTHENTICATED


class PermissionDeniedError(SpinCycleError):
    """The caller is not allowed to do this."""

    status = Status.PERMISSION_DENIED


class ResourceExhaustedError(SpinCycleError):
    """A limit of the server is reached. Nothing was done. Try again later."""

    status = Status.RESOURCE_EXHAUSTED


class UnavailableError(SpinCycleError):
    """The server cannot do this now: it is unreachable, shutting down, or lacks its database or a runner."""

    status = Status.UNAVAILABLE


class DeadlineExceededError(SpinCycleError):
    """The call took longer than its deadline. It may still have taken effect."""

    status = Status.DEADLINE_EXCEEDED


class CallCancelledError(SpinCycleError):
    """The call was cancelled. It may still have taken effect."""

    status = Status.CANCELLED


class UnimplementedError(SpinCycleError):
    """The server does not have this method."""

    status = Status.UNIMPLEMENTED


class InternalError(SpinCycleError):
    """The server, a spec or a job is broken. The server's log has the details."""

    status = Status.INTERNAL


class UnknownError(SpinCycleError):
    """Any other failure."""

    status = Status.UNKNOWN


ERROR_CLASSES: dict[Status, type[SpinCycleError]] = {
    subclass.status: subclass for subclass in SpinCycleError.__subclasses__()
}
"""The error class of each status."""
