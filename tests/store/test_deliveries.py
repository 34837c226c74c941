"""Deliveries in the database: one for each target that wants an event, sent by one server at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import func, select, update

from spincycle_grpc.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from spincycle_grpc.state import State
from spincycle_grpc.v1.audit_pb2 import AuditFilter
from spincycle_grpc.v1.notification_pb2 import (
    DELIVERY_STATE_DELIVERED,
    DELIVERY_STATE_GIVEN_UP,
    DELIVERY_STATE_WAITING,
    Delivery,
    DeliveryFilter,
)
from spincycle_server.store import Store
from spincycle_server.store.audit import effect_row
from spincycle_server.store.deliveries import APPROVAL_WANTED, Occurrence
from spincycle_server.store.delivery_attempts import DeliveryKey, DueDelivery
from spincycle_server.store.delivery_upkeep import KEPT, LONGEST_WAIT, NO_TARGET, TOO_OLD
from spincycle_server.store.request_rows import RequestRows
from spincycle_server.store.schema import deliveries
from spincycle_server.store.states import StateWrite
from tests.store.age import make_older, make_suspension_older
from tests.store.managers import read_rows, two_stores
from tests.store.samples import RUNNER, a_report, a_suspended_chain, create
from tests.store.test_pauses import _RunByOriginal

CLAIM = 60.0


class Wanted:
    """Subscriptions of two targets: `all` wants everything, `fails` the failures of one type."""

    def wanted_by(self, event: str, request_type: str) -> Sequence[str]:
        fails = event == "failed" and request_type == "stop-host"
        return ["all", "fails"] if fails else ["all"]


def subscribe(store: Store) -> list[str]:
    """Subscribes the targets, and returns the list to which the names of woken targets are added."""
    woken: list[str] = []

    def add(names: Iterable[str]) -> None:
        woken.extend(names)

    store.notify(Wanted(), add)
    return woken


async def listed(store: Store, **wanted: Any) -> list[Delivery]:
    return (await store.deliveries.list(DeliveryFilter(**wanted))).deliveries


async def events_of(store: Store, request_id: str) -> list[tuple[str, str]]:
    return sorted((one.target, one.event) for one in await listed(store, request_id=request_id))


async def report_end(store: Store, request_id: str, state: State, epoch: int = 1) -> None:
    assert await store.apply_reports("r1", [a_report(request_id, epoch=epoch, ends=state)]) == []


async def finished(store: Store, at: int = 1_800_000_009_000_000) -> str:
    made = await create(store)
    await store.finish(made.id, State.FAIL, at, 1)
    return made.id


async def failed_in_a_report(store: Store) -> str:
    made = await create(store)
    await report_end(store, made.id, State.FAIL)
    return made.id


async def not_resumed(store: Store) -> str:
    made = await create(store)
    report = a_report(made.id, ends=a_suspended_chain(made.id))
    assert await store.apply_reports("r1", [report]) == []
    await make_suspension_older(store, made.id)
    assert await store.fail_unresumed(3600) == [made.id]
    return made.id


async def ended_by_its_manager(store: Store) -> str:
    made = await create(store, None)
    assignment = await store.assign(made.id, RUNNER, expected_state=State.PENDING)
    assert assignment is not None
    await store.end_assignment(assignment, State.FAIL)
    return made.id


async def stopped_before_it_ran(store: Store) -> str:
    made = await create(store, None)
    assert await store.stop_unassigned(made.id)
    return made.id


async def stopped_while_suspended(store: Store) -> str:
    made = await create(store)
    assert await store.apply_reports("r1", [a_report(made.id, ends=a_suspended_chain(made.id))]) == []
    assert await store.stop_unassigned(made.id)
    return made.id


async def lost_by_an_original(store: Store) -> str:
    made = await create(store)
    await store._writer.write(_RunByOriginal(made.id))
    await store.end_lost_original(made.id)
    return made.id


FAILS = [finished, failed_in_a_report, not_resumed, ended_by_its_manager]
STOPS = [stopped_before_it_ran, stopped_while_suspended, lost_by_an_original]


@pytest.mark.parametrize("end", FAILS)
async def test_every_way_to_fail_is_delivered_to_each_target_that_wants_it(
    store: Store, end: Callable[[Store], Awaitable[str]]
) -> None:
    woken = subscribe(store)
    request_id = await end(store)
    assert await events_of(store, request_id) == [("all", "failed"), ("fails", "failed")]
    found = await listed(store, request_id=request_id)
    assert len({one.event_id for one in found}) == 1
    assert {one.state for one in found} == {DELIVERY_STATE_WAITING}
    ended = await store.get_request(request_id, with_job_chain=False)
    assert [one.occurred_at for one in found] == [ended.finished_at] * 2
    assert sorted(woken) == ["all", "fails"]


@pytest.mark.parametrize("end", STOPS)
async def test_every_way_to_stop_is_delivered(store: Store, end: Callable[[Store], Awaitable[str]]) -> None:
    subscribe(store)
    assert await events_of(store, await end(store)) == [("all", "stopped")]


async def test_a_complete_request_is_delivered_once_although_its_report_is_repeated(store: Store) -> None:
    subscribe(store)
    made = await create(store)
    await report_end(store, made.id, State.COMPLETE)
    await report_end(store, made.id, State.COMPLETE)
    assert await events_of(store, made.id) == [("all", "completed")]


@dataclass
class _Wait(StateWrite):
    """Lets a request wait for an approval, as far as targets know."""

    request_id: str

    def change(self, rows: RequestRows, row: Mapping[str, Any]) -> None:
        rows._transaction.events.append(
            Occurrence(APPROVAL_WANTED, row["type"], self.request_id, row["state"], 1_800_000_005, b"{}")
        )


async def test_other_events_of_a_transaction_are_delivered_with_their_detail(store: Store) -> None:
    subscribe(store)
    made = await create(store)
    await store._writer.write(_Wait(made.id))
    (due,) = await store.deliveries.due("all", 10)
    assert due.occurrence == Occurrence(
        "approval-wanted", "stop-host", made.id, State.RUNNING, 1_800_000_005, b"{}"
    )


async def test_nothing_is_stored_without_targets_or_for_a_refused_change(store: Store) -> None:
    made = await create(store)
    await report_end(store, made.id, State.FAIL)
    subscribe(store)
    with pytest.raises(FailedPreconditionError):
        await store.finish(made.id, State.COMPLETE, 1_800_000_009_000_000, 1)
    assert await listed(store) == []


async def a_delivery(store: Store, target: str = "all") -> DueDelivery:
    """Returns the only delivery to a target that is due."""
    (due,) = await store.deliveries.due(target, 10)
    return due


async def test_an_attempt_is_claimed_once_and_its_outcome_is_stored_once(store: Store) -> None:
    subscribe(store)
    await finished(store)
    due = await a_delivery(store)
    (claimed,) = await store.deliveries.claim([due], CLAIM)
    assert claimed.attempts == 1
    assert await store.deliveries.claim([due], CLAIM) == []
    assert await store.deliveries.due("all", 10) == []
    await store.deliveries.failed(claimed, "status 500", 0.0)
    again = await a_delivery(store)
    (second,) = await store.deliveries.claim([again], CLAIM)
    assert second.attempts == 2
    await store.deliveries.failed(
        claimed, "too late", None
    )  # The outcome of an attempt that is not the newest.
    await store.deliveries.delivered(second)
    await store.deliveries.failed(second, "too late", 0.0)
    (found,) = await listed(store, target="all")
    assert (found.state, found.attempts, found.last_error) == (DELIVERY_STATE_DELIVERED, 2, "")
    assert found.HasField("ended_at")
    assert not found.HasField("next_attempt_at")


async def test_an_attempt_is_claimed_again_after_its_claim(store: Store) -> None:
    subscribe(store)
    await finished(store)
    (first,) = await store.deliveries.claim([await a_delivery(store)], 0.0)
    (second,) = await store.deliveries.claim([await a_delivery(store)], CLAIM)
    assert (first.attempts, second.attempts) == (1, 2)
    await store.deliveries.delivered(first)
    (found,) = await listed(store, target="all")
    assert found.state == DELIVERY_STATE_WAITING
    assert found.HasField("next_attempt_at")


async def test_two_servers_never_claim_the_same_attempt(migrated_url: str) -> None:
    async with two_stores(migrated_url) as (first, second):
        subscribe(first)
        ids = [await finished(first) for _ in range(20)]

        async def claim_all(store: Store) -> list[str]:
            claimed: list[DueDelivery] = []
            while due := await store.deliveries.due("all", 3):
                claimed += await store.deliveries.claim(due, CLAIM)
            return [str(one.occurrence.request_id) for one in claimed]

        one, other = await asyncio.gather(claim_all(first), claim_all(second))
        assert sorted(one + other) == sorted(ids)


async def test_an_ended_delivery_is_sent_again_and_that_is_in_the_audit_log(store: Store) -> None:
    subscribe(store)
    request_id = await finished(store)
    (claimed,) = await store.deliveries.claim([await a_delivery(store)], CLAIM)

    def event(request: str | None, request_type: str) -> Mapping[str, Any]:
        return effect_row(
            user="finch", auth_method="token", peer="h", transport="grpc",
            operation="RequestManager.Redeliver", request_id=request or "", request_type=request_type,
        )  # fmt: skip

    with pytest.raises(FailedPreconditionError, match="has not ended") as refused:
        await store.deliveries.redeliver(claimed.key, event)
    assert refused.value.reason == "DELIVERY_WAITING"
    await store.deliveries.failed(claimed, "status 410", None)
    assert (await listed(store, target="all"))[0].state == DELIVERY_STATE_GIVEN_UP
    await store.deliveries.redeliver(claimed.key, event)
    again = await a_delivery(store)
    assert (again.key, again.attempts) == (claimed.key, 0)
    page = await store.list_audit_events(AuditFilter())
    assert [(one.operation, one.request_id) for one in page.events] == [
        ("RequestManager.Redeliver", request_id)
    ]
    with pytest.raises(NotFoundError) as unknown:
        await store.deliveries.redeliver(DeliveryKey("0" * 20, "all"))
    assert unknown.value.reason == "DELIVERY_NOT_FOUND"


async def test_a_test_is_a_delivery_without_a_request(store: Store) -> None:
    event_id = await store.deliveries.add_test("ops")
    (found,) = await listed(store)
    assert (found.event_id, found.target, found.event, found.request_id) == (event_id, "ops", "test", "")
    assert (await a_delivery(store, "ops")).occurrence.request_id is None


async def test_deliveries_are_listed_in_stable_pages_newest_first(store: Store) -> None:
    subscribe(store)
    for _ in range(3):
        await finished(store)
    everything = await listed(store)
    assert len(everything) == 6
    pages: list[Delivery] = []
    token = ""
    while True:
        page = await store.deliveries.list(DeliveryFilter(limit=2, page_token=token))
        pages += page.deliveries
        if not (token := page.next_token):
            break
        await finished(store, at=1_900_000_000_000_000)
    assert pages == everything
    assert len(await listed(store, target="fails")) == 5
    assert await listed(store, state=DELIVERY_STATE_GIVEN_UP) == []
    for text in ("\0", "größe", "x" * 100):
        assert await listed(store, request_id=text) == await listed(store, event_id=text) == []
    with pytest.raises(InvalidArgumentError, match="pageToken"):
        await listed(store, page_token="x")


async def get_older(store: Store, request_id: str, by: int) -> None:
    """Makes all deliveries older by a number of microseconds."""
    ended_at = deliveries.c.ended_at - by
    await make_older(
        store, request_id, lambda now: update(deliveries).values(occurred_at=now - by, ended_at=ended_at)
    )


async def test_old_deliveries_are_deleted(store: Store) -> None:
    subscribe(store)
    request_id = await finished(store)
    for target in ("all", "fails"):
        (claimed,) = await store.deliveries.claim([await a_delivery(store, target)], CLAIM)
        await store.deliveries.delivered(claimed)
    await get_older(store, request_id, KEPT - 60_000_000)
    assert not await store.deliveries.delete_old()
    await get_older(store, request_id, 120_000_000)
    assert await store.deliveries.delete_old()
    assert await listed(store) == []


async def test_deliveries_that_have_waited_for_days_are_given_up_unless_they_are_being_sent(
    store: Store,
) -> None:
    subscribe(store)
    request_id = await finished(store)
    await get_older(store, request_id, LONGEST_WAIT - 60_000_000)
    assert await store.deliveries.give_up_overdue(["all"]) == []
    await get_older(store, request_id, LONGEST_WAIT + 60_000_000)
    (claimed,) = await store.deliveries.claim([await a_delivery(store)], CLAIM)
    assert await store.deliveries.give_up_overdue(["all"]) == ["fails"]
    await store.deliveries.failed(claimed, "status 500", 0.0)
    assert await store.deliveries.give_up_overdue(["all"]) == ["all"]
    assert await store.deliveries.give_up_overdue(["all"]) == []
    ended = {one.target: (one.state, one.last_error) for one in await listed(store)}
    assert ended == {
        "all": (DELIVERY_STATE_GIVEN_UP, TOO_OLD),
        "fails": (DELIVERY_STATE_GIVEN_UP, NO_TARGET),
    }
    await store.deliveries.redeliver(claimed.key)
    assert await store.deliveries.give_up_overdue(["all"]) == []
    assert (await a_delivery(store)).key == claimed.key


async def test_new_events_do_not_precede_those_that_are_tried_again(store: Store) -> None:
    subscribe(store)
    first = await finished(store)
    (claimed,) = await store.deliveries.claim([await a_delivery(store)], CLAIM)
    await store.deliveries.failed(claimed, "status 500", 0.0)
    second = await finished(store)
    due = await store.deliveries.due("all", 10)
    assert [one.occurrence.request_id for one in due] == [first, second]
    (claimed,) = await store.deliveries.claim(due[:1], CLAIM)
    await store.deliveries.failed(claimed, "status 410", None)
    await store.deliveries.redeliver(claimed.key)
    due = await store.deliveries.due("all", 10)
    assert [one.occurrence.request_id for one in due] == [second, first]


async def test_the_age_of_what_waits_is_by_the_clock_of_the_database(store: Store) -> None:
    subscribe(store)
    assert await store.deliveries.waiting(["all"]) == (0, 0.0)
    request_id = await finished(store)
    await get_older(store, request_id, 3600_000_000)
    found = await store.deliveries.waiting(["all"])
    assert found.number == 1
    assert 3600 <= found.oldest < 7200


async def test_a_plain_request_writes_no_delivery(migrated_url: str) -> None:
    store = await Store.open(migrated_url)
    try:
        await finished(store)
    finally:
        await store.close()
    assert await read_rows(migrated_url, select(func.count()).select_from(deliveries)) == [(0,)]
