"""Threads for code of users that blocks: one a call, so many at once; none keeps the process from ending."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class CallThreads:
    """Runs calls in threads of their own.

    A call that never returns keeps the process from nothing: it does not hinder its end, and when
    whoever waits for it gives it up, by cancelling the wait, its place is free for another call.
    So that there is a limit to what hangs, that holds for as many hanging calls as there are places.

    Args:
        name: The beginning of the threads' names.
        limit: How many calls run at once; more wait for their turn.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._places = asyncio.Semaphore(limit)
        self._given_up = 0

    async def call(self, function: Callable[..., _Result], *args: Any) -> _Result:
        """Returns what the function returns.

        Raises:
            BaseException: Whatever the function raises.
        """
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[_Result] = loop.create_future()
        has_place = True

        def settle(result: _Result | None, error: BaseException | None) -> None:
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
            threading.Thread(target=run, name=self._name, daemon=True).start()
        except RuntimeError:  # The system has no thread left.
            self._places.release()
            raise
        try:
            return await outcome
        except asyncio.CancelledError:
            if outcome.cancelled() and self._given_up < self._limit:
                self._given_up += 1
                has_place = False
                self._places.release()
            raise


def _raisable(error: BaseException) -> BaseException:
    """Returns an error that a future can hold: StopIteration cannot be raised through one."""
    if isinstance(error, StopIteration | StopAsyncIteration):
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
