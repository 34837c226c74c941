"""Entries of the job log that are completed by FollowOutput."""

from __future__ import annotations

from spincycle_grpc.cut_entries import CutEntry, is_cut
from spincycle_grpc.output import cut_output
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.output_pb2 import (
    OUTPUT_GAP_REASON_TRUNCATED,
    OUTPUT_STREAM_STDERR,
    OUTPUT_STREAM_STDOUT,
    OutputEnd,
    OutputGap,
    OutputText,
)
from spincycle_grpc.v1.request_manager_pb2 import FollowOutputResponse


def an_entry(**fields: object) -> JobLog:
    return JobLog(**{"request_id": "r", "job_id": "aaaa", "try": 3, **fields})  # type: ignore[arg-type]


def test_an_entry_is_cut_if_output_is_missing() -> None:
    assert not is_cut(an_entry(stdout="x"))
    assert is_cut(an_entry(stdout_omitted=1))
    assert is_cut(an_entry(stderr_omitted=1))


def test_the_rest_is_asked_for_in_bytes() -> None:
    request = CutEntry(an_entry(stdout="ü€", stderr="x", stdout_omitted=9)).request()
    assert (request.request_id, request.job_id, getattr(request, "try")) == ("r", "aaaa", 3)
    assert (request.stdout_offset, request.stderr_offset) == (5, 1)


def test_a_completed_entry_is_as_it_is_stored() -> None:
    """Also the note of what the Job Runner did not keep, which FollowOutput shows as a gap."""
    written = "0123456789" * 30
    stored = cut_output(written, 200)
    head, _, tail = stored.partition("\n[")[0], None, stored.rpartition("]\n")[2]
    entry = an_entry(stdout=stored[:20], stdout_omitted=len(stored) - 20, stderr="no", stderr_omitted=1)
    rest = CutEntry(entry)
    end = len(written) - len(tail)
    gap = OutputGap(
        stream=OUTPUT_STREAM_STDOUT, to=end, reason=OUTPUT_GAP_REASON_TRUNCATED, **{"from": len(head)}
    )
    for response in (
        FollowOutputResponse(cursor="1"),
        FollowOutputResponse(text=OutputText(stream=OUTPUT_STREAM_STDOUT, offset=20, text=head[20:])),
        FollowOutputResponse(text=OutputText(stream=OUTPUT_STREAM_STDERR, offset=2, text="!")),
        FollowOutputResponse(gap=gap),
        FollowOutputResponse(text=OutputText(stream=OUTPUT_STREAM_STDOUT, offset=end, text=tail)),
        FollowOutputResponse(end=OutputEnd()),
    ):
        rest.add(response)
    rest.finish()
    assert (entry.stdout, entry.stderr) == (stored, "no!")
    assert not is_cut(entry)
