"""Storing new requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import insert

from spincycle_grpc.errors import SpinCycleError
from spincycle_server.database.transaction import RowStatement, Transaction
from spincycle_server.store.idempotency_keys import IdempotencyKey, claim_keys
from spincycle_server.store.schema import request_archives, request_args, requests
from spincycle_server.store.write import Write

_INSERT_REQUEST = RowStatement(lambda _: insert(requests))


_INSERT_ARCHIVE = RowStatement(lambda _: insert(request_archives))


_INSERT_ARG = RowStatement(lambda _: insert(request_args))


@dataclass(slots=True)
class CreateRequest(Write):
    """A new request, with its archive and perhaps its assignment. Result: None.

    With an idempotency key, the request is made only if the key has made none.
    """

    order: ClassVar[int] = 100  # Behind all that reads, so that it goes out with what the others change.
    request: Mapping[str, Any]
    archive: Mapping[str, Any]
    args: Sequence[Mapping[str, Any]]
    key: IdempotencyKey | None = None

    @classmethod
    def apply_all(
        cls, transaction: Transaction, writes: Sequence[CreateRequest]
    ) -> Sequence[SpinCycleError | None]:
        """One statement a table, and up to three more if there are keys."""
        results: list[SpinCycleError | None] = [None] * len(writes)
        keyed = [
            (index, (write.key, write.request["request_id"]))
            for index, write in enumerate(writes)
            if write.key is not None
        ]
        if keyed:
            refusals = claim_keys(transaction.connection, [claim for _, claim in keyed])
            for (index, _), refusal in zip(keyed, refusals, strict=True):
                results[index] = refusal
            writes = [write for write, refusal in zip(writes, results, strict=True) if refusal is None]
        if writes:
            cls._insert(transaction, writes)
        return results

    @classmethod
    def _insert(cls, transaction: Transaction, writes: Sequence[CreateRequest]) -> None:
        transaction.change(_INSERT_REQUEST, [write.request for write in writes])
        transaction.change(_INSERT_ARCHIVE, [write.archive for write in writes])
        transaction.change(_INSERT_ARG, [row for write in writes for row in write.args])
