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

SLOW = 0.05
"""Seconds after which calls do not wait for a statement any more, and another one begins for them."""

MAX_AT_ONCE = 4
"""How many statements run at a time at most, if all of them are slow."""


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
        self._running: set[asyncio.Task[None]] = set()
        self._awaited: asyncio.Task[None] | None = None  # the statement after which the next one begins

    async def get(self, key: _Key) -> _Row | None:
        """Returns the row with a key; None if there is none.

        Raises:
            UnavailableError: The database cannot be used now.
            SpinCycleError: The row cannot be read.
        """
        future: asyncio.Future[_Row | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, future))
        self._begin()
        return await future

    def _begin(self) -> None:
        """Begins a statement for the calls that wait, unless they should wait for one that runs."""
        if self._waiting and self._awaited is None and len(self._running) < MAX_AT_ONCE:
            # The statements are not only of this call, so they have nothing of its context.
            self._awaited = asyncio.get_running_loop().create_task(self._run(), context=Context())
            self._running.add(self._awaited)
            self._awaited.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._await_no_longer(task)

    def _await_no_longer(self, task: asyncio.Task[None] | None) -> None:
        """Lets the next statement begin when one has ended, or is slow: its connection may be broken."""
        if self._awaited is task:
            self._awaited = None
        self._begin()

    async def _run(self) -> None:
        """Reads for the calls that wait, as many as one statement reads."""
        some, self._waiting = self._waiting[:MAX_KEYS], self._waiting[MAX_KEYS:]
        timer = asyncio.get_running_loop().call_later(SLOW, self._await_no_longer, asyncio.current_task())
        try:
            await self._answer([(key, future) for key, future in some if not future.done()])
        finally:
            timer.cancel()
            for _, future in some:
                future.cancel()  # Without an effect, unless this task was cancelled.

    async def _answer(self, waiting: Sequence[_Waiting[_Key, _Row]]) -> Exception | None:
        """Reads for some calls with one statement. Returns why it failed."""
        keys = sorted({key for key, _ in waiting})
        try:
            found = await self._pool.read(self._read, keys) if keys else {}
        except Exception as error:
            if len(keys) > 1 and not isinstance(error, UnavailableError):  # A single row may be the reason.
                await self._answer_alone(keys, waiting)
            else:
                _fail(waiting, error)
            return error
        for key, future in waiting:
            if not future.done():  # Otherwise the caller does not wait any more.
                future.set_result(found.get(key))
        return None

    async def _answer_alone(self, keys: Sequence[_Key], waiting: Sequence[_Waiting[_Key, _Row]]) -> None:
        """Reads each key alone, until the database cannot be used any more."""
        for key in keys:
            failure = await self._answer([one for one in waiting if one[0] == key and not one[1].done()])
            if isinstance(failure, UnavailableError):  # Each attempt may take as long as the timeout.
                _fail(waiting, failure)
                return


def _fail(waiting: Sequence[_Waiting[_Key, _Row]], error: Exception) -> None:
    for _, future in waiting:
        if not future.done():
            future.set_exception(error)
