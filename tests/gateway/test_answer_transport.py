"""The head of an answer and a small body are written together, in the order in which they came."""

from __future__ import annotations

import asyncio

import pytest

from spincycle_server.gateway.answer_transport import AnswerTransport

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class RecordingTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))


@pytest.mark.parametrize(
    ("has_body", "parts", "written"),
    [
        (True, [HEAD, b"body"], [HEAD + b"body"]),
        (True, [HEAD, b"part", b"rest"], [HEAD + b"part", b"rest"]),
        (True, [HEAD, b"x" * 32_768], [HEAD + b"x" * 32_768]),
        (True, [HEAD, b"x" * 32_769], [HEAD, b"x" * 32_769]),
        (True, [CONTINUE, HEAD, b"body"], [CONTINUE, HEAD + b"body"]),
        (False, [HEAD], [HEAD]),
    ],
    ids=["small body", "two parts", "largest joined", "large body", "after 100 Continue", "answer to HEAD"],
)
def test_a_head_is_written_together_with_a_small_body(
    has_body: bool, parts: list[bytes], written: list[bytes]
) -> None:
    transport = RecordingTransport()
    answer = AnswerTransport(transport, lambda: None, has_body=has_body)
    for part in parts:
        answer.write(part)
    assert transport.written == written


def test_close_is_the_given_function() -> None:
    closed: list[bool] = []
    answer = AnswerTransport(RecordingTransport(), lambda: closed.append(True), has_body=True)
    answer.close()
    assert closed == [True]
