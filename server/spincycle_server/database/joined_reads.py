"""Reads of rows by their keys that share statements, as writes share transactions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from typing import Generic, TypeAlias, TypeVar

from sqlalchemy.engine import Connection

from spincycle_grpc.errors import UnavailableError
from spincycle_server.database.read_pool import ReadPool

_Key = TypeVar("_Key", bound=str | bytes)
_Row = TypeVar("_Row")
_Waiting: TypeAlias = tuple[_Key, asyncio.Future[_Row | None]]

MAX_KEYS = 64
"""How many keys a statement reads at most."""


class JoinedReads(Generic[_Key, _Row]):
    """Reads rows by their keys. What is asked for while a statement runs is read by the next one together.

    A call always gets its row from a statement that began after the call. If a statement fails although the
    database can be used, each of its keys is read alone, so a row that cannot be read does not affect others.

    Args:
        pool: The threads that read.
        read: Returns the rows of some different keys that exist, by key. It runs in a thread.
    """

    def __init__(
        self, pool: ReadPool, read: Callable[[Connection, Sequence[_Key]], Mapping[_Key, _Row]]
    ) -> None:
        self._pool = pool
        self._read = read
        self._waiting: list[_Waiting[_Key, _Row]] = []
        self._running: asyncio.Task[None] | None = None

    async def get(self, key: _Key) -> _Row | None:
        """Returns the row with a key; None if there is none.

        Raises:
            UnavailableError: The database cannot be used now.
            SpinCycleError: The row cannot be read.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Row | None] = loop.create_future()
        self._waiting.append((key, future))
        if self._running is None:
            # The statements are not only of this call, so they have nothing of its context.
            self._running = loop.create_task(self._run(), context=Context())
        return await future

    async def _run(self) -> None:
        """Reads until nobody waits."""
        some: list[_Waiting[_Key, _Row]] = []
        try:
            while self._waiting:
                some, self._waiting = self._waiting[:MAX_KEYS], self._waiting[MAX_KEYS:]
                await self._answer([(key, future) for key, future in some if not future.done()])
        finally:
            self._running = None
            # If this task was cancelled, nobody would answer those who still wait.
            for _, future in (*some, *self._waiting):
                future.cancel()
            self._waiting = []

    async def _answer(self, waiting: Sequence[_Waiting[_Key, _Row]]) -> None:
        keys = sorted({key for key, _ in waiting})
        found: Mapping[_Key, _Row] = {}
        failure: Exception | None = None
        try:
            if keys:
                found = await self._pool.read(self._read, keys)
        except Exception as error:
            if len(keys) > 1 and not isinstance(error, UnavailableError):  # A single row may be the reason.
                for one in waiting:
                    await self._answer([one])
                return
            failure = error
        for key, future in waiting:
            if future.done():  # The caller does not wait any more.
                continue
            if failure is None:
                future.set_result(found.get(key))
            else:
                future.set_exception(failure)
