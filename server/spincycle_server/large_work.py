"""One thread for work on large messages: parsing, converting and encoding them.

Such work holds the interpreter's lock, of which a process has one. Many threads would therefore not be
faster, and the event loop would have to wait for each of them in turn. So all servers of a process share one
thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from spincycle_grpc.errors import ResourceExhaustedError

LARGE = 16_384
"""Bytes of a message, or of its JSON, beyond which work on it takes longer than a few milliseconds."""

MAX_WAITING = 100
"""While more pieces of work than this wait for the thread, new large requests are refused."""

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class _LargeThread:
    """The thread, and the number of pieces of work that wait for it or run in it."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="large")
        self._unfinished = 0

    def check_room(self) -> None:
        if self._unfinished > MAX_WAITING:
            raise ResourceExhaustedError(
                f"the limit of {MAX_WAITING} large messages that wait to be processed is reached: "
                "try again later",
                reason="TOO_MANY_LARGE_MESSAGES",
            )

    async def run(
        self,
        function: Callable[_Parameters, _Result],
        *args: _Parameters.args,
        **named: _Parameters.kwargs,
    ) -> _Result:
        work = self._executor.submit(function, *args, **named)
        self._unfinished += 1
        try:
            return await asyncio.wrap_future(work)
        finally:
            self._unfinished -= 1


_thread = _LargeThread()

check_large_room = _thread.check_room
"""Checks that a new large request may be processed. Call it before anything was done for the request.

Raises:
    ResourceExhaustedError: Too much work waits for the thread. Reason: TOO_MANY_LARGE_MESSAGES.
"""

run_large = _thread.run
"""Runs a function in the thread, and returns its result or raises its error."""


async def run_sized(
    size: float,
    function: Callable[_Parameters, _Result],
    *args: _Parameters.args,
    **named: _Parameters.kwargs,
) -> _Result:
    """Runs a function on a message of `size` bytes: in the thread if the message is large, otherwise here."""
    if size <= LARGE:
        return function(*args, **named)
    return await run_large(function, *args, **named)
