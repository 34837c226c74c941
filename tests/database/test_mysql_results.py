"""Results of MySQL: they are read as the driver reads them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pymysql.connections import MySQLResult
from pymysql.protocol import MysqlPacket

from spincycle_server.database.mysql_results import QuickResult

COUNTS = st.one_of(st.integers(0, 260), st.integers(0, 2**64 - 1))
LENGTHS = st.sampled_from([0, 1, 249, 250, 251, 252, 255, 256, 65_535, 65_536, 70_000])
VALUES = st.one_of(st.none(), st.binary(max_size=20), st.builds(lambda length: b"x" * length, LENGTHS))


def encoded_number(number: int) -> bytes:
    """Returns a number as the protocol writes it."""
    if number < 251:
        return bytes([number])
    mark, size = next(one for one in ((252, 2), (253, 3), (254, 8)) if number < 256 ** one[1])
    return bytes([mark]) + number.to_bytes(size, "little")


def results(data: bytes, converters: list[tuple[str | None, Any]]) -> tuple[tuple[Any, Any], ...]:
    """Returns a packet and a result to read it, by the driver and by this program."""
    found = []
    for kind in (MySQLResult, QuickResult):
        result: Any = kind(None)  # type: ignore[arg-type]
        result.converters = converters
        found.append((result, MysqlPacket(data, "utf8mb4")))
    return tuple(found)


@given(st.lists(VALUES, min_size=1, max_size=6))
def test_rows_are_those_of_the_driver(values: list[bytes | None]) -> None:
    data = b"".join(b"\xfb" if value is None else encoded_number(len(value)) + value for value in values)
    kinds: list[tuple[str | None, Any]] = [
        (None, None),
        ("latin-1", None),
        (None, len),
        ("latin-1", str.upper),
    ]
    converters = [kinds[index % len(kinds)] for index in range(len(values))]
    drivers, own = (result._read_row_from_packet(packet) for result, packet in results(data, converters))
    assert own == drivers


@given(COUNTS, COUNTS, st.integers(0, 65_535), st.integers(0, 65_535), st.binary(max_size=9))
def test_answers_without_rows_are_those_of_the_driver(
    rows: int, insert_id: int, status: int, warnings: int, message: bytes
) -> None:
    numbers = encoded_number(rows) + encoded_number(insert_id)
    flags = status.to_bytes(2, "little") + warnings.to_bytes(2, "little")
    seen = []
    for result, packet in results(b"\0" + numbers + flags + message, []):
        result._read_ok_packet(packet)
        names = ("affected_rows", "insert_id", "server_status", "warning_count", "message")
        seen.append([getattr(result, name) for name in names] + [bool(result.has_next)])
    assert seen[0] == seen[1]
    assert seen[0][0] == rows
