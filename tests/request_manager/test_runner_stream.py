"""One runner's stream: its lease, its reports, and the chains that it should have."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from spincycle_grpc.errors import (
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    UnavailableError,
)
from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.limit_pb2 import SequenceLimitWait
from spincycle_grpc.v1.runner_reports_pb2 import (
    REFUSAL_REASON_INVALID,
    REFUSAL_REASON_NO_SUCH_REQUEST,
    REFUSAL_REASON_STALE,
    Assignment,
    ChainReport,
    KnownJobTypes,
    RefusedReport,
    ReportRequest,
    RunnerInfo,
)
from spincycle_server.capabilities import KNOWS_ALL, NEEDS_NOTHING, Capabilities, Requirement
from spincycle_server.config.values import MAX_CHAINS
from spincycle_server.request_manager import recovery as recovery_module
from spincycle_server.request_manager import runner_stream as runner_stream_module
from spincycle_server.request_manager.dispatcher import Dispatcher
from spincycle_server.request_manager.original_runners import OriginalRunners
from spincycle_server.request_manager.request_pauser import RequestPauser
from spincycle_server.request_manager.request_stopper import RequestStopper
from spincycle_server.request_manager.runner_stream import MAX_HELD, RunnerStream
from spincycle_server.store import Store
from tests.request_manager.doubles import Clock, WillingRunners, deliveries_end, make_dispatcher, state_of
from tests.store.limit_samples import REFUSE, Sequences
from tests.store.samples import (
    OTHER_RUNNER,
    RUNNER,
    a_log_entry,
    a_report,
    create,
    live_now,
    lost_assignments,
)

LEASE = 60.0


@dataclass
class Manager:
    """The parts of a Request Manager that a stream needs."""

    store: Store
    runners: WillingRunners
    dispatcher: Dispatcher

    def stream(self) -> RunnerStream:
        stopper = RequestStopper(self.store, self.runners, self.dispatcher, OriginalRunners(self.store))
        pauser = RequestPauser(self.store, self.runners, self.dispatcher)
        return RunnerStream(self.store, self.runners, self.dispatcher, stopper, pauser, lease=LEASE)

    async def opened(self, runner: RunnerInfo = RUNNER) -> RunnerStream:
        """Returns a stream whose first message was received."""
        stream = self.stream()
        await stream.receive(ReportRequest(number=1, runner=runner))
        return stream


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(runner_stream_module, "time", clock)
    monkeypatch.setattr(recovery_module, "time", clock)
    return clock


@pytest.fixture
async def manager(store: Store, clock: Clock) -> AsyncIterator[Manager]:
    runners = WillingRunners(store)
    dispatcher = await make_dispatcher(store, runners)
    yield Manager(store, runners, dispatcher)
    await dispatcher.close()
    await runners.close()


def holding(number: int, *held: Assignment, **fields: Any) -> ReportRequest:
    """Returns a message that lists all chains that the runner has."""
    return ReportRequest(number=number, holds_all=True, held=held, **fields)


@pytest.mark.parametrize(
    "message",
    [
        ReportRequest(number=1),
        ReportRequest(number=1, holds_all=True),
        ReportRequest(number=1, runner=RunnerInfo(url="http://a:1", grpc_address="a:2")),
        ReportRequest(number=1, runner=RunnerInfo(runner_id="r2", grpc_address="a:2")),
        ReportRequest(number=1, runner=RunnerInfo(runner_id="r2", url="http://a:1")),
    ],
)
async def test_a_first_message_that_does_not_identify_the_runner_is_refused(
    manager: Manager, message: ReportRequest
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await manager.stream().receive(message)
    assert caught.value.reason == "RUNNER_UNKNOWN"
    assert manager.runners.get("r2") is None


async def test_a_message_that_lists_too_many_chains_is_refused(manager: Manager) -> None:
    stream = await manager.opened()
    held = [Assignment(request_id="r", epoch=epoch) for epoch in range(MAX_HELD)]
    await stream.receive(holding(2, *held))
    with pytest.raises(InvalidArgumentError) as caught:
        await stream.receive(holding(3, *held, Assignment()))
    assert caught.value.reason == "TOO_MANY_CHAINS"


def test_a_runner_can_report_all_chains_that_it_may_hold() -> None:
    assert MAX_CHAINS == MAX_HELD


async def test_the_first_message_makes_a_runner_live(manager: Manager) -> None:
    response = await manager.stream().receive(ReportRequest(number=1, runner=OTHER_RUNNER))
    assert (response.number, response.lease.ToTimedelta().total_seconds()) == (1, LEASE)
    assert manager.runners.get("r2") == OTHER_RUNNER
    assert OTHER_RUNNER in [runner for runner, _ in await live_now(manager.store)]


async def test_the_features_of_a_runner_are_kept_for_all_request_managers(manager: Manager) -> None:
    runner = RunnerInfo()
    runner.CopyFrom(RUNNER)
    runner.features.append("pause")
    await manager.opened(runner)
    assert not manager.runners.cannot_pause(RUNNER.runner_id)
    [stored] = await manager.store.live_runners()
    assert stored.capabilities.features == {"pause"}


async def test_a_runner_is_told_of_a_pause_that_it_missed(manager: Manager) -> None:
    runner = RunnerInfo()
    runner.CopyFrom(RUNNER)
    runner.features.append("pause")
    stream = await manager.opened(runner)
    made = await create(manager.store)
    await manager.store.begin_pause(made.id, "finch", stops_jobs=False)
    held = Assignment(request_id=made.id, epoch=1)
    await stream.receive(holding(2, held))
    await deliveries_end(manager.dispatcher)
    held.pausing = True
    await stream.receive(holding(3, held))
    await deliveries_end(manager.dispatcher)
    assert [what for _, _, what in manager.runners.told] == ["pause"]


async def test_a_message_within_a_fifth_of_the_lease_does_not_renew_it(
    manager: Manager, clock: Clock
) -> None:
    stream = await manager.opened()
    commits = manager.store.commits
    clock.now += LEASE / 5
    response = await stream.receive(ReportRequest(number=2))
    assert manager.store.commits == commits
    assert response.lease.ToTimedelta().total_seconds() == LEASE * 4 / 5


async def test_a_message_after_a_fifth_of_the_lease_renews_it(manager: Manager, clock: Clock) -> None:
    stream = await manager.opened()
    commits = manager.store.commits
    clock.now += LEASE / 5 + 0.1
    response = await stream.receive(ReportRequest(number=2))
    assert manager.store.commits == commits + 1
    assert response.lease.ToTimedelta().total_seconds() == LEASE


@pytest.mark.parametrize("message", [ReportRequest(number=2, draining=True), holding(2)])
async def test_a_message_that_drains_or_lists_chains_renews_the_lease(
    manager: Manager, message: ReportRequest
) -> None:
    stream = await manager.opened()
    commits = manager.store.commits
    await stream.receive(message)
    assert manager.store.commits == commits + 1


async def test_a_runner_that_drains_gets_no_more_chains(manager: Manager) -> None:
    stream = await manager.opened()
    assert manager.runners.pick() == RUNNER
    await stream.receive(ReportRequest(number=2, draining=True))
    assert manager.runners.pick() is None
    assert await live_now(manager.store) == [(RUNNER, True)]


async def test_a_runner_that_leaves_has_no_lease(manager: Manager) -> None:
    stream = await manager.opened()
    await stream.receive(ReportRequest(number=2, draining=True, leaving=True))
    assert manager.runners.get("r1") is None
    assert await live_now(manager.store) == []


async def test_an_older_stream_of_the_same_runner_can_store_nothing(manager: Manager) -> None:
    request = await create(manager.store)
    older = await manager.opened()
    newer = await manager.opened()
    report = a_report(request.id, a_log_entry(request.id))
    with pytest.raises(FailedPreconditionError) as caught:
        await older.receive(holding(2, chains=[report]))
    assert caught.value.reason == "STREAM_SUPERSEDED"
    assert await manager.store.get_log(request.id) == []
    assert (await newer.receive(holding(2, chains=[report]))).refused == []
    assert len(await manager.store.get_log(request.id)) == 1


SUCCESSOR = RunnerInfo(runner_id="r3", url=RUNNER.url, grpc_address=RUNNER.grpc_address)
NO_ANSWER = UnavailableError("no answer")


async def lost(manager: Manager) -> list[str]:
    return [one.request_id for one in await lost_assignments(manager.store)]


async def test_a_runner_that_answers_at_its_address_replaces_the_one_before(manager: Manager) -> None:
    held = await create(manager.store, RUNNER)
    await manager.opened(SUCCESSOR)
    assert manager.runners.asked == ["r3"]
    assert await lost(manager) == [held.id]
    assert manager.runners.get("r1") is None
    assert manager.runners.get("r3") == SUCCESSOR


async def test_a_runner_that_does_not_answer_at_its_address_replaces_no_live_runner(manager: Manager) -> None:
    await create(manager.store, RUNNER)
    manager.runners.address_errors = [NO_ANSWER]
    with pytest.raises(FailedPreconditionError, match="no answer") as caught:
        await manager.opened(SUCCESSOR)
    assert caught.value.reason == "ADDRESS_TAKEN"
    assert await lost(manager) == []
    assert manager.runners.get("r1") == RUNNER
    assert manager.runners.get("r3") is None
    assert [runner for runner, _ in await live_now(manager.store)] == [RUNNER]


async def test_a_runner_at_the_address_of_a_dead_one_reports_although_it_does_not_answer_yet(
    manager: Manager,
) -> None:
    await manager.store.renew_runner(RUNNER, 0, draining=False)
    manager.runners.address_errors = [NO_ANSWER]
    await manager.opened(SUCCESSOR)
    assert [runner for runner, _ in await live_now(manager.store)] == [SUCCESSOR]


async def test_a_runner_alone_at_its_address_is_not_called(manager: Manager) -> None:
    await manager.opened(OTHER_RUNNER)
    await manager.opened(OTHER_RUNNER)
    assert manager.runners.asked == []


async def test_a_request_manager_that_was_frozen_removes_no_runner_that_came_later(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    latest = RunnerInfo(runner_id="r4", url=RUNNER.url, grpc_address=RUNNER.grpc_address)

    async def answered_long_ago(runner: RunnerInfo, limit: float) -> None:
        await manager.store.renew_runner(latest, LEASE, draining=False)

    monkeypatch.setattr(manager.runners, "error_at_address", answered_long_ago)
    await manager.opened(SUCCESSOR)
    stored = [one.runner.runner_id for one in await manager.store.runners_like(latest) if one.is_live]
    assert sorted(stored) == ["r3", "r4"]


async def test_a_runner_cannot_change_its_address(manager: Manager) -> None:
    moved = RunnerInfo(runner_id="r1", url=RUNNER.url, grpc_address="10.0.0.66:32317")
    with pytest.raises(FailedPreconditionError) as caught:
        await manager.opened(moved)
    assert caught.value.reason == "ADDRESS_CHANGED"
    assert await live_now(manager.store) == [(RUNNER, False)]


async def test_a_runner_whose_address_is_not_one_is_refused(manager: Manager) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await manager.opened(
            RunnerInfo(runner_id="r5", url="http://a:1", grpc_address="unix:/run/docker.sock")
        )
    assert caught.value.reason == "BAD_ADDRESS"


async def test_reports_are_committed_before_they_are_acknowledged(manager: Manager) -> None:
    request = await create(manager.store)
    stream = await manager.opened()
    report = a_report(request.id, a_log_entry(request.id), ends=state_pb2.STATE_COMPLETE, finished_jobs=3)
    response = await stream.receive(ReportRequest(number=2, chains=[report]))
    assert (response.number, list(response.refused)) == (2, [])
    assert await state_of(manager.store, request.id) is State.COMPLETE
    assert len(await manager.store.get_log(request.id)) == 1


async def test_a_report_that_is_sent_again_changes_nothing(manager: Manager) -> None:
    request = await create(manager.store)
    stream = await manager.opened()
    report = a_report(request.id, a_log_entry(request.id), ends=state_pb2.STATE_COMPLETE, finished_jobs=3)
    for number in (2, 3):
        assert not (await stream.receive(ReportRequest(number=number, chains=[report]))).refused
    assert len(await manager.store.get_log(request.id)) == 1


async def test_each_refused_report_has_its_reason_and_the_others_are_stored(manager: Manager) -> None:
    good, stale, invalid = [await create(manager.store) for _ in range(3)]
    stream = await manager.opened()
    chains = [
        a_report(stale.id, a_log_entry(stale.id), epoch=2),
        a_report("00000000000000000000", a_log_entry("00000000000000000000")),
        a_report(invalid.id, a_log_entry(invalid.id), ends=state_pb2.STATE_RUNNING),
        a_report(good.id, a_log_entry(good.id), ends=state_pb2.STATE_COMPLETE),
    ]
    response = await stream.receive(ReportRequest(number=2, chains=chains))
    assert [(one.assignment.request_id, one.reason) for one in response.refused] == [
        (stale.id, REFUSAL_REASON_STALE),
        ("00000000000000000000", REFUSAL_REASON_NO_SUCH_REQUEST),
        (invalid.id, REFUSAL_REASON_INVALID),
    ]
    assert await state_of(manager.store, good.id) is State.COMPLETE
    assert await state_of(manager.store, invalid.id) is State.RUNNING
    assert await manager.store.get_log(stale.id) == []


async def test_only_the_report_that_the_database_refuses_is_invalid(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, bad, last = [await create(manager.store) for _ in range(3)]
    apply_reports = manager.store.apply_reports

    async def refuse_bad(runner_id: str, reports: Sequence[ChainReport]) -> list[RefusedReport]:
        if any(report.assignment.request_id == bad.id for report in reports):
            raise InternalError("the database refused a change", reason="DATABASE_ERROR")
        return await apply_reports(runner_id, reports)

    monkeypatch.setattr(manager.store, "apply_reports", refuse_bad)
    stream = await manager.opened()
    chains = [
        a_report(one.id, a_log_entry(one.id), ends=state_pb2.STATE_COMPLETE) for one in (first, bad, last)
    ]
    response = await stream.receive(ReportRequest(number=2, chains=chains))
    assert list(response.refused) == [
        RefusedReport(assignment=Assignment(request_id=bad.id, epoch=1), reason=REFUSAL_REASON_INVALID)
    ]
    states = [await state_of(manager.store, one.id) for one in (first, bad, last)]
    assert states == [State.COMPLETE, State.RUNNING, State.COMPLETE]


async def test_a_chain_that_the_runner_does_not_have_is_taken_over_after_half_a_lease(
    manager: Manager, clock: Clock
) -> None:
    request = await create(manager.store)
    stream = await manager.opened()
    await stream.receive(holding(2))
    clock.now += LEASE / 2 - 0.1
    await stream.receive(holding(3))
    await deliveries_end(manager.dispatcher)
    assert manager.runners.delivered == []
    clock.now += 0.1
    await stream.receive(holding(4))
    await deliveries_end(manager.dispatcher)
    assert await manager.store.get_assignment(request.id) == (
        Assignment(request_id=request.id, epoch=2),
        "r1",
    )
    assert [chain.epoch for _, chain in manager.runners.delivered] == [2]


async def test_a_chain_that_the_runner_has_is_not_taken_over(manager: Manager, clock: Clock) -> None:
    request = await create(manager.store)
    stream = await manager.opened()
    for number in (2, 3, 4):
        await stream.receive(holding(number, Assignment(request_id=request.id, epoch=1)))
        clock.now += LEASE
    await deliveries_end(manager.dispatcher)
    assert manager.runners.delivered == []


async def test_a_missing_chain_is_left_alone_if_the_runner_has_renewed_its_lease_elsewhere(
    manager: Manager, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await create(manager.store)
    stream = await manager.opened()
    await stream.receive(holding(2))
    clock.now += LEASE
    assigned_to = manager.store.assigned_to

    async def renew_elsewhere(runner_id: str) -> Any:
        await manager.store.renew_runner(RUNNER, LEASE, draining=False)
        return await assigned_to(runner_id)

    monkeypatch.setattr(manager.store, "assigned_to", renew_elsewhere)
    await stream.receive(holding(3))
    await deliveries_end(manager.dispatcher)
    assert await manager.store.get_assignment(request.id) == (
        Assignment(request_id=request.id, epoch=1),
        "r1",
    )


@pytest.mark.parametrize(("held_epoch", "is_told"), [(1, True), (2, False)])
async def test_a_runner_that_has_a_chain_that_must_stop_is_told_again(
    manager: Manager, held_epoch: int, is_told: bool
) -> None:
    request, other = await create(manager.store), await create(manager.store)
    await manager.store.request_stop(request.id)
    stream = await manager.opened()
    held = [
        Assignment(request_id=request.id, epoch=held_epoch),
        Assignment(request_id=other.id, epoch=1),
    ]
    await stream.receive(holding(2, *held))
    await deliveries_end(manager.dispatcher)
    assert manager.runners.stopped == [("r1", request.id)] * is_told


async def test_a_full_runner_has_room_once_the_end_of_a_chain_is_acknowledged(manager: Manager) -> None:
    request = await create(manager.store)
    stream = await manager.opened()
    manager.runners.mark_full("r1")
    message = ReportRequest(number=2, chains=[a_report(request.id, ends=state_pb2.STATE_COMPLETE)])
    await stream.receive(message)
    assert manager.runners.pick() is None
    stream.acknowledged()
    assert manager.runners.pick() == RUNNER
    assert manager.runners.pick() is None
    await stream.receive(ReportRequest(number=3))
    stream.acknowledged()
    assert manager.runners.pick() is None, "a place counts once"


@pytest.mark.parametrize(
    ("is_full", "waiting", "wanted", "kept", "counted"),
    [
        (True, 0, 0, 0, 2),
        (True, 0, 1, 0, 1),
        (True, 1, 5, 1, 1),
        (True, 9, 5, 2, 2),
        (False, 9, 5, 0, 0),  # It needs no place, because it may send chains anyway.
    ],
)
async def test_places_that_are_not_needed_here_are_left_to_others(
    manager: Manager, is_full: bool, waiting: int, wanted: int, kept: int, counted: int
) -> None:
    ended = [await create(manager.store) for _ in range(2)]
    stream = await manager.opened()
    for _ in range(waiting):
        manager.dispatcher._pending.add(NEEDS_NOTHING)
    if is_full:
        manager.runners.mark_full("r1")
    reports = [a_report(one.id, ends=state_pb2.STATE_COMPLETE) for one in ended]
    answer = await stream.receive(ReportRequest(number=2, chains=reports, wanted_places=wanted))
    stream.acknowledged()
    assert (answer.HasField("kept_places"), answer.kept_places) == (True, kept)
    assert manager.runners._full.room("r1") == counted
    await stream.receive(ReportRequest(number=3, wanted_places=1))
    assert manager.runners._full.room("r1") == kept, "others get spare places"


async def test_a_runner_whose_places_others_want_is_known(manager: Manager) -> None:
    manager.runners.reports_here = "r1".__eq__
    stream = await manager.opened()
    for number, wanted in ((2, 3), (3, 0)):
        await stream.receive(ReportRequest(number=number, wanted_places=wanted))
        assert manager.runners._offers_to_others("r1") is bool(wanted)


async def test_an_answer_about_no_ended_chain_says_nothing_about_places(manager: Manager) -> None:
    stream = await manager.opened()
    answer = await stream.receive(ReportRequest(number=2, wanted_places=3))
    assert not answer.HasField("kept_places")


def telling(number: int, version: str, *types: str, **fields: Any) -> ReportRequest:
    """Returns a message that tells the known job types."""
    return ReportRequest(number=number, known_job_types=KnownJobTypes(version=version, types=types), **fields)


async def stored_capabilities(manager: Manager) -> dict[str, Capabilities]:
    return {one.runner.runner_id: one.capabilities for one in await manager.store.live_runners()}


async def test_a_runner_is_asked_once_about_the_job_types_that_it_has_not_answered(manager: Manager) -> None:
    manager.runners.asked_types.use_specs(["a", "b"])
    asked = manager.runners.asked_types.message
    stream = manager.stream()
    assert (await stream.receive(telling(1, "", runner=RUNNER))).asked_job_types == asked
    assert not (await stream.receive(ReportRequest(number=2))).HasField("asked_job_types")
    response = await stream.receive(telling(3, asked.version, "a"))
    assert not response.HasField("asked_job_types")
    assert await stored_capabilities(manager) == {"r1": Capabilities(frozenset("a"))}
    manager.runners.asked_types.add(frozenset("c"))
    response = await stream.receive(ReportRequest(number=4))
    assert response.asked_job_types == manager.runners.asked_types.message


async def test_a_runner_that_has_answered_elsewhere_is_not_asked_again(manager: Manager) -> None:
    manager.runners.asked_types.use_specs(["a"])
    first = telling(1, manager.runners.asked_types.message.version, "a", runner=RUNNER)
    assert not (await manager.stream().receive(first)).HasField("asked_job_types")
    assert manager.runners.pick(Requirement(frozenset("a"))) == RUNNER


async def test_a_runner_that_says_nothing_is_not_asked_and_knows_all(manager: Manager) -> None:
    manager.runners.asked_types.use_specs(["a"])
    stream = manager.stream()
    assert not (await stream.receive(ReportRequest(number=1, runner=RUNNER))).HasField("asked_job_types")
    assert await stored_capabilities(manager) == {"r1": KNOWS_ALL}
    assert manager.runners.pick(Requirement(frozenset("a"))) == RUNNER


async def test_what_a_runner_has_is_stored_again_when_its_row_is_gone(manager: Manager, clock: Clock) -> None:
    stream = manager.stream()
    labelled = RunnerInfo()
    labelled.CopyFrom(RUNNER)
    labelled.labels["zone"] = "a"
    await stream.receive(telling(1, "v", "a", runner=labelled))
    await manager.store.remove_runner("r1")
    clock.now += LEASE / 2
    with contextlib.suppress(FailedPreconditionError):
        await stream.receive(ReportRequest(number=2))
    await manager.stream().receive(telling(1, "v", "a", runner=labelled))
    expected = Capabilities(frozenset("a"), frozenset({("zone", "a")}))
    assert await stored_capabilities(manager) == {"r1": expected}


async def test_new_job_types_of_a_runner_wake_the_dispatcher(manager: Manager) -> None:
    stream = manager.stream()
    await stream.receive(telling(1, "", runner=RUNNER))
    manager.dispatcher._wake.clear()
    await stream.receive(ReportRequest(number=2))
    assert not manager.dispatcher._wake.is_set()
    await stream.receive(telling(3, "v", "a"))
    assert manager.dispatcher._wake.is_set()


async def test_job_types_that_cannot_be_right_end_the_stream(manager: Manager) -> None:
    stream = await manager.opened()
    with pytest.raises(InvalidArgumentError) as caught:
        await stream.receive(telling(2, "v", ""))
    assert caught.value.reason == "BAD_JOB_TYPES"


async def test_an_answer_says_how_waits_for_keys_have_ended(manager: Manager, store: Store) -> None:
    stream = await manager.opened()
    one, two = await Sequences.started(store), await Sequences.started(store)
    reports = [one.report(one.claim("aaaa", "k"))]
    reports.append(two.report(two.claim("aaaa", "k"), two.claim("bbbb", "k", policy=REFUSE)))
    answer = await stream.receive(ReportRequest(number=2, chains=reports))
    told = [(one.request_id, one.sequence_id, one.number, one.reason) for one in answer.limit_outcomes]
    assert told == [(one.request_id, "aaaa", 1, ""), (two.request_id, "bbbb", 2, "LIMIT_REACHED")]
    again = await stream.receive(ReportRequest(number=2, chains=reports))
    assert again.limit_outcomes == answer.limit_outcomes
    await stream.receive(ReportRequest(number=3, chains=[one.report(one.release("aaaa"))]))
    waits = [SequenceLimitWait(sequence_id="aaaa", number=1)]
    held = Assignment(request_id=two.request_id, epoch=1, limit_waits=waits)
    listed = await stream.receive(holding(4, held))
    assert [(one.request_id, one.sequence_id, one.number) for one in listed.limit_outcomes] == [
        (two.request_id, "aaaa", 1)
    ]
