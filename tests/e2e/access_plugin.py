"""An authentication plugin that does what the token says, also what no plugin should do."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

from spincycle_grpc import Caller, PeerCertificate, UnauthenticatedError
from spincycle_grpc.v1.request_pb2 import Request


class Plugin:
    """Knows callers by tokens of the form "name:role,role"."""

    async def authenticate(
        self, metadata: Mapping[str, str], peer: str, certificate: PeerCertificate | None
    ) -> Any:
        token = metadata.get("authorization", "").removeprefix("Bearer ")
        name, colon, roles = token.partition(":")
        if colon:
            return Caller(name, frozenset(filter(None, roles.split(","))))
        match token:
            case "s3cret-none":
                return None
            case "s3cret-text":
                return "s3cret-text"
            case "s3cret-roles":
                untyped: Any = Caller
                return untyped("finch", "dba")
            case "s3cret-raise":
                raise KeyError(token)
            case "s3cret-exit":
                sys.exit(token)
            case "s3cret-interrupt":
                raise KeyboardInterrupt(token)
            case "s3cret-cancel":
                raise asyncio.CancelledError(token)
            case "s3cret-hang":
                await asyncio.Event().wait()
        raise UnauthenticatedError("unknown token: log in again", reason="UNKNOWN_TOKEN")

    def authorize(self, caller: Caller, op: str, request: Request) -> Any:
        owners = [arg.value.string_value for arg in request.args if arg.name == "owner"]
        if owners == ["broken"]:
            sys.exit("s3cret-exit")
        return owners == [caller.name] or "s3cret answer" if owners == ["odd"] else owners == [caller.name]
