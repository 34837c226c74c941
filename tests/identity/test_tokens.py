"""API tokens as a method of authentication, with the tokens of a real database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from spincycle_grpc.auth import Caller
from spincycle_grpc.errors import (
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from spincycle_grpc.v1 import runner_reports_pb2
from spincycle_grpc.v1.runner_reports_pb2 import ReportRequest, ReportResponse
from spincycle_server.identity import METHOD_ACCESS, Authentication, Credentials, MethodAccess
from spincycle_server.identity import tokens as tokens_module
from spincycle_server.identity.tokens import LONGEST_AGE, MAX_TOKEN, ElsewhereTokenMethod, TokenMethod
from spincycle_server.maintenance.api_tokens import ApiTokens
from spincycle_server.rpc import CallContext, Gate, MethodTable
from spincycle_server.rpc.current_streams import STREAM_CHECK_INTERVAL
from spincycle_server.store import Store
from spincycle_server.store.api_tokens import TokensLook, TokensVersion
from spincycle_server.token_text import TOKEN_PREFIX, hash_token, new_token
from tests.databases import OPTIONS, migrated_sqlite
from tests.limits import STEP

HOUR = 3_600_000_000


class Clock:
    """The time of the method, which a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Installation:
    """A method of authentication, its database, and the tokens that an operator creates in it."""

    def __init__(self, store: Store, operator: ApiTokens) -> None:
        self.store = store
        self.operator = operator
        self.clock = Clock()
        self.looks = 0
        self.error: Exception | None = None
        self.method = TokenMethod(self._look, self.clock)

    async def _look(self, seen: TokensVersion | None) -> TokensLook:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return await self.store.look_at_tokens(seen)

    def create(self, name: str = "alice", lifetime: int | None = HOUR, *roles: str) -> str:
        token = new_token()
        self.operator.create(name, roles, hash_token(token), lifetime)
        return token

    def revoke(self, name: str = "alice") -> None:
        self.operator.revoke(self.operator.find(name).token_id)

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.method.run())
        yield
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    url = migrated_sqlite(tmp_path / "spincycle.db")
    store, operator = await Store.open(url, OPTIONS), ApiTokens(url, OPTIONS)
    installation = Installation(store, operator)
    await installation.method.look()
    yield installation
    await store.close()
    operator.close()


def bearer(token: str, scheme: str = "Bearer") -> Credentials:
    return Credentials({"authorization": f"{scheme} {token}"})


async def test_a_token_identifies_its_caller(installation: Installation) -> None:
    token = installation.create("alice", HOUR, "dba", "ops")
    await installation.method.look()
    for scheme in ("Bearer", "bearer"):
        identity = await installation.method.identify(bearer(token, scheme))
        assert identity is not None
        assert identity.caller == Caller("alice", frozenset({"dba", "ops"}))
        assert identity.method == "token"
        assert identity.is_current()


async def test_calls_with_known_tokens_do_not_ask_the_database(installation: Installation) -> None:
    token = installation.create()
    await installation.method.look()
    before = installation.looks
    for _ in range(1000):
        assert await installation.method.identify(bearer(token)) is not None
    assert installation.looks == before


@pytest.mark.parametrize(
    "credentials",
    [
        Credentials(),
        bearer("eyJhbGciOiJSUzI1NiJ9.e30.c2ln"),
        bearer("another-token"),
        Credentials({"authorization": f"Basic {TOKEN_PREFIX}x"}),
        Credentials({"token": f"{TOKEN_PREFIX}x"}),
    ],
)
async def test_other_credentials_are_left_to_other_methods(
    installation: Installation, credentials: Credentials
) -> None:
    assert await installation.method.identify(credentials) is None
    assert await ElsewhereTokenMethod().identify(credentials) is None


async def test_a_new_token_works_at_its_first_call(installation: Installation) -> None:
    async with installation.looking(), asyncio.timeout(STEP):
        token = installation.create()
        identity = await installation.method.identify(bearer(token))
    assert identity is not None
    assert identity.caller.name == "alice"


@pytest.mark.parametrize(
    "text",
    ["", "x", "x" * 43, "x" * (MAX_TOKEN - len(TOKEN_PREFIX)), "x" * MAX_TOKEN, "x" * 60_000, "\udcff\0é"],
)
async def test_an_unknown_token_is_refused_without_being_repeated(
    installation: Installation, text: str
) -> None:
    installation.create()
    async with installation.looking(), asyncio.timeout(STEP):
        with capture_logs() as logs, pytest.raises(UnauthenticatedError) as raised:
            await installation.method.identify(bearer(TOKEN_PREFIX + text))
    assert raised.value.reason == "UNKNOWN_TOKEN"
    assert "spincycle token create" in raised.value.message
    assert TOKEN_PREFIX not in raised.value.message
    assert logs == []


async def test_many_unknown_tokens_share_one_look(installation: Installation) -> None:
    before = installation.looks
    async with installation.looking(), asyncio.timeout(STEP):
        answers = await asyncio.gather(
            *(installation.method.identify(bearer(new_token())) for _ in range(500)), return_exceptions=True
        )
    assert {type(answer) for answer in answers} == {UnauthenticatedError}
    assert installation.looks <= before + 2


async def test_only_a_limited_number_of_unknown_tokens_waits(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "MAX_WAITING", 3)
    known = installation.create()
    await installation.method.look()
    waiting = [asyncio.create_task(installation.method.identify(bearer(new_token()))) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhaustedError) as raised:
        await installation.method.identify(bearer(new_token()))
    assert raised.value.reason == "TOO_MANY_UNKNOWN_TOKENS"
    assert await installation.method.identify(bearer(known)) is not None
    await installation.method.look()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(answer) for answer in answers} == {UnauthenticatedError}
    late = asyncio.create_task(installation.method.identify(bearer(new_token())))
    await asyncio.sleep(0)
    assert not late.done(), "the places are free again"
    late.cancel()


