"""Dispatch rounds: requests that cannot be read fail, those that no runner can take wait, others go on."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from spincycle_grpc.errors import FailedPreconditionError, UnavailableError
from spincycle_grpc.state import State
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.request_pb2 import Request, RequestFilter
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
from spincycle_server.capabilities import FINALLY, NEEDS_NOTHING, Capabilities, Requirement
from spincycle_server.request_manager import dispatcher as dispatcher_module
from spincycle_server.request_manager import full_runners as full_runners_module
from spincycle_server.request_manager.dispatcher import Dispatcher
from spincycle_server.request_manager.new_requests import NewRequests
from spincycle_server.store import Store
from spincycle_server.store.record import Record
from spincycle_server.store.schema import ORIGINAL, request_archives, requests, suspended_job_chains
from tests.graph.test_finally import built
from tests.request_manager.doubles import (
    ScriptedRunners,
    WillingRunners,
    deliveries_end,
    make_dispatcher,
    state_of,
)
from tests.store.samples import (
    OTHER_RUNNER,
    RUNNER,
    a_chain,
    a_log_entry,
    a_report,
    a_request,
    a_suspended_chain,
    create,
    waiting_ids,
)


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


async def full_with_place(store: Store) -> tuple[Dispatcher, WillingRunners]:
    """Returns a dispatcher whose runner is full but for one place."""
    runners = WillingRunners(store)
    dispatcher = await make_dispatcher(store, runners)
    runners.mark_full("r1")
    dispatcher.add_places("r1", 1)
    return dispatcher, runners


async def test_a_place_is_still_there_if_another_request_manager_was_faster(store: Store) -> None:
    taken, waiting = await create(store, None), await create(store, None)
    found = (await store.requirements.oldest_waiting(State.PENDING, 10)).requests
    await store.assign(taken.id, OTHER_RUNNER, expected_state=State.PENDING)
    dispatcher, runners = await full_with_place(store)
    await dispatcher._dispatch_pending(found)
    assert runners.delivered == []
    await dispatcher._dispatch_pending((await store.requirements.oldest_waiting(State.PENDING, 10)).requests)
    await deliveries_end(dispatcher)
    assert [chain.job_chain.request_id for _, chain in runners.delivered] == [waiting.id]
    assert runners.pick() is None


async def test_a_request_that_is_being_assigned_needs_no_other_place(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await create(store, None)
    dispatcher, _ = await full_with_place(store)
    needed: list[int] = []
    assign = store.assign

    async def look_and_assign(request_id: str, runner: RunnerInfo, **options: Any) -> Assignment | None:
        needed.append(dispatcher.needed_places("r1"))
        return await assign(request_id, runner, **options)

    monkeypatch.setattr(store, "assign", look_and_assign)
    await dispatcher._pending._dispatch_page()
    await deliveries_end(dispatcher)
    assert [*needed, dispatcher.needed_places("r1")] == [2, 2]


async def test_a_place_is_still_there_if_the_request_cannot_be_read(store: Store) -> None:
    broken = await create(store, None)
    await break_chains(store, broken.id)
    dispatcher, runners = await full_with_place(store)
    await dispatcher._dispatch_pending((await store.requirements.oldest_waiting(State.PENDING, 10)).requests)
    assert runners.pick() == RUNNER


async def test_a_place_is_still_there_if_the_request_was_not_stored(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher, runners = await full_with_place(store)

    async def fail(*_: object, **__: object) -> None:
        raise UnavailableError("the database is away")

    monkeypatch.setattr(store, "create_request", fail)
    with pytest.raises(UnavailableError):
        await NewRequests(store, dispatcher).add(
            a_request(), CreateRequest(), a_chain("x"), NEEDS_NOTHING, key=None, event=None, work=0, span=None
        )
    assert runners.pick() == RUNNER


async def test_a_place_is_still_there_if_a_resumed_or_lost_request_went_elsewhere(store: Store) -> None:
    elsewhere = await create(store, OTHER_RUNNER)
    dispatcher, runners = await full_with_place(store)
    assert runners.pick() == RUNNER
    await dispatcher._resume(elsewhere.id, RUNNER)
    assert await dispatcher._recover(Assignment(request_id=elsewhere.id, epoch=7), NEEDS_NOTHING)
    with pytest.raises(FailedPreconditionError):
        await dispatcher.start(elsewhere.id)
    assert runners.pick() == RUNNER
    assert runners.pick() is None


@pytest.mark.parametrize("what", ["suspended", "lost"])
async def test_a_place_goes_to_a_request_that_has_begun_before_older_ones_that_have_not(
    store: Store, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(full_runners_module, "PROBE", 3600.0)
    pending = await create(store, None)
    begun = await create(store, RUNNER if what == "suspended" else OTHER_RUNNER)
    if what == "suspended":
        await store.apply_reports("r1", [a_report(begun.id, ends=a_suspended_chain(begun.id))])
    runners = WillingRunners(store)
    dispatcher = await make_dispatcher(store, runners)
    runners.mark_full("r1")
    assert not await dispatcher._round()
    assert dispatcher.needed_places("r1") == 1
    await dispatcher._pending._dispatch_page()
    assert dispatcher.needed_places("r1") == 2
    dispatcher.add_places("r1", 1)
    await dispatcher._pending._dispatch_page()
    await deliveries_end(dispatcher)
    given = [one.job_chain.request_id or one.suspended_job_chain.request_id for _, one in runners.delivered]
    assert given == [begun.id]
    assert dispatcher.needed_places("r1") == 1
    dispatcher.add_places("r1", 1)
    await dispatcher._pending._dispatch_page()
    await deliveries_end(dispatcher)
    assert await state_of(store, pending.id) is State.RUNNING


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


async def test_a_stop_between_an_assignment_and_its_record_is_sent_with_the_chain(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the new runner would go on with jobs of the request before it learns of the stop."""
    able = Capabilities(frozenset({"noop"}), features=frozenset({FINALLY}))
    await store.renew_runner(RUNNER, 3600, draining=False, capabilities=able)
    request = a_request()
    needs = Requirement(frozenset({"noop"}), features=frozenset({FINALLY}))
    chain = built("roll", hosts=["web1"]).job_chain
    chain.request_id = request.id
    [first] = chain.jobs.keys() - {after for ids in chain.adjacency_list.values() for after in ids.ids}
    created = CreateRequest(type=request.type)
    await store.create_request(request, created, chain, OTHER_RUNNER, requirement=needs)
    tries = [a_log_entry(request.id, one) for one in (first, *chain.adjacency_list[first].ids)]
    assert await store.apply_reports("r2", [a_report(request.id, *tries)]) == []
    runners = WillingRunners(store)
    dispatcher = await make_dispatcher(store, runners)
    read = store.get_record

    async def stopped_before(request_id: str) -> Record:
        await store.request_stop(request_id)
        return await read(request_id)

    monkeypatch.setattr(store, "get_record", stopped_before)
    await dispatcher._round()
    await deliveries_end(dispatcher)
    [(runner_id, delivered)] = runners.delivered
    assert (runner_id, State(delivered.ending)) == ("r1", State.STOPPED)


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


