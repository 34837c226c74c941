"""The keys of sequences in the store: who holds them, who waits, and who is refused."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import event, select

from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.limit_pb2 import WAIT_AFTER_STOP_ENDS as ENDS
from spincycle_grpc.v1.limit_pb2 import WAIT_AFTER_STOP_GOES_ON as GOES_ON
from spincycle_grpc.v1.limit_pb2 import WAIT_AFTER_STOP_UNKNOWN as UNKNOWN
from spincycle_grpc.v1.limit_pb2 import SequenceLimitChange, WaitAfterStop
from spincycle_grpc.v1.runner_reports_pb2 import REFUSAL_REASON_INVALID
from spincycle_server.capabilities import Requirement
from spincycle_server.store import Store
from spincycle_server.store import sequence_limits as sequence_limits_module
from spincycle_server.store.limit_ledger import LimitsChanged
from spincycle_server.store.limit_rows import Owner
from spincycle_server.store.schema import audit_events, sequence_claims
from tests.store.limit_samples import (
    NEEDS,
    NEEDS_FINALLY,
    REFUSE,
    REPLACE,
    Sequences,
    claims_by_key,
    create_limited,
    owners_by_key,
)
from tests.store.managers import read_rows, two_stores
from tests.store.samples import OTHER_RUNNER, RUNNER, a_report, a_suspended_chain, create


async def state_of(store: Store, request_id: str) -> State:
    return State((await store.get_request(request_id, with_job_chain=False)).state)


async def test_sequences_hold_a_key_one_after_the_other(store: Store, migrated_url: str) -> None:
    changes: list[LimitsChanged] = []
    store.on_limits(changes.append)
    one, two = await Sequences.started(store), await Sequences.started(store)
    begun = await one.tell(store, one.begins(), one.claim("aaaa", "k"), one.claim("bbbb", "k", "m"))
    assert begun == {"aaaa": ""}
    assert await two.tell(store, two.begins(), two.claim("aaaa", "k")) == {}
    waits = await create_limited(store, "k")
    assert await owners_by_key(migrated_url) == {
        "k": [
            (one.request_id, "aaaa", True),
            (one.request_id, "bbbb", False),
            (two.request_id, "aaaa", False),
            (waits.id, "", False),
        ],
        "m": [(one.request_id, "bbbb", False)],
    }
    await one.tell(store, one.release("aaaa"))
    assert changes[-1].granted == (Owner(one.request_id, "bbbb"),)
    assert await one.outcomes(store, {"bbbb": 3}) == {"bbbb": ""}
    report = a_report(one.request_id, ends=state_pb2.STATE_COMPLETE)
    assert not await store.apply_reports(RUNNER.runner_id, [report])
    assert changes[-1].granted == (Owner(two.request_id, "aaaa"),)
    await two.tell(store, two.release("aaaa"))
    assert changes[-1].granted == (Owner(waits.id, ""),)
    assert await store.stop_unassigned(waits.id)
    assert await claims_by_key(migrated_url) == {}


async def test_the_end_of_a_request_leaves_nothing_of_its_sequences(store: Store, migrated_url: str) -> None:
    one = await Sequences.started(store)
    await one.tell(
        store, one.claim("aaaa", "k"), one.claim("bbbb", "k"), one.claim("cccc", "m", policy=REFUSE)
    )
    last = one.report(one.release("aaaa"), one.claim("dddd", "k"), ends=state_pb2.STATE_FAIL)
    assert not await store.apply_reports(RUNNER.runner_id, [last])
    assert await claims_by_key(migrated_url) == {}
    rows = await read_rows(migrated_url, select(sequence_claims).where(sequence_claims.c.request_id != ""))
    assert rows == []


async def test_a_message_that_arrives_again_or_late_changes_nothing(store: Store, migrated_url: str) -> None:
    one, two = await Sequences.started(store), await Sequences.started(store)
    first = [one.begins(), one.claim("aaaa", "k")]
    await one.tell(store, *first)
    await two.tell(store, two.claim("aaaa", "k"))
    second = [one.release("aaaa"), one.claim("aaaa", "k")]
    await one.tell(store, *second)
    expected = {"k": [(two.request_id, "aaaa", True), (one.request_id, "aaaa", False)]}
    for again in (first, second, [*first, *second]):
        await one.tell(store, *again)
        assert await owners_by_key(migrated_url) == expected
    await one.tell(store, one.release("aaaa"))
    for again in (second, first):  # A late claim of a sequence that has released.
        await one.tell(store, *again)
    assert await owners_by_key(migrated_url) == {"k": [(two.request_id, "aaaa", True)]}


async def test_a_new_assignment_keeps_places_and_releases_what_its_runner_does_not_name(
    store: Store, migrated_url: str
) -> None:
    one, two = await Sequences.started(store), await Sequences.started(store)
    await one.tell(store, one.claim("aaaa", "k"), one.claim("bbbb", "k"), one.claim("cccc", "m"))
    await two.tell(store, two.claim("aaaa", "k"))
    suspended = a_report(one.request_id, ends=a_suspended_chain(one.request_id))
    assert not await store.apply_reports(RUNNER.runner_id, [suspended])
    before = await owners_by_key(migrated_url)
    assert [holds for *_, holds in before["k"]] == [True, False, False], "a suspended request keeps its keys"
    again = await store.assign(one.request_id, OTHER_RUNNER, expected_state=State.SUSPENDED)
    assert again is not None
    new = Sequences(one.request_id, again.epoch)
    report = new.report(new.begins("aaaa", "bbbb"), new.claim("aaaa", "k"), new.claim("bbbb", "k"))
    assert not await store.apply_reports(OTHER_RUNNER.runner_id, [report])
    assert await owners_by_key(migrated_url) == {"k": before["k"]}
    assert await new.outcomes(store, {"aaaa": 2, "bbbb": 3}) == {"aaaa": ""}
    assert await one.outcomes(store, {"aaaa": 1}) == {}, "an outcome is of its assignment"
    stale = one.report(one.release("aaaa"))
    assert len(await store.apply_reports(RUNNER.runner_id, [stale])) == 1
    assert await owners_by_key(migrated_url) == {"k": before["k"]}


async def test_refuse_fails_a_sequence_until_it_asks_again(store: Store, migrated_url: str) -> None:
    one, two = await Sequences.started(store), await Sequences.started(store)
    await one.tell(store, one.claim("aaaa", "k"))
    asked = two.claim("aaaa", "k", policy=REFUSE)
    assert await two.tell(store, asked) == {"aaaa": "LIMIT_REACHED"}
    assert await two.tell(store, asked) == {"aaaa": "LIMIT_REACHED"}, "a repeated message has the same answer"
    assert await owners_by_key(migrated_url) == {"k": [(one.request_id, "aaaa", True)]}
    await one.tell(store, one.release("aaaa"))
    assert await two.tell(store, two.claim("aaaa", "k", policy=REFUSE)) == {"aaaa": ""}


async def test_a_refusal_names_those_who_hold_the_key(store: Store) -> None:
    one, two = await Sequences.started(store), await Sequences.started(store)
    whole = await create_limited(store, "k", most=4)
    await one.tell(store, one.claim("aaaa", "k", most=4))
    await two.tell(store, two.claim("aaaa", "k", most=4), two.claim("bbbb", "k", most=4))
    asked = [
        two.claim("cccc", "k", most=4, policy=REFUSE),
        two.claim("dddd", "m"),
        two.claim("eeee", "m", policy=REFUSE),
    ]
    await two.tell(store, *asked)
    others = f"request {whole.id}, a sequence of request {one.request_id}"
    names = f"{others}, sequence roll / host aaaa of this request"
    assert await two.errors(store, *asked) == [
        f"the limit k of 4 is reached: {names} and 1 more hold it",
        "",
        "the limit m of 1 is reached: sequence roll / host dddd of this request holds it",
    ]


async def test_too_many_may_not_wait(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence_limits_module, "MAX_WAITING", 2)
    one = await Sequences.started(store)
    ids = ("aaaa", "bbbb", "cccc", "dddd")
    told = await one.tell(store, *(one.claim(sequence_id, "k") for sequence_id in ids))
    assert told == {"aaaa": "", "dddd": "TOO_MANY_AT_LIMIT"}


async def test_replace_stops_the_request_of_a_holder_and_never_its_own(
    store: Store, migrated_url: str
) -> None:
    store.is_audited = True
    changes: list[LimitsChanged] = []
    store.on_limits(changes.append)
    holder, one = await Sequences.started(store), await Sequences.started(store, user="wren")
    await holder.tell(store, holder.claim("aaaa", "k"), holder.claim("bbbb", "k"))
    assert (
        await one.tell(store, one.claim("aaaa", "k", policy=REPLACE), one.claim("bbbb", "k", policy=REPLACE))
        == {}
    )
    assigned = await store.assigned_to(RUNNER.runner_id)
    assert assigned[holder.request_id].stop_requested
    assert not assigned[one.request_id].stop_requested
    assert [two.stopped for two in changes if two.stopped] == [(holder.request_id,)]
    stops = await read_rows(migrated_url, select(audit_events))
    why = f"replaced by sequence aaaa of request {one.request_id} at the limit k"
    assert [(row.request_id, row.user, row.operation, row.detail) for row in stops] == [
        (holder.request_id, "wren", "RequestManager.Stop", why)
    ]
    ends = a_report(holder.request_id, ends=state_pb2.STATE_STOPPED)
    assert not await store.apply_reports(RUNNER.runner_id, [ends])
    stopped = await store.get_request(holder.request_id, with_job_chain=False)
    assert stopped.stop_reason == f"a sequence of request {one.request_id} replaced it at the limit k"
    assert await one.outcomes(store, {"aaaa": 1, "bbbb": 2}) == {"aaaa": ""}


async def test_replace_counts_sequences_of_its_own_request(store: Store) -> None:
    one, oldest, newest = [await Sequences.started(store) for _ in range(3)]
    await one.tell(store, one.claim("aaaa", "k", most=3))
    for holder in (oldest, newest):
        await holder.tell(store, holder.claim("aaaa", "k", most=3))
    asked = one.claim("bbbb", "k", most=3, policy=REPLACE)
    assert await one.tell(store, asked) == {}
    assigned = await store.assigned_to(RUNNER.runner_id)
    assert [assigned[two.request_id].stop_requested for two in (one, oldest, newest)] == [False, True, False]
    ends = a_report(oldest.request_id, ends=state_pb2.STATE_STOPPED)
    assert not await store.apply_reports(RUNNER.runner_id, [ends])
    assert await one.outcomes(store, {"bbbb": asked.number}) == {"bbbb": ""}


async def test_replace_stops_no_more_requests_than_necessary(store: Store) -> None:
    one, oldest, newest = [await Sequences.started(store) for _ in range(3)]
    await oldest.tell(store, oldest.claim("aaaa", "k", most=2))
    await newest.tell(store, newest.claim("aaaa", "k", most=2))
    await oldest.tell(store, oldest.claim("bbbb", "k", most=2))
    assert await one.tell(store, one.claim("aaaa", "k", most=2, policy=REPLACE)) == {}
    assigned = await store.assigned_to(RUNNER.runner_id)
    # The end of the oldest one is the end of two claims.
    assert [assigned[two.request_id].stop_requested for two in (oldest, newest)] == [True, False]


async def test_replace_stops_nobody_behind_the_sequence(store: Store) -> None:
    holder, one, behind = [await Sequences.started(store) for _ in range(3)]
    await holder.tell(store, holder.claim("aaaa", "k"))
    replaces = one.report(one.claim("aaaa", "k", policy=REPLACE))
    queues = behind.report(behind.claim("aaaa", "k"), behind.claim("bbbb", "k"))
    assert not await store.apply_reports(RUNNER.runner_id, [replaces, queues])
    assigned = await store.assigned_to(RUNNER.runner_id)
    assert [assigned[two.request_id].stop_requested for two in (holder, behind)] == [True, False]


async def test_a_request_that_replaces_stops_the_request_of_a_sequence(store: Store) -> None:
    holder = await Sequences.started(store)
    await holder.tell(store, holder.claim("aaaa", "k"))
    newest = await create_limited(store, "k", policy=REPLACE)
    assert (await store.assigned_to(RUNNER.runner_id))[holder.request_id].stop_requested
    assert await state_of(store, newest.id) is State.PENDING


async def test_the_sequence_that_closes_a_circle_fails(store: Store, migrated_url: str) -> None:
    one, two = await Sequences.started(store), await Sequences.started(store)
    await one.tell(store, one.claim("aaaa", "a"))
    await two.tell(store, two.claim("aaaa", "b"))
    assert await one.tell(store, one.claim("bbbb", "b", around=["aaaa"])) == {}
    closes = two.claim("bbbb", "a", around=["aaaa"])
    assert await two.tell(store, closes) == {"bbbb": "LIMIT_DEADLOCK"}
    assert await two.tell(store, closes) == {"bbbb": "LIMIT_DEADLOCK"}
    why = f"a sequence of request {one.request_id} is before it and waits, perhaps by way of others,"
    assert await two.errors(store, closes) == [
        f"the sequence would wait for the limit a for ever: {why} for what this request holds"
    ]
    assert await owners_by_key(migrated_url) == {
        "a": [(one.request_id, "aaaa", True)],
        "b": [(two.request_id, "aaaa", True), (one.request_id, "bbbb", False)],
    }
    await two.tell(store, two.release("bbbb"), two.release("aaaa"))
    assert await one.outcomes(store, {"bbbb": 2}) == {"bbbb": ""}


async def test_a_deadlock_names_those_for_whom_the_sequence_would_wait(store: Store) -> None:
    one, two = await Sequences.started(store), await Sequences.started(store)
    ends = await Sequences.started(store)
    await ends.tell(store, ends.claim("aaaa", "first"))
    await one.tell(store, one.claim("aaaa", "a"), one.claim("bbbb", "b", most=2))
    await two.tell(store, two.claim("aaaa", "b", most=2))
    inner = [one.claim("cccc", "a", around=["bbbb"]), two.claim("bbbb", "a", around=["aaaa"])]
    await one.tell(store, inner[0])
    await two.tell(store, inner[1])
    closes = one.claim("dddd", "first", "b", most={"first": 1, "b": 2}, around=["aaaa"])
    assert await one.tell(store, closes) == {"dddd": "LIMIT_DEADLOCK"}
    names = f"sequence roll / host bbbb of this request and a sequence of request {two.request_id}"
    (error,) = await one.errors(store, closes)
    assert error.startswith(
        f"the sequence would wait for the limit b for ever: {names} are before it and wait,"
    )


async def test_a_sequence_of_the_same_request_and_one_beside_a_holder_close_no_circle(store: Store) -> None:
    one, two = await Sequences.started(store), await Sequences.started(store)
    await one.tell(store, one.claim("aaaa", "a"), one.claim("bbbb", "a"))
    await two.tell(store, two.claim("aaaa", "b"), two.claim("cccc", "c"))
    # The holder of b waits for nothing: another sequence of its request does.
    assert await two.tell(store, two.claim("bbbb", "a", around=["cccc"])) == {}
    assert await one.tell(store, one.claim("dddd", "b", around=["aaaa"])) == {}
    # But the holder of c waits for a.
    assert await one.tell(store, one.claim("eeee", "c", around=["aaaa"])) == {"eeee": "LIMIT_DEADLOCK"}


async def test_the_keys_of_a_request_and_of_requests_that_wait_are_part_of_circles(store: Store) -> None:
    one = await Sequences.started(store, "r")
    two = await Sequences.started(store)
    await two.tell(store, two.claim("aaaa", "k"))
    assert await two.tell(store, two.claim("bbbb", "r", around=["aaaa"])) == {}
    assert await one.tell(store, one.claim("aaaa", "k")) == {"aaaa": "LIMIT_DEADLOCK"}
    await two.tell(store, two.release("bbbb"))
    await create_limited(store, "r", "k")
    # It would wait behind that request, which waits for k.
    assert await two.tell(store, two.claim("bbbb", "r", around=["aaaa"])) == {"bbbb": "LIMIT_DEADLOCK"}


async def test_a_key_with_room_for_others_and_a_stopped_request_close_no_circle(store: Store) -> None:
    one, two, three = [await Sequences.started(store) for _ in range(3)]
    await one.tell(store, one.claim("aaaa", "a"))
    await two.tell(store, two.claim("aaaa", "b", most=2))
    await three.tell(store, three.claim("aaaa", "b", most=2))
    assert await one.tell(store, one.claim("bbbb", "b", most=2, around=["aaaa"])) == {}
    assert await two.tell(store, two.claim("bbbb", "a", around=["aaaa"])) == {}, (
        "the third request releases b"
    )
    closes = three.claim("bbbb", "a", around=["aaaa"])
    assert await three.tell(store, closes) == {"bbbb": "LIMIT_DEADLOCK"}
    await store.request_stop(two.request_id)
    assert await three.tell(store, three.claim("bbbb", "a", around=["aaaa"])) == {}


@pytest.mark.parametrize("after_stop", [UNKNOWN, GOES_ON])
async def test_a_finally_part_after_a_stop_is_part_of_circles(
    store: Store, after_stop: WaitAfterStop.ValueType
) -> None:
    one = await Sequences.started(store, requirement=NEEDS_FINALLY)
    two = await Sequences.started(store)
    await one.tell(store, one.claim("aaaa", "a"))
    await two.tell(store, two.claim("aaaa", "b"))
    await store.request_stop(one.request_id)
    assert await one.tell(store, one.claim("bbbb", "b", around=["aaaa"], after_stop=after_stop)) == {}
    closes = two.claim("bbbb", "a", around=["aaaa"])
    assert await two.tell(store, closes) == {"bbbb": "LIMIT_DEADLOCK"}
    await store.request_stop(one.request_id)
    assert await two.tell(store, two.claim("bbbb", "a", around=["aaaa"])) == {}, "the second stop skips it"


async def test_a_wait_that_a_stop_ends_is_not_part_of_circles_after_it(store: Store) -> None:
    one = await Sequences.started(store, requirement=NEEDS_FINALLY)
    two = await Sequences.started(store)
    await one.tell(store, one.claim("aaaa", "a"))
    await two.tell(store, two.claim("aaaa", "b"))
    ends = one.claim("bbbb", "b", around=["aaaa"], after_stop=ENDS)
    assert await one.tell(store, ends) == {}
    closes = two.claim("bbbb", "a", around=["aaaa"], after_stop=ENDS)
    assert await two.tell(store, closes) == {"bbbb": "LIMIT_DEADLOCK"}, "nobody is being stopped"
    await store.request_stop(one.request_id)
    closes = two.claim("bbbb", "a", around=["aaaa"], after_stop=ENDS)
    assert await two.tell(store, closes) == {}
    # The runner of the stopped request does not know of the stop yet.
    await two.tell(store, two.claim("cccc", "c"))
    late = one.claim("dddd", "c", around=["aaaa"], after_stop=ENDS)
    assert await one.tell(store, late) == {}
    assert await two.tell(store, two.claim("eeee", "a", around=["cccc"], after_stop=ENDS)) == {}
    await one.tell(store, one.release("bbbb"), one.release("dddd"), one.release("aaaa"))
    assert await two.outcomes(store, {"bbbb": closes.number}) == {"bbbb": ""}


async def test_a_wait_that_a_stop_ends_closes_no_circle_with_one_of_the_same_report(store: Store) -> None:
    one = await Sequences.started(store, requirement=NEEDS_FINALLY)
    two = await Sequences.started(store)
    await one.tell(store, one.claim("aaaa", "a"))
    await two.tell(store, two.claim("aaaa", "b"))
    await store.request_stop(one.request_id)
    late = one.claim("bbbb", "b", around=["aaaa"], after_stop=ENDS)
    waits = two.claim("bbbb", "a", around=["aaaa"], after_stop=ENDS)
    assert not await store.apply_reports(RUNNER.runner_id, [one.report(late), two.report(waits)])
    assert await one.outcomes(store, {"bbbb": late.number}) == {}
    assert await two.outcomes(store, {"bbbb": waits.number}) == {}


async def test_a_circle_through_a_finally_part_of_a_replaced_request_fails_at_once(store: Store) -> None:
    one = await Sequences.started(store, requirement=NEEDS_FINALLY)
    two = await Sequences.started(store)
    await one.tell(store, one.claim("aaaa", "a"))
    await two.tell(store, two.claim("aaaa", "b"))
    assert await one.tell(store, one.claim("bbbb", "b", around=["aaaa"], after_stop=GOES_ON)) == {}
    asked = two.claim("bbbb", "a", around=["aaaa"], policy=REPLACE)
    assert await two.tell(store, asked) == {"bbbb": "LIMIT_DEADLOCK"}
    assert (await store.assigned_to(RUNNER.runner_id))[one.request_id].stop_requested
    await store.request_stop(one.request_id)
    asked = two.claim("bbbb", "a", around=["aaaa"], policy=REPLACE)
    assert await two.tell(store, asked) == {}, "the second stop skips it"


@pytest.mark.parametrize(
    ("requirement", "after_stop"), [(NEEDS, UNKNOWN), (NEEDS_FINALLY, UNKNOWN), (NEEDS_FINALLY, ENDS)]
)
async def test_a_stop_by_replace_breaks_a_circle(
    store: Store, requirement: Requirement, after_stop: WaitAfterStop.ValueType
) -> None:
    one = await Sequences.started(store, requirement=requirement)
    two = await Sequences.started(store)
    await one.tell(store, one.claim("aaaa", "a"))
    await two.tell(store, two.claim("aaaa", "b"))
    await one.tell(store, one.claim("bbbb", "b", around=["aaaa"], after_stop=after_stop))
    asked = two.claim("bbbb", "a", around=["aaaa"], policy=REPLACE)
    assert await two.tell(store, asked) == {}
    assert (await store.assigned_to(RUNNER.runner_id))[one.request_id].stop_requested
    ends = a_report(one.request_id, ends=state_pb2.STATE_STOPPED)
    assert not await store.apply_reports(RUNNER.runner_id, [ends])
    assert await two.outcomes(store, {"bbbb": asked.number}) == {"bbbb": ""}


async def test_a_stop_by_replace_of_a_suspended_request_gives_its_key_at_once(store: Store) -> None:
    one, two = await Sequences.started(store), await Sequences.started(store)
    await one.tell(store, one.claim("aaaa", "a"))
    await two.tell(store, two.claim("aaaa", "b"))
    await one.tell(store, one.claim("bbbb", "b", around=["aaaa"]))
    suspended = a_report(one.request_id, ends=a_suspended_chain(one.request_id))
    assert not await store.apply_reports(RUNNER.runner_id, [suspended])
    told = await two.tell(store, two.claim("bbbb", "a", around=["aaaa"], policy=REPLACE))
    assert told == {"bbbb": ""}
    assert await state_of(store, one.request_id) is State.STOPPED


async def test_sequences_of_one_report_begin_to_wait_one_after_another(store: Store) -> None:
    one, two = await Sequences.started(store), await Sequences.started(store)
    await one.tell(store, one.claim("aaaa", "a"))
    await two.tell(store, two.claim("aaaa", "b"), two.claim("cccc", "c"))
    await one.tell(store, one.claim("bbbb", "b", around=["aaaa"]))
    told = await two.tell(
        store,
        two.claim("bbbb", "a", around=["aaaa"]),  # closes a circle
        two.claim("dddd", "a", around=["cccc"]),  # waits behind it
        two.claim("eeee", "c"),
    )
    assert told == {"bbbb": "LIMIT_DEADLOCK"}
    await one.tell(store, one.claim("ffff", "c", around=["aaaa"]))
    assert await two.outcomes(store, {"dddd": 4, "eeee": 5}) == {}


async def test_too_many_claims_are_not_looked_at(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spincycle_server.store.limit_deadlocks.MAX_CLAIMS", 1)
    one = await Sequences.started(store)
    await one.tell(store, one.claim("aaaa", "a"), one.claim("bbbb", "b"))
    told = await one.tell(store, one.claim("cccc", "b", around=["aaaa"]))
    assert told == {"cccc": "TOO_MANY_AT_LIMIT"}


async def test_invalid_changes_are_refused(store: Store, migrated_url: str) -> None:
    one = await Sequences.started(store)
    invalid = [
        SequenceLimitChange(number=0, sequence_id="aaaa"),
        SequenceLimitChange(number=1, sequence_id="a"),
        SequenceLimitChange(number=2, begins=True),
        SequenceLimitChange(number=1, begins=True, kept=["no"]),
        SequenceLimitChange(number=1, sequence_id="aaaa", around=["?"]),
        one.claim("aaaa", "k", most=1001),
        one.claim("aaaa", "k", most=0),
        one.claim("aaaa", "k" * 201),
        one.claim("aaaa", "k", "k"),
        one.claim("aaaa", *map(str, range(11))),
    ]
    for change in invalid:
        (refused,) = await store.apply_reports(RUNNER.runner_id, [one.report(change)])
        assert refused.reason == REFUSAL_REASON_INVALID
    assert await claims_by_key(migrated_url) == {}


async def test_users_see_for_which_sequence_a_request_waits(store: Store) -> None:
    one, two = await Sequences.started(store), await Sequences.started(store)
    await one.tell(store, one.claim("aaaa", "k"))
    await two.tell(store, two.claim("bbbb", "k"))
    waiting = (await store.get_request(two.request_id, with_job_chain=False)).waiting
    assert waiting.startswith("waits for the limit k of 1 for its sequence roll / host bbbb since ")
    assert waiting.endswith(f": a sequence of request {one.request_id} holds it")
    assert (await store.get_request(one.request_id, with_job_chain=False)).waiting == ""
    (key,) = (await store.limits.page("", "", 10, lambda _: True)).limits
    assert [(one.sequence_id, list(one.sequence_path), one.holds) for one in key.claims] == [
        ("aaaa", ["roll", "host aaaa"], True),
        ("bbbb", ["roll", "host bbbb"], False),
    ]


async def waiting_of(store: Store, request_id: str) -> str:
    """Returns who keeps a request from a key."""
    waiting = (await store.get_request(request_id, with_job_chain=False)).waiting
    return waiting.rpartition("Z: ")[2]


async def test_users_see_which_sequences_hold_a_key(store: Store) -> None:
    one, two = await Sequences.started(store), await Sequences.started(store)
    await one.tell(store, one.claim("aaaa", "k", most=3))
    await one.tell(store, one.claim("bbbb", "k", most=1))
    assert await waiting_of(store, one.request_id) == "sequence roll / host aaaa of this request holds it"
    await one.tell(store, one.release("bbbb"), one.claim("cccc", "k", most=2))
    await one.tell(store, one.claim("dddd", "k", most=2))
    own = "2 sequences of this request hold it, the first is sequence roll / host aaaa of this request"
    assert await waiting_of(store, one.request_id) == own
    await create_limited(store, "k", most=3)
    await two.tell(store, two.claim("aaaa", "k", most=3))
    first = f"the first is a sequence of request {one.request_id}"
    assert await waiting_of(store, two.request_id) == f"3 sequences hold it, {first}"
    await one.tell(store, one.release("dddd"))
    assert await waiting_of(store, two.request_id) == f"1 request and 2 sequences hold it, {first}"


async def test_users_see_what_a_finally_part_waits_for_after_a_stop(store: Store) -> None:
    one = await Sequences.started(store)
    two = await Sequences.started(store, requirement=NEEDS_FINALLY)
    await one.tell(store, one.claim("aaaa", "k"))
    await two.tell(store, two.claim("bbbb", "k"))
    await store.request_stop(two.request_id)
    ending = "STOPPED after its finally nodes: stop it again to skip them"
    listed = await store.requests_by_id([two.request_id])
    waiting = (await store.get_request(two.request_id, with_job_chain=False)).waiting
    assert listed[two.request_id].waiting == waiting
    assert waiting.startswith(
        f"{ending}; waits for the limit k of 1 for its sequence roll / host bbbb since "
    )
    assert waiting.endswith(f": a sequence of request {one.request_id} holds it")
    await two.tell(store, two.release("bbbb"))
    assert (await store.get_request(two.request_id, with_job_chain=False)).waiting == ending


async def test_users_see_the_sequence_that_is_the_next_one(store: Store) -> None:
    one, two = await Sequences.started(store), await Sequences.started(store)
    await one.tell(store, one.claim("aaaa", "k"))
    await two.tell(store, two.claim("cccc", "k", "b"), two.claim("bbbb", "k"), two.claim("aaaa", "k"))
    for following in ("cccc", "bbbb", "aaaa"):
        waiting = (await store.get_request(two.request_id, with_job_chain=False)).waiting
        assert f" the limit k of 1 for its sequence roll / host {following} since " in waiting
        await two.tell(store, two.release(following))


async def test_lists_read_what_all_their_requests_wait_for_together(store: Store) -> None:
    waiting: list[str] = []
    counts: list[list[int]] = []
    statements: list[str] = []
    for number in range(1, 4):
        for key in (f"{number}a", f"{number}b"):
            holder, one = await Sequences.started(store), await Sequences.started(store)
            await holder.tell(store, holder.claim("aaaa", key))
            await one.tell(store, one.claim("aaaa", f"{key}, own"))
            await one.tell(store, one.claim("bbbb", key), one.claim("cccc", f"{key}, own"))
            waits = await create_limited(store, key, f"{key}, own")
            waiting += [one.request_id, waits.id]
        statements.clear()
        with counted(store, statements):
            found = await store.requests_by_id(waiting)
            after_requests = len(statements)
            page = await store.limits.page("", "", 100, lambda _: True)
        counts.append([after_requests, len(statements)])
        assert all(one.waiting for one in found.values())
        assert len(page.limits) == 4 * number
    assert counts == [counts[0]] * 3


@contextlib.contextmanager
def counted(store: Store, statements: list[str]) -> Iterator[None]:
    """Adds the statements with which a store reads."""

    def note(*args: object) -> None:
        statements.append(str(args[2]))

    engine = store._reader._engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def test_a_report_without_changes_touches_no_table_of_limits(store: Store) -> None:
    request = await create(store)
    seen: list[str] = []
    event.listen(store._engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    assert not await store.apply_reports(RUNNER.runner_id, [a_report(request.id, finished_jobs=1)])
    assert seen
    assert not [one for one in seen if re.search(r"\b(limits|limit_claims|sequence_claims)\b", one)]


@pytest.fixture
async def both(migrated_url: str) -> AsyncIterator[tuple[Store, Store]]:
    """Two stores on one database."""
    async with two_stores(migrated_url) as stores:
        yield stores


async def test_two_sequences_that_begin_to_wait_at_once_do_not_miss_a_circle(
    both: tuple[Store, Store],
) -> None:
    for _ in range(25):
        one, two = await Sequences.started(both[0]), await Sequences.started(both[1])
        await one.tell(both[0], one.claim("aaaa", "a"))
        await two.tell(both[1], two.claim("aaaa", "b"))
        told = await asyncio.gather(
            one.tell(both[0], one.claim("bbbb", "b", around=["aaaa"])),
            two.tell(both[1], two.claim("bbbb", "a", around=["aaaa"])),
        )
        assert sorted(map(str, told)) == ["{'bbbb': 'LIMIT_DEADLOCK'}", "{}"]
        for store, request in zip(both, (one, two), strict=True):
            report = a_report(request.request_id, ends=state_pb2.STATE_FAIL)
            assert not await store.apply_reports(RUNNER.runner_id, [report])
