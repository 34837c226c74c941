"""Those who are first at the keys of limits, with the names that users see.

Names are for those who may view or start one request. They have no paths of sequences of other requests:
these users may not be allowed to view those requests. Everybody who waits may know the ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Select, select, union_all
from sqlalchemy.engine import Connection

from spincycle_grpc.job_paths import path_text, shortened
from spincycle_grpc.v1.limit_pb2 import SequenceLimitChange
from spincycle_grpc.wire import decode
from spincycle_server.database.chunks import in_chunks
from spincycle_server.store.limit_rows import OWNED_COLUMNS, Owner, first_claims_query, is_owned
from spincycle_server.store.schema import limits, sequence_claims

MAX_NAMED = 3
"""How many of those who have claims an error names."""

MAX_PATH = 150
"""The longest path in such a name, in characters. The middle of a longer one is left out."""

KEYS_AT_ONCE = 25
"""Of how many keys one statement reads the first claims.

It has a part for each, which the database plans by itself.
"""


class FirstClaim(NamedTuple):
    """A claim that holds a key, or may hold it.

    Attributes:
        ticket: Its place in the order of the key.
        owner: Who has it.
        held_at: Since when it holds the key; None while it waits for another one.
    """

    ticket: int
    owner: Owner
    held_at: int | None


def first_claims_of_keys(
    connection: Connection, limit_ids: Collection[str]
) -> dict[str, Sequence[FirstClaim]]:
    """Returns the claims of some keys that hold them or may hold them, each key's in order."""
    found: dict[str, list[FirstClaim]] = {limit_id: [] for limit_id in limit_ids}
    for some in in_chunks(sorted(limit_ids), KEYS_AT_ONCE):
        most = connection.execute(select(limits.c.limit_id, limits.c.max).where(limits.c.limit_id.in_(some)))
        queries = [select(first_claims(limit_id, count).subquery()) for limit_id, count in most]
        if not queries:
            continue
        # Up to 1,000 rows of each key: unpacking takes half the time of reading attributes.
        for limit_id, ticket, request_id, sequence_id, held_at in connection.execute(union_all(*queries)):
            found[limit_id].append(FirstClaim(ticket, Owner(request_id, sequence_id), held_at))
    return {limit_id: sorted(claims) for limit_id, claims in found.items()}


def first_claims(limit_id: str, most: int) -> Select[Any]:
    """Selects the first `most` claims of a key, with what names need."""
    return first_claims_query(limit_id, most, OWNED_COLUMNS)


def paths_of(connection: Connection, owners: Iterable[Owner]) -> dict[Owner, Sequence[str]]:
    """Returns the paths of those owners that are sequences."""
    found: dict[Owner, Sequence[str]] = {}
    for some in in_chunks(sorted({owner for owner in owners if owner.sequence_id})):
        query = select(
            sequence_claims.c.request_id, sequence_claims.c.sequence_id, sequence_claims.c.body
        ).where(is_owned(sequence_claims, some))
        for row in connection.execute(query):
            found[Owner(row.request_id, row.sequence_id)] = asked_path(row.body)
    return found


def asked_path(body: bytes | None) -> Sequence[str]:
    """Returns the path of a sequence from what it has asked; without that, an empty one."""
    return decode(body, SequenceLimitChange).path if body else ()


def named_owners(request_id: str, owners: Iterable[Owner]) -> list[Owner]:
    """Returns the owners whose paths `name_of` and `names_of` need, for those who may view a request."""
    return [owner for owner in owners if owner.sequence_id and owner.request_id == request_id][:MAX_NAMED]


class _Named(NamedTuple):
    """What has one name: a request, all sequences of another request, or own sequences with the same path.

    Attributes:
        one: The name if it is one.
        many: The name after a number.
    """

    one: str
    many: str


def _named(request_id: str, owner: Owner, paths: Mapping[Owner, Sequence[str]]) -> _Named:
    if not owner.sequence_id:
        name = f"request {owner.request_id}"
        return _Named(name, name)
    if owner.request_id != request_id:
        return _Named(f"a sequence of request {owner.request_id}", f"sequences of request {owner.request_id}")
    path = shortened(path_text(paths.get(owner, ())) or owner.sequence_id, MAX_PATH)
    return _Named(f"sequence {path} of this request", f"sequences {path} of this request")


def name_of(request_id: str, owner: Owner, paths: Mapping[Owner, Sequence[str]]) -> str:
    """Returns the name of an owner.

    Args:
        request_id: The request that the reader may view.
        owner: The owner.
        paths: The paths of sequences of that request.
    """
    return _named(request_id, owner, paths).one


def names_of(request_id: str, owners: Sequence[Owner], paths: Mapping[Owner, Sequence[str]]) -> str:
    """Returns the names of owners: "request a, 2 sequences of request b, request c and 4 more".

    Args:
        request_id: The request that the reader may view.
        owners: The owners, each once.
        paths: The paths of sequences of that request.
    """
    counts = Counter(_named(request_id, owner, paths) for owner in owners)
    named = list(counts.items())[:MAX_NAMED]
    texts = [name.one if count == 1 else f"{count} {name.many}" for name, count in named]
    if left := len(owners) - sum(count for _, count in named):
        return f"{', '.join(texts)} and {left} more"
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))


def holders_text(request_id: str, first: Sequence[FirstClaim], paths: Mapping[Owner, Sequence[str]]) -> str:
    """Returns who keeps others from a key: "request a holds it". If nobody does, it returns "".

    Args:
        request_id: The request that the reader may view.
        first: The claims of the key that hold it or may hold it, in order.
        paths: The paths of sequences of that request.
    """
    if not first:
        return ""
    holders = [claim.owner for claim in first if claim.held_at is not None]
    owners = holders or [claim.owner for claim in first]
    one, many = ("holds it", "hold it") if holders else ("is before it", "are before it")
    return f"{names_of(request_id, owners, paths)} {one if len(owners) == 1 else many}"
