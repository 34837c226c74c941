"""The limit on the output of jobs."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spincycle_grpc.output import MIDDLE, OutputBuffer, cut_output, find_cut, first_of_middle

NOTE = re.compile(r"\n\[\.\.\. (\d+) bytes cut out \.\.\.\]\n")


def test_output_within_the_limit_is_kept_whole() -> None:
    buffer = OutputBuffer(10)
    for part in (b"01", b"", b"234", b"56789"):
        buffer.write(part)
    assert buffer.text() == "0123456789"


def test_longer_output_keeps_its_beginning_and_end() -> None:
    buffer = OutputBuffer(1000)
    for number in range(100_000):
        buffer.write(b"%06d\n" % number)
    text = buffer.text()
    assert text.startswith("000000\n000001\n")
    assert text.endswith("099998\n099999\n")
    cut = NOTE.search(text)
    assert cut is not None
    assert len(text) - len(cut.group()) + int(cut.group(1)) == 700_000
    assert 950 < len(text) <= 1000


def test_memory_stays_bounded() -> None:
    buffer = OutputBuffer(10_000)
    for _ in range(1000):
        buffer.write(bytes(100_000))
        assert len(buffer._head) + len(buffer._tail) < 200_000


def test_characters_are_never_split() -> None:
    for extra in range(8):
        text = cut_output("x" * extra + "🦀" * 1000, 500)
        head, tail = NOTE.sub("|", text).split("|")
        assert set(head) <= {"x", "🦀"}
        assert set(tail) == {"🦀"}


def test_invalid_utf8_is_replaced() -> None:
    buffer = OutputBuffer(100)
    for part in (b"\xc3", b"\xa9\xff", b"\xe2\x82"):
        buffer.write(part)
    assert buffer.text() == "é\ufffd\ufffd"


@pytest.mark.parametrize("limit", [0, 1, 30])
def test_a_tiny_limit_leaves_only_the_note(limit: int) -> None:
    text = cut_output("x" * 100, limit)
    assert NOTE.fullmatch(text)


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(60, 600))
@example([b"a" * 300], 299)
def test_the_text_does_not_depend_on_the_parts_and_keeps_the_limit(parts: list[bytes], limit: int) -> None:
    in_parts, at_once = OutputBuffer(limit), OutputBuffer(limit)
    for part in parts:
        in_parts.write(part)
    at_once.write(b"".join(parts))
    whole = b"".join(parts).decode("utf-8", "replace")
    text = at_once.text()
    assert in_parts.text() == text == cut_output(whole, limit)
    assert len(text.encode()) <= limit
    if len(whole.encode()) <= limit:
        assert text == whole
    else:
        head, tail = (part for part in NOTE.split(text) if not part.isdigit())
        assert whole.startswith(head)
        assert whole.endswith(tail)


@given(st.text(max_size=400), st.integers(47, 1000))
@example("x" * 400, 150)
@example("🦀" * 100, 151)
def test_the_note_tells_what_was_cut_out(text: str, limit: int) -> None:
    data = text.encode()
    left = cut_output(text, limit).encode()
    first = first_of_middle(len(left))
    cut = find_cut(left[first : first + MIDDLE], first, len(left))
    if len(data) <= limit:
        assert cut is None
        return
    assert cut is not None
    assert left[: cut.position] == data[: cut.position]
    assert left[cut.position + cut.note :] == data[cut.position + cut.size :]


@pytest.mark.parametrize("text", ["a" * 30 + "\n[... 60 bytes cut out ...]\n", "[... 60 bytes cut out ...]"])
def test_a_text_that_looks_like_a_note_elsewhere_than_in_the_middle_is_none(text: str) -> None:
    assert find_cut(text.encode(), 0, len(text)) is None
