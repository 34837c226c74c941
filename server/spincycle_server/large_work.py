"""One thread for work on large messages: parsing, converting and encoding them.

Such work holds the interpreter's lock, of which a process has one. Many threads would therefore not be
faster, and the event loop would have to wait for each of them in turn. So all servers of a process share one
thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from spincycle_grpc.errors import ResourceExhaustedError

LARGE = 16_384
"""Bytes of a message, or of its JSON, beyond which work on it takes longer than a few milliseconds."""

MAX_WAITING = 100
"""While more pieces of work than this wait for the thread, new large requests are refused."""

SHORT_TURN = 0.0005
"""Seconds after which a thread that works on a large message lets others run, if they wait.

Python's default is 5 ms. A find waits for its turn dozens of times: after each call of the database.
"""

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class _ShortTurns:
    """Shortens the turns of all threads while at least one of them works on a large message."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers = 0
        self._usual = sys.getswitchinterval()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        with self._lock:
            self._workers += 1
            if self._workers == 1:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(SHORT_TURN)
        try:
            yield
        finally:
            with self._lock:
                self._workers -= 1
                if not self._workers:
                    sys.setswitchinterval(self._usual)


short_turns = _ShortTurns().taken
"""A context in which the threads of this process take short turns. Use it around work on a large message."""


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
        work = self._executor.submit(_in_short_turns, partial(function, *args, **named))
        self._unfinished += 1
        try:
            return await asyncio.wrap_future(work)
        finally:
            self._unfinished -= 1
            del work  # An error holds this frame, and would hold itself and the message through the future.

    def unfinished(self) -> int:
        return self._unfinished

    def end(self) -> None:
        self._executor.shutdown()


def _in_short_turns(function: Callable[[], _Result]) -> _Result:
    with short_turns():
        return function()


_thread = _LargeThread()

check_large_room = _thread.check_room
"""Checks that a new large request may be processed. Call it before anything was done for the request.

Raises:
    ResourceExhaustedError: Too much work waits for the thread. Reason: TOO_MANY_LARGE_MESSAGES.
"""

run_large = _thread.run
"""Runs a function in the thread, and returns its result or raises its error."""


large_messages = _thread.unfinished
"""Returns how many pieces of work wait for the thread or run in it."""

end_large_thread = _thread.end
"""Ends the thread, after the work that waits for it. Call it when all servers of the process have stopped."""


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
