"""The stream of a filter: the newest matching requests, then the changes of all that match."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence

from spincycle_grpc.errors import ResourceExhaustedError
from spincycle_grpc.state import FINAL_STATES
from spincycle_grpc.v1.request_manager_pb2 import WatchResponse
from spincycle_grpc.v1.request_pb2 import Request, RequestFilter
from spincycle_server.shared_messages import SharedMessage
from spincycle_server.store import Store
from spincycle_server.store.changes import DeletedRequest, Try, TryKey
from spincycle_server.store.positions import Position, Span
from spincycle_server.watch.cursor import Cursor
from spincycle_server.watch.filters import DEFAULT_LIMIT, Matching
from spincycle_server.watch.heartbeat import Heartbeat
from spincycle_server.watch.hub import Hub
from spincycle_server.watch.news import News
from spincycle_server.watch.pieces import RequestChange, end_of, pieces_of
from spincycle_server.watch.request_stream import PAGE, Answer
from spincycle_server.watch.subscription import Subscription
from spincycle_server.watch.viewer import Viewer

MAX_CHANGED = 100_000
"""The maximum number of changed requests that a stream reads to resume. With more, it begins again."""

_REQUESTS_AT_ONCE = 200

_AFTER_IDS = "~"
"""A sign that sorts after those of request ids."""


class FilterStream:
    """The stream of one watcher.

    Args:
        store: The database.
        hub: Brings the changes.
        viewer: The caller.
        wanted: The filter.
        cursor: Where to begin.

    Raises:
        InvalidArgumentError: The filter is malformed. Reason: BAD_FILTER.
    """

    def __init__(self, store: Store, hub: Hub, viewer: Viewer, wanted: RequestFilter, cursor: Cursor) -> None:
        self._store = store
        self._hub = hub
        self._viewer = viewer
        self._wanted = wanted
        self._matching = Matching(wanted)
        self._key = wanted.SerializeToString(deterministic=True)
        self._scope = cursor.scope
        self._position = cursor.position
        self._target = cursor.target
        self._last = cursor.last
        self._needs_snapshot = cursor.position is None or cursor.needs_snapshot
        self._changed: list[str] | None = None  # the requests that have changed since the cursor
        self._subscription: Subscription[News] = Subscription(args=self._matching.args)
        self._heartbeat = Heartbeat()

    async def can_resume(self) -> bool:
        """Whether so little has changed since the cursor that the changes can be sent."""
        if self._position is not None:
            self._changed = await self._store.changed_ids(self._position, MAX_CHANGED)
        return self._position is None or self._changed is not None

    async def messages(self, now: Position) -> AsyncGenerator[Answer, None]:
        """Yields the messages. They have no end.

        Args:
            now: The position now.
        """
        if self._position is None:
            self._position = now
        async for message in self._catch_up(self._target or now, self._last):
            yield message
        if self._needs_snapshot:
            async for message in self._snapshot():
                yield message
        target = await self._hub.position()
        async for message in self._catch_up(target, None):
            yield message
        try:
            target = await self._hub.subscribe_to_filter(self._subscription)
            async for message in self._catch_up(target, None):
                yield message
            while True:
                async for answer in self._next_messages():
                    yield answer
                    self._heartbeat.sent()
        finally:
            self._hub.unsubscribe_from_filter(self._subscription)

    async def _snapshot(self) -> AsyncIterator[WatchResponse]:
        """Yields the newest matching requests."""
        wanted = RequestFilter()
        wanted.CopyFrom(self._wanted)
        wanted.limit = wanted.limit or DEFAULT_LIMIT
        visible = self._viewer.visible_types()
        found = await self._store.find_requests(wanted, only_types=visible.only, hidden_types=visible.hidden)
        found = await self._without_later_ends(found)
        *pieces, rest = pieces_of(
            [RequestChange("", (), None), *(RequestChange("", (), one) for one in found)]
        )
        for piece in pieces:
            yield WatchResponse(cursor=self._cursor(None, None), requests=piece.requests)
        self._needs_snapshot = False
        yield WatchResponse(cursor=self._cursor(None, None), requests=rest.requests, snapshot_complete=True)

    async def _without_later_ends(self, found: Sequence[Request]) -> list[Request]:
        """Leaves out requests that ended after the position: their last tries come first, as changes."""
        assert self._position is not None  # noqa: S101 (set before)
        ended = [request.id for request in found if request.state in FINAL_STATES]
        stamped = await self._store.stamped_requests(ended)
        later = {request_id for request_id, one in stamped.items() if not self._position.has(one.stamp)}
        return [request for request in found if request.id not in later]

    async def _next_messages(self) -> AsyncIterator[Answer]:
        news = await self._subscription.next(self._heartbeat.rest)
        if news is None:
            self._position = self._hub.now()
            yield WatchResponse(cursor=self._cursor(None, None))
        elif not news.is_complete:
            async for message in self._catch_up(news.position, None):
                yield message
        else:
            for answer in self._messages_of(news):
                yield answer

    def _messages_of(self, news: News) -> Sequence[Answer]:
        """Returns the messages of news. Watchers of the same filter who may see everything share them."""
        is_shared = not self._viewer.is_restricted
        if is_shared and self._key in news.shared:
            self._position = news.position
            return news.shared[self._key]
        changes = self._changes({**news.others, **news.requests}, news.requests, news.tries, news.args)
        messages = [*self._messages(changes, news.position), *self._gone(news.deleted)]
        self._position = news.position
        if messages:  # The last one completes the news.
            messages[-1].cursor = self._cursor(None, None)
        if not is_shared or len(messages) > 1:  # The cursors of earlier ones have this watcher's position.
            return messages
        shared = news.shared[self._key] = [SharedMessage(message) for message in messages]
        return shared

    async def _catch_up(self, target: Position, last: TryKey | None) -> AsyncIterator[WatchResponse]:
        """Yields what has changed up to a position, from the database."""
        assert self._position is not None  # noqa: S101 (set before)
        ids, self._changed = self._changed, None  # They are the changes up to the first target only.
        spans = target.spans_since(self._position)
        if not spans:
            self._position = target
            return
        if ids is None:
            ids = await self._store.changed_ids(self._position, MAX_CHANGED)
        if ids is None:
            raise ResourceExhaustedError(
                f"more than {MAX_CHANGED} requests changed before this watcher read them: "
                "watch again with the cursor of the last message",
                reason="WATCHER_TOO_SLOW",
            )
        if last is not None:
            ids = [request_id for request_id in ids if request_id >= last.request_id]
        for start in range(0, len(ids), _REQUESTS_AT_ONCE):
            some = ids[start : start + _REQUESTS_AT_ONCE]
            async for message in self._catch_up_some(some, target, last):
                yield message
        if target.deletes_since(self._position):
            async for message in self._catch_up_deleted(spans, target, last):
                yield message
        self._position = target

    async def _catch_up_deleted(
        self, spans: Sequence[Span], target: Position, last: TryKey | None
    ) -> AsyncIterator[WatchResponse]:
        """Yields the ids of deleted requests. Cursors have the last one after a sign above those of ids."""
        is_among = last is not None and last.request_id.startswith(_AFTER_IDS)
        after = last.request_id.removeprefix(_AFTER_IDS) if last is not None and is_among else ""
        while deleted := await self._store.deleted_in(spans, after, PAGE):
            after = deleted[-1].request_id
            for message in self._gone(deleted):
                message.cursor = self._cursor(target, end_of(_AFTER_IDS + after))
                yield message

    async def _catch_up_some(
        self, ids: Sequence[str], target: Position, last: TryKey | None
    ) -> AsyncIterator[WatchResponse]:
        assert self._position is not None  # noqa: S101 (set before)
        spans = target.spans_since(self._position)
        found = await self._store.stamped_requests(ids)
        args = await self._store.args_of(ids, self._matching.args) if self._matching.args else {}
        known = {request_id: one.request for request_id, one in found.items()}
        states = {request_id: one.request for request_id, one in found.items() if target.has(one.stamp)}
        left = [request_id for request_id in ids if self._is_for_viewer(known.get(request_id), args)]
        while left:
            tries = await self._store.tries_after(left, spans, last, PAGE)
            if len(tries) == PAGE:
                last = tries[-1].key
                done = [request_id for request_id in left if request_id < last.request_id]
                left = left[len(done) :]
            else:
                done, left = left, []
            reached = {request_id: states[request_id] for request_id in done if request_id in states}
            for message in self._messages(
                self._changes(known, reached, tries, args), target, last if left else None
            ):
                yield message

    def _changes(
        self,
        known: Mapping[str, Request],
        states: Mapping[str, Request],
        tries: Iterable[Try],
        args: Mapping[str, Mapping[str, str]],
    ) -> list[RequestChange]:
        """Returns the changes of the requests that the watcher gets, sorted by request id.

        Args:
            known: All changed requests, by id.
            states: Those whose state is sent.
            tries: The finished tries, in order.
            args: Args of the requests.
        """
        by_request: defaultdict[str, list[Try]] = defaultdict(list)
        for one in tries:
            by_request[one.key.request_id].append(one)
        changes = []
        for request_id in sorted(by_request.keys() | states.keys()):
            request = known.get(request_id)
            if request is not None and self._is_for_viewer(request, args):
                may_see_log = self._viewer.may_see_log(request.type)
                shown = by_request[request_id] if may_see_log else []
                changes.append(RequestChange(request_id, shown, states.get(request_id)))
        return changes

    def _is_for_viewer(self, request: Request | None, args: Mapping[str, Mapping[str, str]]) -> bool:
        return (
            request is not None
            and self._matching.matches(request, args.get(request.id, {}))
            and self._viewer.may_view(request.type)
        )

    def _messages(
        self, changes: Sequence[RequestChange], target: Position, last: TryKey | None = None
    ) -> Iterator[WatchResponse]:
        """Yields messages. `last` is the place after them, if a request has more tries."""
        pieces = list(pieces_of(changes))
        if pieces and last is not None:
            pieces[-1].last = last
        for piece in pieces:
            if piece.tries or piece.requests:
                yield WatchResponse(
                    cursor=self._cursor(target, piece.last), tries=piece.tries, requests=piece.requests
                )

    def _gone(self, deleted: Iterable[DeletedRequest]) -> Iterator[WatchResponse]:
        gone = [
            one.request_id
            for one in deleted
            if self._matching.may_match(one.type, one.user) and self._viewer.may_view(one.type)
        ]
        if gone:
            yield WatchResponse(gone=gone)

    def _cursor(self, target: Position | None, last: TryKey | None) -> str:
        return Cursor(self._scope, self._position, target, last, self._needs_snapshot).text()
