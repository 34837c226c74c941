"""Dispatch rounds: a request whose data cannot be read fails, and the others go on."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from spincycle_grpc.errors import UnavailableError
from spincycle_grpc.state import State
from spincycle_grpc.v1.runner_reports_pb2 import Assignment
from spincycle_server.request_manager.dispatcher import Dispatcher
from spincycle_server.store import Store
from spincycle_server.store.schema import ORIGINAL, request_archives, requests, suspended_job_chains
from tests.request_manager.doubles import ScriptedRunners, deliveries_end, make_dispatcher, state_of
from tests.store.samples import OTHER_RUNNER, RUNNER, a_report, a_suspended_chain, create, waiting_ids


async def dispatched(store: Store, *answers: None) -> Dispatcher:
    """Runs one round, and returns when its deliveries have ended."""
    runners = ScriptedRunners(store, *answers)
    dispatcher = await make_dispatcher(store, runners)
    await dispatcher._round()
    await deliveries_end(dispatcher)
    return dispatcher


async def break_chains(store: Store, request_id: str) -> None:
    with store._engine.begin() as connection:
        for table, column in ((request_archives, "job_chain"), (suspended_job_chains, "suspended_job_chain")):
            connection.execute(
                update(table).where(table.c.request_id == request_id).values({column: b'{"requestId":'})
            )


async def test_a_pending_request_that_cannot_be_read_fails_and_others_start(store: Store) -> None:
    broken, sound = await create(store, None), await create(store, None)
    await break_chains(store, broken.id)
    dispatcher = await dispatched(store, None)
    await dispatcher._dispatch_pending((await store.requirements.oldest_waiting(State.PENDING, 10)).requests)
    await deliveries_end(dispatcher)
    assert await state_of(store, broken.id) is State.FAIL
    assert await state_of(store, sound.id) is State.RUNNING


async def test_a_suspended_request_that_cannot_be_read_fails_and_others_resume(store: Store) -> None:
    broken, sound = await create(store), await create(store)
    for made in (broken, sound):
        await store.apply_reports("r1", [a_report(made.id, ends=a_suspended_chain(made.id))])
    await break_chains(store, broken.id)
    await dispatched(store, None)
    assert await state_of(store, broken.id) is State.FAIL
    assert await state_of(store, sound.id) is State.RUNNING


async def test_a_lost_request_that_cannot_be_read_fails_and_others_are_taken_over(store: Store) -> None:
    broken, sound = await create(store, OTHER_RUNNER), await create(store, OTHER_RUNNER)
    await break_chains(store, broken.id)
    await dispatched(store, None)
    assert await state_of(store, broken.id) is State.FAIL
    assert await store.get_assignment(sound.id) == (Assignment(request_id=sound.id, epoch=2), "r1")


async def test_a_denied_request_that_is_started_without_a_runner_waits_for_one(store: Store) -> None:
    denied = await create(store, None)
    with store._engine.begin() as connection:
        connection.execute(update(requests).values(runner_id=ORIGINAL))
    dispatcher = await dispatched(store, None)
    assert await waiting_ids(store) == []
    await store.remove_runner(RUNNER.runner_id)
    await dispatcher._runners.refresh()
    with pytest.raises(UnavailableError, match="the request starts when a runner has room"):
        await dispatcher.start(denied.id)
    assert await waiting_ids(store) == [denied.id]
