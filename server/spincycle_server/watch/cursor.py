"""Cursors: the place in a stream of changes, as text.

A cursor has everything that another Request Manager needs to go on. Its layout may change with each version
of the server, so clients must not read it.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_server.store.changes import TryKey
from spincycle_server.store.positions import Position, WriterPosition
from spincycle_server.watch.bytes_codec import Reader, Writer

MAX_WRITERS = 300
"""The maximum number of writers in a cursor: those that committed last. Cursors stay short enough for a
header of HTTP."""

MAX_LENGTH = 8192
"""The maximum length of a cursor in characters."""

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a stream.

    Attributes:
        scope: Tells what is watched, see `scope_of`.
        position: All changes up to here were sent; None if nothing was sent.
        target: The changes up to here are being sent; None if no changes are.
        last: The last try that was sent of these changes; None if none was.
        needs_snapshot: Whether the current state was not sent wholly.
        has_ended: Whether the final state of the request was sent, so that no message follows.
    """

    scope: int
    position: Position | None
    target: Position | None = None
    last: TryKey | None = None
    needs_snapshot: bool = False
    has_ended: bool = False

    def text(self) -> str:
        """Returns the cursor as text."""
        writer = Writer()
        writer.number(_VERSION)
        writer.number(self.scope)
        writer.number(self.needs_snapshot + 2 * self.has_ended)
        for position in (self.position, self.target):
            _write_position(writer, position)
        writer.number(self.last is not None)
        if self.last is not None:
            writer.text(self.last.request_id)
            writer.number(self.last.epoch)
            writer.number(self.last.ordinal)
            writer.text(self.last.job_id)
            writer.number(self.last.number)
        data = bytes(writer.data)
        return urlsafe_b64encode(data + crc32(data).to_bytes(4, "big")).rstrip(b"=").decode()


def scope_of(*parts: str | bytes) -> int:
    """Returns 32 bits that tell a watched request or filter from others."""
    data = b"\0".join(part.encode() if isinstance(part, str) else part for part in parts)
    return crc32(data)


def read_cursor(text: str, scope: int) -> Cursor:
    """Reads a cursor.

    Args:
        text: The cursor as text.
        scope: What the caller watches.

    Raises:
        InvalidArgumentError: The cursor is malformed, or belongs to another request or filter. Reason:
            BAD_CURSOR.
    """
    try:
        cursor = _read(text)
    except (ValueError, IndexError, OverflowError) as error:
        raise _bad_cursor("the cursor is malformed: send a cursor as it was received, or none") from error
    if cursor.scope != scope:
        raise _bad_cursor(
            "the cursor belongs to another request or filter: send the cursor with the same request id or "
            "filter as before, or send none"
        )
    return cursor


def _bad_cursor(message: str) -> InvalidArgumentError:
    return InvalidArgumentError(message, reason="BAD_CURSOR", field="cursor")


def _read(text: str) -> Cursor:
    if len(text) > MAX_LENGTH:
        raise ValueError("too long")
    data = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    reader = Reader(data[:-4])
    if len(data) < 8 or crc32(data[:-4]) != int.from_bytes(data[-4:], "big") or reader.number() != _VERSION:
        raise ValueError("damaged")
    scope, flags = reader.number(), reader.number()
    position, target = _read_position(reader), _read_position(reader)
    last = None
    if reader.number():
        last = TryKey(reader.text(), reader.number(), reader.number(), reader.text(), reader.number())
    return Cursor(scope, position, target, last, bool(flags & 1), bool(flags & 2))


def _write_position(writer: Writer, position: Position | None) -> None:
    writer.number(position is not None)
    if position is None:
        return
    writer.number(position.read_at)
    writer.number(position.newest)
    newest = sorted(_last_writers(position), reverse=True)
    writer.number(len(newest))
    earlier = position.newest
    for number in newest:
        writer.number(earlier - number)
        writer.number(position.writers[number].batch)
        writer.number(position.writers[number].digest)
        earlier = number


def _last_writers(position: Position) -> Iterable[int]:
    if len(position.writers) <= MAX_WRITERS:
        return position.writers
    by_age = sorted(position.writers.items(), key=lambda item: item[1].updated_at, reverse=True)
    return [number for number, _ in by_age[:MAX_WRITERS]]


def _read_position(reader: Reader) -> Position | None:
    if not reader.number():
        return None
    read_at, newest = reader.number(), reader.number()
    writers = {}
    number = newest
    for _ in range(reader.number()):
        number -= reader.number()
        writers[number] = WriterPosition(reader.number(), reader.number())
    return Position(writers, newest, read_at)
