"""The leases of runners: renew, end and read them, and find the requests whose runner has no lease."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from sqlalchemy import and_, bindparam, delete, insert, or_, select, update
from sqlalchemy.engine import Connection

from spincycle_grpc.errors import FailedPreconditionError
from spincycle_grpc.state import State
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
from spincycle_server.capabilities import KNOWS_ALL, KNOWS_NOTHING, Capabilities
from spincycle_server.database.clock import database_now
from spincycle_server.database.transaction import Transaction
from spincycle_server.store.requirement_rows import WaitingRow
from spincycle_server.store.schema import ORIGINAL, requests, runners
from spincycle_server.store.suspects import take_back_crashes
from spincycle_server.store.write import Write

_RUNNER_KEPT = 86_400_000_000
"""Microseconds after which the row of a dead runner is deleted."""


_UPDATE_RUNNER = (
    update(runners)
    .where(runners.c.runner_id == bindparam("new_runner_id"))
    .values(
        url=bindparam("new_url"),
        grpc_address=bindparam("new_grpc_address"),
        draining=bindparam("new_draining"),
        lease_expires_at=bindparam("new_lease_expires_at"),
    )
)


_UPDATE_CAPABILITIES = (
    update(runners)
    .where(runners.c.runner_id == bindparam("key"))
    .values(
        capabilities_id=bindparam("new_capabilities_id"),
        capabilities=bindparam("new_capabilities"),
    )
)

_RUNNER_COLUMNS = [column for column in runners.c if column is not runners.c.capabilities]


@dataclass(frozen=True, slots=True)
class StoredRunner:
    """A runner that has reported.

    Attributes:
        runner: Its id and addresses.
        is_live: Whether its lease is current.
    """

    runner: RunnerInfo
    is_live: bool


class LiveRunner(NamedTuple):
    """A runner with a current lease.

    Attributes:
        runner: Its id and addresses.
        draining: Whether it accepts no more chains.
        capabilities: What it has.
        lease_expires_at: When its lease expires, in microseconds by the database's clock; 0 if unknown.
    """

    runner: RunnerInfo
    draining: bool
    capabilities: Capabilities = KNOWS_ALL
    lease_expires_at: int = 0


class LostRequest(NamedTuple):
    """A RUNNING request whose runner has no current lease.

    Attributes:
        assignment: Its last assignment.
        runner_id: Its runner, or "".
        waiting: The request, with the id of what it needs of a runner.
    """

    assignment: Assignment
    runner_id: str
    waiting: WaitingRow


@dataclass(slots=True)
class RenewRunner(Write):
    """Renews a runner's lease. Result: a token, or an error if another stream has renewed the lease since.

    The first renewal of a stream has no token. Each later one has the token of the renewal before it, so
    that a Request Manager that was frozen cannot renew from an old stream.
    """

    order: ClassVar[int] = 1
    is_reserved: ClassVar[bool] = True
    runner: RunnerInfo
    lease: float
    draining: bool
    token: int | None = None
    capabilities: Capabilities = KNOWS_ALL
    has_changed: bool = True

    @classmethod
    def apply_all(
        cls, transaction: Transaction, writes: Sequence[RenewRunner]
    ) -> Sequence[int | FailedPreconditionError]:
        """Locks the runners' rows, and writes those whose token is current."""
        ids = sorted({write.runner.runner_id for write in writes})
        rows = transaction.execute(
            select(runners.c.runner_id, runners.c.lease_expires_at)
            .where(runners.c.runner_id.in_(ids))
            .order_by(runners.c.runner_id)
            .with_for_update()
        )
        known = {row.runner_id: row.lease_expires_at for row in rows}
        tokens: dict[str, int] = dict(known)
        now = database_now(transaction.connection)
        changed: dict[str, dict[str, Any]] = {}
        said: dict[str, Capabilities] = {}
        renewed: list[int | None] = []
        for write in writes:
            runner_id = write.runner.runner_id
            before = tokens.get(runner_id)
            if write.token is not None and write.token != before:
                renewed.append(None)
                continue
            token = now + int(write.lease * 1_000_000)
            # Each renewal needs a new token, even within the same microsecond.
            tokens[runner_id] = token = token + 1 if token == before else token
            renewed.append(token)
            changed[runner_id] = {
                "runner_id": runner_id,
                "url": write.runner.url,
                "grpc_address": write.runner.grpc_address,
                "draining": write.draining,
                "lease_expires_at": token,
            }
            if write.has_changed or runner_id not in known:
                said[runner_id] = write.capabilities
        _save_runners(transaction, known, changed, now)
        _save_capabilities(transaction, said)
        return [
            _superseded(write.runner.runner_id) if token is None else token
            for write, token in zip(writes, renewed, strict=True)
        ]


def _save_runners(
    transaction: Transaction,
    known: Mapping[str, int],
    changed: Mapping[str, Mapping[str, Any]],
    now: int,
) -> None:
    updated = [row for runner_id, row in changed.items() if runner_id in known]
    if lapsed := [row["runner_id"] for row in updated if known[row["runner_id"]] <= now]:
        take_back_crashes(transaction, lapsed)
    if updated:
        transaction.execute(
            _UPDATE_RUNNER, [{f"new_{name}": value for name, value in row.items()} for row in updated]
        )
    inserted = [row for runner_id, row in changed.items() if runner_id not in known]
    if inserted:
        transaction.execute(delete(runners).where(runners.c.lease_expires_at < now - _RUNNER_KEPT))
        transaction.execute(insert(runners), inserted)


