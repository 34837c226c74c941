"""Threads for users' code that blocks. They are reused, and do not keep the process from exiting."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Generic, TypeVar

from spincycle_server.telemetry.limits import Limit, LimitUse

_Result = TypeVar("_Result")


class NoThreadError(Exception):
    """No thread was free for a call within its longest wait. The call was not made."""


class _Worker:
    """A thread that makes one call after another."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def make(self, call: Callable[[], None]) -> None:
        """Makes a call, which must not raise, in the thread. Use this only when the last call has ended."""
        self._calls.put(call)

    def _work(self) -> None:
        process = os.getpid()
        while True:
            self._calls.get()()
            if os.getpid() != process:
                os._exit(0)  # A process that the call forked returned from it. It has nothing else to do.


class _Call(Generic[_Result]):
    """One call that is made in a thread.

    Attributes:
        outcome: The result of the function, or its error.
        has_slot: Whether the call counts against the limit of concurrent calls.
    """

    def __init__(self, function: Callable[[], _Result]) -> None:
        self._function = function
        self._loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[_Result] = self._loop.create_future()
        self.has_slot = True

    def make(self, on_end: Callable[[], None]) -> None:
        """Calls the function, in this thread. The event loop calls `on_end`, and then settles the outcome."""
        result, error = None, None
        try:
            result = self._function()
        except BaseException as raised:
            error = _raisable(raised)
        try:
            self._loop.call_soon_threadsafe(self._end, on_end, result, error)
        except RuntimeError:
            return  # The loop is closed, so nobody waits for the result.

    def _end(self, on_end: Callable[[], None], result: _Result | None, error: BaseException | None) -> None:
        on_end()
        if self.outcome.cancelled():
            return
        if error is not None:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(result)  # type: ignore[arg-type]


class CallThreads:
    """Makes calls in threads.

    A call that never returns does no harm: the process can exit, and if the caller abandons the call by
    cancelling its wait, another call takes its slot.

    Args:
        name: The name of the threads.
        limit: The maximum number of concurrent calls. Further calls wait.
        max_abandoned: The maximum number of abandoned calls that run in addition; None for the same as
            `limit`. Further abandoned calls keep their slots.
        longest_wait: Seconds that a call waits for a slot; None for no limit.
    """

    def __init__(
        self, name: str, limit: int, *, max_abandoned: int | None = None, longest_wait: float | None = None
    ) -> None:
        self._name = name
        self._longest_wait = longest_wait
        self._slots = asyncio.Semaphore(limit)
        self._limit = limit
        self._unfinished = 0
        self._max_abandoned = limit if max_abandoned is None else max_abandoned
        self._abandoned = 0
        self._idle: list[_Worker] = []

    async def call(self, function: Callable[..., _Result], *args: Any) -> _Result:
        """Calls a function in a thread, and returns its result.

        Raises:
            NoThreadError: The call has waited too long for a slot.
            BaseException: The function raised it.
        """
        self._unfinished += 1
        try:
            return await self._made(partial(function, *args))
        finally:
            self._unfinished -= 1

    def limits(self, limit: Limit) -> Iterable[LimitUse]:
        """Returns how many calls may run at the same time, and how many run or wait.

        Args:
            limit: What this limit is called.
        """
        return (LimitUse(limit, self._limit, self._unfinished),)

    def hanging(self, limit: Limit) -> Iterable[LimitUse]:
        """Returns how many abandoned calls may run in addition, and how many do.

        Args:
            limit: What this limit is called.
        """
        return (LimitUse(limit, self._max_abandoned, self._abandoned),)

    async def _made(self, function: Callable[[], _Result]) -> _Result:
        await self._acquire_slot()
        call = _Call(function)
        try:
            worker = self._idle.pop() if self._idle else _Worker(self._name)
        except RuntimeError:  # The system has no more threads.
            self._slots.release()
            raise
        worker.make(partial(call.make, partial(self._ended, worker, call)))
        try:
            return await call.outcome
        except asyncio.CancelledError:
            if call.outcome.cancelled():
                self._abandon(call)
            raise

    def _abandon(self, call: _Call[Any]) -> None:
        """Frees the slot of a call that nobody waits for, unless too many such calls run."""
        if self._abandoned < self._max_abandoned:
            self._abandoned += 1
            call.has_slot = False
            self._slots.release()

    def _ended(self, worker: _Worker, call: _Call[Any]) -> None:
        self._idle.append(worker)
        if call.has_slot:
            self._slots.release()
        else:
            self._abandoned -= 1

    async def _acquire_slot(self) -> None:
        if not self._slots.locked():
            await self._slots.acquire()
            return
        try:
            async with asyncio.timeout(self._longest_wait):
                await self._slots.acquire()
        except TimeoutError as error:
            raise NoThreadError from error


def _raisable(error: BaseException) -> BaseException:
    """Returns an error that a future can raise. A future cannot raise StopIteration."""
    if isinstance(error, StopIteration | StopAsyncIteration):
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
