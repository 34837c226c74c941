"""The streams from full runners: when they are opened, closed, and opened again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from spincycle_grpc.errors import (
    ERROR_CLASSES,
    FailedPreconditionError,
    PermissionDeniedError,
    ResourceExhaustedError,
    SpinCycleError,
    Status,
    UnauthenticatedError,
    UnavailableError,
)
from spincycle_grpc.v1.runner_reports_pb2 import RunnerInfo
from spincycle_server.request_manager import capacity_watch as capacity_watch_module
from spincycle_server.request_manager.capacity_watch import LONGEST_PAUSE, CapacityWatch, Demand
from tests.request_manager.doubles import Clock


class Runners:
    """Runners whose streams a test controls.

    Attributes:
        calls: The runner and the number of places of each call.
        open: The streams that are open: a queue of offers and errors for each runner.
        offers: What was offered.
        denied: The runners that do not accept this server.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.open: dict[str, asyncio.Queue[int | SpinCycleError]] = {}
        self.offers: list[tuple[str, int]] = []
        self.denied: list[str] = []
        self.watch = CapacityWatch(
            self._watch, on_offer=lambda *offer: self.offers.append(offer), on_denied=self.denied.append
        )

    async def _watch(self, runner: RunnerInfo, places: int) -> AsyncGenerator[int, None]:
        self.calls.append((runner.runner_id, places))
        answers = self.open[runner.runner_id] = asyncio.Queue()
        left = places
        try:
            while left > 0:
                answer = await answers.get()
                if isinstance(answer, SpinCycleError):
                    raise answer
                left -= answer
                yield answer
        finally:
            if self.open.get(runner.runner_id) is answers:
                del self.open[runner.runner_id]

    async def want(self, **places: int) -> None:
        self.watch.want({name: Demand(RunnerInfo(runner_id=name), count) for name, count in places.items()})
        await settled()

    async def answer(self, runner_id: str, answer: int | SpinCycleError) -> None:
        self.open[runner_id].put_nowait(answer)
        await settled()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(capacity_watch_module, "time", clock)
    return clock


@pytest.fixture
async def runners(clock: Clock) -> AsyncIterator[Runners]:
    runners = Runners()
    yield runners
    await runners.watch.close()
    assert not runners.open


async def test_a_stream_stays_open_while_places_are_wanted(runners: Runners) -> None:
    await runners.want(r1=3)
    await runners.answer("r1", 1)
    await runners.want(r1=2, r2=1)
    assert runners.calls == [("r1", 3), ("r2", 1)]
    assert runners.offers == [("r1", 1)]
    await runners.want(r2=1)
    assert runners.open.keys() == {"r2"}


async def test_a_stream_that_has_offered_what_was_wanted_is_replaced_if_more_is_wanted(
    runners: Runners,
) -> None:
    await runners.want(r1=2)
    await runners.answer("r1", 2)
    assert not runners.open
    await runners.want(r1=7)
    assert runners.calls == [("r1", 2), ("r1", 7)]


async def test_a_stream_that_was_closed_can_be_opened_again_at_once(runners: Runners) -> None:
    await runners.want(r1=1)
    runners.watch.want({})
    await runners.want(r1=2)
    assert runners.calls == [("r1", 1), ("r1", 2)]
    await runners.answer("r1", 2)
    assert runners.offers == [("r1", 2)]


@pytest.mark.parametrize(
    "error",
    [
        UnavailableError("gone", reason="RUNNER_GONE"),
        UnavailableError("stops", reason="SHUTTING_DOWN"),
        ResourceExhaustedError("too many", reason="TOO_MANY_STREAMS"),
    ],
)
async def test_a_stream_that_breaks_is_opened_again_after_pauses_that_grow(
    runners: Runners, clock: Clock, error: SpinCycleError
) -> None:
    await runners.want(r1=1)
    pauses = []
    for number in range(2, 12):
        await runners.answer("r1", error)
        broke_at = clock.now
        while len(runners.calls) < number:
            await runners.want(r1=1)
            clock.now += 0.1
        pauses.append(clock.now - broke_at)
    assert pauses[0] < 1
    assert LONGEST_PAUSE / 2 - 1 < pauses[-1] < LONGEST_PAUSE + 1
    await runners.answer("r1", 1)
    await runners.want(r1=1)
    await runners.answer("r1", error)
    clock.now += 0.6
    await runners.want(r1=1)
    assert len(runners.calls) == 13, "an offer ends the long pauses"


@pytest.mark.parametrize(
    "error",
    [
        ERROR_CLASSES[Status.UNIMPLEMENTED]("unknown method"),
        FailedPreconditionError("another runner is here", reason="OTHER_RUNNER"),
    ],
)
async def test_a_runner_that_can_never_offer_places_is_not_asked_again(
    runners: Runners, clock: Clock, error: SpinCycleError
) -> None:
    await runners.want(r1=1)
    await runners.answer("r1", error)
    clock.now += 10 * LONGEST_PAUSE
    await runners.want(r1=1)
    runners.watch.keep({"r1"})
    await runners.want(r1=1)
    assert len(runners.calls) == 1


@pytest.mark.parametrize("error", [UnauthenticatedError("who are you?"), PermissionDeniedError("not you")])
async def test_a_runner_that_does_not_accept_this_server_is_reported(
    runners: Runners, error: SpinCycleError
) -> None:
    await runners.want(r1=1)
    await runners.answer("r1", error)
    assert runners.denied == ["r1"]


async def test_streams_of_runners_that_are_gone_are_closed(runners: Runners) -> None:
    await runners.want(r1=1, r2=1)
    runners.watch.keep({"r2"})
    await settled()
    assert runners.open.keys() == {"r2"}
