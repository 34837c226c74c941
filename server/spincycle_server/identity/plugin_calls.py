"""Calls the functions of the authentication plugin, so that a failure ends one call and never the server."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from spincycle_grpc.errors import InternalError, ResourceExhaustedError, SpinCycleError, UnavailableError
from spincycle_server.call_threads import CallThreads
from spincycle_server.telemetry.limits import PLUGIN_CALLS, LimitUse

logger = structlog.get_logger(__name__)

MAX_CALLS = 1000
"""The maximum number of concurrent calls of the plugin."""

THREADS = 16
"""The maximum number of concurrent calls of plain functions of the plugin, which run in threads."""

MAX_HANGING = 64
"""The maximum number of threads, in addition to `THREADS`, whose calls exceeded the timeout and still run."""


@dataclass(frozen=True, slots=True)
class _Raised:
    error: BaseException


class PluginCalls:
    """Calls functions of the plugin.

    A coroutine function runs on the event loop, so it must not block. A plain function runs in a thread.

    Args:
        timeout: Seconds that one call may take.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._unfinished = 0
        self._threads: CallThreads | None = None
        self._given_up: set[asyncio.Task[Any]] = set()

    def limits(self) -> Iterable[LimitUse]:
        """Returns how many calls may run at the same time, and how many do."""
        return (LimitUse(PLUGIN_CALLS, MAX_CALLS, self._unfinished),)

    async def call(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        """Returns the result of a function.

        Args:
            name: The function's name, for errors and the log.
            function: A coroutine function or a plain function.
            *args: Its arguments.

        Raises:
            SpinCycleError: The function raised it.
            InternalError: The function raised anything else. Reason: AUTH_PLUGIN_FAILED.
            UnavailableError: The function took too long. Reason: AUTH_PLUGIN_TIMEOUT.
            ResourceExhaustedError: Too many calls run. Reason: TOO_MANY_AUTH_CALLS.
            CancelledError: The caller of this method was cancelled, and nobody else.
        """
        if self._unfinished >= MAX_CALLS:
            raise ResourceExhaustedError(
                f"the limit of {MAX_CALLS} concurrent calls of the authentication plugin is reached: "
                "try again later",
                reason="TOO_MANY_AUTH_CALLS",
            )
        self._unfinished += 1
        task = asyncio.create_task(self._outcome(partial(function, *args)))
        try:
            await asyncio.wait({task}, timeout=self._timeout)
        finally:
            self._unfinished -= 1
            is_done = task.done()
            if not is_done:
                self._give_up(task)
        if not is_done:
            logger.error("authentication plugin takes too long", function=name, seconds=self._timeout)
            raise UnavailableError(
                f"the server's authentication plugin did not answer within {self._timeout:g} s: "
                "try again later",
                reason="AUTH_PLUGIN_TIMEOUT",
            )
        outcome = _Raised(asyncio.CancelledError()) if task.cancelled() else task.result()
        if isinstance(outcome, _Raised):
            raise _failure(name, outcome.error)
        return outcome

    async def _outcome(self, function: Callable[[], Any]) -> Any:
        """Returns what a function returns or raises. A task must not raise SystemExit: it ends the loop."""
        try:
            if inspect.iscoroutinefunction(function):
                return await function()
            if self._threads is None:
                self._threads = CallThreads("auth", THREADS, max_abandoned=MAX_HANGING)
            result = await self._threads.call(function)
            return await result if isinstance(result, Awaitable) else result
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            return _Raised(error)

    def _give_up(self, task: asyncio.Task[Any]) -> None:
        """Cancels a task. It is kept until it ends, because the event loop does not keep it alive."""
        self._given_up.add(task)
        task.add_done_callback(self._given_up.discard)
        task.cancel()


def _failure(name: str, error: BaseException) -> SpinCycleError:
    """Returns the error of a call whose plugin raised something.

    The log shows the class of an unexpected exception and where it was raised, but not its message: the
    message of a KeyError, for example, can be a token.
    """
    if isinstance(error, SpinCycleError):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
    logger.error("authentication plugin failed", function=name, error=type(error).__name__, where=where)
    return InternalError(
        "the server's authentication plugin failed: see the server's log for details",
        reason="AUTH_PLUGIN_FAILED",
    )
