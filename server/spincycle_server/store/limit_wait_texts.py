"""What users see of a wait for the key of a limit, as a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spincycle_grpc.job_paths import path_text
from spincycle_server.store.limit_fronts import Front
from spincycle_server.store.limit_holders import name_of
from spincycle_server.store.limit_rows import Owner
from spincycle_server.utc_text import utc_text


def wait_text(row: Any, front: Front | None, paths: Mapping[Owner, Sequence[str]]) -> str:
    """Returns what a claim waits for, as a sentence.

    Args:
        row: The claim, with its key and the maximum of the key.
        front: Those that hold the key or may hold it; None if there are none.
        paths: The paths of the claim's sequence, and of the owner that the front names.
    """
    path = path_text(paths.get(Owner(row.request_id, row.sequence_id), ()))
    whose = f" for its sequence {path}" if path else ""
    who = _who(row.request_id, front, paths) if front else "it is next"
    return f"waits for the limit {row.key} of {row.max}{whose} since {utc_text(row.claimed_at)}: {who}"


def _who(request_id: str, front: Front, paths: Mapping[Owner, Sequence[str]]) -> str:
    """Returns who keeps a request from a key."""
    name = name_of(request_id, front.named, paths)
    holders = front.requests + front.sequences
    if not holders:
        return f"{name} is before it"
    if holders == 1:
        return f"{name} holds it"
    return f"{_count(request_id, front)} hold it, the first is {name}"


def _count(request_id: str, front: Front) -> str:
    """Returns how many hold a key: "1 request and 2 sequences", or "3 sequences of this request"."""
    numbers = ((front.requests, "request"), (front.sequences, "sequence"))
    text = " and ".join(f"{number} {noun}{'s' * (number > 1)}" for number, noun in numbers if number)
    are_own = not front.requests and front.only_request == request_id
    return f"{text} of this request" if are_own else text
