"""Reads the bodies of requests, within limits of size, memory and time."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from google.protobuf.message import Message

from spincycle_grpc.errors import ResourceExhaustedError
from spincycle_grpc.wire import decode_into
from spincycle_server.gateway.answers import CLOSE
from spincycle_server.gateway.content_coding import decoded
from spincycle_server.gateway.errors import HttpError
from spincycle_server.gateway.json_counting import check_json
from spincycle_server.gateway.time_limits import TimeLimit, TimeLimited
from spincycle_server.large_work import LARGE, check_large_room, run_large
from spincycle_server.rpc import InputLimits
from spincycle_server.rpc.body_budget import BodyShare

Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
"""ASGI's receive: it returns the next event of a request."""

SERVERS_SHARE = 10
"""How many times as many values as a user's body the body of another server may have: it carries a chain.

Most values of a chain are names, of which few are different, so they cost less than those of a user."""


_NO_LIMIT = contextlib.nullcontext()


class RequestBodies:
    """Reads JSON bodies into requests.

    Args:
        limits: The limits of bodies.
        timeout: Seconds within which a body must arrive.
        on_refused: Called with the error if there is no room for a body.
    """

    def __init__(
        self,
        limits: InputLimits,
        *,
        timeout: float,
        on_refused: Callable[[ResourceExhaustedError], None],
    ) -> None:
        self._max_body = limits.max_body
        self._max_values = limits.max_values
        self._budget = limits.bodies
        self._time_limit = TimeLimit(timeout)
        self._on_refused = on_refused

    async def read_into(
        self,
        request: Message,
        field: str,
        metadata: Mapping[str, str],
        receive: Receive,
        *,
        has_arrived: bool = False,
        is_of_server: bool = False,
    ) -> int:
        """Reads a body into a request. Returns the size of the body in bytes, decompressed.

        Args:
            request: The request.
            field: The field of the request that the body sets; "*" if the body is the whole request.
            metadata: The headers, by names in lower case.
            receive: ASGI's receive.
            has_arrived: Whether the whole body is here, so that its time needs no limit.
            is_of_server: Whether another server sends the body.

        Raises:
            HttpError: 400 if the client is gone, 408, 413, 415, and the errors of `decoded`.
            ResourceExhaustedError: There is no room for the body, or too many large bodies wait to be parsed.
                Reasons: TOO_MANY_BODIES, TOO_MANY_LARGE_MESSAGES.
            InvalidArgumentError: The body is not the JSON of the request, or exceeds a limit of `check_json`.
        """
        content_type = metadata.get("content-type", "")
        if content_type.partition(";")[0].strip().lower() != "application/json":
            raise HttpError(415, "Unsupported Media Type")
        length = metadata.get("content-length", "")
        if length.isdigit() and int(length) > self._max_body:
            raise self._too_large()
        max_values = self._max_values * (SERVERS_SHARE if is_of_server else 1)
        try:
            with self._budget.share() as share:
                with _NO_LIMIT if has_arrived else TimeLimited(self._time_limit):
                    data = await self._sent_body(receive, share)
                if "content-encoding" in metadata:
                    data = await decoded(data, metadata["content-encoding"], self._max_body, share)
                if len(data) > LARGE:
                    check_large_room()
                    share.hold(max(share.size, len(data)))
                    await run_large(_parse, request, data, field, max_values)
                elif data:
                    _parse(request, data, field, max_values)
                return len(data)
        except TimeoutError as error:
            raise HttpError(408, "Request Timeout", [CLOSE]) from error
        except ResourceExhaustedError as error:
            self._on_refused(error)
            raise

    async def _sent_body(self, receive: Receive, share: BodyShare) -> bytes:
        """Returns the body as the client sent it.

        The share does not count the last part.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise HttpError(400, "Bad Request")
            part: bytes = event.get("body", b"")
            size += len(part)
            if size > self._max_body:
                raise self._too_large()
            parts.append(part)
            if not event.get("more_body"):
                return parts[0] if len(parts) == 1 else b"".join(parts)
            share.hold(size)

    def _too_large(self) -> HttpError:
        return HttpError(413, f"Request Entity Too Large: at most {self._max_body} bytes", [CLOSE])


def _parse(request: Message, data: bytes, field: str, max_values: int) -> None:
    check_json(data, max_values)
    decode_into(request, data, "" if field == "*" else field)
