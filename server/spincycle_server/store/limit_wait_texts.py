"""What users see of a wait for the key of a limit, as a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Connection

from spincycle_grpc.job_paths import path_text
from spincycle_grpc.v1.limit_pb2 import SequenceLimitChange
from spincycle_grpc.wire import decode
from spincycle_server.store.schema import limit_claims, sequence_claims
from spincycle_server.utc_text import utc_text

FIRST_CLAIMS = (
    limit_claims.c.ticket,
    limit_claims.c.request_id,
    limit_claims.c.sequence_id,
    limit_claims.c.held_at,
)
"""The columns of the claims that may hold a key."""


def wait_text(connection: Connection, row: Any, first: Sequence[Any]) -> str:
    """Returns what a claim waits for, as a sentence.

    Args:
        connection: The database.
        row: The claim, with its key, the maximum of the key, and what its sequence has asked.
        first: The claims of the key that hold it or may hold it, in order, with `FIRST_CLAIMS`.
    """
    path = path_text(asked_path(row.body))
    whose = f" for its sequence {path}" if path else ""
    who = _who(connection, row.request_id, first)
    return f"waits for the limit {row.key} of {row.max}{whose} since {utc_text(row.claimed_at)}: {who}"


def asked_path(body: bytes | None) -> Sequence[str]:
    """Returns the path of a sequence from what it has asked; without that, an empty one."""
    return decode(body, SequenceLimitChange).path if body else ()


def _who(connection: Connection, request_id: str, first: Sequence[Any]) -> str:
    """Returns who keeps a request from a key."""
    if not first:
        return "it is next"
    holders = [one for one in first if one.held_at is not None]
    name = _name(connection, request_id, (holders or first)[0])
    if not holders:
        return f"{name} is before it"
    if len(holders) == 1:
        return f"{name} holds it"
    return f"{_count(request_id, holders)} hold it, the first is {name}"


def _name(connection: Connection, request_id: str, claim: Any) -> str:
    """Returns the name of who has a claim, for those who may view a request.

    It has no path of a sequence of another request: they may not be allowed to view that.
    """
    if not claim.sequence_id:
        return f"request {claim.request_id}"
    if claim.request_id != request_id:
        return f"a sequence of request {claim.request_id}"
    asked = select(sequence_claims.c.body).where(
        sequence_claims.c.request_id == request_id, sequence_claims.c.sequence_id == claim.sequence_id
    )
    path = path_text(asked_path(connection.scalar(asked)))
    return f"sequence {path or claim.sequence_id} of this request"


def _count(request_id: str, claims: Sequence[Any]) -> str:
    """Returns how many have some claims: "1 request and 2 sequences", or "3 sequences of this request"."""
    sequences = sum(1 for one in claims if one.sequence_id)
    numbers = ((len(claims) - sequences, "request"), (sequences, "sequence"))
    text = " and ".join(f"{number} {noun}{'s' * (number > 1)}" for number, noun in numbers if number)
    are_own = all(one.sequence_id and one.request_id == request_id for one in claims)
    return f"{text} of this request" if are_own else text
