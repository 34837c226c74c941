"""The first claims of keys, which hold them or may hold them: read as rows, and counted by the database."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

from sqlalchemy import insert
from sqlalchemy.engine import Connection

from spincycle_server.capabilities import content_id
from spincycle_server.store.limit_fronts import Front, fronts_of_keys
from spincycle_server.store.limit_holders import KEYS_AT_ONCE, FirstClaim, first_claims_of_keys
from spincycle_server.store.limit_rows import Owner
from spincycle_server.store.schema import limit_claims, limits
from tests.store.limit_crowds import fill, gather_statistics
from tests.store.reading_work import reading_work

HOLDERS = 20
MANY = 1000
"""How many claims are behind the first ones."""


def test_claims_behind_the_first_ones_are_not_read(connection: Connection) -> None:
    for key, behind in (("few", 0), ("many", MANY)):
        fill(connection, [key], HOLDERS + behind, HOLDERS)
    gather_statistics(connection)
    for read in (first_claims_of_keys, fronts_of_keys):
        few, many = (
            reading_work(connection, partial(read, connection, {content_id(key.encode()): HOLDERS}))
            for key in ("few", "many")
        )
        assert many <= few + MANY / 10


def test_the_database_counts_what_the_first_claims_are(connection: Connection) -> None:
    random = Random(1)
    most = {f"{number:032}": random.randint(1, 4) for number in range(4 * KEYS_AT_ONCE)}
    claims: list[dict[str, Any]] = [
        {"limit_id": limit_id, "ticket": ticket, "request_id": random.choice("ab") * 20,
         "sequence_id": random.choice(("", "aaaa", "bbbb")), "claimed_at": 1,
         "held_at": random.choice((1, 1, None)), "requirement": ""}
        for limit_id in most
        for ticket in random.sample(range(1, 9), random.randint(0, 5))
    ]  # fmt: skip
    row = {"last_ticket": 9, "claims": 0}
    connection.execute(
        insert(limits), [row | {"limit_id": one, "key": one, "max": count} for one, count in most.items()]
    )
    connection.execute(insert(limit_claims), claims)
    claims.sort(key=lambda claim: claim["ticket"])
    first = {
        one: [claim for claim in claims if claim["limit_id"] == one][:count] for one, count in most.items()
    }
    found = first_claims_of_keys(connection, {*most, "no such key"})
    assert found.pop("no such key") == []
    assert found == {one: [*map(_first_claim, theirs[: most[one]])] for one, theirs in first.items()}
    fronts = fronts_of_keys(connection, most | {"no such key": 1})
    assert fronts == {one: _front(theirs) for one, theirs in found.items() if theirs}


def _first_claim(claim: dict[str, Any]) -> FirstClaim:
    return FirstClaim(claim["ticket"], Owner(claim["request_id"], claim["sequence_id"]), claim["held_at"])


def _front(first: Sequence[FirstClaim]) -> Front:
    """Counts the first claims of a key, slowly."""
    holders = [one.owner for one in first if one.held_at is not None]
    requests = {owner.request_id for owner in holders}
    return Front(
        last_ticket=first[-1].ticket,
        named=(holders or [first[0].owner])[0],
        requests=sum(not owner.sequence_id for owner in holders),
        sequences=sum(bool(owner.sequence_id) for owner in holders),
        only_request=requests.pop() if len(requests) == 1 else "",
    )
