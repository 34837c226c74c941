"""What the hub tells the watchers of a filter after a round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.shared_messages import SharedMessage
from spincycle_server.store.changes import DeletedRequest, Try
from spincycle_server.store.positions import Position


@dataclass(frozen=True, slots=True)
class News:
    """Changes of requests. Many watchers get the same object.

    Attributes:
        position: All changes up to here are in this news or in earlier ones.
        requests: The requests that have changed.
        tries: The finished tries, in order.
        others: Further requests with tries in `tries`, by id.
        args: Args of the requests by request and name, if a watcher filters by args.
        deleted: The requests that were deleted.
        is_complete: Whether these are all changes. Otherwise the watcher reads them itself.
        shared: The messages for watchers of the same filter who may see everything, by the filter.
    """

    is_repeated: ClassVar[bool] = False

    position: Position
    requests: Mapping[str, Request] = field(default_factory=dict)
    tries: Sequence[Try] = ()
    others: Mapping[str, Request] = field(default_factory=dict)
    args: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    deleted: Sequence[DeletedRequest] = ()
    is_complete: bool = True
    shared: dict[bytes, Sequence[SharedMessage]] = field(default_factory=dict, compare=False)
