"""Group commit: writes that arrive together are committed together, and each caller gets its own result.

One thread writes. It takes all writes that wait, does them in one transaction, commits, and only
then tells the callers. When that transaction fails, each write is done again in one of its own,
so that a write that cannot be done harms no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import queue
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import BigInteger, Update, bindparam, delete, insert, select, update
from sqlalchemy.engine import Connection, Engine

from spincycle_grpc.backoff import Backoff
from spincycle_grpc.errors import ResourceExhaustedError, SpinCycleError, UnavailableError
from spincycle_server.callback_throttle import CallbackThrottle
from spincycle_server.database.clock import EXPRESSIONS, now_expression
from spincycle_server.database.transaction import RowStatement, Transaction
from spincycle_server.database.troubles import Trouble, translate, trouble_of
from spincycle_server.store.schema import writers
from spincycle_server.store.write import Write

logger = structlog.get_logger(__name__)

MAX_WAITING = 10_000
"""Writes that wait; one more is refused."""

RESERVED = 1000
"""Writes beyond that which wait if they are of runners, which must not lose their leases to users' load."""

MAX_BATCH = 500
"""Writes in one transaction."""

MAX_CONFLICTS = 8
"""How often a transaction is done again since another was in its way."""

MAX_DUPLICATES = 3
"""How often one write is done again since there was a row of its key."""

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.5
_KEPT = 86_400_000_000
"""Microseconds that the row of a writer that writes no more is kept."""


def _leave_number(dialect_name: str) -> Update:
    now = bindparam("now", type_=BigInteger) if dialect_name == "sqlite" else EXPRESSIONS[dialect_name]
    return (
        update(writers)
        .where(writers.c.writer_id == bindparam("key"))
        .values(batch=bindparam("number"), updated_at=now)
    )


_LEAVE_NUMBER = RowStatement(_leave_number)
_SELECT_NUMBER = select(writers.c.batch).where(writers.c.writer_id == bindparam("key")).with_for_update()


@dataclass(slots=True)
class _Waiting:
    write: Write
    future: asyncio.Future[Any]


