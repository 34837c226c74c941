"""Limits the time of many tasks with one timer.

`asyncio.timeout` sets a timer for each task and cancels it soon after, which costs a small request several
percent of its time. All tasks of a `TimeLimit` have the same time, so the first one to begin is the first to
run out of it, and one timer is enough.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class TimeLimit:
    """A limit of time that applies to each of many tasks.

    Args:
        seconds: How long a task may take.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._running: dict[TimeLimited, float] = {}  # The ends of their times, which are in order.
        self._timer: asyncio.TimerHandle | None = None
        # Kept, because Python asks the system for the process id to find the running loop.
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the tasks."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def begin(self, limited: TimeLimited) -> None:
        """Starts the time of a task."""
        loop = self.loop
        end = loop.time() + self.seconds
        self._running[limited] = end
        if self._timer is None:
            self._timer = loop.call_at(end, self._expire)

    def end(self, limited: TimeLimited) -> None:
        """Stops the time of a task. The timer stays: it costs less to run it in vain than to cancel it."""
        self._running.pop(limited, None)

    def _expire(self) -> None:
        loop = self.loop
        now = loop.time()
        self._timer = None
        while self._running:
            limited = next(iter(self._running))
            if self._running[limited] > now:
                self._timer = loop.call_at(self._running[limited], self._expire)
                return
            del self._running[limited]
            limited.cancel()


class TimeLimited:
    """The part of the current task whose time is limited. A context manager.

    Args:
        limit: The limit.
        starts: Whether the time starts now. Otherwise it starts with `start`.

    Raises:
        TimeoutError: On exit: the task was cancelled because its time was over.
    """

    __slots__ = ("_cancelling", "_is_over", "_limit", "_task")

    def __init__(self, limit: TimeLimit, *, starts: bool = True) -> None:
        task = asyncio.current_task(limit.loop)
        assert task is not None  # noqa: S101 (requests are read in tasks)
        self._task = task
        self._cancelling = task.cancelling()
        self._is_over = False
        self._limit = limit
        if starts:
            limit.begin(self)

    def start(self) -> None:
        """Starts the time."""
        self._limit.begin(self)

    def cancel(self) -> None:
        """Cancels the task because its time is over."""
        self._is_over = True
        self._task.cancel()

    def __enter__(self) -> TimeLimited:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limit.end(self)
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
