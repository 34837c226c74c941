"""A task whose time is over gets a TimeoutError, and one timer serves all tasks of a limit."""

from __future__ import annotations

import asyncio

import pytest

from spincycle_server.gateway.time_limits import TimeLimit, TimeLimited
from tests.limits import STEP

SHORT = 0.02


async def test_a_task_within_its_time_is_left_alone() -> None:
    limit = TimeLimit(STEP)
    with TimeLimited(limit):
        await asyncio.sleep(0)
    with TimeLimited(limit), pytest.raises(ZeroDivisionError):
        _ = 1 / 0


async def test_each_task_that_takes_too_long_gets_a_timeout_error_and_can_go_on() -> None:
    limit = TimeLimit(SHORT)

    async def late() -> str:
        with pytest.raises(TimeoutError), TimeLimited(limit):
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return "went on"

    async def fast() -> str:
        with TimeLimited(limit):
            return "in time"

    async with asyncio.timeout(STEP):
        assert tuple(await asyncio.gather(late(), fast(), late())) == ("went on", "in time", "went on")
        assert await late() == "went on"  # The timer is set again for tasks that begin later.


async def late_after(limit: TimeLimit) -> None:
    with TimeLimited(limit, starts=False) as limited:
        limited.start()
        await asyncio.Event().wait()


async def test_the_time_starts_later_if_asked() -> None:
    limit = TimeLimit(SHORT)
    async with asyncio.timeout(STEP):
        with TimeLimited(limit, starts=False):
            await asyncio.sleep(3 * SHORT)
        with pytest.raises(TimeoutError):
            await late_after(limit)


async def test_a_task_that_somebody_else_cancels_stays_cancelled() -> None:
    async def wait() -> None:
        with TimeLimited(TimeLimit(STEP)):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(STEP):
        await asyncio.wait({task})
    assert task.cancelled()


async def test_a_task_that_is_cancelled_and_late_at_once_stays_cancelled() -> None:
    async def wait() -> None:
        with TimeLimited(TimeLimit(STEP)) as limited:
            limited.cancel()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(STEP):
        await asyncio.wait({task})
    assert task.cancelled()


async def test_tasks_of_a_limit_share_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    timers: list[float] = []
    call_at = loop.call_at

    def counted(when: float, *arguments: object) -> asyncio.TimerHandle:
        timers.append(when)
        return call_at(when, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_at", counted)
    limit = TimeLimit(STEP)
    for _ in range(100):
        with TimeLimited(limit):
            pass
    assert len(timers) == 1
