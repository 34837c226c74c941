"""Bursts run in batches, in their order, and other work gets the turns of the loop in between."""

from __future__ import annotations

import asyncio
import itertools

from spincycle_server.callback_throttle import BATCH, TURNS, CallbackThrottle
from tests.limits import STEP

BURST = 5 * BATCH


def stopped_throttle() -> CallbackThrottle:
    """Returns a throttle whose clock stands still, so that all callbacks belong to one burst."""
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


async def batches_of(throttle: CallbackThrottle, size: int) -> list[tuple[int, int]]:
    """Runs a burst, and checks its order. Returns the turn and the size of each batch."""
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


async def test_a_few_callbacks_run_at_once() -> None:
    throttle = stopped_throttle()
    done: list[int] = []
    for number in range(BATCH):
        throttle.run(done.append, number)
    assert done == list(range(BATCH))
    assert stopped_throttle().turn() is None


async def test_a_burst_runs_in_batches_with_turns_between() -> None:
    batches = await batches_of(stopped_throttle(), BURST)
    assert [size for _, size in batches] == [BATCH] * 5
    turns = [turn for turn, _ in batches]
    assert [after - before for before, after in itertools.pairwise(turns)] == [TURNS] * 4


async def test_a_callback_that_raises_does_not_hold_up_the_others() -> None:
    throttle = stopped_throttle()
    caught: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: caught.append(context["exception"]))
    ended = asyncio.Event()
    for number in range(BURST):
        throttle.run((lambda: 1 / 0) if number == BURST - 5 else lambda: None)
    throttle.run(ended.set)
    async with asyncio.timeout(STEP):
        await ended.wait()
    assert [type(error) for error in caught] == [ZeroDivisionError]


async def test_callers_get_their_turns_in_order_and_cancelled_callers_are_skipped() -> None:
    throttle = stopped_throttle()
    order: list[int] = []

    async def caller(number: int) -> None:
        if (turn := throttle.turn()) is not None:
            await turn
        order.append(number)

    callers = [asyncio.create_task(caller(number)) for number in range(BURST)]
    await asyncio.sleep(0)
    given_up = range(BATCH, BURST, 7)
    for number in given_up:
        callers[number].cancel()
    await asyncio.wait(callers)
    assert order == [number for number in range(BURST) if number not in given_up]
