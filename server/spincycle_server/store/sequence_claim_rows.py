"""The rows of what sequences have asked of the keys of limits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, bindparam, insert, select, update
from sqlalchemy.engine import Connection

from spincycle_grpc.v1.limit_pb2 import SequenceLimitChange, SequenceLimitOutcome
from spincycle_grpc.v1.runner_reports_pb2 import Assignment
from spincycle_grpc.wire import decode, encode
from spincycle_server.database.chunks import in_chunks
from spincycle_server.database.transaction import Transaction
from spincycle_server.store.limit_rows import Owner, is_owned
from spincycle_server.store.schema import limit_claims, sequence_claims

_INSERT = insert(sequence_claims)

_UPDATE = (
    update(sequence_claims)
    .where(
        sequence_claims.c.request_id == bindparam("of_request"),
        sequence_claims.c.sequence_id == bindparam("of_sequence"),
    )
    .values({name: bindparam(f"new_{name}") for name in ("epoch", "number", "body", "reason", "error")})
)


class SequenceWait(NamedTuple):
    """A wait of a sequence for its keys.

    Attributes:
        request_id: The request.
        sequence_id: The sequence.
        number: The number of the change with which it began; 0 for the newest one.
    """

    request_id: str
    sequence_id: str
    number: int = 0

    @property
    def owner(self) -> Owner:
        """The sequence."""
        return Owner(self.request_id, self.sequence_id)


@dataclass(slots=True)
class SequenceClaim:
    """What a sequence has asked.

    Attributes:
        owner: The sequence; without a sequence: the newest change of the request's assignment.
        epoch: The assignment.
        number: The number of the newest change.
        change: What it asked.
        reason: Why it does not get its keys; "" if it holds them or waits.
        error: The error of its tries then.
    """

    owner: Owner
    epoch: int
    number: int
    change: SequenceLimitChange
    reason: str = ""
    error: str = ""

    def outcome(self, assignment: Assignment) -> SequenceLimitOutcome:
        """Returns the message for the runner."""
        return SequenceLimitOutcome(
            request_id=self.owner.request_id,
            epoch=assignment.epoch,
            sequence_id=self.owner.sequence_id,
            number=self.number,
            reason=self.reason,
            error=self.error,
        )


def sequence_claims_of(connection: Connection, request_ids: Collection[str]) -> dict[Owner, SequenceClaim]:
    """Returns what the sequences of some requests have asked, and the newest changes of these."""
    found: dict[Owner, SequenceClaim] = {}
    for some in in_chunks(sorted(request_ids)):
        found |= _stored(connection, sequence_claims.c.request_id.in_(some))
    return found


def claims_of_sequences(connection: Connection, owners: Collection[Owner]) -> dict[Owner, SequenceClaim]:
    """Returns what some sequences have asked."""
    found: dict[Owner, SequenceClaim] = {}
    for some in in_chunks(sorted(owners)):
        found |= _stored(connection, is_owned(sequence_claims, some))
    return found


def _stored(connection: Connection, condition: ColumnElement[bool]) -> dict[Owner, SequenceClaim]:
    found: dict[Owner, SequenceClaim] = {}
    for row in connection.execute(select(sequence_claims).where(condition)):
        owner = Owner(row.request_id, row.sequence_id)
        change = decode(row.body, SequenceLimitChange) if row.body else SequenceLimitChange()
        found[owner] = SequenceClaim(owner, row.epoch, row.number, change, row.reason, row.error)
    return found


def save_sequence_claims(
    transaction: Transaction, claims: Iterable[SequenceClaim], stored: Collection[Owner]
) -> None:
    """Writes rows.

    Args:
        transaction: The open transaction.
        claims: The rows.
        stored: The owners that have a row.
    """
    rows = sorted(claims, key=lambda claim: claim.owner)
    new = [_values(claim) for claim in rows if claim.owner not in stored]
    if new:
        transaction.execute(_INSERT, new)
    changed = [_changed(_values(claim)) for claim in rows if claim.owner in stored]
    if changed:
        transaction.execute(_UPDATE, changed)


def ended_limit_waits(
    connection: Connection, waits: Mapping[SequenceWait, Assignment]
) -> list[SequenceLimitOutcome]:
    """Returns how waits have ended, of those that have.

    Args:
        connection: The connection.
        waits: The waits, each with the assignment of its request.
    """
    found: dict[Owner, SequenceClaim] = {}
    # A runner asks again and again about all that waits, so the database leaves out what still does.
    for some in in_chunks(sorted({wait.owner for wait in waits})):
        found |= _stored(connection, and_(is_owned(sequence_claims, some), sequence_claims.c.error != ""))
        if holders := _holders(connection, some):
            found |= _stored(connection, is_owned(sequence_claims, holders))
    outcomes = []
    for wait, assignment in waits.items():
        claim = found.get(wait.owner)
        if claim is not None and claim.epoch == assignment.epoch and wait.number in (0, claim.number):
            outcomes.append(claim.outcome(assignment))
    return outcomes


def _holders(connection: Connection, owners: Collection[Owner]) -> set[Owner]:
    """Returns which of some owners hold their keys."""
    query = select(limit_claims.c.request_id, limit_claims.c.sequence_id).where(
        is_owned(limit_claims, owners), limit_claims.c.held_at.is_not(None)
    )
    return {Owner(row.request_id, row.sequence_id) for row in connection.execute(query)}


def _values(claim: SequenceClaim) -> dict[str, Any]:
    return {
        "request_id": claim.owner.request_id,
        "sequence_id": claim.owner.sequence_id,
        "epoch": claim.epoch,
        "number": claim.number,
        "body": encode(claim.change) if claim.owner.sequence_id else b"",
        "reason": claim.reason,
        "error": claim.error,
    }


def _changed(values: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {f"new_{name}": value for name, value in values.items()}
    parameters["of_request"] = parameters.pop("new_request_id")
    parameters["of_sequence"] = parameters.pop("new_sequence_id")
    return parameters
