"""The keys of sessions on each database."""

from __future__ import annotations

import os

from sqlalchemy import update

from spincycle_server.store import Store, session_keys
from spincycle_server.store.schema import session_keys as table
from tests.databases import OPTIONS, engine_of


async def test_keys_are_kept_for_as_long_as_a_session_may_need_them(migrated_url: str) -> None:
    store = await Store.open(migrated_url, OPTIONS)
    try:
        assert await store.session_keys() == []
        first, second = os.urandom(32), os.urandom(32)
        await store.add_session_key(b"old\0\xff   ", first)
        engine = engine_of(migrated_url)
        with engine.begin() as connection:
            connection.execute(update(table).values(created_at=table.c.created_at - 86_400_000_000))
        await store.add_session_key(b"new     ", second)
        newest, oldest = await store.session_keys()
        assert (newest.key_id, newest.key) == (b"new     ", second)
        assert (oldest.key_id, oldest.key) == (b"old\0\xff   ", first)
        assert 0 <= newest.age < 3600 < 86_400 <= oldest.age < 90_000
        with engine.begin() as connection:
            connection.execute(update(table).values(created_at=table.c.created_at - session_keys.KEPT))
        engine.dispose()
        await store.add_session_key(b"third   ", first)
        assert [one.key_id for one in await store.session_keys()] == [b"third   "]
    finally:
        await store.close()
