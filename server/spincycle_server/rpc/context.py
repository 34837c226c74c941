"""Who calls a method, and how. gRPC and HTTP calls have the same context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spincycle_grpc.auth import Caller


@dataclass(frozen=True, slots=True)
class CallContext:
    """The context of one call.

    Attributes:
        caller: Who calls.
        transport: "grpc" or "http", for the log.
        metadata: Headers, by names in lower case.
        peer: The caller's address, for the log.
        is_throttled: Whether the call waits its turn if many calls arrive together. The gRPC library already
            queues its calls, so only HTTP calls are throttled.
    """

    caller: Caller = field(default_factory=Caller)
    transport: str = "grpc"
    metadata: Mapping[str, str] = field(default_factory=dict)
    peer: str = ""
    is_throttled: bool = False