NAP, DRAIN = Requirement(frozenset({"noop", "nap"})), Requirement(frozenset({"drain"}))


async def create_for(store: Store, requirement: Requirement, runner: RunnerInfo | None) -> str:
    request = a_request()
    await store.create_request(
        request, CreateRequest(type=request.type), a_chain(request.id), runner, requirement=requirement
    )
    return request.id


async def dispatcher_that_knows(store: Store, *types: str) -> tuple[Dispatcher, WillingRunners]:
    """Returns a dispatcher with one runner, which knows some job types."""
    await store.renew_runner(RUNNER, 3600, draining=False, capabilities=Capabilities(frozenset(types)))
    runners = WillingRunners(store)
    return await make_dispatcher(store, runners), runners


async def test_a_blocked_request_is_not_started_and_the_error_says_why(store: Store) -> None:
    dispatcher, _ = await dispatcher_that_knows(store, "noop", "nap")
    blocked = await create_for(store, DRAIN, None)
    with pytest.raises(FailedPreconditionError, match="no job runner knows the job type drain: ") as caught:
        await dispatcher.start(blocked)
    assert caught.value.reason == "NO_MATCHING_RUNNER"
    assert await state_of(store, blocked) is State.PENDING


async def test_a_created_request_is_answered_even_if_nobody_can_read_what_it_waits_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher, _ = await dispatcher_that_knows(store, "noop", "nap")
    first, second = [limited_message("a") for _ in range(2)]
    holds, waits = [await store.create_request(*one, None, requirement=NAP) for one in (first, second)]
    assert [(one.assignment, one.waits_for_limit) for one in (holds, waits)] == [(None, False), (None, True)]
    told = await dispatcher.created_pending(second[0].id, NAP, waits_for_limit=True)
    assert told.startswith("waits for the limit a of 1 ")

    async def fail(_ids: object) -> dict[str, str]:
        raise UnavailableError("the database is away", reason="DATABASE_UNAVAILABLE")

    monkeypatch.setattr(store.limits, "waits", fail)
    assert await dispatcher.created_pending(first[0].id, NAP, waits_for_limit=False) == ""
    told = await dispatcher.created_pending(second[0].id, NAP, waits_for_limit=True)
    assert told == "waits for a limit"
    assert dispatcher._pending.any_waits_for_limit


