"""What requests need of a runner: kept in memory after the first look, and derived where it is missing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from spincycle_grpc.state import State
from spincycle_server.capabilities import NEEDS_NOTHING, Requirement
from spincycle_server.database.read_pool import ReadPool
from spincycle_server.store import requirement_rows
from spincycle_server.store.errors import not_found
from spincycle_server.store.group_commit import GroupCommitWriter
from spincycle_server.store.requirement_rows import SaveRequirement, SetRequirements, WaitingRow

MAX_KEPT = 10_000
"""The maximum number of requirements in memory. There is one for each set of job types, so they are few."""

DERIVED_AT_ONCE = 200
"""The maximum number of chains that are read together to derive what their requests need."""


class WaitingRequest(NamedTuple):
    """A request that waits for a runner, and what it needs.

    Attributes:
        request_id: Its id.
        requirement: What it needs.
        created_at: When it was created, in microseconds since the Unix epoch; 0 if that was not read.
    """

    request_id: str
    requirement: Requirement
    created_at: int = 0


class WaitingPage(NamedTuple):
    """Requests that wait, oldest first.

    Attributes:
        requests: The requests.
        is_last: Whether there are no further ones.
    """

    requests: Sequence[WaitingRequest]
    is_last: bool


class Requirements:
    """The requirements of stored requests. Every method may raise UnavailableError.

    Args:
        reader: Reads.
        writer: Writes.
    """

    def __init__(self, reader: ReadPool, writer: GroupCommitWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._stored: dict[str, Requirement] = {}

    async def save(self, requirement: Requirement) -> None:
        """Stores a requirement. It is written once by each process."""
        if requirement.requirement_id not in self._stored:
            await self._writer.write(SaveRequirement(requirement))
            self._keep([requirement])

    async def get(self, requirement_ids: Collection[str]) -> dict[str, Requirement]:
        """Returns the requirements with the given ids, by id. Those that are not stored are left out."""
        known = {one: self._stored[one] for one in requirement_ids if one in self._stored}
        missing = [one for one in requirement_ids if one not in known]
        if missing:
            found = await self._reader.read(requirement_rows.read_requirements, missing)
            self._keep(found.values())
            known.update(found)
        return known

    async def of(self, request_id: str) -> Requirement:
        """Returns what a request needs.

        Raises:
            NotFoundError: The request does not exist.
        """
        requirement_id = await self._reader.read(requirement_rows.requirement_id_of, request_id)
        if requirement_id is None:
            raise not_found(request_id)
        return (await self.resolve([WaitingRow(request_id, requirement_id)]))[0].requirement

    async def oldest_waiting(self, state: State, limit: int) -> WaitingPage:
        """Returns the oldest requests in a state."""
        rows = await self._reader.read(requirement_rows.oldest_waiting, state, limit)
        return WaitingPage(await self.resolve(rows), len(rows) < limit)

    async def waiting(self, state: State) -> dict[str, Requirement]:
        """Returns the requirements of all requests in a state, by id.

        The id "" stands for the requests whose requirements have not been derived yet.
        """
        ids = await self._reader.read(requirement_rows.waiting_requirement_ids, state)
        found = await self.get([one for one in ids if one])
        return {one: found.get(one, NEEDS_NOTHING) for one in ids}

    async def oldest_waiting_for(
        self, state: State, requirement_ids: Collection[str], limit: int
    ) -> Sequence[WaitingRequest]:
        """Returns the oldest requests in a state that have one of some requirements."""
        rows = await self._reader.read(requirement_rows.oldest_waiting_for, state, requirement_ids, limit)
        return await self.resolve(rows)

    async def count_waiting(self, state: State, limit: int) -> dict[str, int]:
        """Returns how many requests in a state have each requirement, by id. Stops counting at the limit."""
        return await self._reader.read(requirement_rows.count_waiting, state, limit)

    async def resolve(self, rows: Sequence[WaitingRow]) -> list[WaitingRequest]:
        """Returns requests with what they need, in the same order.

        If many have no requirement yet, only some of them are returned. The next call continues.
        """
        known = await self.get({row.requirement_id for row in rows if row.requirement_id})
        unknown = [row.request_id for row in rows if row.requirement_id not in known][:DERIVED_AT_ONCE]
        derived = await self._derive(unknown) if unknown else {}
        found = [(row, known.get(row.requirement_id) or derived.get(row.request_id)) for row in rows]
        return [WaitingRequest(row.request_id, one, row.created_at) for row, one in found if one is not None]

    async def _derive(self, request_ids: Sequence[str]) -> dict[str, Requirement]:
        """Derives what requests need from their chains, and stores it."""
        derived = {
            request_id: await self._reader.read(requirement_rows.derived_requirement, request_id)
            for request_id in request_ids
        }
        for requirement in set(derived.values()):
            await self.save(requirement)
        ids = {request_id: one.requirement_id for request_id, one in derived.items()}
        await self._writer.write(SetRequirements(ids))
        return derived

    def _keep(self, found: Iterable[Requirement]) -> None:
        if len(self._stored) > MAX_KEPT:
            self._stored.clear()
        self._stored.update((one.requirement_id, one) for one in found)
