"""What `spinc` says when something goes wrong, and with which exit status."""

from __future__ import annotations

import click

from spincycle_grpc.errors import SpinCycleError, Status

OTHER = 5
"""The exit status when the failure is of no other kind."""

INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""

BROKEN_PIPE = 141
"""The exit status when nobody reads the output any more, as shells have it."""

_REFUSED = 3
_NOT_NOW = 4
_EXIT_CODES = {
    Status.INVALID_ARGUMENT: _REFUSED,
    Status.NOT_FOUND: _REFUSED,
    Status.ALREADY_EXISTS: _REFUSED,
    Status.FAILED_PRECONDITION: _REFUSED,
    Status.PERMISSION_DENIED: _REFUSED,
    Status.UNAUTHENTICATED: _REFUSED,
    Status.UNAVAILABLE: _NOT_NOW,
    Status.DEADLINE_EXCEEDED: _NOT_NOW,
    Status.RESOURCE_EXHAUSTED: _NOT_NOW,
}


class Failure(click.ClickException):
    """The end of `spinc` with a sentence and an exit status.

    Args:
        sentence: What to say; empty: nothing.
        status: The exit status.
    """

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


def failure_of(error: SpinCycleError) -> Failure:
    """Returns the end that an error is."""
    return Failure(error.message, _EXIT_CODES.get(error.status, OTHER))


def usage_sentence(error: click.ClickException) -> str:
    """Returns what to say of a command line that is wrong."""
    command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "spinc"
    return f"{error.format_message().rstrip('.')} (see {command} --help)"
