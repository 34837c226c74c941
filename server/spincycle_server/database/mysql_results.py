"""Reads the results of MySQL and MariaDB in fewer steps than the driver.

The driver calls five functions for each value of a row, and for each statement that only says that it was
successful. That took a Request Manager a tenth of its CPU time per request. The names with underscores are
the driver's: `pyproject.toml` allows only the releases that have them, and tests compare the results.
"""

from __future__ import annotations

from typing import Any

from pymysql.connections import Connection, MySQLResult
from pymysql.constants import SERVER_STATUS

_NULL = 251
"""The first byte of a value that is NULL. A smaller one is the length of the value."""

_LENGTH_SIZES = {252: 2, 253: 3, 254: 8}
"""How many bytes the length of a longer value has, by the first byte."""


class QuickConnection(Connection):
    """A connection that reads results quickly."""

    _result: MySQLResult | None

    def read_rest(self) -> None:
        """Reads the results of all further statements of a packet.

        Raises:
            MySQLError: A statement failed. The server has not run those after it.
        """
        while self._result is not None and self._result.has_next:
            self.next_result()

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


class QuickResult(MySQLResult):
    """A result of which rows and short answers are read in one function each."""

    converters: Any
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
