"""Reads single JSON values: scalars, times, durations and the keys of maps."""

from __future__ import annotations

import binascii
import datetime
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from spincycle_grpc._json_source import Path
from spincycle_grpc.json_form import enum_literals, is_plain_type

SCALAR_CLASSES = {
    FieldDescriptor.CPPTYPE_STRING: (str, "string"),
    FieldDescriptor.CPPTYPE_BOOL: (bool, "bool"),
    FieldDescriptor.CPPTYPE_INT32: (int, "int32"),
    FieldDescriptor.CPPTYPE_INT64: (int, "int64"),
    FieldDescriptor.CPPTYPE_UINT32: (int, "uint32"),
    FieldDescriptor.CPPTYPE_UINT64: (int, "uint64"),
    FieldDescriptor.CPPTYPE_ENUM: (int, "int32"),
}
"""For each kind of scalar: the class of its value in parsed JSON, and its name in errors."""

_EPOCH = datetime.datetime(1970, 1, 1)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](\d+))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)
_EARLIEST, _LATEST = -62135596800, 253402300799
_JSON_TYPES = {str: "string", bool: "bool", int: "number", float: "number", dict: "object", list: "array"}

_ZEROS: dict[int, Any] = {
    FieldDescriptor.CPPTYPE_STRING: "",
    FieldDescriptor.CPPTYPE_BOOL: False,
    FieldDescriptor.CPPTYPE_DOUBLE: 0.0,
    FieldDescriptor.CPPTYPE_FLOAT: 0.0,
}


class WrongTypeError(ValueError):
    """A JSON value does not fit its field.

    Attributes:
        expected: What the field accepts.
        got: The kind of the value, for example "string" or "number 1.5".
        path: The place of the value in the JSON text: keys and list indexes as written.
        names: The same place, with the JSON names of the fields.
    """

    def __init__(self, expected: str, value: object) -> None:
        super().__init__(expected)
        self.expected = expected
        self.got = _JSON_TYPES.get(value.__class__, "null")
        if self.got == "number" and expected != "string":
            self.got += f" {value!r:.40}"
        self.path: Path = ()
        self.names: Path = ()

    def inside(self, key: str | int) -> WrongTypeError:
        """Adds the value's key or index in the list or object around it, and returns the error."""
        self.path = (key, *self.path)
        self.names = (key, *self.names)
        return self


def fill_timestamp(message: Timestamp, value: object) -> None:
    """Sets a time from RFC 3339 text. Fractional digits after the ninth are ignored.

    Raises:
        WrongTypeError: The value is not RFC 3339 text, or the time is outside the years 1 to 9999.
    """
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise WrongTypeError("RFC 3339 time", value)
    date, fraction, sign, hours, minutes = match.groups()
    try:
        since = datetime.datetime.fromisoformat(date) - _EPOCH
    except ValueError:
        raise WrongTypeError("RFC 3339 time", value) from None
    seconds = since.days * 86400 + since.seconds
    if sign:
        offset = int(hours) * 3600 + int(minutes) * 60
        if int(hours) > 23 or int(minutes) > 59:
            raise WrongTypeError("RFC 3339 time", value)
        seconds += offset if sign == "-" else -offset
    if not _EARLIEST <= seconds <= _LATEST:
        raise WrongTypeError("time within the years 1 to 9999", value)
    message.seconds = seconds
    message.nanos = int(f"{fraction[:9]:0<9}") if fraction else 0


def fill_duration(message: Duration, value: object) -> None:
    """Sets a duration from text like "1.5s".

    Raises:
        WrongTypeError: The value is not a duration in this form.
    """
    try:
        message.FromJsonString(value)  # type: ignore[arg-type]  # a value of another type raises too
    except (ValueError, TypeError, AttributeError):
        raise WrongTypeError("duration in seconds, for example 1.5s", value) from None


def scalar_reader(field: FieldDescriptor) -> Callable[[Any], Any]:
    """Returns the function that converts a JSON value, which is not null, to a field's value."""
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _read_bytes
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return _read_float
    if field.enum_type is not None and not is_plain_type(field):
        return partial(_read_literal, {literal: number for number, literal in enum_literals(field).items()})
    needed, expected = SCALAR_CLASSES[field.cpp_type]
    largest = {"int32": 2**31 - 1, "uint32": 2**32 - 1, "int64": 2**63 - 1, "uint64": 2**64 - 1}.get(expected)
    if largest is None:
        return partial(_read_as_it_is, needed, expected)
    smallest = 0 if expected.startswith("u") else -largest - 1
    return partial(_read_integer, expected, smallest, largest)


def zero_value(field: FieldDescriptor) -> Any:
    """Returns the value that null stands for in a list of this field's type."""
    if field.enum_type is not None:
        return field.enum_type.values[0].number
    if field.type == FieldDescriptor.TYPE_BYTES:
        return b""
    return _ZEROS.get(field.cpp_type, 0)


def _read_as_it_is(needed: type, expected: str, value: Any) -> Any:
    if value.__class__ is not needed:
        raise WrongTypeError(expected, value)
    return value


def _read_integer(expected: str, smallest: int, largest: int, value: Any) -> int:
    if value.__class__ is not int or not smallest <= value <= largest:
        raise WrongTypeError(expected, value)
    return int(value)


def _read_float(value: Any) -> float:
    if value.__class__ not in (int, float):
        raise WrongTypeError("number", value)
    return float(value)


def _read_bytes(value: Any) -> bytes:
    if value.__class__ is not str:
        raise WrongTypeError("string of base64", value)
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        raise WrongTypeError("string of base64", value) from None


def _read_literal(numbers: dict[str, int], value: Any) -> int:
    number = numbers.get(value) if value.__class__ is str else value
    if number.__class__ is not int:
        raise WrongTypeError("one of " + ", ".join(f'"{name}"' for name in sorted(numbers)), value)
    return int(number)


def key_reader(field: FieldDescriptor) -> Callable[[str], Any]:
    """Returns the function that converts the key of a JSON object to the key of a map."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return str
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return partial(_read_word, {"true": True, "false": False})
    return _read_integer_key


def _read_word(words: dict[str, bool], key: str) -> bool:
    if key not in words:
        raise WrongTypeError("true or false as a key", key)
    return words[key]


def _read_integer_key(key: str) -> int:
    try:
        return int(key[:30])
    except ValueError:
        raise WrongTypeError("a whole number as a key", key) from None
