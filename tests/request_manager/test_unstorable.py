"""What cannot be stored or read concerns one request, and keeps no other from going on."""

from __future__ import annotations

import asyncio

from sqlalchemy import update

from spincycle_grpc.state import State
from spincycle_grpc.v1.runner_reports_pb2 import (
    Assignment,
)
from spincycle_server.request_manager.dispatcher import Dispatcher
from spincycle_server.store import Store
from spincycle_server.store.schema import request_archives, suspended_job_chains
from tests.limits import STEP
from tests.request_manager.test_delivery import AWAY, ToldRunners
from tests.store.samples import (
    OTHER_RUNNER,
    RUNNER,
    a_chain,
    a_report,
    a_suspended_chain,
    create,
)


async def state_of(store: Store, request_id: str) -> State:
    return State((await store.get_request(request_id, with_job_chain=False)).state)


async def dispatched(store: Store, *answers: None) -> Dispatcher:
    """Goes one round, and returns when what it sent has arrived."""
    runners = ToldRunners(store, *answers)
    await runners.refresh()
    dispatcher = Dispatcher(store, runners, interval=3600, suspended_timeout=3600)
    await dispatcher._round()
    async with asyncio.timeout(STEP):
        await asyncio.gather(*dispatcher._delivery._in_flight)
    return dispatcher


async def spoil(store: Store, request_id: str) -> None:
    with store._engine.begin() as connection:
        for table, column in ((request_archives, "job_chain"), (suspended_job_chains, "suspended_job_chain")):
            connection.execute(
                update(table).where(table.c.request_id == request_id).values({column: b'{"requestId":'})
            )


async def test_a_waiting_request_that_cannot_be_read_fails_and_others_start(store: Store) -> None:
    spoilt, sound = await create(store, None), await create(store, None)
    await spoil(store, spoilt.id)
    dispatcher = await dispatched(store, None)
    await dispatcher._dispatch_pending(await store.waiting_requests(10))
    async with asyncio.timeout(STEP):
        await asyncio.gather(*dispatcher._delivery._in_flight)
    assert await state_of(store, spoilt.id) is State.FAIL
    assert await state_of(store, sound.id) is State.RUNNING


async def test_a_suspended_request_that_cannot_be_read_fails_and_others_resume(store: Store) -> None:
    spoilt, sound = await create(store), await create(store)
    for made in (spoilt, sound):
        await store.apply_reports("r1", [a_report(made.id, ends=a_suspended_chain(made.id))])
    await spoil(store, spoilt.id)
    await dispatched(store, None)
    assert await state_of(store, spoilt.id) is State.FAIL
    assert await state_of(store, sound.id) is State.RUNNING


async def test_a_lost_request_that_cannot_be_read_fails_and_others_go_on(store: Store) -> None:
    spoilt, sound = await create(store, OTHER_RUNNER), await create(store, OTHER_RUNNER)
    await spoil(store, spoilt.id)
    await dispatched(store, None)
    assert await state_of(store, spoilt.id) is State.FAIL
    assert await store.get_assignment(sound.id) == (Assignment(request_id=sound.id, epoch=2), "r1")


async def test_a_runner_that_cannot_be_reached_is_told_only_while_the_assignment_stands(store: Store) -> None:
    made = await create(store, RUNNER)
    runners = ToldRunners(store, *[AWAY] * 1000)
    await runners.refresh()
    dispatcher = Dispatcher(store, runners, interval=3600, suspended_timeout=3600)
    dispatcher.deliver(RUNNER, Assignment(request_id=made.id, epoch=1), a_chain(made.id))
    await asyncio.sleep(0)
    await store.finish(made.id, State.COMPLETE, 1, 3)
    async with asyncio.timeout(STEP):
        await asyncio.gather(*dispatcher._delivery._in_flight)
    assert runners.answers
