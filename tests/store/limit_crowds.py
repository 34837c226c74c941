"""Keys with many claims, stored without the store, and what databases read of them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import insert
from sqlalchemy.engine import Connection

from spincycle_grpc.state import State
from spincycle_grpc.v1.limit_pb2 import SequenceLimitChange
from spincycle_grpc.wire import encode
from spincycle_server.capabilities import content_id
from spincycle_server.store.schema import limit_claims, limits, requests, sequence_claims


def fill(connection: Connection, keys: Sequence[str], claims: int, holders: int = 1) -> list[str]:
    """Stores keys, with claims of one sequence of each of some requests. Returns the requests, in order."""
    ids = [f"{keys[0]}{number:0{20 - len(keys[0])}}" for number in range(claims)]
    rows = [{"request_id": one, "type": "roll", "state": State.RUNNING, "created_at": 1} for one in ids]
    connection.execute(insert(requests), rows)
    for sequence, key in enumerate(keys):
        _fill_key(connection, key, f"{sequence:04}", ids, holders)
    return ids


def _fill_key(connection: Connection, key: str, sequence_id: str, ids: Sequence[str], holders: int) -> None:
    limit_id = content_id(key.encode())
    body = encode(SequenceLimitChange(sequence_id=sequence_id, path=["roll", f"host {key}"]))
    limit = {"key": key, "max": holders, "last_ticket": 2 * len(ids), "claims": len(ids)}
    asked = {"sequence_id": sequence_id, "epoch": 1, "number": 1, "body": body, "reason": "", "error": ""}
    claim = {"limit_id": limit_id, "sequence_id": sequence_id, "claimed_at": 1, "requirement": ""}
    connection.execute(insert(limits), [limit | {"limit_id": limit_id}])
    connection.execute(insert(sequence_claims), [asked | {"request_id": one} for one in ids])
    connection.execute(
        insert(limit_claims),
        [
            claim | {"ticket": 2 * number, "request_id": one, "held_at": 1 if number <= holders else None}
            for number, one in enumerate(ids, 1)
        ],
    )


def fill_more(connection: Connection, key: str, holders: int) -> None:
    """Adds claims of new requests that hold a key, and no number in the row of the key."""
    ids = [f"more{number:016}" for number in range(holders)]
    rows = [{"request_id": one, "type": "roll", "state": State.RUNNING, "created_at": 1} for one in ids]
    connection.execute(insert(requests), rows)
    claim = {"limit_id": content_id(key.encode()), "claimed_at": 1, "held_at": 1, "requirement": ""}
    claims = [claim | {"ticket": 1000 + n, "request_id": one} for n, one in enumerate(ids)]
    connection.execute(insert(limit_claims), claims)


def gather_statistics(connection: Connection) -> None:
    """Lets the database know how many rows its tables have, as it does by itself in time."""
    if connection.dialect.name == "postgresql":
        for table in (requests, limits, limit_claims, sequence_claims):
            connection.exec_driver_sql(f"ANALYZE {table.name}")
