"""Pauses: committed before a runner is told, repeated until the runner knows, and never started past."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from spincycle_grpc.errors import FailedPreconditionError, NotFoundError, UnavailableError
from spincycle_grpc.state import State
from spincycle_grpc.v1.runner_reports_pb2 import Assignment
from spincycle_server.capabilities import PAUSE, Capabilities
from spincycle_server.request_manager.dispatcher import Dispatcher
from spincycle_server.request_manager.holders import TELL_TRIES
from spincycle_server.request_manager.request_pauser import RequestPauser
from spincycle_server.store import Store
from spincycle_server.store.lookups import Assigned
from tests.request_manager.doubles import (
    WillingRunners,
    deliveries_end,
    make_dispatcher,
    reaches_state,
    state_of,
)
from tests.store.samples import OTHER_RUNNER, RUNNER, a_report, a_suspended_chain, create

PAUSES = Capabilities(None, features=frozenset({PAUSE}))
AWAY = UnavailableError("cannot reach it")
NO_SUCH_CHAIN = NotFoundError("no such chain", reason="JOB_CHAIN_NOT_FOUND")


@dataclass
class Pauses:
    pauser: RequestPauser
    runners: WillingRunners
    dispatcher: Dispatcher

    @property
    def told(self) -> list[str]:
        return [what for _, _, what in self.runners.told]


@pytest.fixture
async def pauses(store: Store) -> AsyncIterator[Pauses]:
    await store.renew_runner(RUNNER, 60, draining=False, capabilities=PAUSES)
    runners = WillingRunners(store)
    dispatcher = await make_dispatcher(store, runners)
    yield Pauses(RequestPauser(store, runners, dispatcher), runners, dispatcher)
    await dispatcher.close()
    await runners.close()


async def test_the_runner_is_told_of_a_pause_and_of_its_end(store: Store, pauses: Pauses) -> None:
    made = await create(store)
    await pauses.pauser.pause(made.id, "finch", stops_jobs=False)
    await pauses.pauser.pause(made.id, "finch", stops_jobs=True)
    await pauses.pauser.resume(made.id)
    assignment = Assignment(request_id=made.id, epoch=1)
    assert pauses.runners.told == [("r1", assignment, what) for what in ("pause", "now", "unpause")]


async def test_requests_without_a_runner_are_paused_without_a_call(store: Store, pauses: Pauses) -> None:
    pending, suspended = await create(store, None), await create(store)
    await store.apply_reports("r1", [a_report(suspended.id, ends=a_suspended_chain(suspended.id))])
    for request_id in (pending.id, suspended.id):
        await pauses.pauser.pause(request_id, "finch", stops_jobs=False)
        await pauses.pauser.resume(request_id)
    assert pauses.told == []


@pytest.mark.parametrize("error", [AWAY, NO_SUCH_CHAIN], ids=["away", "no such chain"])
async def test_a_runner_that_does_not_know_yet_is_told_a_few_times(
    store: Store, pauses: Pauses, error: UnavailableError | NotFoundError
) -> None:
    made = await create(store)
    pauses.runners.pause_errors = [error, error]
    await pauses.pauser.pause(made.id, "finch", stops_jobs=False)
    assert pauses.told == ["pause"] * 3
    pauses.runners.pause_errors = [error] * TELL_TRIES
    await pauses.pauser.resume(made.id)
    assert pauses.told == ["pause"] * 3 + ["unpause"] * TELL_TRIES


async def test_a_runner_that_cannot_pause_is_not_told(store: Store, pauses: Pauses) -> None:
    await store.renew_runner(OTHER_RUNNER, 60, draining=False)
    await pauses.runners.refresh()
    assert not pauses.runners.cannot_pause("r1")
    assert pauses.runners.cannot_pause("r2")
    made = await create(store, OTHER_RUNNER)
    await pauses.pauser.pause(made.id, "finch", stops_jobs=True)
    assert pauses.told == []
    assert (await store.get_record(made.id)).paused


@pytest.mark.parametrize(
    ("paused", "now", "is_pausing", "told"),
    [
        (False, False, False, []),
        (False, False, True, ["unpause"]),
        (True, False, False, ["pause"]),
        (True, False, True, []),
        (True, True, False, ["now"]),
        (True, True, True, ["now"]),
    ],
)
async def test_a_runner_is_told_what_it_missed(
    store: Store, pauses: Pauses, *, paused: bool, now: bool, is_pausing: bool, told: list[str]
) -> None:
    made = await create(store)
    if paused:
        await store.begin_pause(made.id, "finch", stops_jobs=now)
    pauses.pauser.compare(RUNNER, made.id, Assigned(1, False, paused, now, False), is_pausing=is_pausing)
    await deliveries_end(pauses.dispatcher)
    assert pauses.told == told


async def test_a_lost_request_that_is_paused_is_suspended_without_a_runner(
    store: Store, pauses: Pauses
) -> None:
    made = await create(store, OTHER_RUNNER)
    await pauses.pauser.pause(made.id, "finch", stops_jobs=False)
    pauses.dispatcher.recover_soon(Assignment(request_id=made.id, epoch=1), 0)
    rounds = [pauses.dispatcher._round, pauses.dispatcher._round]
    for one in rounds:
        await one()
    await reaches_state(store, made.id, State.SUSPENDED)
    await deliveries_end(pauses.dispatcher)
    assert pauses.runners.delivered == []
    await pauses.pauser.resume(made.id)
    await pauses.dispatcher._round()
    await deliveries_end(pauses.dispatcher)
    [(runner_id, chain)] = pauses.runners.delivered
    assert (runner_id, chain.suspended_job_chain.request_id) == ("r1", made.id)
    assert await state_of(store, made.id) is State.RUNNING


async def test_a_paused_request_cannot_be_started(store: Store, pauses: Pauses) -> None:
    made = await create(store, None)
    await pauses.pauser.pause(made.id, "finch", stops_jobs=False)
    for is_alive in (True, False):
        if not is_alive:
            await store.remove_runner("r1")
            await pauses.runners.refresh()
        with pytest.raises(FailedPreconditionError) as caught:
            await pauses.dispatcher.start(made.id)
        assert caught.value.reason == "REQUEST_PAUSED"
