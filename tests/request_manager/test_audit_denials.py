"""Grouping denials: none is lost or counted twice, and a flood makes few events."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from spincycle_grpc.v1.audit_pb2 import AuditEvent
from spincycle_server.request_manager.audit_denials import MAX_GROUPS, WINDOW, Denials


def denial(user: str = "finch", at: int = 0, **fields: Any) -> AuditEvent:
    event = AuditEvent(
        **{"user": user, "peer": "10.0.0.9", "transport": "grpc", "operation": "RequestManager.Stop",
           "outcome": "ACCESS_DENIED", "count": 1, **fields}
    )  # fmt: skip
    event.occurred_at.FromMicroseconds(at)
    return event


def test_the_first_denial_is_due_at_once_and_the_following_ones_together() -> None:
    denials = Denials()
    denials.add(denial(at=1), 0.0)
    assert denials.take(0.0) == [denial(at=1)]
    for number in range(1000):
        denials.add(denial(at=2 + number), 1.0)
    assert denials.take(WINDOW - 1) == []
    assert denials.take(WINDOW) == [denial(at=2, count=1000)]
    assert denials.take(2 * WINDOW) == []


def test_denials_that_differ_have_their_own_events() -> None:
    denials = Denials()
    different = [
        denial(),
        denial(user="wren"),
        denial(peer="10.0.0.8"),
        denial(operation="RequestManager.Create"),
        denial(outcome="REPEATED_CREDENTIALS"),
        denial(transport="http"),
        denial(auth_method="token"),
    ]
    for event in different:
        denials.add(event, 0.0)
    assert denials.take(0.0) == different


def test_an_event_names_a_request_only_if_all_its_denials_are_about_it() -> None:
    denials = Denials()
    for request_id in ("a", "a"):
        denials.add(denial(request_id=request_id, request_type="nap", detail="no"), 0.0)
    assert denials.take(0.0) == [denial(request_id="a", request_type="nap", detail="no", count=2)]
    for request_id, request_type in (("a", "nap"), ("b", "nap"), ("b", "stop")):
        denials.add(denial(request_id=request_id, request_type=request_type), 0.0)
    assert denials.take(WINDOW) == [denial(count=3)]


def test_a_flood_from_many_hosts_is_bounded() -> None:
    denials = Denials()
    for number in range(100_000):
        denials.add(denial(user="", peer=f"10.{number}", request_id=f"{number}"), 0.0)
    events = denials.take_all()
    assert len(events) == MAX_GROUPS + 1
    assert sum(event.count for event in events) == 100_000
    assert (events[-1].outcome, events[-1].peer, events[-1].request_id) == ("DENIED", "", "")
    assert str(MAX_GROUPS) in events[-1].detail


def test_events_that_were_put_back_are_joined_with_later_ones_and_due_at_once() -> None:
    denials = Denials()
    denials.add(denial(at=5), 0.0)
    taken = denials.take(0.0)
    denials.add(denial(at=6), 1.0)
    denials.put_back(taken, 1.0)
    assert denials.take(1.0) == [denial(at=5, count=2)]
    assert denials.take_all() == []


def test_events_can_be_put_back_into_a_full_or_forgotten_collection() -> None:
    denials = Denials()
    for number in range(MAX_GROUPS + 1):
        denials.add(denial(peer=f"{number}"), 0.0)
    taken = denials.take_all()
    for number in range(MAX_GROUPS):
        denials.add(denial(peer=f"later {number}"), 0.0)
    denials.put_back(taken, 0.0)
    assert sum(event.count for event in denials.take(0.0)) == 2 * MAX_GROUPS + 1


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sampled_from(["finch", "wren", ""])),
            st.tuples(st.just("wait"), st.sampled_from([0.5, WINDOW / 2, WINDOW])),
            st.tuples(st.just("take"), st.booleans()),
        )
    )
)
def test_every_denial_is_counted_once(steps: list[tuple[str, Any]]) -> None:
    denials, now = Denials(), 0.0
    added: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    for step, value in steps:
        if step == "add":
            denials.add(denial(user=value), now)
            added[value] += 1
        elif step == "wait":
            now += value
        else:
            taken = denials.take(now)
            if value:
                stored.update({event.user: event.count for event in taken})
            else:
                denials.put_back(taken, now)
    stored.update({event.user: event.count for event in denials.take_all()})
    assert stored == added
