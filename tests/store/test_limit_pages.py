"""Pages of the keys of limits: what they read, and what they say of claims behind many others."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy import event, insert
from sqlalchemy.engine import Connection

from spincycle_grpc.v1.limit_pb2 import HeldLimit
from spincycle_server.capabilities import content_id
from spincycle_server.database.engine import make_engine, parse_url
from spincycle_server.request_manager.limit_list import MAX_KEYS
from spincycle_server.store.limit_pages import MAX_SHOWN, WantedKeys, limits_page
from spincycle_server.store.schema import limit_claims, requests
from tests.databases import OPTIONS
from tests.store.limit_crowds import fill, fill_more, gather_statistics
from tests.store.reading_work import reading_work

MANY = 1000
"""How many claims are behind those that are shown."""


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
