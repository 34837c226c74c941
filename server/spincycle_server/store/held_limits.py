"""Who holds the keys of limits and who waits for them, as users and runners see it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import or_, select
from sqlalchemy.engine import Connection

from spincycle_grpc.state import FINAL_STATES
from spincycle_grpc.v1.limit_pb2 import SequenceLimitOutcome
from spincycle_grpc.v1.runner_reports_pb2 import Assignment
from spincycle_server.database.read_pool import ReadPool
from spincycle_server.database.transaction import Transaction
from spincycle_server.store.group_commit import GroupCommitWriter
from spincycle_server.store.limit_ledger import ledger_of
from spincycle_server.store.limit_pages import LimitsPage, WantedKeys, limits_page
from spincycle_server.store.limit_waits import waits_of
from spincycle_server.store.schema import limit_claims, requests
from spincycle_server.store.sequence_claim_rows import SequenceWait, ended_limit_waits
from spincycle_server.store.write import Write

RELEASED_AT_ONCE = 100
"""The maximum number of requests whose claims one transaction removes because others have ended them."""


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

    async def page(
        self, key: str, behind: str, size: int, shows: Callable[[str], bool], *, request_id: str = ""
    ) -> LimitsPage:
        """Returns a page of keys.

        Args:
            key: Only this key; "" for all.
            behind: The `last_id` of the page before; "" for the first page.
            size: The maximum number of keys.
            shows: Whether the caller may view requests of a type.
            request_id: Only keys that this request or its sequences hold or wait for; "" for all. If the
                caller may not view it, there are none.
        """
        return await self._reader.read(limits_page, WantedKeys(key, request_id), behind, size, shows)

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
