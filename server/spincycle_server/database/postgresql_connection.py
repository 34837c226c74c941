"""A connection to PostgreSQL that does not wait for ever for a server that hangs.

The driver itself waits without a limit, because it relies on the limits of the server. A server whose machine
or process is frozen keeps none. The driver for MySQL has a limit of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen

_Answer = TypeVar("_Answer")

_WAKE_INTERVAL = 0.1
"""Seconds between two looks for signals while the driver waits. This is the driver's own default."""

_AFTER_THE_SERVER = 1.0
"""Seconds that the server has to report that it has ended a statement by its own limit."""


class LimitedConnection(psycopg.Connection[Any]):
    """A connection that closes itself when the server does not answer within a limit.

    Attributes:
        answer_limit: Seconds to wait for an answer; None for no limit.
    """

    answer_limit: float | None = None

    def wait(
        self, gen: PQGen[_Answer], interval: float = _WAKE_INTERVAL, timeout: float | None = None
    ) -> _Answer:
        """Waits until an operation ends.

        Raises:
            psycopg.OperationalError: The server did not answer in time. The connection is closed, because
                nobody knows its state.
        """
        limit = self.answer_limit if timeout is None else timeout
        try:
            return super().wait(gen, interval, limit)
        except psycopg.errors._WaitTimeout:  # It has no public name. Other errors do not close it.
            self.pgconn.finish()
            raise


def connector(statement_timeout: float | None) -> Callable[..., LimitedConnection]:
    """Returns a listener of SQLAlchemy's `do_connect` that makes such connections.

    Args:
        statement_timeout: Seconds after which the server ends a statement; None if it does not.
    """

    def connect(
        dialect: object, record: object, arguments: list[Any], named: dict[str, Any]
    ) -> LimitedConnection:
        connection = LimitedConnection.connect(*arguments, **named)
        if statement_timeout is not None:
            connection.answer_limit = statement_timeout + _AFTER_THE_SERVER
        return connection

    return connect
