"""Threads for code of users that blocks: they are reused, and none keeps the process from ending."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class NoThreadError(Exception):
    """There was no turn for a call within the time that it may wait; it was not made."""


class _Worker:
    """A thread that makes one call after the other."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def make(self, call: Callable[[], None]) -> None:
        """Has the thread make a call, which must not raise. To be used when it has made the last one."""
        self._calls.put(call)

    def _work(self) -> None:
        while True:
            self._calls.get()()


class CallThreads:
    """Makes calls in threads.

    A call that never returns keeps the process from nothing: it does not hinder its end, and when
    whoever waits for it gives it up, by cancelling the wait, its place is free for another call.

    Args:
        name: The name of the threads.
        limit: How many calls run at once; more wait for their turn.
        max_given_up: As many calls that were given up may run besides. Beyond that they keep their places.
        longest_wait: Seconds that a call waits for its turn; None: however long it takes.
    """

    def __init__(
        self, name: str, limit: int, *, max_given_up: int | None = None, longest_wait: float | None = None
    ) -> None:
        self._name = name
        self._longest_wait = longest_wait
        self._places = asyncio.Semaphore(limit)
        self._max_given_up = limit if max_given_up is None else max_given_up
        self._given_up = 0
        self._idle: list[_Worker] = []

    async def call(self, function: Callable[..., _Result], *args: Any) -> _Result:
        """Returns what the function returns.

        Raises:
            NoThreadError: It had to wait for too long.
            BaseException: Whatever the function raises.
        """
        await self._turn()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[_Result] = loop.create_future()
        has_place = True

        def settle(result: _Result | None, error: BaseException | None) -> None:
            self._idle.append(worker)
            if has_place:
                self._places.release()
            else:
                self._given_up -= 1
            if outcome.cancelled():
                return
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            result, error = None, None
            try:
                result = function(*args)
            except BaseException as raised:  # noqa: BLE001 (also SystemExit: it is the caller's to judge)
                error = _raisable(raised)
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:
                return  # The loop is closed: nobody waits any more.

        try:
            worker = self._idle.pop() if self._idle else _Worker(self._name)
        except RuntimeError:  # The system has no thread left.
            self._places.release()
            raise
        worker.make(run)
        try:
            return await outcome
        except asyncio.CancelledError:
            if outcome.cancelled() and self._given_up < self._max_given_up:
                self._given_up += 1
                has_place = False
                self._places.release()
            raise

    async def _turn(self) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        try:
            async with asyncio.timeout(self._longest_wait):
                await self._places.acquire()
        except TimeoutError as error:
            raise NoThreadError from error


def _raisable(error: BaseException) -> BaseException:
    """Returns an error that a future can hold: StopIteration cannot be raised through one."""
    if isinstance(error, StopIteration | StopAsyncIteration):
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
