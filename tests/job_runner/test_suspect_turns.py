"""The turns of suspects: one starts at a time, and those that must be alone are."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from spincycle_server.job_runner.suspect_turns import SuspectTurns, Turn

FOREVER = 1e6


async def begins(taking: asyncio.Task[Turn]) -> bool:
    """Returns whether a turn begins without a further event."""
    for _ in range(10):
        await asyncio.sleep(0)
    return taking.done()


def soon(taking: Coroutine[Any, Any, Turn]) -> asyncio.Task[Turn]:
    return asyncio.create_task(taking)


async def test_one_turn_begins_at_a_time_in_the_order_in_which_they_were_asked_for() -> None:
    turns = SuspectTurns(FOREVER)
    first = await turns.take(is_alone=False)
    second, third = soon(turns.take(is_alone=False)), soon(turns.take(is_alone=False))
    assert not await begins(second)
    first.end()
    assert await begins(second)
    assert not await begins(third)
    assert not second.result().is_shared
    second.result().end()
    assert await begins(third)


async def test_after_the_limit_the_next_turn_begins_and_is_shared() -> None:
    turns = SuspectTurns(0.01)
    first = await turns.take(is_alone=False)
    second = await turns.take(is_alone=False)
    assert (first.is_shared, second.is_shared) == (False, True)


async def test_a_turn_alone_begins_after_all_others_have_ended_and_has_no_limit() -> None:
    turns = SuspectTurns(0.01)
    first = await turns.take(is_alone=False)
    second = await turns.take(is_alone=False)
    alone = soon(turns.take(is_alone=True))
    await asyncio.sleep(0.03)
    later = soon(turns.take(is_alone=False))
    second.end()
    assert not await begins(alone)
    first.end()
    assert await begins(alone)
    assert not alone.result().is_shared
    await asyncio.sleep(0.03)
    assert not await begins(later)
    alone.result().end()
    assert await begins(later)


async def test_a_turn_that_is_given_up_while_it_waits_lets_others_begin() -> None:
    turns = SuspectTurns(FOREVER)
    first = await turns.take(is_alone=False)
    given_up = [soon(turns.take(is_alone=False)), soon(turns.take(is_alone=True))]
    last = soon(turns.take(is_alone=False))
    assert not await begins(last)
    for one in given_up:
        one.cancel()
    first.end()
    assert await begins(last)


async def test_a_turn_alone_that_is_given_up_after_the_limit_of_others_lets_the_next_begin() -> None:
    turns = SuspectTurns(0.0)
    first = await turns.take(is_alone=False)
    await asyncio.sleep(0.01)
    alone, next_one = soon(turns.take(is_alone=True)), soon(turns.take(is_alone=False))
    assert not await begins(next_one)
    alone.cancel()
    assert await begins(next_one)
    assert next_one.result().is_shared
    first.end()


async def test_ending_a_turn_twice_frees_no_further_turn() -> None:
    turns = SuspectTurns(FOREVER)
    first = await turns.take(is_alone=False)
    first.end()
    second = await turns.take(is_alone=False)
    first.end()
    third = soon(turns.take(is_alone=False))
    assert not await begins(third)
    second.end()
    assert await begins(third)
