"""A server's look at the API tokens, on each database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import update
from sqlalchemy.engine import Connection

from spincycle_server.maintenance.api_tokens import ApiTokens
from spincycle_server.store import Store, schema
from spincycle_server.store.api_tokens import TokensLook, ValidToken
from tests.databases import OPTIONS, engine_of
from tests.limits import STEP

HOUR = 3_600_000_000
FIRST, SECOND = b"1" * 32, b"2" * 32


@pytest.fixture
async def store(migrated_url: str) -> AsyncIterator[Store]:
    store = await Store.open(migrated_url, OPTIONS)
    yield store
    await store.close()


@pytest.fixture
def tokens(migrated_url: str) -> Iterator[ApiTokens]:
    tokens = ApiTokens(migrated_url, OPTIONS)
    yield tokens
    tokens.close()


def valid(look: TokensLook) -> set[bytes]:
    assert look.tokens is not None
    return set(look.tokens)


async def test_a_look_finds_the_valid_tokens(store: Store, tokens: ApiTokens) -> None:
    empty = await store.look_at_tokens(None)
    assert empty.tokens == {}
    created = tokens.create("alice", ["dba", "ops"], FIRST, HOUR)
    tokens.create("bob", (), SECOND, None)
    look = await store.look_at_tokens(None)
    assert look.tokens == {
        FIRST: ValidToken("alice", frozenset({"dba", "ops"}), created.expires_at),
        SECOND: ValidToken("bob", frozenset(), None),
    }
    assert created.created_at <= look.now <= tokens.now()


async def test_a_look_returns_the_tokens_again_only_after_a_change(store: Store, tokens: ApiTokens) -> None:
    look = await store.look_at_tokens(None)
    assert (await store.look_at_tokens(look.version)).tokens is None
    first = tokens.create("alice", (), FIRST, HOUR)
    look = await store.look_at_tokens(look.version)
    assert valid(look) == {FIRST}
    tokens.create("bob", (), SECOND, None)
    look = await store.look_at_tokens(look.version)
    assert valid(look) == {FIRST, SECOND}
    tokens.revoke(first.token_id)
    look = await store.look_at_tokens(look.version)
    assert valid(look) == {SECOND}
    assert (await store.look_at_tokens(look.version)).tokens is None


async def test_expired_tokens_are_not_valid(store: Store, tokens: ApiTokens, migrated_url: str) -> None:
    tokens.create("alice", (), FIRST, HOUR)
    engine = engine_of(migrated_url)
    with engine.begin() as connection:
        connection.execute(update(schema.api_tokens).values(expires_at=tokens.now() - 1))
    engine.dispose()
    assert valid(await store.look_at_tokens(None)) == set()


async def test_a_look_does_not_wait_for_slow_reads(store: Store) -> None:
    done = threading.Event()

    def slow(connection: Connection) -> None:
        done.wait(STEP)

    reads = [asyncio.ensure_future(store._reader.read(slow)) for _ in range(OPTIONS.connections)]
    try:
        async with asyncio.timeout(STEP / 2):
            assert (await store.look_at_tokens(None)).tokens == {}
        assert not any(read.done() for read in reads)
    finally:
        done.set()
        await asyncio.gather(*reads)
