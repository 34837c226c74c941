"""The audit log of a Request Manager: which calls have events, and who may list them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from spincycle_grpc.auth import Caller
from spincycle_grpc.errors import (
    FailedPreconditionError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1.audit_pb2 import AuditEvent, AuditFilter
from spincycle_server.identity import Credentials, Identity
from spincycle_server.request_manager.audit import AuditLog, host_of
from spincycle_server.rpc import CallContext
from spincycle_server.store import Store
from spincycle_server.store.audit import event_of
from tests.store.test_audit import an_event

STOP = "spincycle.v1.RequestManager.Stop"
ID = "9vb2d3q0c7k5r1n8m4tg"
BOSS = Caller("boss", frozenset({"admin"}))
FINCH = Caller("finch")
DENIED = PermissionDeniedError("caller finch may not", reason="ACCESS_DENIED", request_id=ID)


def call_of(caller: Caller = FINCH, peer: str = "ipv4:10.0.0.9:5000") -> CallContext:
    return CallContext(Identity(caller, "token"), "grpc", Credentials(peer=peer))


def log_of(store: Store, *, is_on: bool = True) -> AuditLog:
    return AuditLog(store, is_on=is_on, admin_roles=["admin"])


async def stored(store: Store) -> list[AuditEvent]:
    return (await store.list_audit_events(AuditFilter())).events


class FailingStore:
    """Refuses events as long as `is_away` is true."""

    def __init__(self) -> None:
        self.is_away = True
        self.events: list[AuditEvent] = []

    async def record_events(self, events: Sequence[AuditEvent]) -> None:
        if self.is_away:
            raise UnavailableError("the database is away", reason="DATABASE_UNAVAILABLE")
        self.events += events


def test_the_event_of_a_call_says_who_did_what_from_where(store: Store) -> None:
    row = log_of(store).event(call_of(), "RequestManager.Stop", ID, "nap")
    assert row is not None
    event = event_of(SimpleNamespace(**row))
    event.ClearField("id")
    assert event.HasField("occurred_at")
    event.ClearField("occurred_at")
    assert event == AuditEvent(
        user="finch", auth_method="token", peer="10.0.0.9", transport="grpc", operation="RequestManager.Stop",
        request_id=ID, request_type="nap", outcome="OK", count=1,
    )  # fmt: skip


async def test_without_authentication_there_are_no_events(store: Store) -> None:
    audit = log_of(store, is_on=False)
    assert audit.event(call_of(), "RequestManager.Stop", ID, "nap") is None
    audit.add_denial(STOP, call_of(), DENIED, None)
    await audit.close()
    assert await stored(store) == []
    with pytest.raises(FailedPreconditionError) as caught:
        audit.check(BOSS, AuditFilter(request_id=ID))
    assert caught.value.reason == "AUDIT_OFF"


async def test_denials_are_stored_at_the_end_at_the_latest(store: Store) -> None:
    audit = log_of(store)
    request = messages.StopRequest(request_id=ID)
    for _ in range(3):
        audit.add_denial(STOP, call_of(), DENIED, request)
    unknown = UnauthenticatedError("the caller is unknown: send a token", reason="NO_CREDENTIALS")
    audit.add_denial("spincycle.v1.RequestManager.Create", CallContext(transport="http"), unknown, None)
    await audit.close()
    create, stop = sorted(await stored(store), key=lambda event: event.operation)
    assert (stop.user, stop.peer, stop.operation) == ("finch", "10.0.0.9", "RequestManager.Stop")
    assert (stop.outcome, stop.count, stop.request_id) == ("ACCESS_DENIED", 3, ID)
    assert stop.detail == "caller finch may not"
    assert (create.user, create.auth_method, create.transport) == ("", "", "http")
    assert (create.outcome, create.count, create.request_id) == ("NO_CREDENTIALS", 1, "")


async def test_a_denied_create_names_the_type_and_no_arg(store: Store) -> None:
    audit = log_of(store)
    request = messages.CreateRequest(type="nap")
    request.args["password"] = "s3cret"
    audit.add_denial("spincycle.v1.RequestManager.Create", call_of(), DENIED, request)
    await audit.close()
    [event] = await stored(store)
    assert event.request_type == "nap"
    assert "s3cret" not in str(event)


@pytest.mark.parametrize("text", ["x" * 1_000_000, "\ud800", "a\0b"])
async def test_a_denial_with_any_text_is_recorded(store: Store, text: str) -> None:
    audit = log_of(store)
    error = PermissionDeniedError(text, reason=text, request_id=text)
    audit.add_denial(STOP, call_of(Caller(text)), error, None)
    assert audit.failed_writes == 0
    await audit.close()
    [event] = await stored(store)
    assert event.user


async def test_denials_are_kept_while_the_database_is_away() -> None:
    store: Any = FailingStore()
    audit = log_of(store)
    audit.add_denial(STOP, call_of(), DENIED, None)
    await audit._store_denials(audit._denials.take_all())
    audit.add_denial(STOP, call_of(), DENIED, None)
    assert (audit.failed_writes, store.events) == (1, [])
    store.is_away = False
    await audit.close()
    assert [event.count for event in store.events] == [2]


async def test_an_end_without_a_database_ends() -> None:
    store: Any = FailingStore()
    audit = log_of(store)
    audit.add_denial(STOP, call_of(), DENIED, None)
    await audit.close()
    assert audit.failed_writes == 1


async def test_only_administrators_may_list_events_without_a_request(store: Store) -> None:
    audit = log_of(store)
    audit.check(BOSS, AuditFilter())
    audit.check(FINCH, AuditFilter(request_id=ID))
    with pytest.raises(PermissionDeniedError, match=r"needs one of the roles: admin$") as caught:
        audit.check(FINCH, AuditFilter(user="finch"))
    assert caught.value.reason == "ACCESS_DENIED"
    with pytest.raises(PermissionDeniedError, match=r"none: set auth\.admin_roles"):
        AuditLog(store, is_on=True).check(BOSS, AuditFilter())


async def test_only_administrators_see_hosts(store: Store) -> None:
    audit = log_of(store)
    await store.record_events([an_event(request_id=ID)])
    wanted = AuditFilter(request_id=ID)
    assert [event.peer for event in (await audit.list(BOSS, wanted)).events] == ["10.0.0.9"]
    [seen] = (await audit.list(FINCH, wanted)).events
    assert (seen.user, seen.peer) == ("finch", "")


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.9:5000", "10.0.0.9"),
        ("ipv6:%5B2001:db8::1%5D:5000", "2001:db8::1"),
        ("ipv6:[::ffff:10.0.0.9]:5000", "10.0.0.9"),
        ("10.0.0.9:5000", "10.0.0.9"),
        ("2001:db8::1:5000", "2001:db8::1"),
        ("unix:/run/spincycle.sock", "unix"),
        ("unix:", "unix"),
        ("", ""),
    ],
)
def test_the_host_of_a_peer(peer: str, host: str) -> None:
    assert host_of(peer) == host
