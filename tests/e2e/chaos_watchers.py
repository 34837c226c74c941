"""Watchers in the chaos test: each stream is short, and the next one may be elsewhere and of another kind."""

from __future__ import annotations

import contextlib
import faulthandler
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import httpx

from spincycle_grpc.errors import SpinCycleError, Status
from spincycle_grpc.state import FINAL_STATES
from spincycle_grpc.v1.request_manager_pb2 import WatchResponse
from spincycle_grpc.v1.request_pb2 import RequestFilter
from tests.e2e.chaos_streams import OpenClients, StreamFailedError, Target, over_grpc, over_http
from tests.limits import REQUEST_END, STEP

if TYPE_CHECKING:
    from tests.e2e.chaos_system import System

LONGEST_STREAM = 4.0
"""Seconds after which a watcher closes its stream and continues with another one."""

MOST_WATCHERS = 60
"""Watchers at once. Further ones wait until a request has ended, and then begin with its current state."""

MAY_FAIL = frozenset(
    {Status.UNAVAILABLE, Status.RESOURCE_EXHAUSTED, Status.DEADLINE_EXCEEDED, Status.CANCELLED}
)
"""How a stream may fail while servers are disturbed."""

EVERYTHING = ""
FILTERS = {EVERYTHING: RequestFilter(), "row": RequestFilter(type="row")}
"""The filters by the type of the requests that they match."""

Log = Collection[Mapping[str, Any]]


@dataclass
class Watcher:
    """What one watcher has seen over all of its streams.

    Attributes:
        request_id: The request that it watches; "" for a filter.
        chosen: The filter that it watches; None for a request.
        cursor: The cursor of the last message.
        tries: Job and try number of each finished try, by request, in the order of arrival.
        states: The last state and number of finished jobs of each request.
        streams: How many streams have been opened.
        has_snapshot: Set when the current state was complete for the first time.
    """

    request_id: str = ""
    chosen: RequestFilter | None = None
    cursor: str = ""
    tries: dict[str, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))
    states: dict[str, tuple[int, int]] = field(default_factory=dict)
    streams: int = 0
    has_snapshot: threading.Event = field(default_factory=threading.Event)

    def add(self, message: WatchResponse) -> None:
        """Adds a message."""
        assert not message.HasField("reset"), f"a cursor was refused: {message}"
        assert not message.gone, f"nothing was deleted: {message}"
        for request in message.requests:
            self.states[request.id] = (request.state, request.finished_jobs)
        for entry in message.tries:
            self.tries[entry.request_id].append((entry.job_id, getattr(entry, "try")))
        if message.snapshot_complete:
            self.has_snapshot.set()
        self.cursor = message.cursor

    def check(self, request: Mapping[str, Any], log: Log) -> None:
        """Checks what the watcher has seen of a request that has ended.

        Raises:
            AssertionError: It has not seen each finished try once, or not the last state.
        """
        request_id = request["id"]
        what = f"a watcher of {self.request_id or self.chosen or 'all'} with {self.streams} streams"
        seen = self.tries[request_id]
        expected = Counter((entry["jobId"], entry["try"]) for entry in log)
        assert Counter(seen) == expected, (
            f"{what} has missed {expected - Counter(seen)} and seen too often {Counter(seen) - expected}"
        )
        numbers: dict[str, list[int]] = defaultdict(list)
        for job_id, number in seen:
            numbers[job_id].append(number)
        assert all(tries == sorted(tries) for tries in numbers.values()), f"{what} has seen {seen}"
        last = (request["state"], request["finishedJobs"])
        assert self.states[request_id] == last, f"{what} has seen {self.states[request_id]}, not {last}"


class Watchers:
    """Watches requests over gRPC and HTTP, on all Request Managers in turn.

    Args:
        system: The system.
        seed: The seed of what is random.
    """

    def __init__(self, system: System, seed: int) -> None:
        self._system = system
        self._random = Random(seed)
        self._threads = ThreadPoolExecutor(MOST_WATCHERS)
        self._is_over = threading.Event()
        self._clients = OpenClients()
        self._following: list[Future[None]] = []
        self.of_filters = {name: Watcher(chosen=chosen) for name, chosen in FILTERS.items()}
        self.of_requests: list[Watcher] = []
        for watcher in self.of_filters.values():
            self._following.append(self._threads.submit(self._watch, watcher))
        for watcher, future in zip(self.of_filters.values(), self._following, strict=True):
            while not watcher.has_snapshot.wait(0.05):
                assert not future.done(), f"a watch of a filter has ended: {future.exception()}"

    def follow(self, request_id: str) -> None:
        """Watches a request, until it has ended."""
        self.of_requests.append(Watcher(request_id))
        self._following.append(self._threads.submit(self._watch, self.of_requests[-1]))

    def wait(self, ended: Mapping[str, str], logs: Mapping[str, Log]) -> None:
        """Waits until all watchers have seen everything, or have not for a long time.

        Args:
            ended: The types of all requests, by id.
            logs: The job logs of all requests.
        """
        deadline = time.monotonic() + REQUEST_END
        for future in self._following[len(self.of_filters) :]:
            future.result(max(0.0, deadline - time.monotonic()))
        while not all(
            self._has_all(watcher, [one for one in ended if name in (EVERYTHING, ended[one])], logs)
            for name, watcher in self.of_filters.items()
        ):
            for future in self._following[: len(self.of_filters)]:
                assert not future.done(), f"a watch of a filter has ended: {future.exception()}"
            if time.monotonic() > deadline:
                return  # `check` says what is missing.
            time.sleep(0.05)

    def check(self, request: Mapping[str, Any], log: Log) -> None:
        """Checks what all watchers of a request have seen.

        Raises:
            AssertionError: One of them has not seen each finished try once, or not the last state.
        """
        for name, watcher in self.of_filters.items():
            if name in (EVERYTHING, request["type"]):
                watcher.check(request, log)
        for watcher in self.of_requests:
            if watcher.request_id == request["id"]:
                watcher.check(request, log)

    def close(self) -> None:
        """Ends all watchers.

        Raises:
            AssertionError: A stream is still open although its client is closed. stderr shows all threads.
        """
        self._is_over.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        wait(self._following, LONGEST_STREAM + 1)
        self._clients.close()
        if wait(self._following, STEP).not_done:
            faulthandler.dump_traceback()
            raise AssertionError("a stream of a watcher has not ended, although its client is closed")

    @staticmethod
    def _has_all(watcher: Watcher, requests: Collection[str], logs: Mapping[str, Log]) -> bool:
        return all(
            len(watcher.tries[one]) >= len(logs[one]) and watcher.states.get(one, (0,))[0] in FINAL_STATES
            for one in requests
        )

    def _watch(self, watcher: Watcher) -> None:
        """Opens one stream after the other until one ends because there is no more."""
        while not self._is_over.is_set():
            watcher.streams += 1
            watch = self._random.choice([over_grpc, over_http])
            port = self._random.choice(self._system.ports)
            target = Target(port, self._system.security, self._system.token, self._clients)
            seconds = self._random.uniform(0.1, LONGEST_STREAM)
            try:
                stream = watch(target, watcher.request_id, watcher.chosen, watcher.cursor, seconds)
                with contextlib.closing(stream) as messages:
                    for message in messages:
                        watcher.add(message)
                return
            except SpinCycleError as error:
                if error.status not in MAY_FAIL:
                    raise
            except (StreamFailedError, httpx.TransportError):
                pass
            time.sleep(self._random.uniform(0, 0.3))
