"""Messages and errors as server-sent events."""

from __future__ import annotations

import orjson
import pytest

from spincycle_grpc.errors import PermissionDeniedError
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.request_manager_pb2 import WatchResponse
from spincycle_server.gateway.event_text import accepts_events, error_event, message_event

LINES = "one\r\ntwo\n\nthree\r\x85\u2028data: x\0"


def test_line_ends_in_values_do_not_end_an_event() -> None:
    event = message_event(WatchResponse(cursor="1", tries=[JobLog(job_id="a", error=LINES)]))
    head, data, *rest = event.splitlines(keepends=True)
    assert (head, rest) == (b"id: 1\n", [b"\n"])
    assert data.startswith(b"data: ")
    assert orjson.loads(data[6:])["tries"][0]["error"] == LINES


def test_a_message_without_cursor_has_no_id() -> None:
    assert message_event(JobLog(job_id="a")).startswith(b'data: {"requestId"')


def test_an_error_has_its_reason_in_the_data() -> None:
    event = error_event(PermissionDeniedError('not "you"', reason="ACCESS_DENIED"), 403)
    kind, data, end = event.splitlines()
    assert (kind, end) == (b"event: error", b"")
    assert orjson.loads(data.removeprefix(b"data: ")) == {
        "message": 'not "you"',
        "requestId": "",
        "httpStatus": 403,
        "reason": "ACCESS_DENIED",
    }


@pytest.mark.parametrize(
    ("accept", "is_accepted"),
    [
        ("", True),
        (" ", True),
        ("TEXT/Event-Stream", True),
        ("application/json,text/*;q=0.5", True),
        ("*/*;q=0", False),
        ("text/*, text/event-stream;q=0.0", False),
        ("text/html", False),
        (",;q=,", False),
    ],
)
def test_the_most_specific_range_decides(accept: str, is_accepted: bool) -> None:
    assert accepts_events(accept) is is_accepted