async def test_a_revoked_token_is_refused_after_the_next_look(installation: Installation) -> None:
    token = installation.create()
    await installation.method.look()
    identity = await installation.method.identify(bearer(token))
    assert identity is not None
    installation.revoke()
    await installation.method.look()
    assert not identity.is_current()
    async with installation.looking(), asyncio.timeout(STEP):
        with pytest.raises(UnauthenticatedError):
            await installation.method.identify(bearer(token))


async def test_a_token_expires_by_the_databases_clock(installation: Installation) -> None:
    token = installation.create(lifetime=2_000_000)
    await installation.method.look()
    identity = await installation.method.identify(bearer(token))
    assert identity is not None
    assert identity.is_current()
    installation.clock.now += 2.5
    assert not identity.is_current()
    with pytest.raises(UnauthenticatedError, match="expired"):
        await installation.method.identify(bearer(token))


async def test_a_used_token_is_recalled_until_it_is_revoked(installation: Installation) -> None:
    token = installation.create()
    await installation.method.look()
    assert installation.method.recall(bearer(token)) is None
    identity = await installation.method.identify(bearer(token))
    assert installation.method.recall(bearer(token)) is identity
    assert installation.method.recall(bearer(new_token())) is None
    installation.revoke()
    await installation.method.look()
    assert installation.method.recall(bearer(token)) is None


async def test_a_used_token_is_recalled_until_it_expires(installation: Installation) -> None:
    token = installation.create(lifetime=2_000_000)
    await installation.method.look()
    await installation.method.identify(bearer(token))
    installation.clock.now += 1
    assert installation.method.recall(bearer(token)) is not None
    installation.clock.now += 1.5
    assert installation.method.recall(bearer(token)) is None


async def test_a_used_token_is_not_recalled_while_its_revocation_could_be_unknown(
    installation: Installation,
) -> None:
    token = installation.create(lifetime=None)
    await installation.method.look()
    await installation.method.identify(bearer(token))
    installation.clock.now += LONGEST_AGE
    assert installation.method.recall(bearer(token)) is not None
    installation.clock.now += 0.01
    assert installation.method.recall(bearer(token)) is None


async def test_headers_of_any_length_are_not_remembered(installation: Installation) -> None:
    token = installation.create()
    await installation.method.look()
    for spaces in range(1, 300):
        padded = Credentials({"authorization": f"Bearer{' ' * spaces}{token}"})
        assert await installation.method.identify(padded) is not None
        assert (installation.method.recall(padded) is not None) == (spaces == 1)


async def test_tokens_are_refused_when_the_database_is_away_for_longer_than_a_revocation_may_take(
    installation: Installation,
) -> None:
    token = installation.create(lifetime=None)
    await installation.method.look()
    identity = await installation.method.identify(bearer(token))
    assert identity is not None
    installation.error = UnavailableError("the database cannot be used now")
    installation.clock.now += LONGEST_AGE
    with capture_logs() as logs:
        await installation.method.look()
        await installation.method.look()
    assert [log["event"] for log in logs] == ["API tokens cannot be checked"]
    assert await installation.method.identify(bearer(token)) is not None
    installation.clock.now += 0.01
    for unknown in (token, new_token()):
        with pytest.raises(UnavailableError) as raised:
            await installation.method.identify(bearer(unknown))
        assert raised.value.reason == "TOKENS_UNAVAILABLE"
    with pytest.raises(UnavailableError):
        identity.is_current()
    installation.error = None
    await installation.method.look()
    assert identity.is_current()
    assert await installation.method.identify(bearer(token)) is not None


async def test_an_open_stream_ends_when_its_token_is_revoked(installation: Installation) -> None:
    token = installation.create()
    await installation.method.look()
    is_open = asyncio.Event()

    class Servicer:
        async def Report(self, requests: AsyncIterator[Any], context: CallContext) -> AsyncIterator[Any]:
            yield ReportResponse()
            is_open.set()
            await asyncio.Event().wait()

        def __getattr__(self, name: str) -> object:
            return self.Report

    service = runner_reports_pb2.DESCRIPTOR.services_by_name["RunnerReports"]
    table = MethodTable(
        service,
        Servicer(),
        Gate(10),
        Authentication([installation.method]),
        access=dict.fromkeys(METHOD_ACCESS, MethodAccess.READ),
    )

    async def requests() -> AsyncIterator[ReportRequest]:
        await asyncio.Event().wait()
        yield ReportRequest()

    async def read() -> None:
        async for _ in table.methods["Report"].call(requests(), CallContext(credentials=bearer(token))):
            pass

    async with asyncio.timeout(STEP):
        reading = asyncio.create_task(read())
        await is_open.wait()
        installation.revoke()
        await installation.method.look()
        with pytest.raises(UnauthenticatedError) as raised:
            await reading
    assert raised.value.reason == "CREDENTIALS_ENDED"


def test_a_revoked_token_works_for_at_most_five_seconds() -> None:
    assert LONGEST_AGE + STREAM_CHECK_INTERVAL <= 5


async def test_a_server_without_a_database_names_the_request_manager() -> None:
    token = new_token()
    with pytest.raises(UnauthenticatedError, match="ask the Request Manager") as raised:
        await ElsewhereTokenMethod().identify(bearer(token))
    assert raised.value.reason == "TOKENS_ELSEWHERE"
    assert token not in raised.value.message


def test_tokens_are_random_and_recognizable() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert {len(token.removeprefix(TOKEN_PREFIX)) for token in tokens} == {43}  # 256 bits in base64url
