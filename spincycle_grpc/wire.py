"""The JSON codec: it converts messages to and from the JSON of the original Spin Cycle.

Descriptors and the options of `json.proto` define the JSON of each message. There is no code for single
messages. docs/wire-format.md has the rules.
"""

from __future__ import annotations

import gc
import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar

import orjson
from google.protobuf.message import Message

from spincycle_grpc._json_reading import FillFunctions
from spincycle_grpc._json_source import JsonEndsEarlyError, JsonSyntaxError, first_value, locate
from spincycle_grpc._json_values import WrongTypeError
from spincycle_grpc._json_writing import Write, WriteFunctions
from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.structs import discard

_AnyMessage = TypeVar("_AnyMessage", bound=Message)

_ORJSON_LARGEST = 2.0**63
"""orjson parses whole numbers from 2^63 on as floats."""

_LONGEST_INTEGER = 400
"""Characters of a whole number that are parsed. A longer number fits neither a field nor a double."""

_LONGEST_SHOWN = 40
"""Bytes of a number that an error message shows."""

LONGEST_LOCATED = 65_536
"""Bytes of a text in which errors are located as the original does, which takes about a second per MB.

For an error in a longer text, the message has the words and the position of Python's parser, or no position.
"""

_SPACE = re.compile(r"[ \t\r\n]*")

_ESCAPED_FRAGMENT = 262_144
"""Bytes that are escaped in one step, between which other threads can run."""

_writers = WriteFunctions()
_write_functions: dict[tuple[type[Message], str], Write] = {}
"""By the class of messages, and the name of a field or "". Descriptors are slower to look at."""

_fills = FillFunctions(_ORJSON_LARGEST)
_exact_fills = FillFunctions(float("inf"))


class JsonTooLongError(Exception):
    """The JSON of a message is longer than the caller allows."""


def encode(message: Message, field: str = "", *, longest: float = math.inf) -> bytes:
    """Converts a message, or one of its fields, to JSON on one line.

    Infinity and NaN in args become null, because JSON has neither.

    Args:
        message: The message.
        field: The name of a field in the .proto. Empty: the whole message.
        longest: The maximum length of the JSON in bytes. Escapes can make text six times as long.

    Raises:
        InvalidArgumentError: A time is outside the years 1 to 9999.
        JsonTooLongError: The JSON is longer than `longest`.
    """
    write = _write_functions.get((message.__class__, field)) or _write_function(message, field)
    # As `_PausedCollector`, which takes two calls more.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        data = orjson.dumps(write(message))
    finally:
        if was_enabled:
            gc.enable()
    data = _escaped_fragment(data) if len(data) <= _ESCAPED_FRAGMENT else _escaped(data, longest)
    if len(data) > longest:
        raise JsonTooLongError
    return data


def _write_function(message: Message, field: str) -> Write:
    """Returns the function that writes messages of a class, or one of their fields, and keeps it."""
    descriptor: Any = message.DESCRIPTOR
    write = _writers.of_field(descriptor.fields_by_name[field]) if field else _writers.of_message(descriptor)
    _write_functions[message.__class__, field] = write
    return write


def decode(data: bytes, message_type: type[_AnyMessage]) -> _AnyMessage:
    """Parses JSON as a message.

    Raises:
        InvalidArgumentError: The JSON does not fit the message type. The error names the field.
            Reasons: BAD_JSON, WRONG_TYPE, NUMBER_TOO_LARGE, TOO_DEEP.
    """
    message = message_type()
    decode_into(message, data)
    return message


def decode_into(message: Message, data: bytes, field: str = "") -> None:
    """Parses JSON into a message, or into one of its fields, and replaces the old content.

    Args:
        message: The message. After an error it is partly filled.
        data: The JSON. Text after the first value is ignored.
        field: The name of a field in the .proto. Empty: the whole message.

    Raises:
        InvalidArgumentError: As in `decode`.
    """
    failure: InvalidArgumentError | None = None
    with _PausedCollector():
        try:
            _decode_into(message, data, field)
        except InvalidArgumentError as error:
            # The traceback would keep the parsed values, which may be many.
            failure = error.with_traceback(None)
            failure.__context__ = None
    if failure is not None:
        try:
            raise failure
        finally:
            del failure


def _decode_into(message: Message, data: bytes, field: str) -> None:
    try:
        value = orjson.loads(data)
        fills = _fills
    except orjson.JSONDecodeError:
        data, value = _parse_slowly(data)
        fills = _exact_fills
    try:
        try:
            _fill(fills, message, field, value)
        except InvalidArgumentError as error:
            if fills is _exact_fills or error.reason != "NUMBER_TOO_LARGE":
                raise
            _fill(_exact_fills, message, field, _long_decoder.decode(data.decode()))
    except WrongTypeError as error:
        raise _wrong_type(error, data) from None
    finally:
        if len(data) > LONGEST_LOCATED:
            discard(value)


class _PausedCollector:
    """Pauses the garbage collector while the codec builds trees of objects.

    The trees have no cycles, but they make the collector search all objects of the process repeatedly, which
    takes as long as the codec itself. If two threads overlap, the collector resumes a little early.
    """

    __slots__ = ("_was_enabled",)

    def __enter__(self) -> None:
        self._was_enabled = gc.isenabled()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        if self._was_enabled:
            gc.enable()


