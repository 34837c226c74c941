"""Stores new requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, ClassVar, NamedTuple

from google.protobuf.message import Message
from sqlalchemy import column, insert, table

from spincycle_grpc.errors import InvalidArgumentError, SpinCycleError
from spincycle_grpc.state import State
from spincycle_grpc.v1 import request_manager_pb2
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.v1.limit_pb2 import Limit
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
from spincycle_grpc.wire import JsonTooLongError, encode
from spincycle_server.database.transaction import RowStatement, Transaction
from spincycle_server.store.archived_chains import add_archives
from spincycle_server.store.audit import EventRow, record_events
from spincycle_server.store.idempotency_keys import IdempotencyKey, claim_keys
from spincycle_server.store.limited_creation import with_limits
from spincycle_server.store.rows import arg_rows, microseconds_of
from spincycle_server.store.schema import request_args, requests
from spincycle_server.store.write import Write
from spincycle_server.telemetry.requests import RequestCreated, RequestStarted

MAX_JSON = 8 * 1024 * 1024
"""The maximum size in bytes of a request's args as JSON. Escapes can make it six times as long.

The args are stored twice. While the database writes them, creates of other callers wait.
"""

_SELDOM = (
    "finished_at",
    "is_suspect",
    "paused_at",
    "paused_by",
    "pause_now",
    "retry_of",
    "has_limits",
    "has_finally",
    "ending",
    "skip_finally",
    "stop_reason",
    "trace_context",
)
"""The columns that are NULL in the rows of nearly all new requests. Their default is NULL."""

_MOST_COLUMNS = table(
    requests.name, *(column(one.name, one.type) for one in requests.c if one.name not in _SELDOM)
)
_INSERT_REQUEST = RowStatement(lambda _: insert(requests))
_INSERT_SHORT = RowStatement(lambda _: insert(_MOST_COLUMNS))
_seldom_of = itemgetter(*_SELDOM)
_ALL_NULL = (None,) * len(_SELDOM)


_INSERT_ARG = RowStatement(lambda _: insert(request_args))


class Created(NamedTuple):
    """What became of a new request.

    Attributes:
        assignment: Its assignment, with epoch 1; None without a runner, or if it has limits.
        waits_for_limit: Whether it waits for one of its limits.
    """

    assignment: Assignment | None
    waits_for_limit: bool = False


@dataclass(slots=True)
class CreateRequest(Write):
    """Stores a new request with its archive and args, and with its assignment if it has one.

    Result: whether it waits for one of its limits; None if it has none.

    If the request has an idempotency key that created another request, the result is a ConflictError. If it
    has limits, see `limited_creation`.
    """

    order: ClassVar[int] = 100  # After all reads, so that it is sent together with the other changes.
    request: dict[str, Any]
    archive: Mapping[str, Any]
    args: Sequence[Mapping[str, Any]]
    key: IdempotencyKey | None = None
    event: EventRow | None = None
    limits: Sequence[Limit] = ()
    requirement_id: str = ""
    may_wait: bool = True

    @property
    def request_ids(self) -> Iterable[str]:
        """The new request."""
        return (self.request["request_id"],)

    @classmethod
    def apply_all(
        cls, transaction: Transaction, writes: Sequence[CreateRequest]
    ) -> Sequence[SpinCycleError | bool | None]:
        """Runs one statement per table, and at least three more if there are keys."""
        results: list[SpinCycleError | None] = [None] * len(writes)
        keyed = [
            (index, (write.key, write.request["request_id"]))
            for index, write in enumerate(writes)
            if write.key is not None
        ]
        if keyed:
            refusals = claim_keys(transaction, [claim for _, claim in keyed])
            for (index, _), refusal in zip(keyed, refusals, strict=True):
                results[index] = refusal
        left = [write for write, refusal in zip(writes, results, strict=True) if refusal is None]
        cls.insert(transaction, [write for write in left if not write.limits])
        limited = [write for write in left if write.limits]
        return with_limits(transaction, limited, writes, results) if limited else results

    @classmethod
    def insert(cls, transaction: Transaction, writes: Sequence[CreateRequest]) -> None:
        """Inserts the rows of requests."""
        short: list[dict[str, Any]] = []
        full: list[dict[str, Any]] = []
        for write in writes:
            row = write.request
            (short if _seldom_of(row) == _ALL_NULL else full).append(row)
            row["change_stamp"] = transaction.stamp
            transaction.events.append(RequestCreated(row["type"]))
            if row["started_at"] is not None:
                waited = (row["started_at"] - row["created_at"]) / 1e6
                transaction.events.append(RequestStarted(row["type"], waited))
        transaction.change(_INSERT_SHORT, short)
        transaction.change(_INSERT_REQUEST, full)
        add_archives(transaction, [write.archive for write in writes])
        transaction.change(_INSERT_ARG, [row for write in writes for row in write.args])
        record_events(transaction, [write.event for write in writes if write.event is not None])


def creation_of(
    request: Request,
    create_request: request_manager_pb2.CreateRequest,
    job_chain: JobChain,
    runner: RunnerInfo | None,
    key: IdempotencyKey | None,
    *,
    now: int,
    chain_json: Callable[[], bytes] | None = None,
    event: EventRow | None = None,
    requirement_id: str = "",
    may_wait: bool = True,
    has_finally: bool = False,
) -> CreateRequest:
    """Returns the write that stores a new request.

    Args:
        request: The request, PENDING.
        create_request: The message that asked for it.
        job_chain: Its chain as created.
        runner: The runner to assign it to; None if the request waits.
        key: Its idempotency key, if it has one.
        now: The time in microseconds since the Unix epoch.
        chain_json: Returns the JSON of the chain; None to encode it.
        event: Its audit event, if it has one.
        requirement_id: The id of what it needs of a runner, which is stored; "" to derive that later.
        may_wait: Whether it may wait for the keys of its limits.
        has_finally: Whether its chain has `finally` parts.
    """
    if job_chain.limits:  # It must hold their keys first.
        runner = None
    created_at = microseconds_of(request.created_at)
    row = {
        "request_id": request.id,
        "type": request.type,
        "state": State.PENDING if runner is None else State.RUNNING,
        "user": request.user or None,
        "created_at": created_at,
        "started_at": None if runner is None else max(created_at, now),
        "finished_at": None,
        "total_jobs": request.total_jobs,
        "finished_jobs": job_chain.finished_jobs,
        "total_tasks": request.total_tasks or None,
        "finished_tasks": request.finished_tasks,
        "jr_url": None if runner is None else runner.url,
        "epoch": 0 if runner is None else 1,
        "runner_id": None if runner is None else runner.runner_id,
        "stop_requested": False,
        "requirement": requirement_id,
        "is_suspect": None,
        "paused_at": None,
        "paused_by": None,
        "pause_now": None,
        "change_stamp": None,  # until the transaction is known
        "retry_of": request.retry_of or None,
        "has_limits": None,
        "has_finally": True if has_finally else None,
        "ending": None,
        "skip_finally": None,
        "stop_reason": None,
        "trace_context": f"{job_chain.traceparent} {job_chain.tracestate}".strip() or None,
    }
    archive = {
        "request_id": request.id,
        "create_request": _json(create_request),
        "args": _json(request, "args"),  # Never null: the column of an original may refuse null.
        "job_chain": encode(job_chain) if chain_json is None else chain_json(),
    }
    return CreateRequest(
        row,
        archive,
        arg_rows(request.id, created_at, request.args),
        key,
        event,
        [*job_chain.limits],
        requirement_id,
        may_wait,
    )


def _json(message: Message, field: str = "") -> bytes:
    """Returns the JSON of a message with args. It stops at the limit: the JSON could have 100 MB."""
    try:
        return encode(message, field, longest=MAX_JSON)
    except JsonTooLongError as error:
        raise InvalidArgumentError(
            f"the args have more than {MAX_JSON} bytes as JSON, which is the most that can be stored: "
            "pass less, or pass the name of a file",
            reason="TOO_LARGE_TO_STORE",
        ) from error
