"""Large messages are processed in one thread, and only a limited number of calls wait for it."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref

import pytest

from spincycle_grpc.errors import ResourceExhaustedError
from spincycle_server.large_work import (
    LARGE,
    MAX_WAITING,
    SHORT_TURN,
    check_large_room,
    run_large,
    run_sized,
    short_turns,
)
from tests.limits import STEP


async def test_all_calls_share_one_thread_which_is_not_that_of_the_event_loop() -> None:
    async with asyncio.timeout(STEP):
        threads = set(await asyncio.gather(*(run_large(threading.get_ident) for _ in range(10))))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_there_is_no_room_while_too_many_calls_wait() -> None:
    may_end = threading.Event()
    async with asyncio.timeout(STEP):
        calls = [asyncio.create_task(run_large(may_end.wait)) for _ in range(MAX_WAITING + 1)]
        await asyncio.sleep(0)
        try:
            with pytest.raises(ResourceExhaustedError) as caught:
                check_large_room()
        finally:
            may_end.set()
        assert caught.value.reason == "TOO_MANY_LARGE_MESSAGES"
        assert all(await asyncio.gather(*calls))
        check_large_room()


async def test_a_call_whose_caller_is_gone_before_it_starts_is_not_made() -> None:
    may_end, made = threading.Event(), threading.Event()
    async with asyncio.timeout(STEP):
        first = asyncio.create_task(run_large(may_end.wait))
        second = asyncio.create_task(run_large(made.set))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait({second})
        may_end.set()
        await first
        await run_large(int)
    assert not made.is_set()


async def test_only_work_on_large_messages_runs_in_the_thread() -> None:
    assert await run_sized(LARGE, threading.get_ident) == threading.get_ident()
    assert await run_sized(LARGE + 1, threading.get_ident) == await run_large(threading.get_ident)


async def test_an_error_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        await run_large(int, "x")


async def test_turns_are_short_only_while_a_large_message_is_processed() -> None:
    usual = sys.getswitchinterval()
    async with asyncio.timeout(STEP):
        assert await run_large(sys.getswitchinterval) == SHORT_TURN
        with short_turns():
            await run_large(int)
            assert sys.getswitchinterval() == SHORT_TURN
    assert sys.getswitchinterval() == usual


class Message:
    """Stands for a large message."""


async def test_an_error_does_not_keep_the_message_until_the_collector_runs() -> None:
    message = Message()
    is_alive = weakref.ref(message)
    gc.disable()
    try:
        with pytest.raises(TypeError):
            await run_large(int, message)  # type: ignore[arg-type]
        await run_large(int)
        del message
        assert is_alive() is None
    finally:
        gc.enable()
