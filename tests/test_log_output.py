"""The output of the log never raises, never blocks, and reports what was lost."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from spincycle_server.log_output import LogOutput, text_stream
from tests.limits import STEP


def report(lost: int) -> bytes:
    return b"lost %d" % lost


def drained(descriptor: int) -> bytes:
    os.set_blocking(descriptor, False)
    data = b""
    while True:
        try:
            part = os.read(descriptor, 1 << 20)
        except BlockingIOError:
            return data
        if not part:
            return data
        data += part


def test_lines_are_written_in_order() -> None:
    reader, writer = os.pipe()
    output = LogOutput(writer, report)
    output.write(b"one")
    output.write(b"two")
    assert drained(reader) == b"one\ntwo\n"


def test_a_reader_that_does_not_read_costs_lines_and_is_told_their_number() -> None:
    reader, writer = os.pipe()
    output = LogOutput(writer, report)

    def write() -> None:
        for _ in range(1000):
            output.write(b"x" * 1000)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    thread.join(STEP)
    assert not thread.is_alive()
    lost = output.lost
    assert 0 < lost < 1000
    drained(reader)
    output.write(b"again")
    lines = drained(reader).split(b"\n")
    assert [line for line in lines if line] == [b"lost %d" % lost, b"again"]
    assert output.lost == 0


def test_a_line_that_breaks_off_does_not_swallow_the_next_one() -> None:
    reader, writer = os.pipe()
    output = LogOutput(writer, report)
    output.write(b"x" * 1_000_000)
    assert output.lost == 1
    drained(reader)
    output.write(b"again")
    assert drained(reader) == b"\nlost 1\nagain\n"


@pytest.mark.parametrize("kind", ["reader gone", "closed", "full disk", "read only"])
def test_an_output_that_cannot_be_written_counts_its_lines(kind: str, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    if kind == "reader gone":
        os.close(reader)
    elif kind == "closed":
        os.close(writer)
    elif kind == "full disk":
        writer = os.open("/dev/full", os.O_WRONLY)
    else:
        (tmp_path / "file").touch()
        writer = os.open(tmp_path / "file", os.O_RDONLY)
    output = LogOutput(writer, report)
    for _ in range(3):
        output.write(b"line")
    assert output.lost == 3
    print("from a job \ud800", file=text_stream(output, writer), flush=True)


def test_what_is_printed_is_written_with_escapes_for_lone_surrogates() -> None:
    reader, writer = os.pipe()
    print("a\ud800b", file=text_stream(LogOutput(writer, report), writer))
    assert drained(reader) == b"a\\ud800b\n"


def test_a_forked_child_can_write_while_a_thread_of_its_parent_was_writing() -> None:
    reader, writer = os.pipe()
    output = LogOutput(writer, report)
    with output._lock:
        child = os.fork()
        if child == 0:
            output.write(b"child")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert drained(reader) == b"child\n"
