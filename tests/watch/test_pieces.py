"""Changes are split into messages without losing any, and a state comes after its tries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.store.changes import Try, TryKey
from spincycle_server.watch import pieces
from spincycle_server.watch.pieces import RequestChange, end_of, pieces_of


def change(number: int, tries: int, has_state: bool) -> RequestChange:
    request_id = f"{number:03}"
    made = [
        Try(TryKey(request_id, 1, one, "aaaa", one), JobLog(request_id=request_id, started_at=one), None)
        for one in range(tries)
    ]
    return RequestChange(request_id, made, Request(id=request_id) if has_state else None)


@given(sizes=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=8), limit=st.integers(0, 60))
def test_each_piece_is_bounded_and_together_they_are_the_changes(
    sizes: list[tuple[int, bool]], limit: int
) -> None:
    changes = [change(number, *size) for number, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(pieces, "MAX_BYTES", limit)
        found = list(pieces_of(changes))
    assert [one for piece in found for one in piece.tries] == [
        one.entry for some in changes for one in some.tries
    ]
    assert [one.id for piece in found for one in piece.requests] == [
        some.request_id for some in changes if some.request is not None
    ]
    seen: set[str] = set()
    for piece in found:
        assert piece.last is not None
        assert not {one.request_id for one in piece.tries} & seen, "a state came before a try"
        seen |= {one.id for one in piece.requests}
    if changes:
        assert found[-1].last == end_of(changes[-1].request_id)


def test_the_last_key_of_a_piece_is_that_of_its_last_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MAX_BYTES", 0)
    found = list(pieces_of([change(1, 3, has_state=True)]))
    assert [piece.last and piece.last.number for piece in found] == [0, 1, 2, 0]
    assert found[-1].last == end_of("001")
