"""The calls of FollowOutput: they follow a try from its Job Runner to the job log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING

from spincycle_grpc.backoff import Backoff
from spincycle_grpc.errors import NotFoundError, ResourceExhaustedError
from spincycle_grpc.state import FINAL_STATES
from spincycle_grpc.v1.output_pb2 import OutputGap
from spincycle_grpc.v1.request_manager_pb2 import FollowOutputRequest, FollowOutputResponse
from spincycle_server.request_manager.output_cursor import OutputPosition
from spincycle_server.request_manager.stored_output import OutputPiece, stored_output

if TYPE_CHECKING:
    from spincycle_server.store import Store
    from spincycle_server.store.outputs import FinishedTry

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
"""Seconds between looks for a try that has not begun, and that no runner can be asked for."""


class OutputFollowers:
    """Follows the output of tries for callers.

    Args:
        store: Knows where the output of a try is, and has that of finished tries.
        limit: The maximum number of concurrent calls.
    """

    def __init__(self, store: Store, *, limit: int) -> None:
        self._store = store
        self._limit = limit
        self._count = 0

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
            async for message in self._follow(position):
                yield message
        finally:
            self._count -= 1

    async def _follow(self, position: OutputPosition) -> AsyncIterator[FollowOutputResponse]:
        pauses = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        is_known = False
        while True:
            place = await self._store.place_of_try(position.request_id, position.job_id, position.number)
            if place.finished is not None:
                async for message in self._stored(position, place.finished):
                    yield message
                return
            if not is_known:
                await self._store.check_job(position.request_id, position.job_id)
                is_known = True
            if place.state in FINAL_STATES:
                raise _not_run(position)
            await asyncio.sleep(pauses.next())

    async def _stored(
        self, position: OutputPosition, finished: FinishedTry
    ) -> AsyncIterator[FollowOutputResponse]:
        position.number = finished.key.number
        for stream, offset in list(position.offsets.items()):
            async for piece, end in stored_output(self._store, finished, stream, offset):
                position.offsets[stream] = end
                yield response_of(piece, position)
        yield FollowOutputResponse(cursor=position.cursor, end=finished.end)


def response_of(piece: OutputPiece, position: OutputPosition) -> FollowOutputResponse:
    """Returns the message with a piece and the position after it."""
    if isinstance(piece, OutputGap):
        return FollowOutputResponse(cursor=position.cursor, gap=piece)
    return FollowOutputResponse(cursor=position.cursor, text=piece)


def _not_run(position: OutputPosition) -> NotFoundError:
    number = f"try {position.number} of job" if position.number else "job"
    return NotFoundError(
        f"{number} {position.job_id} did not run: request {position.request_id} has ended",
        reason="JOB_NOT_FOUND",
        request_id=position.request_id,
    )
