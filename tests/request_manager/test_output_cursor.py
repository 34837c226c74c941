"""The cursor of FollowOutput."""

from __future__ import annotations

import pytest

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.v1.output_pb2 import OUTPUT_GAP_REASON_LOST, OUTPUT_STREAM_STDERR, OUTPUT_STREAM_STDOUT
from spincycle_grpc.v1.request_manager_pb2 import FollowOutputRequest
from spincycle_server.request_manager.output_cursor import OutputPosition


def test_a_call_begins_at_its_offsets() -> None:
    request = FollowOutputRequest(request_id="r", job_id="aaaa", stdout_offset=5)
    setattr(request, "try", 2)
    position = OutputPosition.of(request)
    assert (position.number, position.epoch) == (2, 0)
    assert position.offsets == {OUTPUT_STREAM_STDOUT: 5, OUTPUT_STREAM_STDERR: 0}


def test_a_cursor_replaces_try_and_offsets() -> None:
    position = OutputPosition("r", "aaaa", 3, 7, {OUTPUT_STREAM_STDOUT: 10, OUTPUT_STREAM_STDERR: 20})
    request = FollowOutputRequest(request_id="r", job_id="aaaa", stderr_offset=1, cursor=position.cursor)
    assert OutputPosition.of(request) == position


@pytest.mark.parametrize(
    "cursor",
    ["x", "r/aaaa/1/1/1", "r/bbbb/1/1/1/1", "q/aaaa/1/1/1/1", "r/aaaa/1/1/1/-1",
     "r/aaaa/1/1/1/\u0661", "r/aaaa/1/1/1/1/1", "r/aaaa/1/1/1/" + "9" * 30],
)  # fmt: skip
def test_a_malformed_or_foreign_cursor_is_refused(cursor: str) -> None:
    request = FollowOutputRequest(request_id="r", job_id="aaaa", cursor=cursor)
    with pytest.raises(InvalidArgumentError) as raised:
        OutputPosition.of(request)
    assert (raised.value.reason, raised.value.field) == ("BAD_CURSOR", "cursor")


def test_a_new_run_of_a_try_begins_with_the_gaps_of_the_earlier_one() -> None:
    position = OutputPosition("r", "aaaa", 1, 1, {OUTPUT_STREAM_STDOUT: 10, OUTPUT_STREAM_STDERR: 0})
    assert position.begin(1, 1) == []
    (gap,) = position.begin(1, 2)
    assert (gap.stream, getattr(gap, "from"), gap.to) == (OUTPUT_STREAM_STDOUT, 10, 0)
    assert gap.reason == OUTPUT_GAP_REASON_LOST
    assert position == OutputPosition("r", "aaaa", 1, 2, {OUTPUT_STREAM_STDOUT: 0, OUTPUT_STREAM_STDERR: 0})


def test_offsets_without_a_cursor_belong_to_whichever_run_there_is() -> None:
    position = OutputPosition("r", "aaaa", 0, 0, {OUTPUT_STREAM_STDOUT: 10, OUTPUT_STREAM_STDERR: 0})
    assert position.begin(2, 3) == []
    assert position == OutputPosition("r", "aaaa", 2, 3, {OUTPUT_STREAM_STDOUT: 10, OUTPUT_STREAM_STDERR: 0})
