"""The output of running tries, from the Job Runner that runs them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, TypeAlias

import structlog

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.v1.job_runner_pb2 import JobRunnerFollowOutputRequest
from spincycle_grpc.v1.output_pb2 import OUTPUT_STREAM_STDERR, OUTPUT_STREAM_STDOUT, OutputGap, OutputText

if TYPE_CHECKING:
    from spincycle_server.request_manager.output_cursor import OutputPosition
    from spincycle_server.request_manager.runners import Runners
    from spincycle_server.store.outputs import TryPlace

logger = structlog.get_logger(__name__)

_FOR_CALLERS = frozenset({"BAD_OFFSET", "TOO_MANY_FOLLOWERS"})
"""The reasons of a runner's errors that the caller gets. After all others, the runner is asked again."""

LiveEvent: TypeAlias = OutputText | OutputGap | None
"""A piece of output, or a sign of life."""


async def live_output(
    runners: Runners, place: TryPlace, position: OutputPosition, number: int
) -> AsyncGenerator[LiveEvent, None]:
    """Yields what a try writes, until its runner has nothing more to say about it. Moves the position.

    Args:
        runners: The live runners.
        place: Where the try runs.
        position: Where to begin.
        number: The number of the try, which is awaited. 0: the try that runs, if there is one.

    Raises:
        InvalidArgumentError: An offset is beyond the end. Reason: BAD_OFFSET.
        ResourceExhaustedError: The runner has too many followers. Reason: TOO_MANY_FOLLOWERS.
    """
    runner = runners.get(place.runner_id)
    if runner is None:
        return
    is_same_run = position.epoch in (0, place.epoch)
    request = JobRunnerFollowOutputRequest(
        request_id=position.request_id, job_id=position.job_id, epoch=place.epoch, **{"try": number}
    )
    if is_same_run:
        request.stdout_offset = position.offsets[OUTPUT_STREAM_STDOUT]
        request.stderr_offset = position.offsets[OUTPUT_STREAM_STDERR]
    try:
        async with contextlib.aclosing(runners.follow_output(runner, request)) as answers:
            async for answer in answers:
                match answer.WhichOneof("event"):
                    case "begun_try":
                        for gap in position.begin(answer.begun_try, place.epoch):
                            yield gap
                    case "text":
                        text = answer.text
                        position.offsets[text.stream] = text.offset + len(text.text.encode())
                        yield text
                    case "gap":
                        position.offsets[answer.gap.stream] = answer.gap.to
                        yield answer.gap
                    case _:
                        yield None
    except SpinCycleError as error:
        if error.reason in _FOR_CALLERS:
            raise
        logger.debug("runner does not show output", runner_id=place.runner_id, error=str(error))
