"""Rows as literals of MySQL: a look at all texts of a row changes nothing of what is written."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as some
from sqlalchemy import BigInteger, Boolean, LargeBinary, String
from sqlalchemy.dialects import mysql

from spincycle_grpc.state import State
from spincycle_server.database.literals import LiteralRow, literal_of
from spincycle_server.database.types import Ascii, BoundedText, Microseconds, StateNumber

DIALECT = mysql.dialect()
TYPES: list[Any] = [
    Ascii(10),
    String(10),
    BoundedText(5),
    BoundedText(),
    LargeBinary(),
    Microseconds(),
    StateNumber(),
    Boolean(),
    BigInteger(),
]


class _Word(str):
    """A text of a class of its own, which is shown as another text."""

    __slots__ = ()

    def __str__(self) -> str:
        return "'"


texts = some.one_of(
    some.none(),
    some.text("ab'\\\\\0%s\"\n\x80\udc80\U0001f600", max_size=8),
    some.text("ab", max_size=8),
    some.text("ab'", max_size=8).map(_Word),
)
long_texts = some.sampled_from(["a" * 16_383, "a" * 16_384, "\U0001f600" * 16_384, "'" * 70_000])
VALUES: dict[type, Any] = {
    Ascii: texts,
    String: texts,
    BoundedText: texts | long_texts,
    LargeBinary: some.none() | some.binary(max_size=4) | some.sampled_from([b"'", b"\\", b"\0", b""]),
    Microseconds: some.none() | some.integers(0, 2**51),
    StateNumber: some.none() | some.sampled_from(list(State)) | some.integers(0, 9),
    Boolean: some.none() | some.booleans() | some.integers(0, 2),
    BigInteger: some.none() | some.integers(-(2**63), 2**63 - 1) | some.booleans(),
}


@given(some.data())
def test_a_row_has_the_literals_of_its_values(data: some.DataObject) -> None:
    types = data.draw(some.lists(some.sampled_from(TYPES), max_size=6))
    values = [data.draw(VALUES[type(kind)]) for kind in types]
    expected = [
        "NULL" if value is None else literal_of(kind, DIALECT)(value)
        for kind, value in zip(types, values, strict=True)
    ]
    assert [f"{one}" for one in LiteralRow(types, DIALECT).literals(values)] == expected


def test_what_ends_a_literal_or_escapes_is_escaped() -> None:
    row = LiteralRow([String(), LargeBinary()], DIALECT)
    assert row.literals(["it's", b"it's"]) == ("'it\\'s'", "_binary'it\\'s'")
    assert row.literals(["a\\", b"a\\"]) == ("'a\\\\'", "_binary'a\\\\'")
    assert row.literals(["a\0b", b"\0"]) == ("'a\\0b'", "_binary'\\0'")
    assert row.literals(["plain %s", b""]) == ("'plain %s'", "_binary''")
