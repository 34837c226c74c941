"""Page tokens: what the server returned is accepted, and nothing else."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_server.request_manager.page_tokens import (
    LONGEST_TOKEN,
    checked_page_size,
    is_whole,
    page_token,
    place_of,
)

PLACE = (1_800_000_000_000_000, "9vb2d3q0c7k5r1n8m4tg", 7)


def as_place(*values: object) -> tuple[object, ...]:
    return values


def refused(token: str, scope: bytes = b"Find ") -> None:
    with pytest.raises(InvalidArgumentError, match="unchanged") as caught:
        place_of(token, scope, as_place)
    assert (caught.value.reason, caught.value.field) == ("BAD_PAGE_TOKEN", "page_token")


def test_a_token_stands_for_its_place() -> None:
    token = page_token(b"Find ", PLACE)
    assert place_of(token, b"Find ", as_place) == PLACE
    assert place_of("", b"Find ", as_place) is None
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert len(token) < LONGEST_TOKEN


def test_a_token_of_another_scope_is_refused() -> None:
    token = page_token(b"Find a", PLACE)
    for scope in (b"Find b", b"Find ", b"GetLog a", b""):
        refused(token, scope)


@given(st.integers(0, 200), st.sampled_from("ABz09-_"))
def test_a_changed_token_is_refused(position: int, letter: str) -> None:
    token = page_token(b"Find ", PLACE)
    position %= len(token)
    changed = token[:position] + letter + token[position + 1 :]
    if _decoded(changed) != _decoded(token):
        refused(changed)
    refused(token + letter * 4)
    if position:
        refused(token[:position])


@given(st.text(min_size=1))
def test_text_that_is_not_a_token_is_refused(token: str) -> None:
    refused(token)


@pytest.mark.parametrize("token", ["A" * 100_000, "A" * 900, "ü", "\0", "====", "a b"])
def test_malformed_tokens_are_refused(token: str) -> None:
    refused(token)


def test_a_place_that_its_reader_refuses_is_refused() -> None:
    def read(number: int) -> int:
        if number > 5:
            raise ValueError("too large")
        return number

    assert place_of(page_token(b"", (5,)), b"", read) == 5
    for place in ((6,), (5, 5), (), ("x",)):
        with pytest.raises(InvalidArgumentError):
            place_of(page_token(b"", place), b"", read)


@pytest.mark.parametrize("value", [-1, 10, 1.0, True, "1", None, [], {}])
def test_only_numbers_within_the_limit_are_whole(value: object) -> None:
    assert is_whole(0, 10)
    assert is_whole(9, 10)
    assert not is_whole(value, 10)


def test_a_page_size_is_not_negative() -> None:
    assert [checked_page_size(size) for size in (0, 1, 2**31 - 1)] == [0, 1, 2**31 - 1]
    with pytest.raises(InvalidArgumentError) as caught:
        checked_page_size(-1)
    assert (caught.value.reason, caught.value.field) == ("BAD_PAGE_SIZE", "page_size")


def _decoded(token: str) -> bytes:
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
