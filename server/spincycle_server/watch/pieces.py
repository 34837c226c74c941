"""Splits changes into messages of a bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.store.changes import Try, TryKey

MAX_BYTES = 512 * 1024
"""The size in bytes after which a message is full. One try or request more may make it larger."""

_NO_MORE = 2**62


class RequestChange(NamedTuple):
    """The change of one request.

    Attributes:
        request_id: The request.
        tries: The tries that have finished, in order.
        request: The request now; None if its state is not sent.
    """

    request_id: str
    tries: Sequence[Try]
    request: Request | None


@dataclass(slots=True)
class Piece:
    """The content of one message.

    Attributes:
        tries: Finished tries.
        requests: Requests that have changed.
        last: Everything up to this key is sent with this message.
    """

    tries: list[JobLog] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    last: TryKey | None = None


def end_of(request_id: str) -> TryKey:
    """Returns the key after all tries of a request and its state."""
    return TryKey(request_id, _NO_MORE, _NO_MORE, "", 0)


def pieces_of(changes: Iterable[RequestChange]) -> Iterator[Piece]:
    """Yields changes in pieces. The state of a request comes after its tries.

    Args:
        changes: The changes, sorted by request id.
    """
    piece, size = Piece(), 0
    for change in changes:
        for one in change.tries:
            if size > MAX_BYTES:
                yield piece
                piece, size = Piece(), 0
            piece.tries.append(one.entry)
            piece.last = one.key
            size += one.entry.ByteSize()
        if size > MAX_BYTES:
            yield piece
            piece, size = Piece(), 0
        if change.request is not None:
            piece.requests.append(change.request)
            size += change.request.ByteSize()
        piece.last = end_of(change.request_id)
    if piece.last is not None:
        yield piece
