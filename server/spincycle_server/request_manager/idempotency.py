"""Creating a request once: what makes two calls the same, and what the later one is answered."""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.state import State
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.store import IdempotencyKey

_KEY = re.compile(r"[ -~]{1,255}")


def key_of(request: CreateRequest, args: Mapping[str, object], caller: str) -> IdempotencyKey | None:
    """Returns the key that a request is to be made under; None where the caller gave none.

    Two calls are the same when type, user and args are, however the args are ordered.

    Args:
        request: What the caller asks for.
        args: Its args.
        caller: The name of the caller.

    Raises:
        InvalidArgumentError: The key is none that can be used. The message does not show it.
    """
    if not request.HasField("idempotency_key"):
        return None
    if _KEY.fullmatch(request.idempotency_key) is None:
        raise InvalidArgumentError(
            "the idempotency key must be 1 to 255 printable ASCII characters", reason="BAD_IDEMPOTENCY_KEY"
        )
    body = orjson.dumps([request.type, request.user, args], option=orjson.OPT_SORT_KEYS)
    return IdempotencyKey.of(caller, request.idempotency_key, body)


def as_made(request: Request) -> Request:
    """Returns a stored request as the answer to its first call showed it, whatever became of it since."""
    made = Request()
    made.CopyFrom(request)
    made.state = State.PENDING  # type: ignore[assignment]
    for field in ("started_at", "finished_at", "finished_jobs", "job_runner_url"):
        made.ClearField(field)
    return made
