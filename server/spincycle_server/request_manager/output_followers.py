"""The calls of FollowOutput: they follow a try from its Job Runner to the job log."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import TYPE_CHECKING

from spincycle_grpc.backoff import Backoff
from spincycle_grpc.errors import NotFoundError, ResourceExhaustedError
from spincycle_grpc.state import FINAL_STATES, State
from spincycle_grpc.v1.output_pb2 import OutputEnd, OutputGap
from spincycle_grpc.v1.request_manager_pb2 import FollowOutputRequest, FollowOutputResponse
from spincycle_server.request_manager.live_output import LiveEvent, live_output
from spincycle_server.request_manager.output_cursor import OutputPosition
from spincycle_server.request_manager.stored_output import stored_output
from spincycle_server.telemetry.limits import FOLLOWERS, LimitUse

if TYPE_CHECKING:
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.store import Store
    from spincycle_server.store.outputs import FinishedTry, TryPlace

LONGEST_PAUSE = 1.0
"""Seconds between looks for a try that has not begun, and that no runner can be asked for."""

_FIRST_PAUSE = 0.1

HEARTBEAT = 15.0
"""Seconds after which a caller gets a sign of life if there is no output."""


class OutputFollowers:
    """Follows the output of tries for callers.

    Args:
        store: Knows where the output of a try is, and has that of finished tries.
        runners: The live runners, which have that of running tries.
        limit: The maximum number of concurrent calls.
    """

    def __init__(self, store: Store, runners: Runners, *, limit: int) -> None:
        self._store = store
        self._runners = runners
        self._limit = limit
        self._count = 0

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limit and the number of callers."""
        return (LimitUse(FOLLOWERS, self._limit, self._count),)

    async def follow(self, request: FollowOutputRequest) -> AsyncGenerator[FollowOutputResponse, None]:
        """Yields the output of a try, and its end. The caller may read the job log of the request.

        Raises:
            SpinCycleError: An error of FollowOutput.
        """
        position = OutputPosition.of(request)
        if self._count >= self._limit:
            raise ResourceExhaustedError(
                f"the limit of {self._limit} callers that follow output is reached: try again later",
                reason="TOO_MANY_FOLLOWERS",
            )
        self._count += 1
        try:
            async with contextlib.aclosing(self._follow(position)) as messages:
                async for message in messages:
                    yield message
        finally:
            self._count -= 1

    async def _follow(self, position: OutputPosition) -> AsyncGenerator[FollowOutputResponse, None]:
        pauses, last_news, is_known = Backoff(_FIRST_PAUSE, LONGEST_PAUSE), time.monotonic(), False
        while True:
            place = await self._place(position, is_known=is_known)
            is_known, has_news = True, False
            async with contextlib.aclosing(self._live(position, place)) as messages:
                async for message in messages:
                    has_news = True
                    yield message
            if place.finished is not None and not has_news and position.number <= place.finished.key.number:
                async for message in self._stored(position, place.finished):
                    yield message
                return
            if place.state in FINAL_STATES:
                yield _lost(position)
                return
            if has_news:
                pauses, last_news = Backoff(_FIRST_PAUSE, LONGEST_PAUSE), time.monotonic()
            await asyncio.sleep(pauses.next())
            if time.monotonic() - last_news >= HEARTBEAT:
                last_news = time.monotonic()
                yield _message(None, position)

    async def _place(self, position: OutputPosition, *, is_known: bool) -> TryPlace:
        """Returns where the try is. Unless the job is known, checks that the request has it."""
        place = await self._store.place_of_try(position.request_id, position.job_id, position.number)
        if place.finished is None and not is_known:
            await self._store.check_job(position.request_id, position.job_id)
        return place

    async def _live(
        self, position: OutputPosition, place: TryPlace
    ) -> AsyncGenerator[FollowOutputResponse, None]:
        """Yields what the runner says about the try, or about a newer one if the newest was asked for."""
        if place.state != State.RUNNING or not place.runner_id or (place.finished and position.number):
            return
        number = position.number or (0 if place.finished else 1)
        async with contextlib.aclosing(live_output(self._runners, place, position, number)) as events:
            async for event in events:
                yield _message(event, position)

    async def _stored(
        self, position: OutputPosition, finished: FinishedTry
    ) -> AsyncIterator[FollowOutputResponse]:
        for gap in position.begin(finished.key.number, finished.epoch):
            yield _message(gap, position)
        for stream, offset in list(position.offsets.items()):
            async for piece, end in stored_output(self._store, finished, stream, offset):
                position.offsets[stream] = end
                yield _message(piece, position)
        yield FollowOutputResponse(cursor=position.cursor, end=finished.end)


def _message(event: LiveEvent, position: OutputPosition) -> FollowOutputResponse:
    """Returns the message about an event, with the position after it."""
    match event:
        case None:
            return FollowOutputResponse(cursor=position.cursor)
        case OutputGap():
            return FollowOutputResponse(cursor=position.cursor, gap=event)
        case _:
            return FollowOutputResponse(cursor=position.cursor, text=event)


def _lost(position: OutputPosition) -> FollowOutputResponse:
    """Returns the end of a try that was followed, but was lost with its runner and is not run again.

    Raises:
        NotFoundError: The try was never seen, so it did not run.
    """
    if not position.epoch:
        raise _not_run(position)
    end = OutputEnd(error="the try was lost with its job runner")
    setattr(end, "try", position.number)  # `try` is a keyword in Python
    return FollowOutputResponse(cursor=position.cursor, end=end)


def _not_run(position: OutputPosition) -> NotFoundError:
    number = f"try {position.number} of job" if position.number else "job"
    return NotFoundError(
        f"{number} {position.job_id} did not run: request {position.request_id} has ended",
        reason="JOB_NOT_FOUND",
        request_id=position.request_id,
    )