class GroupCommitWriter:
    """Does writes in the order of their batches.

    Args:
        engine: Connects to the database.
        patience: Seconds to wait for a trouble to pass.
    """

    def __init__(self, engine: Engine, *, patience: float) -> None:
        self._engine = engine
        self._patience = patience
        self._id = uuid.uuid4().hex[:20]
        self._number = 0
        self._is_away = False
        self._row_renewed_at = -math.inf
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._closed = False
        self._throttle = CallbackThrottle()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()
        self.commits = 0

    async def write(self, write: Write) -> Any:
        """Does a write and returns its result once it is committed.

        A caller that gives up leaves the write to be done all the same.

        Raises:
            SpinCycleError: The write could not be done, and changed nothing.
        """
        if self._closed:
            raise UnavailableError("the database is closed", reason="STORE_CLOSED")
        limit = MAX_WAITING + RESERVED if write.is_reserved else MAX_WAITING
        if self._queue.qsize() >= limit:
            raise ResourceExhaustedError(
                f"{MAX_WAITING} changes wait for the database, the limit: try again later",
                reason="TOO_MANY_WRITES",
            )
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queue.put(_Waiting(write, future))
        return await future

    async def close(self) -> None:
        """Does what waits, then ends the thread."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            results = self._commit(batch)
            self._loop.call_soon_threadsafe(self._resolve, batch, results)

    def _resolve(self, batch: Sequence[_Waiting], results: Sequence[Any]) -> None:
        for waiting, result in zip(batch, results, strict=True):
            if waiting.write.is_reserved:  # What runners wait for does not wait for users' crowds.
                _resolve(waiting.future, result)
            else:
                self._throttle.run(_resolve, waiting.future, result)

    def _next_batch(self) -> list[_Waiting] | None:
        first = self._queue.get()
        if first is None:
            return None
        batch = [first]
        while len(batch) < MAX_BATCH:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                break
            if following is None:
                self._queue.put(None)  # For the next turn; nothing is put after it.
                break
            batch.append(following)
        return batch

    def _commit(self, batch: list[_Waiting]) -> list[Any]:
        try:
            return self._done([waiting.write for waiting in batch])
        except Exception as error:
            if len(batch) == 1 or trouble_of(error) in (Trouble.AWAY, Trouble.UNUSABLE):
                return [self._failure(error, len(batch))] * len(batch)
            logger.warning(
                "batch failed, each write is done alone", writes=len(batch), error=type(error).__name__
            )
        return [self._commit([waiting])[0] for waiting in batch]

    def _failure(self, error: Exception, writes: int) -> SpinCycleError:
        translated = translate(error)
        logger.error("write failed", writes=writes, reason=translated.reason, exc_info=error)
        return translated

    def _done(self, writes: Sequence[Write]) -> list[Any]:
        """Does the writes once, however often it takes. Raises the last error when it gives up."""
        self._number += 1
        deadline = time.monotonic() + (0 if self._is_away else self._patience)
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        conflicts = 0
        in_doubt: list[Any] | None = None
        was_in_doubt = False
        while True:
            try:
                if in_doubt is not None and self._is_committed():
                    logger.info("transaction whose answer was lost is committed")
                    return in_doubt
                in_doubt = None
                self._make_row()
                with self._engine.connect() as connection, _rolled_back(connection):
                    connection.begin()
                    transaction = Transaction(connection)
                    results = self._apply(transaction, writes)
                    in_doubt = results
                    self._commit_now(transaction)
            except Exception as error:
                trouble = trouble_of(error)
                conflicts += trouble in (Trouble.CONFLICT, Trouble.DUPLICATE)
                limit = {
                    Trouble.AWAY: math.inf,
                    Trouble.CONFLICT: MAX_CONFLICTS,
                    # With others in the batch, each is done alone next.
                    Trouble.DUPLICATE: MAX_DUPLICATES if len(writes) == 1 else 0,
                }
                passes = conflicts < limit.get(trouble, 0)
                if passes and in_doubt is not None and not was_in_doubt and trouble is Trouble.AWAY:
                    # However long it took: whether it is committed must be looked up.
                    was_in_doubt = True
                    deadline = max(deadline, time.monotonic() + self._patience)
                if not passes or time.monotonic() > deadline:
                    self._is_away = trouble is Trouble.AWAY
                    raise
                logger.warning("transaction is done again", trouble=trouble.name, writes=len(writes))
            else:
                self._is_away = False
                self.commits += 1
                return results
            time.sleep(backoff.next())

    def _apply(self, transaction: Transaction, writes: Sequence[Write]) -> list[Any]:
        kinds: defaultdict[type[Write], list[int]] = defaultdict(list)
        for index, write in enumerate(writes):
            kinds[type(write)].append(index)
        results: list[Any] = [None] * len(writes)
        for kind in sorted(kinds, key=lambda kind: kind.order):
            indexes = kinds[kind]
            answers = kind.apply_all(transaction, [writes[index] for index in indexes])
            for index, answer in zip(indexes, answers, strict=True):
                results[index] = answer
        self._leave_number(transaction)
        return results

    def _make_row(self) -> None:
        """Makes this writer's row, in a transaction of its own, before those that it numbers.

        The lock on a row that is there makes `_is_committed` wait for a transaction whose end is open. Others
        drop the row when it was not written for a day, so it is looked after when half of that is over.
        """
        if time.monotonic() - self._row_renewed_at < _KEPT / 2e6:
            return
        with self._engine.begin() as connection:
            now = now_expression(connection)
            connection.execute(delete(writers).where(writers.c.updated_at < now - _KEPT))
            if connection.scalar(_SELECT_NUMBER, {"key": self._id}) is None:
                row = {"writer_id": self._id, "batch": self._number - 1, "updated_at": now}
                connection.execute(insert(writers).values(row))
        self._row_renewed_at = time.monotonic()

    def _leave_number(self, transaction: Transaction) -> None:
        row = {"key": self._id, "number": self._number, "now": time.time_ns() // 1000}
        # First, so that the row is locked whatever else of the packet is still to be done.
        transaction.change(_LEAVE_NUMBER, [row], first=True)

    def _commit_now(self, transaction: Transaction) -> None:
        transaction.commit()
        self._row_renewed_at = time.monotonic()

    def _is_committed(self) -> bool:
        with self._engine.connect() as connection:
            number = connection.scalar(_SELECT_NUMBER, {"key": self._id})
        return bool(number == self._number)


@contextlib.contextmanager
def _rolled_back(connection: Connection) -> Iterator[None]:
    """Leaves nothing open of a transaction that failed, also in its commit, nor a connection that broke."""
    try:
        yield
    except Exception as error:
        if trouble_of(error) is Trouble.AWAY or not _roll_back(connection):
            connection.invalidate()
        raise


def _roll_back(connection: Connection) -> bool:
    """Rolls back below SQLAlchemy, which does not after a commit that failed. Returns whether it worked."""
    try:
        connection.connection.rollback()
    except Exception:
        return False
    return True


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():
        return
    if isinstance(result, SpinCycleError):
        future.set_exception(result)
    else:
        future.set_result(result)
