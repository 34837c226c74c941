"""Who calls a method, and under what circumstances: the same for gRPC and HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. Without authentication nobody in particular: no name and no roles."""

    name: str = ""
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class CallContext:
    """The circumstances of one call.

    Attributes:
        caller: Who calls.
        transport: "grpc" or "http".
        metadata: Headers, their names in lower case.
        peer: The caller's address, for the log.
    """

    caller: Caller = Caller()
    transport: str = "grpc"
    metadata: Mapping[str, str] = field(default_factory=dict)
    peer: str = ""


class Authenticator(Protocol):
    """Finds out who calls."""

    async def authenticate(self, metadata: Mapping[str, str], peer: str) -> Caller:
        """Returns the caller.

        Raises:
            UnauthenticatedError: The server cannot tell, and has to know.
        """
        ...


class Everybody:
    """The authenticator that asks for nothing: all callers are nobody in particular."""

    async def authenticate(self, metadata: Mapping[str, str], peer: str) -> Caller:
        """Returns the caller without name and roles."""
        return _NOBODY


_NOBODY = Caller()
