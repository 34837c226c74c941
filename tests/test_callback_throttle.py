"""Crowds are done some at a time, in their order, and others get their turns of the loop in between."""

from __future__ import annotations

import asyncio
import itertools

from spincycle_server.callback_throttle import BATCH, TURNS, CallbackThrottle
from tests.limits import STEP

CROWD = 5 * BATCH


def stopped_throttle() -> CallbackThrottle:
    """Returns a throttle whose clock stands still, so that what comes next is always of the same crowd."""
    return CallbackThrottle(lambda: 100.0)


class Turns:
    """Counts the turns of the running loop."""

    def __init__(self) -> None:
        self.passed = 0
        self._count()

    def _count(self) -> None:
        self.passed += 1
        self._next = asyncio.get_running_loop().call_soon(self._count)

    def end(self) -> None:
        self._next.cancel()


async def rounds_of(throttle: CallbackThrottle, size: int) -> list[tuple[int, int]]:
    """Has a crowd done, in its order. Returns for each round the turn in which it was, and its size."""
    turns = Turns()
    done: list[tuple[int, int]] = []
    ended = asyncio.Event()

    def do(number: int) -> None:
        done.append((turns.passed, number))
        if len(done) == size:
            ended.set()

    for number in range(size):
        throttle.run(do, number)
    await ended.wait()
    turns.end()
    assert [number for _, number in done] == list(range(size))
    in_turn = [turn for turn, _ in done]
    return [(turn, in_turn.count(turn)) for turn in sorted(set(in_turn))]


async def test_few_are_done_at_once() -> None:
    throttle = stopped_throttle()
    done: list[int] = []
    for number in range(BATCH):
        throttle.run(done.append, number)
    assert done == list(range(BATCH))
    await asyncio.wait_for(stopped_throttle().wait_turn(), STEP)


async def test_a_crowd_is_done_in_rounds_with_turns_between() -> None:
    rounds = await rounds_of(stopped_throttle(), CROWD)
    assert [size for _, size in rounds] == [BATCH] * 5
    turns = [turn for turn, _ in rounds]
    assert [after - before for before, after in itertools.pairwise(turns)] == [TURNS] * 4


async def test_one_that_raises_keeps_nobody_waiting() -> None:
    throttle = stopped_throttle()
    caught: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: caught.append(context["exception"]))
    ended = asyncio.Event()
    for number in range(CROWD):
        throttle.run((lambda: 1 / 0) if number == CROWD - 5 else lambda: None)
    throttle.run(ended.set)
    async with asyncio.timeout(STEP):
        await ended.wait()
    assert [type(error) for error in caught] == [ZeroDivisionError]


async def test_callers_wait_in_their_order_and_one_that_gives_up_keeps_nobody() -> None:
    throttle = stopped_throttle()
    order: list[int] = []

    async def caller(number: int) -> None:
        await throttle.wait_turn()
        order.append(number)

    callers = [asyncio.create_task(caller(number)) for number in range(CROWD)]
    await asyncio.sleep(0)
    given_up = range(BATCH, CROWD, 7)
    for number in given_up:
        callers[number].cancel()
    await asyncio.wait(callers)
    assert order == [number for number in range(CROWD) if number not in given_up]