def _save_capabilities(transaction: Transaction, said: Mapping[str, Capabilities]) -> None:
    """Stores what runners have. A runner that says nothing has no values, as with an earlier version."""
    if said:
        transaction.execute(
            _UPDATE_CAPABILITIES,
            [
                {
                    "key": runner_id,
                    "new_capabilities_id": None if one == KNOWS_ALL else one.capabilities_id,
                    "new_capabilities": None if one == KNOWS_ALL else one.to_json(),
                }
                for runner_id, one in said.items()
            ],
        )


def _superseded(runner_id: str) -> FailedPreconditionError:
    return FailedPreconditionError(
        f"job runner {runner_id} reports on a newer stream: close this one", reason="STREAM_SUPERSEDED"
    )


@dataclass(slots=True)
class RemoveRunner(Write):
    """Ends the lease of a runner that has left. Result: None."""

    order: ClassVar[int] = 10
    is_reserved: ClassVar[bool] = True
    runner_id: str

    @classmethod
    def apply_all(cls, transaction: Transaction, writes: Sequence[RemoveRunner]) -> Sequence[None]:
        """Deletes the rows in one statement."""
        transaction.execute(delete(runners).where(runners.c.runner_id.in_([one.runner_id for one in writes])))
        return [None] * len(writes)


def live_runners(connection: Connection, known: Mapping[str, Capabilities]) -> list[LiveRunner]:
    """Returns the runners with a current lease.

    If several have the same address, only the one whose lease expires last is returned: the others are gone.

    Args:
        connection: An open connection.
        known: Capabilities by id, which are not read again.
    """
    now = database_now(connection)
    query = (
        select(*_RUNNER_COLUMNS).where(runners.c.lease_expires_at > now).order_by(runners.c.lease_expires_at)
    )
    newest = {row.grpc_address: row for row in connection.execute(query)}
    holders = {
        row.capabilities_id: row.runner_id
        for row in newest.values()
        if row.capabilities_id is not None and row.capabilities_id not in known
    }
    # What has changed since the first read is unknown until the next one.
    capabilities: dict[str | None, Capabilities] = {None: KNOWS_ALL}
    capabilities.update(known)
    capabilities.update(_read_capabilities(connection, holders.values()))
    return [
        LiveRunner(
            RunnerInfo(runner_id=row.runner_id, url=row.url, grpc_address=row.grpc_address),
            bool(row.draining),
            capabilities.get(row.capabilities_id, KNOWS_NOTHING),
            row.lease_expires_at,
        )
        for row in newest.values()
    ]


def _read_capabilities(connection: Connection, runner_ids: Collection[str]) -> dict[str, Capabilities]:
    """Returns the capabilities of some runners, by their ids."""
    if not runner_ids:
        return {}
    query = select(runners.c.capabilities_id, runners.c.capabilities).where(
        runners.c.runner_id.in_(sorted(runner_ids)), runners.c.capabilities_id.is_not(None)
    )
    return {
        row.capabilities_id: Capabilities.from_json(row.capabilities) for row in connection.execute(query)
    }


def runners_like(connection: Connection, runner: RunnerInfo) -> list[StoredRunner]:
    """Returns the runners that are stored with the id or the address of a runner, with or without a lease."""
    query = select(
        *_RUNNER_COLUMNS, (runners.c.lease_expires_at > database_now(connection)).label("is_live")
    ).where(or_(runners.c.runner_id == runner.runner_id, runners.c.grpc_address == runner.grpc_address))
    return [
        StoredRunner(
            RunnerInfo(runner_id=row.runner_id, url=row.url, grpc_address=row.grpc_address), bool(row.is_live)
        )
        for row in connection.execute(query)
    ]


def live_leases(transaction: Transaction) -> dict[str, int]:
    """Returns when each current lease expires, by runner id."""
    query = select(runners.c.runner_id, runners.c.lease_expires_at).where(
        runners.c.lease_expires_at > database_now(transaction.connection)
    )
    return {row.runner_id: row.lease_expires_at for row in transaction.execute(query)}


def lost_requests(connection: Connection, limit: int, without: Collection[str] = ()) -> list[LostRequest]:
    """Returns the RUNNING requests whose runner has no current lease, oldest first.

    Requests that an original Spin Cycle runs are not returned. Neither are those whose requirement is in
    `without`.
    """
    alive = select(runners.c.runner_id).where(runners.c.lease_expires_at > database_now(connection))
    query = (
        select(requests.c.request_id, requests.c.epoch, requests.c.runner_id, requests.c.requirement)
        .where(
            requests.c.state == State.RUNNING,
            requests.c.epoch > 0,
            requests.c.runner_id.is_(None)
            | and_(requests.c.runner_id != ORIGINAL, requests.c.runner_id.not_in(alive)),
        )
        .order_by(requests.c.created_at)
        .limit(limit)
    )
    if without:
        query = query.where(requests.c.requirement.not_in(sorted(without)))
    return [
        LostRequest(
            Assignment(request_id=row.request_id, epoch=row.epoch),
            row.runner_id or "",
            WaitingRow(row.request_id, row.requirement),
        )
        for row in connection.execute(query)
    ]
