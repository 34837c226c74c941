"""What users see of a wait for the key of a limit, as a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spincycle_grpc.job_paths import path_text
from spincycle_server.store.limit_holders import FirstClaim, name_of
from spincycle_server.store.limit_rows import Owner
from spincycle_server.utc_text import utc_text


def wait_text(row: Any, first: Sequence[FirstClaim], paths: Mapping[Owner, Sequence[str]]) -> str:
    """Returns what a claim waits for, as a sentence.

    Args:
        row: The claim, with its key and the maximum of the key.
        first: The claims of the key that hold it or may hold it, in order.
        paths: The paths of the claim's sequence, and of the owner that `named_first` returns.
    """
    path = path_text(paths.get(Owner(row.request_id, row.sequence_id), ()))
    whose = f" for its sequence {path}" if path else ""
    who = _who(row.request_id, first, paths)
    return f"waits for the limit {row.key} of {row.max}{whose} since {utc_text(row.claimed_at)}: {who}"


def named_first(first: Sequence[FirstClaim]) -> Owner:
    """Returns who is named of those that keep others from a key: the first holder, or else the first one."""
    return (_holders(first) or first)[0].owner


def _holders(first: Sequence[FirstClaim]) -> list[FirstClaim]:
    return [one for one in first if one.held_at is not None]


def _who(request_id: str, first: Sequence[FirstClaim], paths: Mapping[Owner, Sequence[str]]) -> str:
    """Returns who keeps a request from a key."""
    if not first:
        return "it is next"
    holders = _holders(first)
    name = name_of(request_id, named_first(first), paths)
    if not holders:
        return f"{name} is before it"
    if len(holders) == 1:
        return f"{name} holds it"
    return f"{_count(request_id, holders)} hold it, the first is {name}"


def _count(request_id: str, claims: Sequence[FirstClaim]) -> str:
    """Returns how many have some claims: "1 request and 2 sequences", or "3 sequences of this request"."""
    owners = [one.owner for one in claims]
    sequences = sum(1 for one in owners if one.sequence_id)
    numbers = ((len(owners) - sequences, "request"), (sequences, "sequence"))
    text = " and ".join(f"{number} {noun}{'s' * (number > 1)}" for number, noun in numbers if number)
    are_own = all(one.sequence_id and one.request_id == request_id for one in owners)
    return f"{text} of this request" if are_own else text