def limited_message(key: str) -> tuple[Request, CreateRequest, JobChain]:
    """Returns what `Store.create_request` takes of a new request with a limit of one."""
    request = a_request()
    chain = a_chain(request.id)
    chain.limits.add(key=key, max=1)
    return request, CreateRequest(type=request.type), chain


async def test_lost_requests_are_found_behind_more_that_no_runner_can_take(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher_module, "ROUND_SIZE", 3)
    blocked = [await create_for(store, DRAIN, OTHER_RUNNER) for _ in range(7)]
    wanted = [await create_for(store, NAP, OTHER_RUNNER) for _ in range(4)]
    dispatcher, runners = await dispatcher_that_knows(store, "noop", "nap")
    while await dispatcher._round():
        pass
    await deliveries_end(dispatcher)
    given = {chain.suspended_job_chain.request_id for _, chain in runners.delivered}
    assert given == set(wanted)
    assert len(runners.delivered) == len(wanted)
    assert {await state_of(store, one) for one in blocked} == {State.RUNNING}
    assert runners.why_waiting(State.RUNNING, DRAIN, "r2") == "no job runner knows the job type drain"


async def test_suspended_requests_are_resumed_behind_more_that_no_runner_can_take(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher_module, "ROUND_SIZE", 3)
    made = [await create_for(store, one, RUNNER) for one in [DRAIN] * 7 + [NAP] * 4]
    await store.apply_reports("r1", [a_report(one, ends=a_suspended_chain(one)) for one in made])
    dispatcher, runners = await dispatcher_that_knows(store, "noop", "nap")
    while await dispatcher._round():
        pass
    await deliveries_end(dispatcher)
    given = [chain.suspended_job_chain.request_id for _, chain in runners.delivered]
    assert sorted(given) == sorted(made[7:])
    assert await waiting_ids(store, State.SUSPENDED) == made[:7]


async def test_a_chain_that_its_runner_lost_is_kept_until_a_runner_knows_its_types(store: Store) -> None:
    held = await create_for(store, DRAIN, RUNNER)
    dispatcher, runners = await dispatcher_that_knows(store, "noop", "nap")
    token = await store.renew_runner(RUNNER, 3600, draining=False, has_changed=False)
    lost = Assignment(request_id=held, epoch=1)
    dispatcher.recover_soon(lost, token)
    await deliveries_end(dispatcher)
    assert await store.get_assignment(held) == (lost, "r1")
    runners.add(RUNNER, Capabilities(frozenset({"drain"})))
    dispatcher.recover_soon(lost, token)
    await deliveries_end(dispatcher)
    assert await store.get_assignment(held) == (Assignment(request_id=held, epoch=2), "r1")


async def test_requests_explain_why_they_wait(store: Store) -> None:
    _, runners = await dispatcher_that_knows(store, "noop", "nap")
    store.reasons.of_runners = runners.why_waiting
    blocked, ready = await create_for(store, DRAIN, None), await create_for(store, NAP, None)
    running = await create_for(store, DRAIN, RUNNER)
    reasons = {one.id: one.waiting for one in await store.find_requests(RequestFilter())}
    assert reasons == {blocked: "no job runner knows the job type drain", ready: "", running: ""}
    for request_id, reason in reasons.items():
        assert (await store.get_request(request_id, with_job_chain=False)).waiting == reason
    assert {key: one.waiting for key, one in (await store.requests_by_id(reasons)).items()} == reasons
