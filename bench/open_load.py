"""Open-loop load: calls start at a fixed rate, however slowly the server answers.

A closed loop slows down with the server that it measures and so hides the effects of overload. Here a call
that is due takes an idle connection. If there is none, the call is counted as held back.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from bench.http_load import Connection, connect
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub

TICK = 0.002
"""Seconds between checks for calls that are due."""

CHANNELS = 4
"""The number of gRPC channels."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of call.

    Attributes:
        name: The name in the figures.
        rate: Calls a second.
        data: The bytes of an HTTP request, or None for a create over gRPC.
        creates: Whether the call creates a request.
        connects: Whether each HTTP call opens its own connection.
    """

    name: str
    rate: float
    data: bytes | None
    creates: bool
    connects: bool = False


@dataclass(slots=True)
class Outcome:
    """The results of the calls.

    Attributes:
        offered: Calls started, by kind.
        held_back: Calls that were due when no connection was idle, by kind.
        answers: Calls by answer: the status, with the reason of a refusal, or the error.
        made: Ids of the created requests.
        good: Durations of successful calls in seconds, by kind.
        refused: Durations of refused calls in seconds.
        unanswered: Calls without an answer within the deadline.
    """

    offered: Counter[str] = field(default_factory=Counter)
    held_back: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    made: list[str] = field(default_factory=list)
    good: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    refused: list[float] = field(default_factory=list)
    unanswered: int = 0


class OpenLoad:
    """Offers calls to a Request Manager at fixed rates.

    Args:
        http: The host:port of its HTTP listener.
        grpc_address: The host:port of its gRPC listener.
        kinds: The calls to offer.
        connections: The number of HTTP connections.
        deadline: Seconds within which a call must be answered.
    """

    def __init__(
        self, http: str, grpc_address: str, kinds: list[Kind], *, connections: int, deadline: float
    ) -> None:
        self._http = http
        self._grpc_address = grpc_address
        self._kinds = kinds
        self._connections = connections
        self._deadline = deadline
        # First in, first out, so that no connection is idle for long.
        self._idle: deque[Connection] = deque()
        self._calls: set[asyncio.Future[None]] = set()
        self._under_way = 0
        self.outcome = Outcome()

    async def run(self, seconds: float, look: Callable[[], None], look_every: float = 0.5) -> Outcome:
        """Offers the load for some seconds, then waits for the remaining answers.

        Args:
            seconds: How long calls are started.
            look: A callback that samples the system meanwhile.
            look_every: Seconds between calls of `look`.
        """
        for _ in range(self._connections):
            self._idle.append(await connect(self._http))
        channels = [grpc.aio.insecure_channel(self._grpc_address) for _ in range(CHANNELS)]
        stubs = itertools.cycle([RequestManagerStub(channel) for channel in channels])
        began = time.perf_counter()
        done, next_look = [0] * len(self._kinds), 0.0
        while (now := time.perf_counter() - began) < seconds:
            for index, kind in enumerate(self._kinds):
                due = int(now * kind.rate)
                for _ in range(due - done[index]):
                    self._begin(kind, next(stubs) if kind.data is None else None)
                done[index] = due
            if now >= next_look:
                look()
                next_look = now + look_every
            await asyncio.sleep(TICK)
        end = time.perf_counter() + self._deadline
        while self._under_way and time.perf_counter() < end:  # noqa: ASYNC110 (cheaper than one event for each call)
            await asyncio.sleep(0.02)
        self.outcome.unanswered = self._under_way
        for call in self._calls:
            call.cancel()
        for connection in self._idle:
            connection.close()
        for channel in channels:
            await channel.close()
        return self.outcome

    def _begin(self, kind: Kind, stub: Any) -> None:
        if kind.data is not None and not kind.connects and not self._idle:
            self.outcome.held_back[kind.name] += 1
            return
        self.outcome.offered[kind.name] += 1
        self._under_way += 1
        if kind.data is None:
            self._start(self._create_by_grpc(kind, stub))
        elif kind.connects:
            self._start(self._by_new_connection(kind, kind.data))
        else:
            connection, began = self._idle.popleft(), time.perf_counter()
            answer = connection.send(kind.data)
            answer.add_done_callback(lambda ended: self._on_http(kind, connection, began, ended))

    def _start(self, calling: Coroutine[Any, Any, None]) -> None:
        call = asyncio.ensure_future(calling)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    def _on_http(
        self,
        kind: Kind,
        connection: Connection | None,
        began: float,
        ended: asyncio.Future[tuple[int, bytes, bytes]],
    ) -> None:
        self._under_way -= 1
        error = ended.exception()
        if error is not None:
            self.outcome.answers[f"broken connection ({type(error).__name__})"] += 1
            return
        if connection is not None:
            self._idle.append(connection)
        status, head, body = ended.result()
        self._count(kind, status in (200, 201), began)
        if status == 201 and kind.creates:
            place = head.lower().find(b"\r\nlocation:")
            location = head[place + 11 :].split(b"\r\n", 1)[0].strip().decode()
            self.outcome.made.append(location.rpartition("/")[2])
        text = str(status)
        if status in (429, 503):
            text += "" if b"\r\nretry-after:" in head.lower() else " without Retry-After"
            text += f" {_sentence(body)}"
        self.outcome.answers[text] += 1

    async def _by_new_connection(self, kind: Kind, data: bytes) -> None:
        began = time.perf_counter()
        try:
            connection = await connect(self._http)
        except OSError as error:
            self._under_way -= 1
            self.outcome.answers[f"no connection ({type(error).__name__})"] += 1
            return
        answer = connection.send(data)
        try:
            await asyncio.wait({answer})
            self._on_http(kind, None, began, answer)
        finally:
            connection.close()

    async def _create_by_grpc(self, kind: Kind, stub: Any) -> None:
        began = time.perf_counter()
        try:
            answer = await stub.Create(CreateRequest(type="three-jobs"), timeout=self._deadline)
        except grpc.aio.AioRpcError as error:
            self._count(kind, False, began)
            self.outcome.answers[f"gRPC {error.code().name}"] += 1
        else:
            self._count(kind, True, began)
            self.outcome.answers["gRPC OK"] += 1
            self.outcome.made.append(answer.request.id)
        finally:
            self._under_way -= 1

    def _count(self, kind: Kind, good: bool, began: float) -> None:
        (self.outcome.good[kind.name] if good else self.outcome.refused).append(time.perf_counter() - began)


def _sentence(body: bytes) -> str:
    """Returns the first 60 characters of the message of an error."""
    _, _, rest = body.partition(b'"message":"')
    return rest.partition(b'"')[0][:60].decode(errors="replace")
