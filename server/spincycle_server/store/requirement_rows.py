"""Reads and writes of requirements: what requests need of a runner, stored once for each set of job types.

A request refers to its requirement by id. The id is "" if nobody has derived it from the chain yet: an
original or an earlier version created the request.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import orjson
from sqlalchemy import ColumnElement, Select, bindparam, func, or_, select, text, update
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.state import State
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.wire import decode
from spincycle_server.capabilities import NEEDS_NOTHING, Requirement
from spincycle_server.database.chunks import in_chunks
from spincycle_server.database.dialects import insert_ignoring
from spincycle_server.database.transaction import RowStatement, Transaction
from spincycle_server.store.archived_chains import archived_chain
from spincycle_server.store.schema import (
    INDEXED_BY_REQUIREMENT,
    ORIGINAL,
    requests,
    requirements,
)
from spincycle_server.store.write import Write

_SET_REQUIREMENT = RowStatement(
    lambda _: (
        update(requests)
        .where(requests.c.request_id == bindparam("key"), text("requirement = ''"))
        # In old MySQL tables, the first TIMESTAMP column changes with each update of the row.
        .values(requirement=bindparam("new_requirement"), created_at=requests.c.created_at)
    )
)


_CREATED_HERE = or_(requests.c.runner_id.is_(None), requests.c.runner_id != ORIGINAL)
"""An original stores a request before it checks whether the caller may create it. If the caller may not, the
request stays PENDING. So a PENDING request of an original waits for nothing, until somebody starts it."""


_NOT_PAUSED = requests.c.paused_at.is_(None)
"""Counts and lists of requirements include paused requests, because they read nothing but the index."""


class WaitingRow(NamedTuple):
    """A request that waits for a runner.

    Attributes:
        request_id: The request.
        requirement_id: The id of what it needs; "" if that is not derived yet.
        created_at: When it was created, in microseconds since the Unix epoch; 0 if that was not read.
    """

    request_id: str
    requirement_id: str
    created_at: int = 0


@dataclass(slots=True)
class SaveRequirement(Write):
    """Stores a requirement, unless it is stored. Result: None."""

    order: ClassVar[int] = 7
    requirement: Requirement

    @classmethod
    def apply_all(cls, transaction: Transaction, writes: Sequence[SaveRequirement]) -> Sequence[None]:
        """Inserts the rows in one statement, ordered, because otherwise transactions could deadlock."""
        wanted = {write.requirement.requirement_id: write.requirement for write in writes}
        transaction.execute(
            insert_ignoring(transaction.connection.dialect.name, requirements),
            [{"requirement_id": key, "body": wanted[key].to_json()} for key in sorted(wanted)],
        )
        return [None] * len(writes)


@dataclass(slots=True)
class SetRequirements(Write):
    """Sets the requirements of requests that have none. They must be stored. Result: None."""

    order: ClassVar[int] = 7
    requirement_ids: Mapping[str, str]

    @classmethod
    def apply_all(cls, transaction: Transaction, writes: Sequence[SetRequirements]) -> Sequence[None]:
        """Updates the rows, ordered by request id, as all transactions do."""
        wanted = {key: value for write in writes for key, value in write.requirement_ids.items()}
        transaction.change(
            _SET_REQUIREMENT, [{"key": key, "new_requirement": wanted[key]} for key in sorted(wanted)]
        )
        return [None] * len(writes)


def read_requirements(connection: Connection, requirement_ids: Collection[str]) -> dict[str, Requirement]:
    """Returns the stored requirements with the given ids, by id."""
    found: dict[str, Requirement] = {}
    for some in in_chunks(sorted(requirement_ids)):
        query = select(requirements).where(requirements.c.requirement_id.in_(some))
        found.update(
            (row.requirement_id, Requirement.from_json(row.body)) for row in connection.execute(query)
        )
    return found


def oldest_waiting(connection: Connection, state: State, limit: int) -> list[WaitingRow]:
    """Returns the requests in a state, oldest first."""
    query = (
        select(requests.c.request_id, requests.c.requirement, requests.c.created_at)
        .where(*_waits(state), _NOT_PAUSED)
        .order_by(requests.c.created_at)
        .limit(limit)
    )
    return [WaitingRow(*row) for row in connection.execute(query)]


def oldest_waiting_for(
    connection: Connection, state: State, requirement_ids: Collection[str], limit: int
) -> list[WaitingRow]:
    """Returns the requests in a state that have one of some requirements, oldest first.

    It reads the oldest of each requirement from the index, so it never reads requests of other requirements.
    """
    found = [
        [
            (row.created_at, row.request_id, requirement_id)
            for row in connection.execute(
                _by_requirement(
                    select(requests.c.created_at, requests.c.request_id).where(
                        *_waits(state), _NOT_PAUSED, requests.c.requirement == requirement_id
                    )
                )
                .order_by(requests.c.created_at)
                .limit(limit)
            )
        ]
        for requirement_id in requirement_ids
    ]
    oldest = heapq.nsmallest(limit, heapq.merge(*found))
    return [WaitingRow(request_id, requirement_id, at) for at, request_id, requirement_id in oldest]


def waiting_requirement_ids(connection: Connection, state: State) -> list[str]:
    """Returns the ids of all requirements of requests in a state, with one look into the index for each."""
    ids: list[str] = []
    first = _by_requirement(select(requests.c.requirement).where(*_waits(state)))
    found = connection.scalar(first.where(requests.c.requirement == "").limit(1))
    if found is not None:
        ids.append(found)
    after = first.where(requests.c.requirement > bindparam("after")).order_by(requests.c.requirement).limit(1)
    while (found := connection.scalar(after, {"after": ids[-1] if ids else ""})) is not None:
        ids.append(found)
    return ids


def count_waiting(connection: Connection, state: State, limit: int) -> dict[str, int]:
    """Returns how many requests in a state have each requirement, by its id. Stops counting at the limit."""
    found = _by_requirement(select(requests.c.requirement).where(*_waits(state))).limit(limit).subquery()
    query = select(found.c.requirement, func.count()).group_by(found.c.requirement)
    return {row[0]: row[1] for row in connection.execute(query)}


def requirement_id_of(connection: Connection, request_id: str) -> str | None:
    """Returns the id of a request's requirement; None if the request does not exist."""
    return connection.scalar(select(requests.c.requirement).where(requests.c.request_id == request_id))


def derived_requirement(connection: Connection, request_id: str) -> Requirement:
    """Returns what a request needs, from its chain.

    A request whose chain cannot be read needs nothing: it fails when it is dispatched, with an error that
    says why.
    """
    data = archived_chain(connection, request_id)
    try:
        chain = JobChain() if data is None else decode(data, JobChain)
        requirement = Requirement(frozenset(job.type for job in chain.jobs.values()))
    except (InvalidArgumentError, orjson.JSONEncodeError):
        return NEEDS_NOTHING
    return requirement


def _waits(state: State) -> list[ColumnElement[bool]]:
    """Returns the conditions on requests in a state that wait for a runner."""
    is_in_state = requests.c.state == state
    return [is_in_state, _CREATED_HERE] if state is State.PENDING else [is_in_state]


def _by_requirement(query: Select[Any]) -> Select[Any]:
    """Makes a query use the index of requirements, which on PostgreSQL and SQLite is partial."""
    hinted = query.with_hint(requests, "FORCE INDEX (requests_requirement)", "mysql")
    return hinted.where(text(INDEXED_BY_REQUIREMENT))
