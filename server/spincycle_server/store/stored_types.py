"""The types of the stored requests, read with one short query each, however many requests exist."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from spincycle_server.store.schema import requests

MAX_TYPES = 100
"""The maximum number of types to read."""


def stored_types(connection: Connection) -> set[str] | None:
    """Returns the types of all stored requests; None if there are more than `MAX_TYPES`.

    Each query finds the next type in the index. Databases read the whole index for SELECT DISTINCT, and
    MariaDB for a recursive query too.
    """
    found: set[str] = set()
    name = connection.scalar(select(func.min(requests.c.type)))
    while name is not None:
        found.add(name)
        if len(found) > MAX_TYPES:
            return None
        name = connection.scalar(select(func.min(requests.c.type)).where(requests.c.type > name))
    return found
