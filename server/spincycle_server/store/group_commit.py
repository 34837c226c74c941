"""Group commit: writes that arrive together are committed together, and each caller gets its own result.

A thread takes all waiting writes, makes their changes in one transaction, commits it, and only then
answers the callers. If one write makes the transaction fail, each write is repeated in its own transaction.
So a write that fails does not affect the others.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import structlog
from sqlalchemy.engine import Engine

from spincycle_grpc.errors import ResourceExhaustedError, SpinCycleError, Status, UnavailableError
from spincycle_server.callback_throttle import CallbackThrottle
from spincycle_server.database.troubles import Trouble, translate, trouble_of
from spincycle_server.store.batches import BatchCommitter
from spincycle_server.store.write import Write

logger = structlog.get_logger(__name__)

MAX_WAITING = 10_000
"""Writes that may wait in the queue; further ones are refused."""

RESERVED = 1000
"""Extra places in the queue for writes of runners, so that no runner loses its lease under load by users."""

MAX_BATCH = 500
"""Writes in one transaction."""


@dataclass(slots=True)
class _QueuedWrite:
    write: Write
    future: asyncio.Future[Any]


class GroupCommitWriter:
    """Does writes in batches, in the order of their arrival.

    Args:
        engine: Connects to the database.
        patience: Seconds to wait for the database to come back.
        name: The name of the writer in the metrics.

    Attributes:
        on_events: Called after a commit with what it has done, for the metrics.
        on_changed: Called after a commit with the ids of the requests that it changed; None if nobody asks.
    """

    def __init__(self, engine: Engine, *, patience: float, name: str = "changes") -> None:
        self.on_events: Callable[[Iterable[Any]], None] = lambda _: None
        self.on_changed: Callable[[Iterable[str]], None] | None = None
        self.batches = BatchCommitter(engine, patience=patience, name=name)
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_QueuedWrite | None] = queue.SimpleQueue()
        self._closed = False
        self._throttle = CallbackThrottle()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """The number of writes that wait for the next batch."""
        return self._queue.qsize()

    async def write(self, write: Write) -> Any:
        """Does a write, and returns its result after the commit.

        If the caller is cancelled, the write is still done.

        Raises:
            UnavailableError: The store is closed (reason STORE_CLOSED), or the database cannot be used.
            ResourceExhaustedError: The queue is full. Reason: TOO_MANY_WRITES.
            SpinCycleError: The write could not be done, and has changed nothing.
        """
        if self._closed:
            raise UnavailableError("the database is closed", reason="STORE_CLOSED")
        limit = MAX_WAITING + RESERVED if write.is_reserved else MAX_WAITING
        if self.waiting >= limit:
            raise ResourceExhaustedError(
                f"{MAX_WAITING} changes wait for the database, which is the limit: try again later",
                reason="TOO_MANY_WRITES",
            )
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queue.put(_QueuedWrite(write, future))
        return await future

    async def close(self) -> None:
        """Does the waiting writes, then ends the thread."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                results = self._commit(batch)
                self._loop.call_soon_threadsafe(self._answer, batch, results, self.batches.take_events())
        finally:
            self.batches.close()

    def _next_batch(self) -> list[_QueuedWrite] | None:
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
                self._queue.put(None)  # Ends the thread after this batch: nothing is queued behind it.
                break
            batch.append(following)
        return batch

    def _commit(self, batch: list[_QueuedWrite]) -> list[Any]:
        try:
            return self.batches.run([queued.write for queued in batch])
        except Exception as error:
            if len(batch) == 1 or trouble_of(error) in (Trouble.AWAY, Trouble.UNUSABLE):
                return [_failure(error, len(batch))] * len(batch)
            logger.warning(
                "batch failed, each write is done alone", writes=len(batch), error=type(error).__name__
            )
        return [self._commit([queued])[0] for queued in batch]

    def _answer(self, batch: Sequence[_QueuedWrite], results: Sequence[Any], events: Iterable[Any]) -> None:
        self.on_events(events)
        if self.on_changed is not None:
            self.on_changed(chain.from_iterable(queued.write.request_ids for queued in batch))
        for queued, result in zip(batch, results, strict=True):
            if queued.write.is_reserved:  # Runners do not wait behind many users.
                _resolve(queued.future, result)
            else:
                self._throttle.run(_resolve, queued.future, result)


def _failure(error: Exception, writes: int) -> SpinCycleError:
    translated = translate(error)
    if translated.status is Status.INVALID_ARGUMENT:
        logger.info("write refused", writes=writes, reason=translated.reason)
    elif trouble_of(error) is Trouble.AWAY:  # Its traceback would tell nothing.
        logger.error("write failed", writes=writes, reason=translated.reason, error=translated.message)
    else:
        logger.error("write failed", writes=writes, reason=translated.reason, exc_info=error)
    return translated


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():
        return
    if isinstance(result, SpinCycleError):
        future.set_exception(result)
    else:
        future.set_result(result)
