"""What a Request Manager makes of a runner's answers about output."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import cast

import pytest

from spincycle_grpc.errors import (
    InvalidArgumentError,
    ResourceExhaustedError,
    SpinCycleError,
    UnavailableError,
)
from spincycle_grpc.state import State
from spincycle_grpc.v1.job_runner_pb2 import JobRunnerFollowOutputRequest, JobRunnerFollowOutputResponse
from spincycle_grpc.v1.output_pb2 import (
    OUTPUT_GAP_REASON_LOST,
    OUTPUT_GAP_REASON_TRUNCATED,
    OUTPUT_STREAM_STDERR,
    OUTPUT_STREAM_STDOUT,
    OutputGap,
    OutputText,
)
from spincycle_grpc.v1.runner_reports_pb2 import RunnerInfo
from spincycle_server.request_manager.live_output import LiveEvent, live_output
from spincycle_server.request_manager.output_cursor import OutputPosition
from spincycle_server.request_manager.runners import Runners
from spincycle_server.store.outputs import TryPlace
from tests.store.samples import RUNNER

OUT, ERR = OUTPUT_STREAM_STDOUT, OUTPUT_STREAM_STDERR


class Answers:
    """Runners of which one says what a test tells it, and then fails if there is an error."""

    def __init__(self, *answers: JobRunnerFollowOutputResponse, error: SpinCycleError | None = None) -> None:
        self._answers = answers
        self._error = error
        self.asked: list[JobRunnerFollowOutputRequest] = []

    def get(self, runner_id: str) -> RunnerInfo | None:
        return RUNNER if runner_id == RUNNER.runner_id else None

    async def follow_output(
        self, runner: RunnerInfo, request: JobRunnerFollowOutputRequest
    ) -> AsyncGenerator[JobRunnerFollowOutputResponse, None]:
        self.asked.append(request)
        for answer in self._answers:
            yield answer
        if self._error is not None:
            raise self._error


def position(epoch: int, stdout: int = 0, stderr: int = 0) -> OutputPosition:
    return OutputPosition("r", "aaaa", 1, epoch, {OUT: stdout, ERR: stderr})


async def events(runners: Answers, start: OutputPosition, runner_id: str = "r1") -> list[LiveEvent]:
    place = TryPlace(State.RUNNING, 2, runner_id, None)
    return [event async for event in live_output(cast("Runners", runners), place, start, 1)]


BEGUN = JobRunnerFollowOutputResponse(begun_try=1)


async def test_texts_and_gaps_move_the_position() -> None:
    gap = OutputGap(stream=ERR, to=9, reason=OUTPUT_GAP_REASON_TRUNCATED)
    text = OutputText(stream=OUT, offset=4, text="é")
    runners = Answers(
        BEGUN,
        JobRunnerFollowOutputResponse(gap=gap),
        JobRunnerFollowOutputResponse(text=text),
        JobRunnerFollowOutputResponse(),
    )
    at = position(2, stdout=4)
    assert await events(runners, at) == [gap, text, None]
    assert at == position(2, stdout=6, stderr=9)
    assert (runners.asked[0].stdout_offset, runners.asked[0].epoch) == (4, 2)


async def test_a_run_of_another_epoch_is_asked_for_from_its_beginning_after_a_gap() -> None:
    runners, at = Answers(BEGUN), position(1, stdout=4)
    (gap,) = await events(runners, at)
    assert isinstance(gap, OutputGap)
    assert (getattr(gap, "from"), gap.to, gap.reason) == (4, 0, OUTPUT_GAP_REASON_LOST)
    assert at == position(2)
    assert runners.asked[0].stdout_offset == 0


async def test_until_the_other_run_begins_the_position_stays() -> None:
    at = position(1, stdout=4)
    assert await events(Answers(), at) == []
    assert at == position(1, stdout=4)


@pytest.mark.parametrize(
    "error",
    [
        UnavailableError("gone", reason="RUNNER_GONE"),
        ResourceExhaustedError("not read", reason="STREAM_NOT_READ"),
        ResourceExhaustedError("busy", reason="TOO_MANY_CALLS"),
    ],
    ids=lambda error: error.reason,
)
async def test_errors_that_may_pass_end_the_answers(error: SpinCycleError) -> None:
    assert await events(Answers(BEGUN, error=error), position(2)) == []


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgumentError("too far", reason="BAD_OFFSET"),
        ResourceExhaustedError("full", reason="TOO_MANY_FOLLOWERS"),
    ],
    ids=lambda error: error.reason,
)
async def test_other_errors_are_for_the_caller(error: SpinCycleError) -> None:
    with pytest.raises(type(error)):
        await events(Answers(error=error), position(2))


async def test_a_runner_that_is_not_alive_is_not_asked() -> None:
    runners = Answers(BEGUN)
    assert await events(runners, position(2), "other") == []
    assert runners.asked == []
