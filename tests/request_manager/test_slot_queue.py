"""Creates wait for a delivery slot: first come, first served, and not forever."""

from __future__ import annotations

import asyncio

import pytest

from spincycle_grpc.v1.job_runner_pb2 import AssignedJobChain
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
from spincycle_server.capabilities import NEEDS_NOTHING
from spincycle_server.request_manager import delivery as delivery_module
from spincycle_server.request_manager.dispatcher import Dispatcher
from spincycle_server.request_manager.runners import Runners
from spincycle_server.request_manager.slot_queue import SlotQueue
from spincycle_server.store import Store
from tests.limits import STEP
from tests.store.samples import RUNNER, a_chain, create

FOREVER = 3600.0


async def queued(slot_queue: SlotQueue, count: int) -> tuple[list[asyncio.Task[None]], list[int]]:
    """Makes callers wait. Returns them, and the list to which each adds its number when it is released."""
    order: list[int] = []

    async def caller(number: int) -> None:
        await slot_queue.wait(FOREVER)
        order.append(number)

    tasks = [asyncio.create_task(caller(number)) for number in range(count)]
    await settled()
    return tasks, order


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_callers_are_released_in_their_order() -> None:
    slot_queue = SlotQueue()
    tasks, order = await queued(slot_queue, 4)
    slot_queue.release(1)
    await settled()
    assert order == [0]
    slot_queue.release(3)
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3]


async def test_fractions_add_up_and_nothing_is_saved_while_nobody_waits() -> None:
    slot_queue = SlotQueue()
    slot_queue.release(5)  # Nobody waits.
    tasks, order = await queued(slot_queue, 3)
    assert order == []
    released = []
    for _ in range(4):
        slot_queue.release(0.5)
        await settled()
        released.append(len(order))
    assert released == [0, 1, 1, 2]
    slot_queue.release(1)
    await asyncio.gather(*tasks)


async def test_a_caller_that_has_gone_is_skipped() -> None:
    slot_queue = SlotQueue()
    tasks, order = await queued(slot_queue, 3)
    tasks[0].cancel()
    await settled()
    slot_queue.release(1)
    await settled()
    assert order == [1]
    slot_queue.release(1)
    await asyncio.wait(tasks)
    assert order == [1, 2]


async def test_a_caller_continues_when_its_patience_ends() -> None:
    async with asyncio.timeout(STEP):
        await SlotQueue().wait(0.01)


class HeldRunners(Runners):
    """Runners that accept one chain for each item in `permits`."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.permits: asyncio.Queue[None] = asyncio.Queue()
        self.told: list[str] = []

    async def start_job_chain(self, runner: RunnerInfo, chain: bytes) -> None:
        self.told.append(AssignedJobChain.FromString(chain).job_chain.request_id)
        await self.permits.get()


@pytest.fixture
async def busy(store: Store, monkeypatch: pytest.MonkeyPatch) -> tuple[Dispatcher, HeldRunners]:
    """A dispatcher with no free delivery slot, and its runners."""
    monkeypatch.setattr(delivery_module, "MAX_IN_FLIGHT", 2)
    monkeypatch.setattr(SlotQueue.wait, "__defaults__", (FOREVER,))
    runners = HeldRunners(store)
    await runners.refresh()
    dispatcher = Dispatcher(store, runners, interval=3600, suspended_timeout=3600)
    for _ in range(2):
        await send(store, dispatcher)
    return dispatcher, runners


async def send(store: Store, dispatcher: Dispatcher) -> None:
    made = await create(store, RUNNER)
    dispatcher.deliver(RUNNER, Assignment(request_id=made.id, epoch=1), a_chain(made.id))


async def test_a_create_waits_for_a_slot_and_is_not_pending(
    busy: tuple[Dispatcher, HeldRunners],
) -> None:
    dispatcher, runners = busy
    picks = [asyncio.create_task(dispatcher.pick_runner()) for _ in range(2)]
    await settled()
    assert not any(pick.done() for pick in picks)
    runners.permits.put_nowait(None)
    async with asyncio.timeout(STEP):
        assert await picks[0] == RUNNER
    await settled()
    assert not picks[1].done()
    runners.permits.put_nowait(None)
    async with asyncio.timeout(STEP):
        assert await picks[1] == RUNNER
        assert await dispatcher.pick_runner() == RUNNER  # Nobody waits, and a slot is free.


async def test_while_requests_are_pending_two_deliveries_release_one_create(
    store: Store, busy: tuple[Dispatcher, HeldRunners]
) -> None:
    dispatcher, runners = busy
    await dispatcher.created_pending("", NEEDS_NOTHING, waits_for_limit=False)
    pick = asyncio.create_task(dispatcher.pick_runner())
    runners.permits.put_nowait(None)
    await settled()
    assert not pick.done()
    runners.permits.put_nowait(None)
    async with asyncio.timeout(STEP):
        assert await pick is None  # It must not overtake the pending request.


@pytest.mark.parametrize("why", ["draining", "full", "gone"])
async def test_a_create_does_not_wait_if_no_runner_is_free(
    busy: tuple[Dispatcher, HeldRunners], why: str
) -> None:
    dispatcher, runners = busy
    if why == "draining":
        runners.drain(RUNNER.runner_id)
    elif why == "full":
        runners.mark_full(RUNNER.runner_id)
    else:
        runners.remove(RUNNER.runner_id)
    async with asyncio.timeout(STEP):
        assert await dispatcher.pick_runner() is None
