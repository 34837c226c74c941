"""Reads query strings into requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.v1 import json_pb2

MAX_PARAMETERS = 1000
"""The maximum number of parameters in one query string."""

_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


class QueryReader:
    """Reads the query parameters of one type of request. Unknown parameters are ignored.

    Args:
        message_type: The type of the request.
        excluded: Fields that the path or the body sets; "*" excludes all.

    Attributes:
        fields: The fields by the names of their parameters.
    """

    def __init__(self, message_type: Descriptor, excluded: Collection[str]) -> None:
        self._setters: dict[str, Callable[[Message, str, str], None]] = {}
        self._repeated: set[str] = set()
        self.fields: dict[str, FieldDescriptor] = {}
        if "*" not in excluded:
            self._add_fields(message_type, excluded, ())

    def _add_fields(self, message_type: Descriptor, excluded: Collection[str], path: tuple[str, ...]) -> None:
        for field in message_type.fields:
            options = field.GetOptions().Extensions[json_pb2.json_field]
            if field.name in excluded or options.hidden:
                continue
            if options.flatten_query and field.message_type is not None:
                if not excluded:  # A path that names one resource needs no filter.
                    self._add_fields(field.message_type, (), (*path, field.name))
                continue
            parse = _parser(field, by_name=options.query_by_name)
            if parse is not None:
                name = options.query_name or field.json_name
                self._setters[name] = _setter(field, path, parse)
                if field.is_repeated:
                    self._repeated.add(name)
                self.fields[name] = field

    def read(self, query: bytes, request: Message) -> None:
        """Sets fields of a request.

        Raises:
            InvalidArgumentError: There are too many parameters, or a value is invalid. Reason: BAD_QUERY.
        """
        if not query or not self._setters:
            return
        try:
            pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
        except ValueError as error:
            raise InvalidArgumentError(
                f"the query has too many parameters: send at most {MAX_PARAMETERS}", reason="BAD_QUERY"
            ) from error
        single: set[str] = set()
        for name, text in pairs:
            if name in single:
                continue  # The first value counts, as in the original.
            if name not in self._repeated:
                single.add(name)
            setter = self._setters.get(name)
            if setter is not None and text:
                setter(request, name, text)


def _setter(
    field: FieldDescriptor, path: tuple[str, ...], parse: Callable[[str], Any]
) -> Callable[[Message, str, str], None]:
    def set_field(request: Message, name: str, text: str) -> None:
        message = request
        for part in path:
            message = getattr(message, part)
        try:
            value = parse(text)
        except ValueError as error:
            raise InvalidArgumentError(
                f"invalid '{name}' parameter: \"{text}\" {error}", reason="BAD_QUERY"
            ) from error
        if field.is_repeated:
            getattr(message, field.name).append(value)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(value)
        else:
            setattr(message, field.name, value)

    return set_field


def _parser(field: FieldDescriptor, *, by_name: bool) -> Callable[[str], Any] | None:
    """Returns a function that parses values of a field; None if a query cannot set the field.

    The function raises ValueError with the end of a sentence that begins with the parameter and its value.
    """
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING and field.type == FieldDescriptor.TYPE_STRING:
        return str
    if field.cpp_type in _PARSERS:
        return _PARSERS[field.cpp_type]
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM and by_name:
        return _enum_reader(field)
    if field.message_type is not None and field.message_type.full_name == Timestamp.DESCRIPTOR.full_name:
        return _timestamp
    return None


def _unsigned(text: str) -> int:
    digits = text.lstrip("0")[:30] if text.isascii() and text.isdigit() else "9" * 30
    if int(digits or 0) >= 2**64:
        raise ValueError("cannot be parsed to uint: it must be a whole number from 0")
    return int(digits or 0)


def _int32(text: str) -> int:
    if re.fullmatch("-?[0-9]{1,10}", text, re.ASCII) is None or not -(2**31) <= int(text) < 2**31:
        raise ValueError("must be a whole number from 0 to 2147483647")
    return int(text)


def _truth(text: str) -> bool:
    value = _TRUTHS.get(text.lower())
    if value is None:
        raise ValueError("must be true or false")
    return value


def _timestamp(text: str) -> Timestamp:
    time = Timestamp()
    try:
        time.FromJsonString(text.replace(" ", "+"))  # An unescaped plus sign arrives as a space.
    except ValueError as error:
        raise ValueError(
            "cannot be parsed to time.Time using RFC3339Nano format: give it as 2006-01-02T15:04:05Z"
        ) from error
    return time


def enum_names(enum: EnumDescriptor) -> dict[str, int]:
    """Returns the values of an enum by the names that queries use: without the prefix of the type."""
    word = "".join("_" + letter if letter.isupper() else letter for letter in enum.name)
    prefix = f"{word.lstrip('_').upper()}_"
    return {value.name.removeprefix(prefix): value.number for value in enum.values}


def _enum_reader(field: FieldDescriptor) -> Callable[[str], int]:
    enum = field.enum_type
    assert enum is not None  # noqa: S101 (the caller checks this)
    numbers = enum_names(enum)

    def read(text: str) -> int:
        number = numbers.get(text)
        if number is None:
            raise ValueError(f"is not a valid {enum.name.lower()} name")
        return number

    return read


_PARSERS: Mapping[int, Callable[[str], Any]] = {
    FieldDescriptor.CPPTYPE_UINT64: _unsigned,
    FieldDescriptor.CPPTYPE_UINT32: _unsigned,
    FieldDescriptor.CPPTYPE_INT32: _int32,
    FieldDescriptor.CPPTYPE_BOOL: _truth,
}
"""The parsers of numbers and truth values, by the field's type in C++."""
