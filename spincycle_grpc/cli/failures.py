"""The exit status and the message of `spinc` after an error."""

from __future__ import annotations

import click

from spincycle_grpc.errors import SpinCycleError, Status

OTHER = 5
"""The exit status of failures that have no exit status of their own."""

INTERRUPTED = 130
"""The exit status after Ctrl-C, as in shells."""

BROKEN_PIPE = 141
"""The exit status when the reader of the output has closed the pipe, as in shells."""

_REFUSED = 3
_TRY_LATER = 4
_EXIT_CODES = {
    Status.INVALID_ARGUMENT: _REFUSED,
    Status.NOT_FOUND: _REFUSED,
    Status.ALREADY_EXISTS: _REFUSED,
    Status.FAILED_PRECONDITION: _REFUSED,
    Status.PERMISSION_DENIED: _REFUSED,
    Status.UNAUTHENTICATED: _REFUSED,
    Status.UNAVAILABLE: _TRY_LATER,
    Status.DEADLINE_EXCEEDED: _TRY_LATER,
    Status.RESOURCE_EXHAUSTED: _TRY_LATER,
}

_ADVICE = {
    False: "Use --token-file, or --cert and --key, or a --profile that has them",
    True: "Check that your token is for this server",
}
"""What an unknown caller can do, by whether the call had a token."""

_COMMAND = "`spincycle token create`"


class Failure(click.ClickException):
    """Ends `spinc` with a message and an exit status.

    Args:
        message: The message. Empty: print nothing.
        status: The exit status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def failure_of(error: SpinCycleError, *, sends_token: bool = False) -> Failure:
    """Returns the failure that an error of the client causes.

    Args:
        error: The error.
        sends_token: Whether the calls had a token.
    """
    message = error.message
    if error.status is Status.UNAUTHENTICATED:
        can_create = "API token" in message and _COMMAND not in message  # Other methods have other tokens.
        advice = f". An administrator can create a token with {_COMMAND}" if can_create else ""
        message = f"{message.rstrip('.')}. {_ADVICE[sends_token]}{advice}"
    return Failure(message, _EXIT_CODES.get(error.status, OTHER))


def usage_message(error: click.ClickException) -> str:
    """Returns the message for an invalid command line."""
    command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "spinc"
    return f"{error.format_message().rstrip('.')} (see {command} --help)"
