"""What a try writes: kept for the job log, and read meanwhile from any offset."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import pickle
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.jobs import output_of, set_output
from spincycle_grpc.output import STDERR, STDOUT, cut_output
from spincycle_grpc.v1.output_pb2 import OUTPUT_STREAM_STDERR, OUTPUT_STREAM_STDOUT, OutputGap, OutputStream
from spincycle_server.builtin_jobs import Noop
from spincycle_server.job_runner import try_output as module
from spincycle_server.job_runner.try_output import HeldOutput, Offsets, OutputPiece, TryOutput
from tests.limits import STEP

OUT, ERR = OUTPUT_STREAM_STDOUT, OUTPUT_STREAM_STDERR
STREAMS = {STDOUT: OUT, STDERR: ERR}


def start() -> Offsets:
    return {OUT: 0, ERR: 0}


def texts(pieces: list[OutputPiece]) -> list[str]:
    return ["gap" if isinstance(piece, OutputGap) else piece.text for piece in pieces]


class Reader:
    """Reads an output piece by piece, and checks each piece against all that was written."""

    def __init__(self, output: TryOutput) -> None:
        self._output = output
        self._offsets = start()
        self.texts = {OUT: b"", ERR: b""}

    def read(self, written: dict[OutputStream.ValueType, bytes]) -> None:
        for piece in self._output.pieces(self._offsets, 60):
            text = written[piece.stream]
            at = len(self.texts[piece.stream])
            if isinstance(piece, OutputGap):
                assert getattr(piece, "from") == at < piece.to
                self.texts[piece.stream] += text[at : piece.to]
            else:
                assert piece.offset == at
                assert text[at : at + len(piece.text.encode())] == piece.text.encode()
                self.texts[piece.stream] += piece.text.encode()


WRITES = st.lists(
    st.tuples(st.sampled_from([STDOUT, STDERR]), st.text("aé€🦀\n", max_size=30), st.booleans())
)


@given(WRITES, st.integers(0, 300))
async def test_a_reader_gets_each_text_once_and_the_job_log_what_the_limit_leaves(
    writes: list[tuple[int, str, bool]], limit: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", 37)
        patch.setattr("spincycle_grpc.output._LEAST_TAIL", 20)
        output = TryOutput(limit, HeldOutput())
        reader = Reader(output)
        written = {OUT: b"", ERR: b""}
        for stream, text, reads in writes:
            output.write(stream, text.encode())
            written[STREAMS[stream]] += text.encode()
            if reads:
                reader.read(written)
        for _ in range(1 + sum(len(text) for text in written.values()) // 37):
            reader.read(written)
        assert reader.texts == written
        kept = output.end({STDOUT: "", STDERR: ""})
        assert kept == {stream: cut_output(written[kind].decode(), limit) for stream, kind in STREAMS.items()}


async def test_stdout_and_stderr_are_read_in_the_order_in_which_they_were_written() -> None:
    output = TryOutput(1000, HeldOutput())
    for number in range(5):
        output.write(STDERR if number % 2 else STDOUT, b"%d" % number)
    offsets = start()
    assert texts(output.pieces(offsets, 1000)) == ["0", "1", "2", "3", "4"]
    assert output.pieces(offsets, 1000) == []


async def test_bytes_that_are_not_utf8_are_replaced_and_a_split_character_comes_when_it_is_complete() -> None:
    output = TryOutput(1000, HeldOutput())
    offsets = start()
    output.write(STDOUT, b"a\xc3")
    assert texts(output.pieces(offsets, 1000)) == ["a"]
    output.write(STDOUT, b"\xa9\xff")
    assert texts(output.pieces(offsets, 1000)) == ["é\ufffd"]


async def test_what_a_job_returns_follows_what_it_has_written() -> None:
    for written, returned, kept in (
        ("one\n", "two\n", "one\ntwo\n"),
        ("one", "two", "one\ntwo"),
        ("one\n", "one\n", "one\n"),
        ("one\n", "", "one\n"),
        ("", "two", "two"),
    ):
        output = TryOutput(1000, HeldOutput())
        if written:
            output.write(STDOUT, written.encode())
        assert output.end({STDOUT: returned, STDERR: ""}) == {STDOUT: kept, STDERR: ""}


async def test_an_offset_beyond_the_end_is_refused() -> None:
    output = TryOutput(1000, HeldOutput())
    output.write(STDOUT, b"12345")
    with pytest.raises(InvalidArgumentError) as raised:
        output.pieces({OUT: 6, ERR: 0}, 1000)
    assert raised.value.reason == "BAD_OFFSET"
    assert output.pieces({OUT: 5, ERR: 0}, 1000) == []


async def test_a_write_in_a_thread_wakes_a_follower_and_one_after_the_end_is_dropped() -> None:
    output = TryOutput(1000, HeldOutput())
    news = output.subscribe()
    threading.Thread(target=output.write, args=(STDOUT, b"hello")).start()
    async with asyncio.timeout(STEP):
        await news.wait()
    offsets = start()
    assert texts(output.pieces(offsets, 1000)) == ["hello"]
    output.end({})
    output.write(STDOUT, b"late")
    assert output.pieces(offsets, 1000) == []
    output.release()
    assert output.is_released
    assert output.pieces(start(), 1000) == []


async def test_output_that_nobody_follows_is_forgotten_at_its_end() -> None:
    output = TryOutput(1000, HeldOutput())
    output.write(STDOUT, b"text")
    assert output.end({STDOUT: "", STDERR: ""})[STDOUT] == "text"
    assert output.is_released


async def test_the_memory_of_all_tries_is_bounded_and_their_beginning_and_end_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_HELD", 1_000_000)
    held = HeldOutput()
    outputs = [TryOutput(1 << 20, held) for _ in range(10)]
    for number in range(3000):
        for output in outputs:
            output.write(STDOUT, b"%09d\n" % number * 100)
    assert sum(output._buffers[STDOUT].held for output in outputs) < 3_000_000
    text = outputs[-1].end({STDOUT: ""})[STDOUT]
    assert text.startswith("000000000\n")
    assert text.endswith("000002999\n")
    assert len(text) <= 1 << 20
    for output in outputs:
        output.release()
    assert not held.add(0)
    assert held._size == 0


async def test_a_job_can_be_copied_and_pickled_while_it_runs() -> None:
    job, output = Noop(), TryOutput(1000, HeldOutput())
    set_output(job, output)
    assert output_of(copy.deepcopy(job)) is output
    assert output_of(pickle.loads(pickle.dumps(job))) is None


async def test_a_forked_process_writes_nothing_and_does_not_hang() -> None:
    output = TryOutput(1000, HeldOutput())
    with output._lock:
        process = multiprocessing.get_context("fork").Process(target=output.write, args=(STDOUT, b"child"))
        process.start()
    await asyncio.to_thread(process.join, STEP)
    assert process.exitcode == 0
    assert output.pieces(start(), 1000) == []
