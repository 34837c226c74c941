"""Who holds the keys of limits and who waits for them, as users and runners see it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from sqlalchemy import and_, func, or_, select
from sqlalchemy.engine import Connection

from spincycle_grpc.state import FINAL_STATES
from spincycle_grpc.v1.limit_pb2 import HeldLimit, SequenceLimitOutcome
from spincycle_grpc.v1.runner_reports_pb2 import Assignment
from spincycle_server.capabilities import content_id
from spincycle_server.database.chunks import in_chunks
from spincycle_server.database.read_pool import ReadPool
from spincycle_server.database.transaction import Transaction
from spincycle_server.store.group_commit import GroupCommitWriter
from spincycle_server.store.limit_ledger import ledger_of
from spincycle_server.store.limit_rows import first_claims_query
from spincycle_server.store.limit_wait_texts import FIRST_CLAIMS, asked_path, wait_text
from spincycle_server.store.rows import set_microseconds
from spincycle_server.store.schema import limit_claims, limits, requests, sequence_claims
from spincycle_server.store.sequence_claim_rows import SequenceWait, ended_limit_waits
from spincycle_server.store.write import Write

MAX_SHOWN = 100
"""The maximum number of claims that are shown of one key."""

RELEASED_AT_ONCE = 100
"""The maximum number of requests whose claims one transaction removes because others have ended them."""

_WITH_SEQUENCE = limit_claims.outerjoin(
    sequence_claims,
    and_(
        limit_claims.c.sequence_id != "",
        sequence_claims.c.request_id == limit_claims.c.request_id,
        sequence_claims.c.sequence_id == limit_claims.c.sequence_id,
    ),
)
"""Claims, with what their sequences have asked."""

_WAITING = (
    select(limit_claims, limits.c.key, limits.c.max, sequence_claims.c.body)
    .select_from(_WITH_SEQUENCE)
    .join(limits, limits.c.limit_id == limit_claims.c.limit_id)
    .order_by(limits.c.key)
)

_OLDEST = (
    select(limit_claims.c.sequence_id)
    .join(limits, limits.c.limit_id == limit_claims.c.limit_id)
    .where(limit_claims.c.sequence_id != "")
    # All that ask in one transaction have the same time.
    .order_by(limit_claims.c.claimed_at, limits.c.key, limit_claims.c.ticket)
    .limit(1)
)


class LimitsPage(NamedTuple):
    """A page of keys.

    Attributes:
        limits: The keys that the caller may see.
        last_id: The id of the last key that was read; "" if these are all.
    """

    limits: Sequence[HeldLimit]
    last_id: str


class HeldLimits:
    """The keys of limits. Every method may raise UnavailableError.

    Args:
        reader: Reads.
        writer: Writes.
    """

    def __init__(self, reader: ReadPool, writer: GroupCommitWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def waits(self, request_ids: Collection[str]) -> dict[str, str]:
        """Returns which limit each of some requests waits for, as a sentence, for those that wait."""
        return await self._reader.read(waits_of, request_ids)

    async def page(self, key: str, behind: str, size: int, shows: Callable[[str], bool]) -> LimitsPage:
        """Returns a page of keys.

        Args:
            key: Only this key; "" for all.
            behind: The `last_id` of the page before; "" for the first page.
            size: The maximum number of keys.
            shows: Whether the caller may view requests of a type.
        """
        return await self._reader.read(limits_page, key, behind, size, shows)

    async def outcomes(self, waits: Mapping[SequenceWait, Assignment]) -> list[SequenceLimitOutcome]:
        """Returns how sequences' waits for keys have ended, of those that have.

        Args:
            waits: The waits, each with the assignment of its request.
        """
        return await self._reader.read(ended_limit_waits, waits) if waits else []

    async def release_ended(self) -> None:
        """Removes claims of requests that a program without limits has ended, such as an original."""
        ended = await self._reader.read(_ended)
        if ended:
            await self._writer.write(ReleaseEnded(ended))


@dataclass(slots=True)
class ReleaseEnded(Write):
    """Removes the claims of requests that have ended. Result: None."""

    order: ClassVar[int] = 10
    ended: Sequence[str]

    @property
    def request_ids(self) -> Iterable[str]:
        """The requests."""
        return self.ended

    @classmethod
    def apply_all(cls, transaction: Transaction, writes: Sequence[ReleaseEnded]) -> Sequence[None]:
        """Notes the requests. Their claims are removed at the end of the transaction."""
        for request_id in {one for write in writes for one in write.ended}:
            ledger_of(transaction).release(request_id)
        return [None] * len(writes)


def _ended(connection: Connection) -> Sequence[str]:
    """Returns requests that have ended, or do not exist any more, and still have claims."""
    query = (
        select(limit_claims.c.request_id)
        .outerjoin(requests, requests.c.request_id == limit_claims.c.request_id)
        .where(
            limit_claims.c.held_at.is_not(None),
            or_(requests.c.state.is_(None), requests.c.state.in_(FINAL_STATES)),
        )
        .limit(RELEASED_AT_ONCE)
    )
    return connection.scalars(query).all()


def waits_of(connection: Connection, request_ids: Collection[str]) -> dict[str, str]:
    """Returns which limit each of some requests waits for, as a sentence, for those that wait.

    Of the sequences of a request, it is the one that has waited for the longest time. Of those that began to
    wait at the same time for the same key, it is the first in the order of the key.
    """
    found: dict[str, str] = {}
    firsts: dict[str, Sequence[Any]] = {}
    waiting = limit_claims.c.held_at.is_(None)
    for some in in_chunks(sorted(request_ids)):
        mine = and_(limit_claims.c.request_id.in_(some), waiting)
        for row in connection.execute(_WAITING.where(mine, limit_claims.c.sequence_id == "")):
            _add_wait(connection, found, firsts, row)
        with_sequences = select(limit_claims.c.request_id).where(mine, limit_claims.c.sequence_id != "")
        for request_id in connection.scalars(with_sequences.distinct()).all():
            oldest = connection.scalar(_OLDEST.where(limit_claims.c.request_id == request_id, waiting))
            of_oldest = and_(limit_claims.c.request_id == request_id, limit_claims.c.sequence_id == oldest)
            for row in connection.execute(_WAITING.where(of_oldest, waiting)):
                _add_wait(connection, found, firsts, row)
    return found


def _add_wait(
    connection: Connection, found: dict[str, str], firsts: dict[str, Sequence[Any]], row: Any
) -> None:
    """Adds the sentence of a claim that waits, unless its request has one, or it is among the first."""
    if row.request_id in found:
        return
    if row.limit_id not in firsts:
        before = first_claims_query(row.limit_id, row.max, FIRST_CLAIMS)
        firsts[row.limit_id] = connection.execute(before).all()
    first = firsts[row.limit_id]
    if all(one.ticket != row.ticket for one in first):
        found[row.request_id] = wait_text(connection, row, first)


def limits_page(
    connection: Connection, key: str, behind: str, size: int, shows: Callable[[str], bool]
) -> LimitsPage:
    """Returns a page of keys, see `HeldLimits.page`."""
    query = select(limits).where(limits.c.limit_id > behind).order_by(limits.c.limit_id).limit(size + 1)
    if key:
        query = query.where(limits.c.limit_id == content_id(key.encode()))
    rows = connection.execute(query).all()
    shown = [_held_limit(connection, row, shows) for row in rows[:size]]
    return LimitsPage(
        [one for one in shown if one.claims], rows[size - 1].limit_id if len(rows) > size else ""
    )


def _held_limit(connection: Connection, row: Any, shows: Callable[[str], bool]) -> HeldLimit:
    of_key = limit_claims.c.limit_id == row.limit_id
    holding = connection.scalar(
        select(func.count()).select_from(limit_claims).where(of_key, limit_claims.c.held_at.is_not(None))
    )
    held = HeldLimit(key=row.key, max=row.max, holding=holding or 0, waiting=row.claims - (holding or 0))
    query = (
        select(
            limit_claims.c.request_id,
            limit_claims.c.claimed_at,
            limit_claims.c.held_at,
            limit_claims.c.sequence_id,
            sequence_claims.c.body,
            requests.c.type,
            requests.c.user,
            requests.c.state,
        )
        .select_from(_WITH_SEQUENCE)
        .join(requests, requests.c.request_id == limit_claims.c.request_id)
        .where(of_key)
        .order_by(limit_claims.c.ticket)
        .limit(MAX_SHOWN)
    )
    for one in connection.execute(query):
        if shows(one.type):
            claim = held.claims.add(
                request_id=one.request_id,
                request_type=one.type,
                user=one.user or "",
                state=one.state,
                holds=one.held_at is not None,
                sequence_id=one.sequence_id,
                sequence_path=asked_path(one.body),
            )
            set_microseconds(claim.since, one.claimed_at if one.held_at is None else one.held_at)
    return held
