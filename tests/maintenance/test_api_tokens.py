"""API tokens in each database: creating, listing, revoking, and commits whose answer is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import func, select, update

from spincycle_grpc.errors import ConflictError, InvalidArgumentError, NotFoundError, ResourceExhaustedError
from spincycle_grpc.v1.audit_pb2 import AuditFilter
from spincycle_server.maintenance import api_tokens
from spincycle_server.maintenance.api_tokens import KEPT, MAX_ROLE, MAX_ROLES, ApiTokens
from spincycle_server.maintenance.audit import opened_audit
from spincycle_server.store import schema
from tests.databases import OPTIONS, engine_of
from tests.store.faults import FAULTS, CommitFaults

HOUR = 3_600_000_000


@pytest.fixture
def tokens(migrated_url: str) -> Iterator[ApiTokens]:
    tokens = ApiTokens(migrated_url, OPTIONS)
    yield tokens
    tokens.close()


def a_hash(number: int) -> bytes:
    return bytes([number]) * 32


def set_times(url: str, name: str, **times: int) -> None:
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(update(schema.api_tokens).where(schema.api_tokens.c.name == name).values(**times))
    engine.dispose()


def test_a_token_has_a_name_roles_and_an_end_by_the_databases_clock(tokens: ApiTokens) -> None:
    before = tokens.now()
    created = tokens.create("alice", ["ops", "dba", "ops"], a_hash(1), HOUR)
    assert (created.name, created.roles, created.revoked_at) == ("alice", ["dba", "ops"], None)
    assert before <= created.created_at <= tokens.now()
    assert created.expires_at == created.created_at + HOUR
    assert (created.state(before), created.state(before + 2 * HOUR)) == ("active", "expired")
    assert tokens.all() == [created]


def test_a_token_may_have_no_roles_and_no_end(tokens: ApiTokens) -> None:
    created = tokens.create("alice", (), a_hash(1), None)
    assert (created.roles, created.expires_at) == ([], None)
    assert created.state(tokens.now() + 1000 * KEPT) == "active"


def test_active_tokens_have_different_names(tokens: ApiTokens) -> None:
    first = tokens.create("alice", (), a_hash(1), HOUR)
    with pytest.raises(ConflictError, match="an active token is called alice") as raised:
        tokens.create("alice", (), a_hash(2), HOUR)
    assert raised.value.reason == "TOKEN_EXISTS"
    tokens.create("Alice", (), a_hash(3), HOUR)
    tokens.revoke(first.token_id)
    tokens.create("alice", (), a_hash(4), HOUR)
    assert [(one.name, one.state(tokens.now())) for one in tokens.all()] == [
        ("alice", "revoked"), ("Alice", "active"), ("alice", "active"),
    ]  # fmt: skip


def test_a_new_token_takes_the_name_of_an_expired_one(tokens: ApiTokens, migrated_url: str) -> None:
    tokens.create("alice", (), a_hash(1), HOUR)
    set_times(migrated_url, "alice", expires_at=1_000_000 + tokens.now() - HOUR)
    second = tokens.create("alice", (), a_hash(2), HOUR)
    assert tokens.find("alice") == second
    assert [one.state(tokens.now()) for one in tokens.all()] == ["expired", "active"]


def test_a_token_is_found_by_its_name_and_by_its_id(tokens: ApiTokens) -> None:
    created = tokens.create("alice", ["dba"], a_hash(1), HOUR)
    assert tokens.find("alice") == tokens.find(str(created.token_id)) == created
    for unknown in ("bob", str(created.token_id + 1), "9" * 30, "", "²"):
        with pytest.raises(NotFoundError, match="spincycle token list") as raised:
            tokens.find(unknown)
        assert raised.value.reason == "TOKEN_NOT_FOUND"


def test_a_revoked_token_keeps_its_first_time_of_revocation(tokens: ApiTokens) -> None:
    created = tokens.create("alice", (), a_hash(1), HOUR)
    tokens.revoke(created.token_id)
    revoked = tokens.find(str(created.token_id))
    assert revoked.revoked_at is not None
    tokens.revoke(created.token_id)
    assert tokens.find(str(created.token_id)) == revoked
    with pytest.raises(NotFoundError):
        tokens.find("alice")


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("", ()),
        ("1st", ()),
        ("a b", ()),
        ("émile", ()),
        ("a" * 101, ()),
        ("a\n", ()),
        ("a", [""]),
        ("a", [" x"]),
        ("a", ["x,y"]),
        ("a", ["x\ny"]),
        ("a", ["x" * (MAX_ROLE + 1)]),
        ("a", [f"r{number}" for number in range(MAX_ROLES + 1)]),
    ],
)
def test_an_invalid_name_or_role_is_refused(name: str, roles: list[str], tmp_path: object) -> None:
    tokens = ApiTokens(f"sqlite:///{tmp_path}/none.db", OPTIONS)
    with pytest.raises(InvalidArgumentError) as raised:
        tokens.create(name, roles, a_hash(1), None)
    assert raised.value.reason == "BAD_TOKEN"
    tokens.close()


def test_the_longest_name_and_roles_are_stored_whole(tokens: ApiTokens) -> None:
    name, roles = "a" * 100, sorted(f"{number:03}" + "\N{SNOWMAN}" * 97 for number in range(MAX_ROLES))
    tokens.create(name, roles, a_hash(1), None)
    assert tokens.find(name).roles == roles


def test_the_number_of_active_tokens_is_limited(tokens: ApiTokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_tokens, "MAX_TOKENS", 2)
    first = tokens.create("a", (), a_hash(1), HOUR)
    tokens.create("b", (), a_hash(2), None)
    with pytest.raises(ResourceExhaustedError, match="revoke some of them first"):
        tokens.create("c", (), a_hash(3), None)
    tokens.revoke(first.token_id)
    tokens.create("c", (), a_hash(3), None)


def test_tokens_that_ended_long_ago_are_deleted_and_their_ids_stay_unused(
    tokens: ApiTokens, migrated_url: str
) -> None:
    now = time.time_ns() // 1000
    tokens.create("kept", (), a_hash(1), HOUR)
    tokens.create("revoked", (), a_hash(2), None)
    newest = tokens.create("expired", (), a_hash(3), HOUR)
    set_times(migrated_url, "kept", expires_at=now - KEPT + HOUR)
    set_times(migrated_url, "revoked", revoked_at=now - KEPT - HOUR)
    set_times(migrated_url, "expired", expires_at=now - KEPT - HOUR)
    created = tokens.create("new", (), a_hash(4), None)
    assert [one.name for one in tokens.all()] == ["kept", "new"]
    assert created.token_id > newest.token_id


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "none"])
def test_a_commit_that_fails_or_whose_answer_is_lost_creates_one_token(
    fault: str, tokens: ApiTokens, migrated_url: str
) -> None:
    CommitFaults(tokens.engine, fault)
    created = tokens.create("alice", ["dba"], a_hash(1), HOUR)
    tokens.revoke(created.token_id)
    engine = engine_of(migrated_url)
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(schema.api_tokens)) == 1
        assert connection.scalar(select(schema.api_tokens.c.revoked_at)) is not None
        assert connection.scalar(select(schema.api_tokens.c.token_hash)) == a_hash(1)
    engine.dispose()


@pytest.mark.parametrize("faults", FAULTS)
def test_each_change_is_in_the_audit_log_once(tokens: ApiTokens, migrated_url: str, faults: str) -> None:
    broken = CommitFaults(tokens.engine, faults) if faults != "none" else None
    created = tokens.create("alice", ["ops", "dba"], a_hash(1), 90 * 24 * HOUR)
    with pytest.raises(ConflictError):
        tokens.create("alice", (), a_hash(2), HOUR)
    tokens.create("bob", (), a_hash(3), None)
    for _ in range(2):
        tokens.revoke(created.token_id)
    assert broken is None or broken.count
    with opened_audit(migrated_url, OPTIONS) as audit:
        events = list(audit.events(AuditFilter()))
    assert [(event.operation, event.detail) for event in events] == [
        ("spincycle token create", "token alice: expires after 2160h0m0s, roles: dba, ops"),
        ("spincycle token create", "token bob: never expires, roles: none"),
        ("spincycle token revoke", "token alice"),
    ]
    assert {(event.auth_method, event.outcome) for event in events} == {("operator", "OK")}
