"""The stream of one request: its state and tries, then their changes until it has ended."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from typing import TypeAlias

from spincycle_grpc.state import FINAL_STATES
from spincycle_grpc.v1.request_manager_pb2 import WatchResponse
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.shared_messages import SharedMessage
from spincycle_server.store import Store
from spincycle_server.store.changes import StampedRequest, Try, TryKey
from spincycle_server.store.positions import Position
from spincycle_server.watch import pieces
from spincycle_server.watch.cursor import Cursor
from spincycle_server.watch.heartbeat import Heartbeat
from spincycle_server.watch.hub import Hub
from spincycle_server.watch.pieces import RequestChange, pieces_of
from spincycle_server.watch.request_news import RequestNews
from spincycle_server.watch.subscription import Subscription
from spincycle_server.watch.viewer import Viewer

Answer: TypeAlias = WatchResponse | SharedMessage

PAGE = 2500
"""The maximum number of tries that one read returns."""


class RequestStream:
    """The stream of one watcher.

    Args:
        store: The database.
        hub: Brings the changes.
        viewer: The caller.
        request_id: The request.
        request_type: Its type.
        cursor: Where to begin.
    """

    def __init__(
        self, store: Store, hub: Hub, viewer: Viewer, *, request_id: str, request_type: str, cursor: Cursor
    ) -> None:
        self._store = store
        self._hub = hub
        self._viewer = viewer
        self._request_id = request_id
        self._type = request_type
        self._scope = cursor.scope
        self._position = cursor.position
        self._target = cursor.target
        self._last = cursor.last
        self._needs_snapshot = cursor.position is None or cursor.needs_snapshot
        self._is_current = False  # whether the state was sent since the stream began
        self._subscription: Subscription[RequestNews] = Subscription(request_id)
        self._heartbeat = Heartbeat()
        self.has_ended = False

    async def messages(self) -> AsyncGenerator[Answer, None]:
        """Yields the messages. The hub must have read its position before."""
        if self._target is not None:  # The cursor is in the middle of earlier changes.
            async for message in self._catch_up(self._target, self._last):
                yield message
            if self.has_ended:
                return
        try:
            # The stream subscribes before it reads, so it reads once. News wait until then.
            target = await self._hub.subscribe(self._subscription)
            async for message in self._catch_up(target, None):
                yield message
            while not self.has_ended:
                news = await self._subscription.next(self._heartbeat.rest)
                if news is not None and not news.is_complete:
                    async for message in self._catch_up(news.position, None):
                        yield message
                        self._heartbeat.sent()
                    continue
                for answer in (self._beat(),) if news is None else self._messages_of(news):
                    yield answer
                    self._heartbeat.sent()
        finally:
            self._hub.unsubscribe(self._subscription)

    def _beat(self) -> WatchResponse:
        """Returns a heartbeat. Its cursor is young, because all news were sent, unless the hub holds some."""
        self._position = self._hub.now_of(self._request_id) or self._position
        return WatchResponse(cursor=self._cursor(None, None))

    def _messages_of(self, news: RequestNews) -> Iterable[Answer]:
        """Returns the messages of news: mostly one, which all watchers of the request share."""
        if news.is_gone:
            self._position = news.position
            return (self._gone(),)
        if self._needs_snapshot or not self._is_current or news.size > pieces.MAX_BYTES:
            return self._separate_messages(news)
        self._viewer.check_type(self._type)
        has_state = news.request is not None and news.state_data != self._subscription.sent_state
        if has_state:
            self._subscription.sent_state = news.state_data
        self._position = news.position
        self.has_ended = has_state and news.request is not None and news.request.state in FINAL_STATES
        message = news.message(has_tries=self._viewer.may_see_log(self._type), has_state=has_state)
        return () if message is None else (message,)

    def _separate_messages(self, news: RequestNews) -> Iterator[WatchResponse]:
        """Yields news that are too large for one message, or that complete the current state."""
        yield from self._messages(news.tries, news.request, news.position)
        if news.running is not None and not self.has_ended:
            yield WatchResponse(cursor=self._cursor(None, None), running=[news.running])

    async def _catch_up(self, target: Position, last: TryKey | None) -> AsyncIterator[WatchResponse]:
        """Yields what has changed up to a position, from the database."""
        spans = None if self._position is None else target.spans_since(self._position)
        if spans == [] and self._is_current:
            self._position = target
            return
        while True:
            tries: list[Try] = []
            if spans != [] and self._viewer.may_see_log(self._type):
                tries = await self._store.tries_after([self._request_id], spans, last, PAGE)
            is_rest = len(tries) < PAGE
            last = tries[-1].key if tries else last
            tries = [one for one in tries if target.has(one.stamp)]
            if is_rest:
                break
            *earlier, rest = pieces_of([RequestChange(self._request_id, tries, None)])
            rest.last = last  # There are more tries.
            for piece in (*earlier, rest):
                self._viewer.check_type(self._type)
                yield WatchResponse(cursor=self._cursor(target, piece.last), tries=piece.tries)
        found = (await self._store.stamped_requests([self._request_id])).get(self._request_id)
        if found is None:
            self._position = target
            yield self._gone()
            return
        for message in self._messages(tries, self._state_at(target, found), target):
            yield message

    def _state_at(self, target: Position, found: StampedRequest) -> Request | None:
        """Returns the request; None if it ended after the position, because tries may be missing."""
        if found.request.state in FINAL_STATES and not target.has(found.stamp):
            return None
        return found.request

    def _messages(
        self, tries: Sequence[Try], request: Request | None, target: Position
    ) -> Iterator[WatchResponse]:
        """Yields the last tries up to a position and the state. Then the position is reached."""
        self._viewer.check_type(self._type)
        if not self._viewer.may_see_log(self._type):
            tries = ()
        if request is not None:
            self._is_current = True
            self._hub.saw(request)
            state = request.SerializeToString(deterministic=True)
            if state == self._subscription.sent_state:
                request = None
            self._subscription.sent_state = state
        *earlier, rest = pieces_of([RequestChange(self._request_id, tries, request)])
        for piece in earlier:
            yield WatchResponse(cursor=self._cursor(target, piece.last), tries=piece.tries)
        self._position = target
        self.has_ended = request is not None and request.state in FINAL_STATES
        completes = self._needs_snapshot and self._is_current
        if rest.tries or rest.requests or completes:
            self._needs_snapshot = self._needs_snapshot and not completes
            yield WatchResponse(
                cursor=self._cursor(None, None),
                tries=rest.tries,
                requests=rest.requests,
                snapshot_complete=completes,
            )

    def _gone(self) -> WatchResponse:
        self.has_ended = True
        return WatchResponse(cursor=self._cursor(None, None), gone=[self._request_id])

    def _cursor(self, target: Position | None, last: TryKey | None) -> str:
        has_ended = self.has_ended and target is None
        return Cursor(self._scope, self._position, target, last, self._needs_snapshot, has_ended).text()
