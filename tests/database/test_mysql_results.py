"""Results of MySQL: they are read as the driver reads them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pymysql
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymysql.connections import Connection, MySQLResult
from pymysql.constants import CLIENT, FIELD_TYPE
from pymysql.protocol import MysqlPacket

from spincycle_server.database.engine import parse_url
from spincycle_server.database.mysql_results import QuickConnection, QuickResult
from tests.databases import SharedServers

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


MORE_RESULTS = 8


class _Chunks(io.RawIOBase):
    """What a server sends, as it arrives: some bytes at a time, and at last the end or an error."""

    def __init__(self, data: bytes, sizes: Sequence[int], last: BaseException | None) -> None:
        super().__init__()
        self._data = data
        self._sizes = iter(sizes)
        self._last = last

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._data and self._last is not None:
            raise self._last
        size = min(len(buffer), next(self._sizes, len(buffer)))
        part, self._data = self._data[:size], self._data[size:]
        buffer[: len(part)] = part
        return len(part)


def receive(connection: Any, data: bytes, sizes: Sequence[int], last: BaseException | None) -> None:
    """Lets these bytes arrive on a connection, as the answer to what it has sent."""
    connection._rfile = io.BufferedReader(_Chunks(data, sizes, last))
    connection._current_timeout = connection._read_timeout
    connection._next_seq_id = 1


def packets(payloads: Iterable[bytes], wrong: int) -> bytes:
    """Returns packets of one answer, with their headers. One of them may have a wrong number."""
    return b"".join(
        len(data).to_bytes(3, "little") + bytes([(number + (number == wrong)) % 256]) + data
        for number, data in enumerate(payloads, 1)
    )


def text(data: bytes) -> bytes:
    return encoded_number(len(data)) + data


def column(name: bytes, kind: int, charset: int) -> bytes:
    """Returns the packet that describes a column."""
    texts = b"".join(map(text, (b"def", b"schema", b"t", b"t", name, name)))
    fixed = charset.to_bytes(2, "little") + (200).to_bytes(4, "little") + bytes([kind, 0, 0, 0, 0, 0])
    return texts + b"\x0c" + fixed


def end(status: int) -> bytes:
    return b"\xfe\0\0" + status.to_bytes(2, "little")


COLUMNS = st.lists(
    st.builds(
        column,
        st.sampled_from([b"a", b"b"]),
        st.sampled_from([FIELD_TYPE.VAR_STRING, FIELD_TYPE.BLOB, FIELD_TYPE.JSON]),
        st.sampled_from([63, 45]),
    ),
    min_size=1,
    max_size=3,
)
SHORT = st.one_of(st.none(), st.binary(max_size=3).map(lambda one: one.hex().encode()))
ERROR = b"\xff\x28\x04#HY000a statement failed"
BREAKS = st.sampled_from([None, None, None, ConnectionResetError(104, "reset"), TimeoutError("timed out")])


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """The answers to one packet of statements."""
    shapes = draw(st.lists(COLUMNS, min_size=1, max_size=2))
    payloads: list[bytes] = []
    count = draw(st.integers(1, 5))
    for number in range(count):
        status = 2 | (MORE_RESULTS if number < count - 1 else 0)
        kind = draw(st.sampled_from(["rows", "rows", "rows", "done", "error", "error in rows"]))
        if kind == "done":
            payloads.append(b"\0\1\0" + status.to_bytes(2, "little") + b"\0\0")
            continue
        if kind == "error":
            payloads.append(ERROR)
            break
        columns = draw(st.sampled_from(shapes))
        rows = draw(st.lists(st.tuples(*[SHORT] * len(columns)), max_size=4))
        if draw(st.integers(0, 20)) == 0:
            rows = [*rows, (b"x" * 9000,) * len(columns)] * draw(st.sampled_from([1, 130]))
        payloads += [encoded_number(len(columns)), *columns, end(status)]
        payloads += [b"".join(b"\xfb" if one is None else text(one) for one in row) for row in rows]
        payloads.append(ERROR if kind == "error in rows" else end(status))
        if kind == "error in rows":
            break
    wrong = draw(st.integers(1, len(payloads))) if draw(st.integers(0, 19)) == 0 else 0
    data = packets(payloads, wrong)
    if draw(st.integers(0, 9)) == 0:
        data = data[: draw(st.integers(0, len(data)))]  # The connection breaks.
    return data


def all_read(connection: Any) -> list[Any]:
    """Reads all results. Returns what they have, and at last the error, if there is one."""
    found: list[Any] = []
    try:
        while True:
            rows = connection._read_query_result()
            result = connection._result
            found.append((rows, result.rows, result.description, connection.server_status))
            found.append((connection._next_seq_id, result.warning_count, bool(result.has_next)))
            if not result.has_next:
                break
    except Exception as error:  # Both must raise the same, whatever it is.
        found.append((type(error), error.args))
    return found


def seen_by(
    kind: type[Connection[Any]],
    read: Callable[[Any], list[Any]],
    data: list[bytes],
    sizes: list[int],
    last: BaseException | None,
) -> list[list[Any]]:
    """Returns what a connection reads of several answers, which come in parts of some sizes."""
    connection: Any = kind(defer_connect=True)
    connection.server_status = 0
    found = []
    for one in data:
        receive(connection, one, sizes, last)
        found.append(read(connection))
    return found


some_answers = st.lists(answers(), min_size=1, max_size=3)
some_sizes: st.SearchStrategy[list[int]] = st.just([]) | st.lists(st.integers(1, 40))


@given(some_answers, some_sizes, BREAKS)
def test_results_are_those_of_the_driver_however_they_arrive(
    data: list[bytes], sizes: list[int], last: BaseException | None
) -> None:
    """One connection reads several answers, so that it knows the columns of earlier ones."""
    expected = seen_by(Connection, all_read, data, sizes, last)
    assert seen_by(QuickConnection, all_read, data, sizes, last) == expected


class _Socket:
    """Where statements go that nobody reads."""

    def sendall(self, data: bytes) -> None:
        assert data

    def settimeout(self, seconds: float) -> None:
        assert seconds

    def close(self) -> None:
        """Nothing is open."""


def all_run(connection: Any) -> list[Any]:
    """Runs statements whose rows nobody wants. Returns how the connection is then, and the error, if any."""
    connection._sock = _Socket()
    found: list[Any] = []
    try:
        if isinstance(connection, QuickConnection):
            connection.run(b"DO 1")
        else:
            connection.query("DO 1")
            while connection._result.has_next:
                connection.next_result()
        found.append(connection._next_seq_id)
    except Exception as error:  # Both must raise the same, whatever it is.
        found.append((type(error), error.args))
    return [*found, connection.server_status, connection._sock is None]


@given(some_answers, some_sizes, BREAKS)
def test_statements_whose_rows_nobody_wants_end_as_those_of_the_driver(
    data: list[bytes], sizes: list[int], last: BaseException | None
) -> None:
    expected = seen_by(Connection, all_run, data, sizes, last)
    assert seen_by(QuickConnection, all_run, data, sizes, last) == expected


@pytest.fixture(scope="module")
def connections(database_servers: SharedServers) -> Iterator[tuple[Connection[Any], Connection[Any]]]:
    """A connection of the driver to MariaDB, and one of this program."""
    url = parse_url(database_servers.url("mariadb", Path()))
    both = [
        kind(host=url.host, port=url.port or 0, user=url.username, client_flag=CLIENT.MULTI_STATEMENTS)
        for kind in (Connection, QuickConnection)
    ]
    yield both[0], both[1]
    for one in both:
        one.close()


QUERIES = [
    "SELECT 1, 'a'",
    "SELECT 1, 'a'",
    "SELECT 2, 'b'",
    "SELECT 1 AS x, 'a'",  # Other columns, as many.
    "SELECT 'a', 1",
    "SELECT 'a', 1 WHERE FALSE",
    "SELECT NULL, CAST('2026-11-30 01:02:03.000004' AS DATETIME(6)), 1.5, CAST('1' AS JSON), x'00ff'",
    "SELECT CAST('2026-11-30 01:02:03' AS DATETIME), CAST('2026-11-30 01:02:03.12' AS DATETIME(2))",
    "SELECT CAST('0000-00-00' AS DATETIME), CAST('2026-00-01' AS DATETIME(3))",
    "SELECT FROM_UNIXTIME(1.5), CURRENT_DATE, CAST('1:2:3' AS TIME), CAST('9999-12-31 23:59:59' AS DATETIME)",
    "SELECT seq, REPEAT('x', seq * 40) FROM seq_1_to_600",
    "SELECT seq, REPEAT('x', seq * 40) FROM seq_1_to_600",
    "SELECT REPEAT('x', 17000000)",
    "DO 1",
    "SELECT 1, 'a'; DO 2; SELECT 1, 'a'; SELECT 3",
    "SELECT 1; SELECT nothing",
    "SELECT 1, 'a'",
]


def test_queries_of_a_server_have_the_results_of_the_driver(
    connections: tuple[Connection[Any], Connection[Any]],
) -> None:
    """The connection sees each query after the others, so it knows the columns of some."""
    for query in (*QUERIES, *reversed(QUERIES)):
        seen = []
        for connection in connections:
            with connection.cursor() as cursor:
                results: list[Any] = []
                try:
                    cursor.execute(query)
                    results.append((cursor.description, cursor.fetchall(), cursor.rowcount))
                    while cursor.nextset():
                        results.append((cursor.description, cursor.fetchall(), cursor.rowcount))
                except pymysql.MySQLError as error:
                    results.append(error.args)
                seen.append(results)
        assert seen[1] == seen[0]
