"""Explains the end of statements that the database itself ended because they took too long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from spincycle_grpc.errors import DeadlineExceededError
from spincycle_server.database.troubles import was_ended

REQUESTS_NOT_FOUND = (
    "the database took too long to find the requests, so the search was stopped: "
    "narrow the filter, or use a limit and a smaller offset"
)
"""The message of all searches for requests."""


@contextmanager
def explained_ends(message: str) -> Iterator[None]:
    """Explains the error of a statement that the database ended.

    Args:
        message: Says what took too long, and what to do.

    Raises:
        DeadlineExceededError: The statement took too long. Reason: FIND_TOO_SLOW.
    """
    try:
        yield
    except DBAPIError as error:
        if was_ended(error):
            raise DeadlineExceededError(message, reason="FIND_TOO_SLOW") from error
        raise
