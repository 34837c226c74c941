"""Transactions of operators' commands: done again when a trouble passes, since servers work beside them."""

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
    """Does work in a transaction and returns its answer once that is committed.

    Args:
        engine: Connects to the database.
        work: What to do. It may be done again after it has been committed, when the answer of its
            commit was lost; that must do no harm.
        patience: Seconds for which troubles that pass by themselves are waited out.
        reads: Whether it only reads, and then keeps nobody from writing.

    Raises:
        SpinCycleError: It could not be done; says why, for an operator.
    """
    deadline = time.monotonic() + patience
    backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
    connected = False  # An address or password that is wrong is told at once.
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
        connection.invalidate()  # What a failed commit leaves open is nobody's.
        raise
