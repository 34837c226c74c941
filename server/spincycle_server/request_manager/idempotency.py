"""Idempotent creation: which calls count as the same, and how a repeated call is answered."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import orjson

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.state import State
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest, RetryRequest
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.store import IdempotencyKey

_KEY = re.compile(r"[ -~]{1,255}")


def key_of(request: CreateRequest, args: Mapping[str, object], caller: str) -> IdempotencyKey | None:
    """Returns the idempotency key of a call; None if it has none.

    Two calls are the same if their type, user and args are equal, in any order of the args.

    Args:
        request: The call.
        args: The args of the call.
        caller: The name of the caller.

    Raises:
        InvalidArgumentError: The key is malformed. The message does not show the key.
            Reason: BAD_IDEMPOTENCY_KEY.
    """
    if not request.HasField("idempotency_key"):
        return None
    body = orjson.dumps([request.type, request.user, args], option=orjson.OPT_SORT_KEYS)
    return _key(request.idempotency_key, caller, body)


def key_of_retry(request: RetryRequest, caller: str) -> IdempotencyKey | None:
    """Returns the idempotency key of a call of Retry; None if it has none.

    Two calls are the same if they retry the same request from the same job.

    Raises:
        InvalidArgumentError: The key is malformed. Reason: BAD_IDEMPOTENCY_KEY.
    """
    if not request.HasField("idempotency_key"):
        return None
    # No body of Create is an object.
    body = orjson.dumps({"retry": request.request_id, "from": request.from_job})
    return _key(request.idempotency_key, caller, body)


def _key(key: str, caller: str, body: bytes) -> IdempotencyKey:
    if _KEY.fullmatch(key) is None:
        raise InvalidArgumentError(
            "the idempotency key must be 1 to 255 printable ASCII characters",
            reason="BAD_IDEMPOTENCY_KEY",
            field="idempotency_key",
        )
    return IdempotencyKey.of(caller, key, body)


_LATER_FIELDS: Final = (
    "started_at",
    "finished_at",
    "finished_jobs",
    "finished_tasks",
    "job_runner_url",
    "waiting",
    "retried_by",
    "ending",
    "stop_reason",
)
"""The fields that a request gets after it is created."""


def as_created(request: Request) -> Request:
    """Returns a stored request as the first call was answered: PENDING, whatever its state is now."""
    created = Request()
    created.CopyFrom(request)
    created.state = State.PENDING  # type: ignore[assignment]
    for field in _LATER_FIELDS:
        created.ClearField(field)
    return created
