"""Calls of a plugin: whatever it does, one call fails and the event loop goes on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from spincycle_grpc.errors import (
    InternalError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from spincycle_server.identity import plugin_calls
from spincycle_server.identity.plugin_calls import PluginCalls
from tests.limits import STEP

SHORT = 0.05
"""A timeout of the plugin that is exceeded on purpose."""


async def in_coroutine(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


def in_thread(error: BaseException) -> None:
    raise error


async def cancels_itself(error: BaseException) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(STEP)


@pytest.mark.parametrize("function", [in_coroutine, in_thread])
@pytest.mark.parametrize(
    "error",
    [
        ValueError("s3cret"),
        KeyError("s3cret"),
        SystemExit("s3cret"),
        KeyboardInterrupt("s3cret"),
        asyncio.CancelledError("s3cret"),
        GeneratorExit("s3cret"),
        TimeoutError("s3cret"),
        StopIteration("s3cret"),
        BaseExceptionGroup("s3cret", [SystemExit(1)]),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_an_exception_of_a_plugin_fails_one_call(
    function: Callable[[BaseException], Any], error: BaseException
) -> None:
    calls = PluginCalls(STEP)
    with capture_logs() as logs, pytest.raises(InternalError) as caught:
        await calls.call("authenticate", function, error)
    assert caught.value.reason == "AUTH_PLUGIN_FAILED"
    (log,) = logs
    assert log["function"] == "authenticate"
    assert "s3cret" not in f"{logs} {caught.value.message} {caught.value.__cause__}"
    current = asyncio.current_task()
    assert current is not None
    assert not current.cancelling()
    assert await calls.call("authenticate", in_time, 7) == 7


async def in_time(value: object) -> object:
    return value


async def test_the_log_says_where_an_exception_was_raised() -> None:
    with capture_logs() as logs, pytest.raises(InternalError):
        await PluginCalls(STEP).call("authorize", in_coroutine, ValueError("s3cret"))
    assert logs[0]["error"] == "ValueError"
    assert logs[0]["where"][-1].endswith(" in_coroutine")


async def test_a_plugin_that_cancels_its_own_task_fails_one_call() -> None:
    with capture_logs(), pytest.raises(InternalError):
        await PluginCalls(STEP).call("authenticate", cancels_itself, ValueError())


async def test_an_error_of_spin_cycle_is_raised_as_it_is() -> None:
    with pytest.raises(UnauthenticatedError, match="log in again"):
        await PluginCalls(STEP).call("authenticate", in_coroutine, UnauthenticatedError("log in again"))


async def test_a_plain_function_that_returns_an_awaitable_is_awaited() -> None:
    def made() -> Awaitable[object]:
        return in_time("made")

    assert await PluginCalls(STEP).call("authenticate", made) == "made"


async def test_a_plain_function_that_blocks_does_not_block_the_event_loop() -> None:
    released = threading.Event()
    call = asyncio.create_task(PluginCalls(STEP).call("authenticate", released.wait, STEP))
    await asyncio.sleep(0)
    assert not call.done()
    released.set()  # The loop runs while the function waits.
    assert await call is True


async def test_a_coroutine_that_hangs_fails_one_call() -> None:
    ended = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    calls = PluginCalls(SHORT)
    with capture_logs() as logs, pytest.raises(UnavailableError) as caught:
        await calls.call("authenticate", hang)
    assert caught.value.reason == "AUTH_PLUGIN_TIMEOUT"
    assert [log["function"] for log in logs] == ["authenticate"]
    async with asyncio.timeout(STEP):
        await ended.wait()


async def test_a_coroutine_that_ignores_its_cancellation_fails_one_call() -> None:
    released = asyncio.Event()

    async def stay() -> None:
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    with capture_logs(), pytest.raises(UnavailableError):
        await PluginCalls(SHORT).call("authenticate", stay)
    released.set()


async def test_threads_that_hang_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_calls, "THREADS", 1)
    released = threading.Event()
    calls = PluginCalls(SHORT)
    with capture_logs(), pytest.raises(UnavailableError):
        await calls.call("authenticate", released.wait, STEP)
    calls = calls_with_timeout(calls, STEP)
    assert await calls.call("authenticate", int, "7") == 7
    released.set()


def calls_with_timeout(calls: PluginCalls, timeout: float) -> PluginCalls:
    calls._timeout = timeout
    return calls


async def test_a_cancelled_call_is_cancelled_and_so_is_the_plugin() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    call = asyncio.create_task(PluginCalls(STEP).call("authenticate", hang))
    async with asyncio.timeout(STEP):
        await started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await ended.wait()
    assert call.cancelled()


async def test_the_deadline_of_a_call_passes_while_the_plugin_hangs() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SHORT):
            await PluginCalls(STEP).call("authenticate", asyncio.Event().wait)


async def test_calls_beyond_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_calls, "MAX_CALLS", 2)
    released = asyncio.Event()
    calls = PluginCalls(STEP)
    running = [asyncio.create_task(calls.call("authenticate", released.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhaustedError) as caught:
        await calls.call("authenticate", in_time, 1)
    assert caught.value.reason == "TOO_MANY_AUTH_CALLS"
    released.set()
    await asyncio.gather(*running)
    assert await calls.call("authenticate", in_time, 1) == 1
