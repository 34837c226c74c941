"""Two stores on one database, as those of two Request Managers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from spincycle_server.database.engine import make_engine, parse_url
from spincycle_server.store import Store
from spincycle_server.store.opening import OpenDatabase
from tests.databases import OPTIONS, engine_beside


async def open_beside(url: str) -> Store:
    """Opens a store, also on an SQLite file that another store uses."""
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        return await Store.open(url, OPTIONS)
    engine = make_engine(parsed, OPTIONS, connections=2, reads=False)
    reads = make_engine(parsed, OPTIONS, connections=OPTIONS.connections + 1, reads=True)
    return Store(OpenDatabase(engine, reads, lock=None), OPTIONS)


@contextlib.asynccontextmanager
async def two_stores(url: str) -> AsyncIterator[tuple[Store, Store]]:
    """Opens two stores on one database."""
    async with contextlib.AsyncExitStack() as stack:
        first, second = await open_beside(url), await open_beside(url)
        stack.push_async_callback(first.close)
        stack.push_async_callback(second.close)
        yield first, second


async def read_rows(url: str, query: Any) -> list[Any]:
    """Returns the rows of a query over a connection of its own."""

    def read() -> list[Any]:
        with engine_beside(url) as engine, engine.connect() as connection:
            return list(connection.execute(query))

    return await asyncio.to_thread(read)
