"""Watchers for tests: they read streams, remember what they saw, and check it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from spincycle_grpc.state import FINAL_STATES
from spincycle_grpc.v1.request_manager_pb2 import WatchRequest, WatchResponse
from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_server.identity import ANONYMOUS, Identity
from spincycle_server.identity.access import AccessLists
from spincycle_server.identity.permissions import Permissions
from spincycle_server.shared_messages import SharedMessage
from spincycle_server.specs.model import Specs
from spincycle_server.store import Store
from spincycle_server.watch import Hub, Watching

NO_LISTS = Permissions(AccessLists(Specs({})))


@dataclass
class Manager:
    """The part of a Request Manager that watchers use."""

    store: Store
    hub: Hub
    watching: Watching


@contextlib.asynccontextmanager
async def watched(
    store: Store, permissions: Permissions = NO_LISTS, max_watchers: int = 100
) -> AsyncIterator[Manager]:
    """Runs the hub of a store."""
    hub = Hub(store)
    store.on_changed(hub.changed)
    rounds = asyncio.create_task(hub.run())
    yield Manager(store, hub, Watching(store, hub, permissions, max_watchers=max_watchers))
    rounds.cancel()
    await asyncio.wait({rounds})
    assert rounds.cancelled(), rounds.exception()


def message_of(answer: WatchResponse | SharedMessage) -> WatchResponse:
    """Returns the message of an answer, which other watchers may get too."""
    message = answer.message if isinstance(answer, SharedMessage) else answer
    assert isinstance(message, WatchResponse)
    return message


@dataclass
class Watcher:
    """A client that watches one request or a filter, and resumes with its cursor.

    Attributes:
        tries: The ordinals of each request's tries, as they arrived.
        states: The newest state of each request.
        gone: The requests that are gone.
        too_early: The requests whose final state came before their last try.
    """

    request_id: str = ""
    filter: RequestFilter | None = None
    cursor: str = ""
    tries: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    states: dict[str, int] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    too_early: list[str] = field(default_factory=list)
    snapshots: int = 0
    resets: int = 0
    has_ended: bool = False
    on_snapshot: Callable[[], None] = field(default=lambda: None)

    def request(self) -> WatchRequest:
        return WatchRequest(request_id=self.request_id, filter=self.filter, cursor=self.cursor)

    def add(self, message: WatchResponse) -> None:
        """Remembers a message."""
        if message.HasField("reset"):
            self.tries.clear()
            self.states.clear()
            self.resets += 1
        for one in message.tries:
            assert not one.stdout
            assert not one.stderr
            if self.states.get(one.request_id) in FINAL_STATES:
                self.too_early.append(one.request_id)
            self.tries[one.request_id].append(one.started_at)
        for request in message.requests:
            self.states[request.id] = request.state
        self.gone += message.gone
        if message.snapshot_complete:
            self.snapshots += 1
            self.on_snapshot()
        self.cursor = message.cursor

    async def follow(self, manager: Manager, identity: Identity = ANONYMOUS) -> None:
        """Watches until the stream ends, or the task is cancelled."""
        async with contextlib.aclosing(manager.watching.watch(self.request(), identity)) as messages:
            async for answer in messages:
                self.add(message_of(answer))
        self.has_ended = True