def _fill(fills: FillFunctions, message: Message, field: str, value: Any) -> None:
    descriptor: Any = message.DESCRIPTOR
    if field:
        message.ClearField(field)
        fill = fills.of_field(descriptor.fields_by_name[field])
    else:
        message.Clear()
        fill = fills.of_message(descriptor)
    if value is not None:
        fill(message, value)


def _escaped(data: bytes, longest: float) -> bytes:
    """Escapes a long text in parts, up to the length at which it is too long. See `_escaped_fragment`."""
    parts: list[bytes] = []
    left = longest - len(data)
    for fragment in _fragments(data):
        if left < 0:
            raise JsonTooLongError
        parts.append(_escaped_fragment(fragment))
        left -= len(parts[-1]) - len(fragment)
    return b"".join(parts)


def _fragments(data: bytes) -> Iterator[bytes]:
    """Yields a text in parts, and cuts no character in two."""
    start = 0
    while start < len(data):
        end = start + _ESCAPED_FRAGMENT
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end += 1
        yield data[start:end]
        start = end


def _escaped_fragment(data: bytes) -> bytes:
    """Escapes the characters that have a meaning in HTML or JavaScript, as the original does."""
    if b"<" in data:
        data = data.replace(b"<", b"\\u003c")
    if b">" in data:
        data = data.replace(b">", b"\\u003e")
    if b"&" in data:
        data = data.replace(b"&", b"\\u0026")
    if b"\xe2\x80" in data:
        data = data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return data


def _parse_slowly(data: bytes) -> tuple[bytes, Any]:
    """Parses text that orjson refused. Like Go, it accepts invalid Unicode, and text after the first value.

    Returns:
        The text up to the end of its first value, and that value.
    """
    if len(data) > LONGEST_LOCATED:
        return data, _parse_long(data)
    try:
        data = data[: first_value(data).end]
        return data, _unicode(json.loads(data.decode("utf-8", "replace"), parse_int=_parse_integer))
    except JsonSyntaxError as error:
        raise InvalidArgumentError(
            f"Syntax error: offset={error.offset}, error={error.problem}", reason="BAD_JSON"
        ) from None
    except JsonEndsEarlyError as error:
        raise InvalidArgumentError(str(error), reason="BAD_JSON") from None


def _parse_long(data: bytes) -> Any:
    """Parses like `_parse_slowly`, but without Python code for each value of the text."""
    text = data.decode("utf-8", "replace")
    start = _SPACE.match(text)
    assert start is not None  # noqa: S101 (the pattern also matches the empty string)
    try:
        value, _ = _long_decoder.raw_decode(text, start.end())
    except json.JSONDecodeError as error:
        if not text[error.pos :]:
            raise InvalidArgumentError(
                "unexpected EOF" if start.end() < len(text) else "EOF", reason="BAD_JSON"
            ) from None
        raise InvalidArgumentError(
            f"Syntax error: offset={len(text[: error.pos].encode()) + 1}, error={error.msg}",
            reason="BAD_JSON",
        ) from None
    except RecursionError:
        raise _too_deep() from None
    return _unicode(value) if b"\\u" in data else value


def _too_deep() -> InvalidArgumentError:
    return InvalidArgumentError("Syntax error: offset=0, error=exceeded max depth", reason="BAD_JSON")


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidArgumentError(f"Syntax error: offset=0, error={name} is not JSON", reason="BAD_JSON")


def _parse_integer(text: str) -> int | float:
    return int(text) if len(text) <= _LONGEST_INTEGER else int(text[:_LONGEST_INTEGER])


_long_decoder = json.JSONDecoder(parse_int=_parse_integer, parse_constant=_refuse_constant)


def _unicode(value: Any) -> Any:
    """Returns a parsed value without lone surrogates, which messages cannot hold. They become U+FFFD.

    Raises:
        InvalidArgumentError: The value nests too deep for Python. Reason: BAD_JSON.
    """
    try:
        return _unicode_value(value)
    except RecursionError:
        raise _too_deep() from None


def _unicode_value(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_unicode_value(item) for item in value]
    if isinstance(value, dict):
        return {_unicode_value(key): _unicode_value(item) for key, item in value.items()}
    return value


def _wrong_type(error: WrongTypeError, data: bytes) -> InvalidArgumentError:
    got = error.got
    offset = 0
    try:
        if len(data) > LONGEST_LOCATED:
            raise LookupError
        source = locate(data, error.path)
        offset = source.start + 1 if got in ("object", "array") else source.end
        if got.startswith("number "):  # As written in the text.
            got = "number " + data[source.start : source.end][:_LONGEST_SHOWN].decode()
    except LookupError:  # The text is long, or the path has a key that was not valid Unicode.
        pass
    field = ".".join(str(name) for name in error.names)
    return InvalidArgumentError(
        f"Unmarshal type error: expected={error.expected}, got={got}, field={field}, offset={offset}",
        reason="WRONG_TYPE",
    )
