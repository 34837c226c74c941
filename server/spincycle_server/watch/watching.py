"""Opens streams of changes: checks what is asked, who asks, and whether there is room."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from spincycle_grpc.errors import InvalidArgumentError, ResourceExhaustedError
from spincycle_grpc.v1.request_manager_pb2 import WatchRequest, WatchReset, WatchResponse
from spincycle_server.identity import Identity
from spincycle_server.identity.permissions import Permissions
from spincycle_server.store.positions import Position
from spincycle_server.telemetry.limits import WATCHERS, LimitUse
from spincycle_server.watch.cursor import Cursor, read_cursor, scope_of
from spincycle_server.watch.expiry import usable
from spincycle_server.watch.filter_stream import FilterStream
from spincycle_server.watch.hub import Hub
from spincycle_server.watch.request_stream import Answer, RequestStream
from spincycle_server.watch.viewer import Viewer

if TYPE_CHECKING:
    from spincycle_server.store import Store


class Watching:
    """The watchers of this Request Manager.

    Args:
        store: The database.
        hub: Brings the changes.
        permissions: Decides what callers may see.
        max_watchers: The maximum number of open streams.
    """

    def __init__(self, store: Store, hub: Hub, permissions: Permissions, *, max_watchers: int) -> None:
        self._store = store
        self._hub = hub
        self._permissions = permissions
        self._max_watchers = max_watchers
        self._watchers = 0

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limit and the number of watchers."""
        return (LimitUse(WATCHERS, self._max_watchers, self._watchers),)

    async def watch(self, request: WatchRequest, identity: Identity) -> AsyncGenerator[Answer, None]:
        """Yields the messages of a stream.

        Raises:
            InvalidArgumentError: The cursor or the filter is invalid. Reasons: BAD_CURSOR, BAD_FILTER.
            NotFoundError: The request does not exist. Reason: REQUEST_NOT_FOUND.
            PermissionDeniedError: The caller may not view the request. Reason: ACCESS_DENIED.
            ResourceExhaustedError: There are too many watchers, or this one is too slow. Reasons:
                TOO_MANY_WATCHERS, WATCHER_TOO_SLOW.
            UnavailableError: The database cannot be used now.
        """
        if self._watchers >= self._max_watchers:
            raise ResourceExhaustedError(
                f"the limit of {self._max_watchers} watchers is reached: watch on another Request Manager, "
                "or try again later",
                reason="TOO_MANY_WATCHERS",
            )
        self._watchers += 1
        try:
            viewer = Viewer(self._permissions, identity)
            messages = self._of_request if request.request_id else self._of_filter
            async with contextlib.aclosing(messages(request, viewer)) as stream:
                async for message in stream:
                    yield message
        finally:
            self._watchers -= 1

    async def _of_request(self, request: WatchRequest, viewer: Viewer) -> AsyncGenerator[Answer, None]:
        if request.filter.ByteSize():
            raise InvalidArgumentError(
                "a watch is of one request or of a filter: set only one of them",
                reason="BAD_FILTER",
                field="filter",
            )
        request_id = request.request_id
        empty = Cursor(scope_of("request", request_id), None)
        cursor = read_cursor(request.cursor, empty.scope) if request.cursor else empty
        cursor, reset = _checked(cursor, empty, await self._hub.position())
        if cursor.position is not None and not await self._store.stamped_requests([request_id]):
            yield WatchResponse(cursor=cursor.text(), gone=[request_id])
            return
        with_args = await self._store.get_request(request_id, with_job_chain=False)
        await viewer.check(with_args)
        if cursor.has_ended:
            return
        if reset:
            yield reset
        stream = RequestStream(
            self._store,
            self._hub,
            viewer,
            request_id=request_id,
            request_type=with_args.type,
            cursor=cursor,
        )
        async with contextlib.aclosing(stream.messages()) as messages:
            async for message in messages:
                yield message

    async def _of_filter(self, request: WatchRequest, viewer: Viewer) -> AsyncGenerator[Answer, None]:
        wanted = request.filter
        empty = Cursor(scope_of("filter", wanted.SerializeToString(deterministic=True)), None)
        cursor = read_cursor(request.cursor, empty.scope) if request.cursor else empty
        stream = FilterStream(self._store, self._hub, viewer, wanted, cursor)
        now = await self._hub.position()
        cursor, reset = _checked(cursor, empty, now)
        stream = FilterStream(self._store, self._hub, viewer, wanted, cursor)
        if not await stream.can_resume():
            reset = _reset(empty, "too much has changed since the cursor")
            stream = FilterStream(self._store, self._hub, viewer, wanted, empty)
        if reset:
            yield reset
        async with contextlib.aclosing(stream.messages(now)) as messages:
            async for message in messages:
                yield message


def _checked(cursor: Cursor, empty: Cursor, now: Position) -> tuple[Cursor, WatchResponse | None]:
    """Returns a cursor that can be used, and the first message if the caller's cursor cannot."""
    positions = [None if one is None else usable(one, now) for one in (cursor.position, cursor.target)]
    for given, used in zip((cursor.position, cursor.target), positions, strict=True):
        if given is not None and used is None:
            return empty, _reset(empty, "the cursor is too old, or comes from another database")
    position, target = positions
    return replace(cursor, position=position, target=target), None


def _reset(empty: Cursor, why: str) -> WatchResponse:
    return WatchResponse(
        cursor=empty.text(),
        reset=WatchReset(
            reason="CURSOR_EXPIRED", message=f"{why}: forget earlier messages, the current state follows"
        ),
    )
