"""The gate limits concurrent calls, keeps a reserve for other servers, and closes at shutdown."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from spincycle_grpc.errors import ResourceExhaustedError, UnavailableError
from spincycle_server.rpc import Gate
from spincycle_server.rpc.gate import RESERVED, RefusalLog
from tests.limits import STEP


async def test_calls_are_admitted_up_to_the_limit() -> None:
    gate = Gate(2)
    gate.enter()
    assert not gate.is_full
    gate.enter()
    assert gate.is_full
    with pytest.raises(ResourceExhaustedError) as caught:
        gate.enter()
    assert caught.value.reason == "TOO_MANY_CALLS"
    assert caught.value.message == gate.full_error().message
    assert "2 concurrent calls" in caught.value.message


async def test_a_call_that_leaves_makes_room_for_another() -> None:
    gate = Gate(1)
    for _ in range(3):
        gate.enter()
        gate.leave()
    gate.enter()
    assert gate.is_full


async def test_other_servers_have_a_reserve_beyond_the_limit() -> None:
    gate = Gate(1)
    for _ in range(1 + RESERVED):
        gate.enter(is_reserved=True)
    for is_reserved in (False, True):
        with pytest.raises(ResourceExhaustedError):
            gate.enter(is_reserved=is_reserved)


async def test_a_closed_gate_refuses_all_calls_and_is_not_full() -> None:
    gate = Gate(1)
    gate.enter()
    gate.close()
    assert not gate.is_full
    for is_reserved in (False, True):
        with pytest.raises(UnavailableError) as caught:
            gate.enter(is_reserved=is_reserved)
        assert caught.value.reason == "SHUTTING_DOWN"


async def test_it_is_idle_when_no_call_is_in_flight() -> None:
    gate = Gate(10)
    async with asyncio.timeout(STEP):
        await gate.wait_idle()
    gate.enter()
    gate.enter()
    waiting = asyncio.create_task(gate.wait_idle())
    gate.leave()
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.leave()
    async with asyncio.timeout(STEP):
        await waiting


async def test_a_few_calls_do_not_wait_for_their_turn() -> None:
    assert Gate(10).turn() is None


async def test_many_calls_wait_for_their_turn_and_all_get_it() -> None:
    gate = Gate(1000)
    turns = [turn for _ in range(500) if (turn := gate.turn()) is not None]
    assert turns
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not all(turn.done() for turn in turns)
    async with asyncio.timeout(STEP):
        await asyncio.gather(*turns)


async def logged(logs: list[EventDict], count: int) -> None:
    async with asyncio.timeout(STEP):
        while len(logs) < count:  # noqa: ASYNC110 (a log has no event)
            await asyncio.sleep(0.01)


async def test_refusals_are_counted_by_reason_and_logged_together() -> None:
    refusals = RefusalLog()
    with capture_logs() as logs:
        for reason, count in (("TOO_MANY_CALLS", 3), ("TOO_MANY_WRITES", 2)):
            for _ in range(count):
                refusals.add(ResourceExhaustedError("full", reason=reason))
        assert not logs
        await logged(logs, 1)
        refusals.add(ResourceExhaustedError("full", reason="TOO_MANY_CALLS"))
        await logged(logs, 2)
    assert [event["calls"] for event in logs] == [
        {"TOO_MANY_CALLS": 3, "TOO_MANY_WRITES": 2},
        {"TOO_MANY_CALLS": 1},
    ]
    assert {(event["event"], event["log_level"]) for event in logs} == {("calls refused", "warning")}
