"""Pages of the keys of limits: what they read, and what they say of claims behind many others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pytest
from sqlalchemy import event, insert
from sqlalchemy.engine import Connection

from spincycle_grpc.state import State
from spincycle_grpc.v1.limit_pb2 import HeldLimit, SequenceLimitChange
from spincycle_grpc.wire import encode
from spincycle_server.capabilities import content_id
from spincycle_server.database.engine import make_engine, parse_url
from spincycle_server.request_manager.limit_list import MAX_KEYS
from spincycle_server.store.limit_pages import MAX_SHOWN, WantedKeys, limits_page
from spincycle_server.store.schema import limit_claims, limits, requests, sequence_claims
from tests.databases import OPTIONS, engine_beside
from tests.store.reading_work import reading_work

MANY = 1000
"""How many claims are behind those that are shown."""


@pytest.fixture
def connection(migrated_url: str) -> Iterator[Connection]:
    """A connection to an empty database, of each kind."""
    with engine_beside(migrated_url) as engine, engine.connect() as connection:
        yield connection
        connection.rollback()


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


def page(connection: Connection, key: str = "", request_id: str = "", hidden: str = "") -> list[HeldLimit]:
    """Returns the first page of keys, without the requests of one type."""
    wanted = WantedKeys(key, request_id)
    return [*limits_page(connection, wanted, "", MAX_KEYS, lambda kind: kind != hidden).limits]


def test_claims_behind_those_that_are_shown_are_not_read(connection: Connection) -> None:
    fill(connection, ["few"], MAX_SHOWN)
    fill(connection, ["many"], MAX_SHOWN + MANY)
    gather_statistics(connection)
    few, many = (
        reading_work(connection, partial(page, connection, key), "sequence_claims") for key in ("few", "many")
    )
    assert many <= few + MANY / 10


def test_the_most_keys_of_a_page_may_have_claims_of_one_request(connection: Connection) -> None:
    keys = [f"key{number:03}" for number in range(MAX_KEYS + 1)]
    first, second = fill(connection, keys, 2)
    for request_id in ("", second):
        found = page(connection, request_id=request_id)
        assert len(found) == MAX_KEYS
        assert {key.key for key in found} < {*keys}
        for one in found:
            assert [claim.request_id for claim in one.claims] == [first, second]
            assert [claim.sequence_path[1] for claim in one.claims] == [f"host {one.key}"] * 2


def test_claims_may_come_while_a_page_is_read(migrated_url: str, connection: Connection) -> None:
    fill(connection, ["early"], 1)
    connection.commit()
    reads = make_engine(parse_url(migrated_url), OPTIONS, connections=1, reads=True)
    asked: list[str] = []

    def add_holders(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "count(" in statement:
            asked.append(statement)
            fill_more(connection, "early", 5)
            connection.commit()

    with reads.execution_options(readonly=True).connect() as reading:
        event.listen(reading, "before_cursor_execute", add_holders)
        [found] = page(reading)
    reads.dispose()
    assert len(asked) == 1
    # SQLite reads a whole page in one transaction.
    holding = 1 if connection.dialect.name == "sqlite" else 6
    assert (found.holding, found.waiting, len(found.claims)) == (holding, 0, holding)


@pytest.mark.parametrize("index", [0, MAX_SHOWN - 1, MAX_SHOWN, 3 * MAX_SHOWN - 1])
def test_claims_of_a_request_have_their_places_behind_more_than_are_shown(
    connection: Connection, index: int
) -> None:
    ids = fill(connection, ["key", "other"], 3 * MAX_SHOWN)
    for found in page(connection, request_id=ids[index]):
        expected = [*range(1, MAX_SHOWN + 1), *([index + 1] if index >= MAX_SHOWN else [])]
        assert [claim.place for claim in found.claims] == expected
        assert [claim.request_id for claim in found.claims] == [ids[place - 1] for place in expected]


def test_only_some_claims_of_a_request_are_shown_behind_others(connection: Connection) -> None:
    [*_, last] = fill(connection, ["key"], MAX_SHOWN + 1)
    claim = {"limit_id": content_id(b"key"), "request_id": last, "claimed_at": 1, "requirement": ""}
    many = [claim | {"ticket": 1000 + n, "sequence_id": f"s{n:03}"} for n in range(2 * MAX_SHOWN)]
    connection.execute(insert(limit_claims), many)
    [found] = page(connection, request_id=last)
    assert [claim.place for claim in found.claims] == [*range(1, 2 * MAX_SHOWN + 1)]


def test_claims_that_the_caller_may_not_view_have_places(connection: Connection) -> None:
    ids = fill(connection, ["key"], 5)
    secret = requests.update().where(requests.c.request_id.in_([ids[0], ids[3]])).values(type="secret")
    connection.execute(secret)
    [found] = page(connection, hidden="secret")
    assert [claim.place for claim in found.claims] == [2, 3, 5]
    assert (found.holding, found.waiting) == (1, 4)
