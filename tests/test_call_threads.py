"""Calls in threads: limits, abandoned calls, and errors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from spincycle_server.call_threads import CallThreads, NoThreadError
from tests.limits import STEP


class Hanging:
    """A function that returns only when `release` is called."""

    def __init__(self) -> None:
        self._started = threading.Semaphore(0)
        self._released = threading.Event()

    def __call__(self) -> str:
        self._started.release()
        self._released.wait(STEP)
        return "released"

    async def started(self, calls: int = 1) -> None:
        for _ in range(calls):
            assert await asyncio.to_thread(self._started.acquire, timeout=STEP)

    def release(self) -> None:
        self._released.set()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    hanging = Hanging()
    yield hanging
    hanging.release()


async def cancelled(task: asyncio.Task[str]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def test_a_call_returns_the_functions_result_from_another_thread() -> None:
    ident, total = await CallThreads("test", 1).call(lambda *args: (threading.get_ident(), sum(args)), 1, 2)
    assert ident != threading.get_ident()
    assert total == 3


async def test_a_thread_is_reused() -> None:
    threads = CallThreads("test", 2)
    assert len({await threads.call(threading.get_ident) for _ in range(5)}) == 1


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3), asyncio.CancelledError()])
async def test_a_call_raises_the_functions_error(error: BaseException) -> None:
    def fail() -> None:
        raise error

    threads = CallThreads("test", 1)
    with pytest.raises(type(error)):
        await threads.call(fail)
    assert await threads.call(lambda: "next") == "next"


async def test_stop_iteration_is_raised_as_a_runtime_error() -> None:
    with pytest.raises(RuntimeError, match="StopIteration: last"):
        await CallThreads("test", 1).call(_stop)


def _stop() -> None:
    raise StopIteration("last")


async def test_a_call_beyond_the_limit_waits(hanging: Hanging) -> None:
    threads = CallThreads("test", 1)
    first = asyncio.create_task(threads.call(hanging))
    await hanging.started()
    second = asyncio.create_task(threads.call(lambda: "second"))
    await asyncio.sleep(0.05)
    assert not second.done()
    hanging.release()
    async with asyncio.timeout(STEP):
        assert (await first, await second) == ("released", "second")


async def test_a_call_that_waits_too_long_is_not_made(hanging: Hanging) -> None:
    threads = CallThreads("test", 1, longest_wait=0.05)
    first = asyncio.create_task(threads.call(hanging))
    await hanging.started()
    made: list[int] = []
    with pytest.raises(NoThreadError):
        await threads.call(made.append, 1)
    hanging.release()
    await first
    assert made == []


async def test_an_abandoned_call_frees_its_slot_up_to_a_limit(hanging: Hanging) -> None:
    threads = CallThreads("test", 1, max_abandoned=1, longest_wait=0.05)
    for _ in range(2):
        task = asyncio.create_task(threads.call(hanging))
        await hanging.started()
        await cancelled(task)
    with pytest.raises(NoThreadError):  # The second abandoned call keeps its slot.
        await threads.call(lambda: "third")
    hanging.release()
    async with asyncio.timeout(STEP):
        while True:
            try:
                assert await threads.call(lambda: "fourth") == "fourth"
                break
            except NoThreadError:  # The abandoned calls have not returned yet.
                continue


async def test_an_abandoned_call_that_has_returned_may_be_abandoned_again() -> None:
    threads = CallThreads("test", 1, max_abandoned=1, longest_wait=STEP)
    for _ in range(3):
        hanging = Hanging()
        task = asyncio.create_task(threads.call(hanging))
        await hanging.started()
        await cancelled(task)
        assert await threads.call(lambda: "next") == "next"
        hanging.release()
        async with asyncio.timeout(STEP):
            while threads._abandoned:  # noqa: ASYNC110 (threads set no event)
                await asyncio.sleep(0.01)
