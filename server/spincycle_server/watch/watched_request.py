"""A watched request: its watchers, and the changes that are held until they can be sent together."""

from __future__ import annotations

import math
from collections.abc import Iterable

from spincycle_grpc.state import FINAL_STATES
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.request_manager_pb2 import RunningJobs
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.store.changes import Try
from spincycle_server.store.positions import Position
from spincycle_server.watch.request_news import RequestNews
from spincycle_server.watch.subscription import Subscription


class WatchedRequest:
    """A request that is watched.

    Args:
        request_id: The request.

    Attributes:
        request_id: See there.
        watchers: Those who watch it.
        state: Its newest known state.
        runner_url: The Job Runner that has it, if it is known.
        shown_at: When the watchers last got its running jobs, by the clock of the hub.
        joined_at: When they last got them together with changes.
    """

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.watchers: set[Subscription[RequestNews]] = set()
        self.state = state_pb2.STATE_UNKNOWN
        self.runner_url = ""
        self.shown_at = -math.inf
        self.joined_at = -math.inf
        self._held_since: float | None = None
        self._is_quiet = True
        self._request: Request | None = None
        self._tries: list[Try] = []
        self._running: RunningJobs | None = None

    @property
    def is_running(self) -> bool:
        """Whether the request is RUNNING, so that its running jobs are of interest."""
        return self.state == state_pb2.STATE_RUNNING

    @property
    def is_waiting(self) -> bool:
        """Whether the request waits to run, so that the reason is of interest."""
        return self.state in (state_pb2.STATE_PENDING, state_pb2.STATE_SUSPENDED)

    @property
    def holds_changes(self) -> bool:
        """Whether changes are held, so that watchers have not got all news."""
        return self._held_since is not None

    def saw(self, request: Request) -> None:
        """Notes the request as a watcher read it, if the hub has not read it yet."""
        if self.state == state_pb2.STATE_UNKNOWN:
            self._note(request)

    def add(self, request: Request | None, tries: Iterable[Try], now: float) -> None:
        """Holds changes. They follow those that are held already."""
        if request is not None:
            self._request = request
            self._note(request)
        self._tries.extend(tries)
        self._hold(now)

    def add_running(self, running: RunningJobs, now: float) -> None:
        """Holds a snapshot of the running jobs."""
        self._running = running
        self._hold(now)

    def end_round(self, now: float, limit: float) -> bool:
        """Ends a round of reading. Returns whether the held changes must be sent now.

        Args:
            now: The time.
            limit: Seconds for which changes are held, unless a round finds no further ones.
        """
        is_quiet, self._is_quiet = self._is_quiet, True
        if self._held_since is None:
            return False
        return is_quiet or self.state in FINAL_STATES or now - self._held_since >= limit

    def release(self, position: Position, running: RunningJobs | None = None) -> bool:
        """Gives the held changes to the watchers. Returns whether anybody got running jobs.

        Args:
            position: The position of the hub. All changes up to it were added.
            running: A newer snapshot of the running jobs; None to use the one that is held.
        """
        running = None if self.state in FINAL_STATES else running or self._running
        changes = RequestNews(self.request_id, position, self._request, self._tries)
        has_changes = self._request is not None or bool(self._tries)
        self._held_since, self._request, self._tries, self._running = None, None, [], None
        if running is None:
            if has_changes:
                self._put(changes)
            return False
        shows = RequestNews(
            self.request_id, position, changes.request, changes.tries, running, is_repeated=not has_changes
        )
        data = running.SerializeToString(deterministic=True)
        is_shown = False
        for watcher in self.watchers:
            if watcher.shown != data:
                if watcher.put(shows):
                    watcher.shown, is_shown = data, True
            elif has_changes:
                watcher.put(changes)
        return is_shown

    def needs(self, running: RunningJobs) -> bool:
        """Whether a watcher has not seen these running jobs."""
        data = running.SerializeToString(deterministic=True)
        return any(watcher.shown != data for watcher in self.watchers)

    def tell(self, news: RequestNews) -> None:
        """Gives news to the watchers, after the held changes."""
        if self.holds_changes:
            self.release(news.position)
        self._put(news)

    def show(self, request: Request, position: Position) -> None:
        """Gives the watchers the request as it is now, unless they have seen the same before."""
        if self.holds_changes:
            self.release(position)
        self._note(request)
        news = RequestNews(self.request_id, position, request, is_repeated=self.is_waiting)
        for watcher in self.watchers:
            if watcher.sent_state != news.state_data:
                watcher.put(news)

    def _put(self, news: RequestNews) -> None:
        for watcher in self.watchers:
            watcher.put(news)

    def _note(self, request: Request) -> None:
        self.state = request.state
        self.runner_url = request.job_runner_url

    def _hold(self, now: float) -> None:
        self._is_quiet = False
        if self._held_since is None:
            self._held_since = now
