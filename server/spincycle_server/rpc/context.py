"""Who calls a method, and how. gRPC and HTTP calls have the same context."""

from __future__ import annotations

from typing import NamedTuple

from spincycle_grpc.auth import Caller
from spincycle_server.identity import ANONYMOUS, Credentials, Identity

_NO_CREDENTIALS = Credentials()


class CallContext(NamedTuple):  # Each call makes one, and a frozen dataclass takes four times as long.
    """The context of one call.

    Attributes:
        identity: Who calls. ANONYMOUS until the method table has identified the caller.
        transport: "grpc" or "http", for the log.
        credentials: What the caller presents: headers, address and certificate.
        is_throttled: Whether the call waits its turn if many calls arrive together. The gRPC library already
            queues its calls, so only HTTP calls are throttled.
    """

    identity: Identity = ANONYMOUS
    transport: str = "grpc"
    credentials: Credentials = _NO_CREDENTIALS
    is_throttled: bool = False

    @property
    def caller(self) -> Caller:
        """The caller's name and roles."""
        return self.identity.caller

    @property
    def peer(self) -> str:
        """The caller's address."""
        return self.credentials.peer
