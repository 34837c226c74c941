"""Idempotency keys: one request per key, on each database and with failing commits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest
from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import ConflictError, SpinCycleError
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_server.database.engine import make_engine
from spincycle_server.request_ids import RequestIdGenerator
from spincycle_server.store import CreatedBeforeError, IdempotencyKey, Store
from spincycle_server.store.schema import idempotency_keys, request_archives, requests
from tests.databases import OPTIONS, engine_of
from tests.store.samples import RUNNER, a_chain, a_request, create

SECRET = "the-secret-key"


def a_key(key: str = SECRET, body: bytes = b"body", caller: str = "finch") -> IdempotencyKey:
    return IdempotencyKey.of(caller, key, body)


async def create_under(store: Store, key: IdempotencyKey | None) -> str:
    """Creates a request with a key, or finds the request that the key created. Returns its id."""
    made = a_request()
    request = CreateRequest(type=made.type, idempotency_key=SECRET)
    try:
        await store.create_request(made, request, a_chain(made.id), RUNNER, key)
    except CreatedBeforeError as error:
        return error.request_id
    return made.id


async def count_requests(store: Store) -> int:
    return len(await store.find_requests(RequestFilter()))


@contextlib.contextmanager
def beside(store: Store) -> Iterator[Connection]:
    """A transaction of somebody else, whose commit does not fail."""
    engine = make_engine(store._engine.url, OPTIONS, connections=1, reads=False)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def expire(store: Store) -> None:
    """Makes all keys as old as they get."""
    with beside(store) as connection:
        connection.execute(update(idempotency_keys).values(expires_at=1))


async def test_the_same_key_creates_one_request(store: Store) -> None:
    assert await store.request_of_key(a_key()) is None
    first = await create_under(store, a_key())
    assert await store.request_of_key(a_key()) == first
    assert await create_under(store, a_key()) == first
    assert await count_requests(store) == 1


async def test_a_key_with_another_body_is_refused(store: Store) -> None:
    first = await create_under(store, a_key())
    other = a_key(body=b"other")
    with pytest.raises(ConflictError) as looked:
        await store.request_of_key(other)
    with pytest.raises(ConflictError) as written:
        await create_under(store, other)
    for raised in (looked, written):
        assert raised.value.reason == "IDEMPOTENCY_KEY_REUSED"
        assert SECRET not in str(raised.value)
    assert await store.request_of_key(a_key()) == first
    assert await count_requests(store) == 1


async def test_the_same_key_of_another_caller_is_a_different_key(store: Store) -> None:
    keys = [a_key(), a_key(caller="wren"), a_key(caller=""), a_key(key=SECRET.upper())]
    assert len({await create_under(store, key) for key in keys}) == 4
    # Name and key are not run together.
    assert IdempotencyKey.of("ab", "c", b"") != IdempotencyKey.of("a", "bc", b"")


async def test_concurrent_creates_with_one_key_create_one_request(store: Store) -> None:
    made = await asyncio.gather(
        *(create_under(store, a_key()) for _ in range(20)),
        *(create_under(store, None) for _ in range(5)),
        *(create_under(store, a_key(str(number))) for number in range(5)),
    )
    assert len(set(made[:20])) == 1
    assert len(set(made)) == 11
    assert await count_requests(store) == 11


async def test_a_refused_key_affects_no_other_create_of_its_batch(store: Store) -> None:
    await create_under(store, a_key("a"))
    results = await asyncio.gather(
        create_under(store, a_key("b")),
        create_under(store, a_key("a", b"other")),
        create_under(store, a_key("b", b"other")),
        create(store),
        create_under(store, a_key("b")),
        return_exceptions=True,
    )
    assert [isinstance(result, SpinCycleError) for result in results] == [False, True, True, False, False]
    assert results[0] == results[4]
    assert await count_requests(store) == 3


async def test_two_request_managers_create_one_request_per_key(migrated_url: str) -> None:
    stores = [await Store.open(migrated_url, OPTIONS) for _ in range(2)]
    try:
        for round_number in range(10):
            keys = [a_key(f"{round_number} {number}") for number in range(10)]
            made = await asyncio.gather(
                *(create_under(stores[0], key) for key in keys),
                *(create_under(stores[1], key) for key in reversed(keys)),
            )
            assert made[:10] == made[:9:-1]
        assert await count_requests(stores[0]) == 100
    finally:
        for store in stores:
            await store.close()


async def test_an_expired_key_can_be_used_again(store: Store) -> None:
    first = await create_under(store, a_key())
    kept = await create_under(store, a_key("kept"))
    expire(store)
    assert await store.request_of_key(a_key()) is None
    assert await store.request_of_key(a_key(body=b"other")) is None
    again = await create_under(store, a_key(body=b"other"))
    assert again != first
    assert await store.request_of_key(a_key(body=b"other")) == again
    assert await store.request_of_key(a_key("kept")) is None
    assert kept != again


async def test_expired_keys_are_deleted_in_batches(store: Store) -> None:
    for number in range(5):
        await create_under(store, a_key(str(number)))
    assert await store.forget_keys(10) == 0
    expire(store)
    fresh = await create_under(store, a_key("fresh"))
    assert await store.forget_keys(3) == 3
    assert await store.forget_keys(3) == 2
    assert await store.forget_keys(3) == 0
    assert await store.request_of_key(a_key("fresh")) == fresh
    with beside(store) as connection:
        assert connection.scalar(select(func.count()).select_from(idempotency_keys)) == 1


async def test_keys_last_a_day_by_the_database_clock(store: Store) -> None:
    await create_under(store, a_key())
    await store.renew_runner(RUNNER, 86_400, draining=False)
    with beside(store) as connection:
        expires_at = connection.scalar(select(idempotency_keys.c.expires_at))
        lease = connection.exec_driver_sql("SELECT lease_expires_at FROM runners").scalar_one()
    assert 0 <= lease - expires_at < 60_000_000


async def test_only_the_hash_of_a_key_is_stored(migrated_url: str) -> None:
    store = await Store.open(migrated_url, OPTIONS)
    await create_under(store, a_key())
    await store.close()
    engine = engine_of(migrated_url)
    with engine.connect() as connection:
        for table in (requests, request_archives, idempotency_keys):
            for row in connection.execute(select(table)):
                assert SECRET not in repr(tuple(row))
        assert connection.scalar(select(idempotency_keys.c.key_hash)) == a_key().key_hash
    engine.dispose()


async def test_a_failed_create_leaves_no_key(store: Store) -> None:
    made = await create(store)
    again = a_request(id=made.id)
    with pytest.raises(SpinCycleError):
        await store.create_request(again, CreateRequest(type="x"), a_chain(again.id), None, a_key())
    assert await store.request_of_key(a_key()) is None


async def test_many_expired_keys_can_be_used_again_at_once(store: Store) -> None:
    ids = RequestIdGenerator()
    with beside(store) as connection:
        connection.execute(
            insert(idempotency_keys),
            [
                {"key_hash": a_key(str(number)).key_hash, "body_hash": b"x" * 32, "request_id": ids.next(),
                 "expires_at": 1}
                for number in range(50)
            ],
        )  # fmt: skip
    made = await asyncio.gather(*(create_under(store, a_key(str(number))) for number in range(50)))
    assert len(set(made)) == await count_requests(store) == 50
