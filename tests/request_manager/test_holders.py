"""The holders of requests: found again with each attempt, and told a limited number of times."""

from __future__ import annotations

import pytest

from spincycle_grpc.errors import NotFoundError, SpinCycleError, UnavailableError
from spincycle_grpc.state import State
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
from spincycle_server.request_manager.holders import TELL_TRIES, Holders, Told
from spincycle_server.store import Store
from tests.request_manager.doubles import WillingRunners
from tests.store.samples import OTHER_RUNNER, RUNNER, create

AWAY = UnavailableError("cannot reach it")
NO_SUCH_CHAIN = NotFoundError("no such chain", reason="JOB_CHAIN_NOT_FOUND")


class Calls:
    """The calls to runners, and the errors of the next ones."""

    def __init__(self, *errors: SpinCycleError) -> None:
        self.told: list[tuple[str, int]] = []
        self.errors = list(errors)

    async def tell(self, runner: RunnerInfo, assignment: Assignment) -> None:
        self.told.append((runner.runner_id, assignment.epoch))
        if self.errors:
            raise self.errors.pop(0)


async def holders_of(store: Store) -> Holders:
    runners = WillingRunners(store)
    await runners.refresh()
    return Holders(store, runners)


async def test_the_holder_is_told_once(store: Store) -> None:
    request, calls = await create(store), Calls()
    assert await (await holders_of(store)).tell(request.id, calls.tell) is Told.YES
    assert calls.told == [("r1", 1)]


async def test_a_request_that_no_runner_has_is_not_told(store: Store) -> None:
    holders, calls = await holders_of(store), Calls()
    pending, ended = await create(store, None), await create(store)
    await store.finish(ended.id, State.COMPLETE, 1, 3)
    for request_id in (pending.id, ended.id, "00000000000000000000"):
        assert await holders.tell(request_id, calls.tell) is Told.NO_HOLDER
    assert calls.told == []


async def test_a_holder_without_a_lease_is_lost(store: Store) -> None:
    request, calls = await create(store, OTHER_RUNNER), Calls()
    assert await (await holders_of(store)).tell(request.id, calls.tell) is Told.HOLDER_LOST
    assert calls.told == []


async def test_a_holder_that_reports_elsewhere_is_found_in_the_database(store: Store) -> None:
    holders, calls = await holders_of(store), Calls()
    await store.renew_runner(OTHER_RUNNER, 3600, draining=False)
    request = await create(store, OTHER_RUNNER)
    assert await holders.tell(request.id, calls.tell) is Told.YES
    assert calls.told == [("r2", 1)]


@pytest.mark.parametrize("error", [AWAY, NO_SUCH_CHAIN], ids=["away", "no such chain"])
async def test_attempts_are_limited(store: Store, error: SpinCycleError) -> None:
    request, holders = await create(store), await holders_of(store)
    calls = Calls(*[error] * (TELL_TRIES - 1))
    assert await holders.tell(request.id, calls.tell) is Told.YES
    assert calls.told == [("r1", 1)] * TELL_TRIES
    calls = Calls(*[error] * (TELL_TRIES + 1))
    assert await holders.tell(request.id, calls.tell) is Told.NOT_YET
    assert calls.told == [("r1", 1)] * TELL_TRIES
    calls = Calls(error)
    assert await holders.tell(request.id, calls.tell, tries=1) is Told.NOT_YET
    assert calls.told == [("r1", 1)]


async def test_a_request_that_moves_is_told_where_it_is_then(store: Store) -> None:
    request, holders = await create(store), await holders_of(store)
    await store.renew_runner(OTHER_RUNNER, 3600, draining=False)
    calls = Calls()

    async def moves(runner: RunnerInfo, assignment: Assignment) -> None:
        await calls.tell(runner, assignment)
        if runner.runner_id == RUNNER.runner_id:
            assert await store.unassign(assignment, State.PENDING)
            assert await store.assign(request.id, OTHER_RUNNER, expected_state=State.PENDING)
            raise NO_SUCH_CHAIN

    assert await holders.tell(request.id, moves) is Told.YES
    assert calls.told == [("r1", 1), ("r2", 2)]
    await store.finish(request.id, State.COMPLETE, 1, 3)
    assert await holders.tell(request.id, moves) is Told.NO_HOLDER
