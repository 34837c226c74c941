"""Retries the transactions of operators' commands, because servers may use the database meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.engine import Connection, Engine

from spincycle_grpc.backoff import Backoff
from spincycle_server.database.troubles import Trouble, translate_for_operator, trouble_of

_Answer = TypeVar("_Answer")

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


def in_transaction(
    engine: Engine, work: Callable[[Connection], _Answer], *, patience: float, reads: bool = False
) -> _Answer:
    """Does work in a transaction, and returns its answer after the commit.

    Args:
        engine: Connects to the database.
        work: Does the work. It must be repeatable: if the answer of a commit is lost, it runs again.
        patience: Seconds for which a failed transaction is retried.
        reads: Whether the work only reads. Then it does not block writers.

    Raises:
        SpinCycleError: The work could not be done. The message is for an operator.
    """
    deadline = time.monotonic() + patience
    backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
    connected = False  # Report a wrong address or password at once.
    while True:
        try:
            with engine.connect().execution_options(readonly=reads) as connection:
                connected = True
                answer = work(connection)
                _commit(connection)
                return answer
        except Exception as error:
            trouble = trouble_of(error)
            passes = trouble in (Trouble.CONFLICT, Trouble.DUPLICATE) or (
                trouble is Trouble.AWAY and connected
            )
            if not passes or time.monotonic() > deadline:
                raise translate_for_operator(error, engine.url) from error
        time.sleep(backoff.next())


def _commit(connection: Connection) -> None:
    try:
        connection.commit()
    except BaseException:
        connection.invalidate()  # A failed commit may leave the transaction open: nobody may reuse it.
        raise
