"""The text of jobs on a terminal and in a file."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spincycle_grpc.cli.live_text import LONGEST_LINE, LiveText, prefixed

RED, END = "\x1b[31m", "\x1b[0m"


def parts_of(text: str, cuts: list[int]) -> list[str]:
    places = sorted({cut % (len(text) + 1) for cut in cuts})
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


@given(st.text("ab\n\r\t\x1b[;1m\x07é", max_size=40), st.lists(st.integers(0, 100)), st.booleans())
def test_pieces_give_the_same_text_as_the_whole(text: str, cuts: list[int], in_lines: bool) -> None:
    whole = LiveText(is_stderr=False, in_lines=in_lines)
    expected = whole.add(text) + whole.end()
    pieces = LiveText(is_stderr=False, in_lines=in_lines)
    assert "".join(pieces.add(part) for part in parts_of(text, cuts)) + pieces.end() == expected


@pytest.mark.parametrize(
    ("is_terminal", "no_color", "expected"),
    [
        (True, "", f"a\t{RED}red{END}\\x1b[2J\\x07\n"),
        (True, "1", "a\tred\\x1b[2J\\x07\n"),
        (False, "", "a\tred\\x1b[2J\\x07\n"),
    ],
)
def test_colors_pass_to_a_terminal_and_other_escapes_never(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, no_color: str, expected: str
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    monkeypatch.setenv("NO_COLOR", no_color)
    text = LiveText(is_stderr=False, in_lines=False)
    assert text.add(f"a\t{RED}red{END}\x1b[2J\x07\r\n") == expected


def test_unfinished_lines_are_kept_back_unless_they_are_very_long() -> None:
    text = LiveText(is_stderr=False, in_lines=True)
    assert text.add("one\ntw") == "one\n"
    assert text.add("o") == ""
    assert text.end() == "two\n"
    assert text.add("x" * LONGEST_LINE) == ""
    assert len(text.add("y")) == LONGEST_LINE + 1


def test_colors_end_with_their_line() -> None:
    assert prefixed(f"{RED}one\ntwo\n", "job | ") == f"job | {RED}one{END}\njob | two\n"
