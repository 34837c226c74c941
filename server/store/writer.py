"""Group commit: writes that arrive together are committed together, and each caller gets its own result.

One thread writes. It takes all writes that wait, does them in one transaction, commits, and only
then tells the callers. When that transaction fails, each write is done again in one of its own,
so that a write that cannot be done harms no other.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import structlog
from sqlalchemy.engine import Connection, Engine

from spincycle_grpc.errors import ResourceExhaustedError, SpinCycleError, UnavailableError

logger = structlog.get_logger(__name__)

MAX_WAITING = 10_000
"""Writes that wait; one more is refused."""

MAX_BATCH = 500
"""Writes in one transaction."""


class Write(ABC):
    """One change. The writes of one kind that are in a batch are done together.

    Attributes:
        order: Kinds with a lower number come first in a transaction.
    """

    order: ClassVar[int] = 0

    @classmethod
    @abstractmethod
    def apply_all(cls, connection: Connection, writes: Sequence[Any]) -> Sequence[Any]:
        """Does the writes in the open transaction.

        Returns:
            The result of each write. One that is a SpinCycleError is raised for its caller; such a
            write has changed nothing.

        Raises:
            Exception: None of the writes could be done; the transaction is rolled back.
        """


@dataclass(slots=True)
class _Waiting:
    write: Write
    future: asyncio.Future[Any]


class GroupCommitWriter:
    """Does writes in the order of their batches.

    Args:
        engine: Connects to the database.
        translate: Turns an error of the database into one of the project's.
    """

    def __init__(self, engine: Engine, translate: Callable[[Exception], SpinCycleError]) -> None:
        self._engine = engine
        self._translate = translate
        self._loop = asyncio.get_running_loop()
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(MAX_WAITING)
        self._closed = False
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
        future: asyncio.Future[Any] = self._loop.create_future()
        try:
            self._queue.put_nowait(_Waiting(write, future))
        except queue.Full:
            raise ResourceExhaustedError(
                f"{MAX_WAITING} changes wait for the database, the limit: try again later",
                reason="TOO_MANY_WRITES",
            ) from None
        return await future

    async def close(self) -> None:
        """Does what waits, then ends the thread."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._queue.put, None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            results = self._commit(batch)
            self._loop.call_soon_threadsafe(_resolve, batch, results)

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
            return self._transaction([waiting.write for waiting in batch])
        except Exception as error:
            if len(batch) == 1:
                return [self._failure(error)]
            logger.warning(
                "batch failed, each write is done alone", writes=len(batch), error=type(error).__name__
            )
        return [self._commit([waiting])[0] for waiting in batch]

    def _failure(self, error: Exception) -> SpinCycleError:
        translated = self._translate(error)
        logger.error("write failed", reason=translated.reason, exc_info=error)
        return translated

    def _transaction(self, writes: Sequence[Write]) -> list[Any]:
        kinds: defaultdict[type[Write], list[int]] = defaultdict(list)
        for index, write in enumerate(writes):
            kinds[type(write)].append(index)
        results: list[Any] = [None] * len(writes)
        with self._engine.begin() as connection:
            for kind in sorted(kinds, key=lambda kind: kind.order):
                indexes = kinds[kind]
                answers = kind.apply_all(connection, [writes[index] for index in indexes])
                for index, answer in zip(indexes, answers, strict=True):
                    results[index] = answer
        self.commits += 1
        return results


def _resolve(batch: Sequence[_Waiting], results: Sequence[Any]) -> None:
    for waiting, result in zip(batch, results, strict=True):
        if waiting.future.done():
            continue
        if isinstance(result, SpinCycleError):
            waiting.future.set_exception(result)
        else:
            waiting.future.set_result(result)
