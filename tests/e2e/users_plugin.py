"""An authentication plugin that knows callers by tokens of the form "name:role,role"."""

from __future__ import annotations

from collections.abc import Mapping

from spincycle_grpc import Caller, UnauthenticatedError


class Plugin:
    """Knows users, and lets the access lists decide what they may do."""

    async def authenticate(self, metadata: Mapping[str, str], peer: str) -> Caller:
        token = metadata.get("authorization", "").removeprefix("Bearer ")
        name, colon, roles = token.partition(":")
        if not colon:
            raise UnauthenticatedError("unknown token: log in again", reason="UNKNOWN_TOKEN")
        return Caller(name, frozenset(filter(None, roles.split(","))))
