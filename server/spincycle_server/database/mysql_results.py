"""Reads the results of MySQL and MariaDB in fewer steps than the driver.

The driver calls five functions for each value of a row, twelve for each packet, ten for each value that
describes a column, and five for each statement that only says that it was successful. These were more than
half of all calls of a small transaction. The names with underscores are the driver's: `pyproject.toml` allows
only the releases that have them, and tests compare the results.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from pymysql.connections import Connection, MySQLResult
from pymysql.constants import COMMAND, CR, FIELD_TYPE, SERVER_STATUS
from pymysql.converters import convert_datetime
from pymysql.err import OperationalError
from pymysql.protocol import MysqlPacket

_NULL = 251
"""The first byte of a value that is NULL. A smaller one is the length of the value."""

_LENGTH_SIZES = {252: 2, 253: 3, 254: 8}
"""How many bytes the length of a longer value has, by the first byte."""


_HEADER = 4
"""The bytes before each packet: its length in three bytes, and its number."""

_ERROR = 255
"""The first byte of a packet with an error."""

_PART = 0xFFFFFF
"""The length of a packet that another one continues."""


class _Columns(NamedTuple):
    """The columns of a result.

    Attributes:
        packets: The packets that described them, with their headers.
        fields: What the driver has read from the packets.
        converters: How values are read.
        description: What a cursor says of them.
    """

    packets: bytes
    fields: Any
    converters: Any
    description: Any


class QuickConnection(Connection):
    """A connection that reads results quickly.

    Attributes:
        columns: The columns of the last result with each number of columns.
    """

    _current_timeout: Any
    _next_seq_id: int
    _read_timeout: Any
    _result: MySQLResult | None
    _rfile: Any
    decoders: dict[int, Any]
    encoding: str

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.columns: dict[int, _Columns] = {}
        super().__init__(*arguments, **named)
        for kind in (FIELD_TYPE.DATETIME, FIELD_TYPE.TIMESTAMP):
            self.decoders[kind] = _datetime

    def run(self, statements: bytes) -> Any:
        """Runs the statements of one packet, and returns the rows of the last one; () if it has none.

        Raises:
            MySQLError: A statement failed. The server has not run those after it.
        """
        self._execute_command(COMMAND.COM_QUERY, statements)  # type: ignore[attr-defined]  # The stubs lack it.
        result: Any = QuickResult(self)
        result.has_next = True
        rows: Any = ()
        while result.has_next:
            packet = self._read_packet()
            if packet.is_ok_packet():
                result._read_ok_packet(packet)
                rows = ()
            else:
                result.connection = self  # It lets go of it at the end of the rows.
                result._read_result_packet(packet)
                rows = result.rows
            if result.server_status is not None:
                self.server_status = result.server_status
        return rows

    def skip(self, packets: bytes, count: int) -> bool:
        """Skips packets if these are the next ones and have all arrived. Returns whether they are.

        Args:
            packets: The packets with their headers.
            count: How many they are.
        """
        is_next: bool = self._arrived().startswith(packets)
        if is_next:
            self._rfile.read(len(packets))
            self._next_seq_id = (self._next_seq_id + count) % 256
        return is_next

    def _arrived(self) -> bytes:
        """Returns what the buffer has. If it has nothing, waits for more, with the driver's errors."""
        try:
            arrived: bytes = self._rfile.peek()
        except OSError as error:
            self._force_close()  # type: ignore[attr-defined]  # The stubs lack it.
            raise OperationalError(
                CR.CR_SERVER_LOST, f"Lost connection to MySQL server during query ({error})"
            ) from error
        except BaseException:
            self._force_close()  # type: ignore[attr-defined]  # The stubs lack it.
            raise
        return arrived

    def _read_packet(self, packet_type: Any = MysqlPacket) -> Any:
        if self._current_timeout == self._read_timeout:
            arrived = self._arrived()
            size = len(arrived)
            if size > _HEADER:
                length = arrived[0] | arrived[1] << 8 | arrived[2] << 16
                end = _HEADER + length
                if (
                    end <= size
                    and 0 < length < _PART
                    and arrived[3] == self._next_seq_id
                    and arrived[_HEADER] != _ERROR
                ):
                    self._rfile.read(end)
                    self._next_seq_id = (self._next_seq_id + 1) % 256
                    return packet_type(arrived[_HEADER:end], self.encoding)
        return super()._read_packet(packet_type)  # type: ignore[no-untyped-call]

    def _read_query_result(self, unbuffered: bool = False) -> Any:
        self._result = None
        result: Any = QuickResult(self)
        if unbuffered:
            result.init_unbuffered_query()
        else:
            result.read()
        self._result = result
        if result.server_status is not None:
            self.server_status = result.server_status
        return result.affected_rows


def _datetime(text: str) -> Any:
    """Reads a time as the driver does, which uses a regular expression."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # For example, all digits are zeros, which the driver returns as text.
        return convert_datetime(text)


class QuickResult(MySQLResult):
    """A result of which rows and short answers are read in one function each."""

    connection: Any
    converters: Any
    description: Any
    field_count: Any
    fields: Any
    has_next: Any
    message: Any

    def _read_ok_packet(self, packet: Any) -> None:
        data: bytes = packet.get_all_data()
        if data[1] >= _NULL or data[2] >= _NULL:  # Large numbers of rows or ids have several bytes.
            super()._read_ok_packet(packet)  # type: ignore[misc]  # The stubs lack it.
            return
        self.affected_rows = data[1]
        self.insert_id = data[2]
        self.server_status = status = data[3] | data[4] << 8
        self.warning_count = data[5] | data[6] << 8
        self.message = data[7:]
        self.has_next = status & SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS

    def _get_descriptions(self) -> None:
        connection: QuickConnection = self.connection
        count = self.field_count
        columns = connection.columns.get(count)
        # A statement that is repeated has the same columns, byte by byte.
        if columns is not None and connection.skip(columns.packets, count):
            _, self.fields, self.converters, self.description = columns
            if not connection._read_packet().is_eof_packet():
                raise OperationalError(CR.CR_COMMANDS_OUT_OF_SYNC, "expected the end of the columns")
            return
        first = connection._next_seq_id
        super()._get_descriptions()  # type: ignore[misc]  # The stubs lack it.
        # Bytes of digits need not be decoded.
        self.converters = [
            (None if convert is int else encoding, convert) for encoding, convert in self.converters
        ]
        packets = b"".join(
            len(data).to_bytes(3, "little") + bytes([number % 256]) + data
            for number, data in enumerate((field.get_all_data() for field in self.fields), first)
        )
        connection.columns[count] = _Columns(packets, self.fields, self.converters, self.description)

    def _read_row_from_packet(self, packet: Any) -> tuple[Any, ...]:
        data: bytes = packet.get_all_data()
        at = 0
        row: list[Any] = []
        for encoding, convert in self.converters:
            length = data[at]
            at += 1
            if length == _NULL:
                row.append(None)
                continue
            if length > _NULL:
                size = _LENGTH_SIZES[length]
                length = int.from_bytes(data[at : at + size], "little")
                at += size
            value: Any = data[at : at + length]
            at += length
            if encoding is not None:
                value = value.decode(encoding)
            row.append(value if convert is None else convert(value))
        return tuple(row)
