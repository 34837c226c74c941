"""Python values as google.protobuf.Struct and Value, and back.

Structs hold numbers as doubles: whole numbers are exact up to 2^53, and beyond that they are an
error here, never rounded. A whole number comes back as an int. Values that nest more deeply than
MAX_DEPTH are an error too, since no gRPC peer would read a message that holds them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value

from spincycle_grpc.errors import InvalidArgumentError

LARGEST_EXACT = 2**53
"""The largest whole number that a double has exactly, with all below it."""


MAX_DEPTH = 30
"""Lists and mappings inside each other, the outermost one not counted.

gRPC reads messages of at most 100 levels; a mapping in a mapping takes three of them, and the
messages around a job's args and data take the rest.
"""


def to_struct(mapping: Mapping[str, object], path: str = "args") -> Struct:
    """Returns a mapping of JSON values as a Struct.

    Args:
        mapping: Names to values: None, bool, int, float, str, lists and mappings of these.
        path: The mapping's name in errors.

    Raises:
        InvalidArgumentError: A value is no JSON, nests too deeply, or is a whole number beyond
            2^53; names it by its path.
    """
    struct = Struct()
    try:
        fill_struct(struct, mapping, path)
    except UnicodeEncodeError as error:
        raise _not_unicode(path) from error
    return struct


def to_value(value: object, path: str) -> Value:
    """Returns a JSON value as a Value.

    Raises:
        InvalidArgumentError: As `to_struct`.
    """
    message = Value()
    try:
        fill_value(message, value, path)
    except UnicodeEncodeError as error:
        raise _not_unicode(path) from error
    return message


def from_struct(struct: Struct) -> dict[str, object]:
    """Returns a Struct as a dict, its names sorted."""
    fields = struct.fields
    written: dict[str, object] = {}
    for name in sorted(fields):
        value = fields[name]
        written[name] = value.string_value or from_value(value)  # a text, by far the most often
    return written


def from_value(value: Value) -> object:  # noqa: PLR0911 (one for each kind)
    """Returns a Value as a Python value; an empty one as None."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        number = value.number_value
        if not number.is_integer() or abs(number) > LARGEST_EXACT:
            return number
        return int(number) or (0 if math.copysign(1, number) > 0 else number)
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return from_struct(value.struct_value)
    if kind == "list_value":
        return [item.string_value or from_value(item) for item in value.list_value.values]
    return None


def fill_struct(
    struct: Struct, mapping: Mapping[str, Any], path: str, largest: float = math.inf, depth: int = 0
) -> None:
    """Adds a mapping of JSON values to a Struct. The arguments are those of `to_struct` and `fill_value`."""
    fields = struct.fields
    for name, value in mapping.items():  # the frequent kinds first, and without making a path
        if value.__class__ is str:
            fields[name].string_value = value
        elif value.__class__ is int and -LARGEST_EXACT <= value <= LARGEST_EXACT:
            fields[name].number_value = value
        elif isinstance(name, str):
            fill_value(fields[name], value, f"{path}.{name}" if path else name, largest, depth)
        else:
            raise InvalidArgumentError(f"{path}: the name {name!r} must be a string", reason="WRONG_TYPE")


def fill_value(  # noqa: PLR0912 (one branch for each kind, on the hot path)
    message: Value, value: Any, path: str, largest: float = math.inf, depth: int = 0
) -> None:
    """Sets a Value to a JSON value.

    Args:
        message: The Value.
        value: What to set it to.
        path: The value's name in errors.
        largest: A float that is not below this is refused, for parsers that make floats of whole
            numbers that are too large for them.
        depth: How many lists and mappings the value is in.

    Raises:
        InvalidArgumentError: As `to_struct`.
        UnicodeEncodeError: A text in it is not Unicode.
    """
    kind = value.__class__
    if kind is str:
        message.string_value = value
    elif kind is bool:
        message.bool_value = value
    elif kind is int:
        if not -LARGEST_EXACT <= value <= LARGEST_EXACT:
            raise _too_large(path, value)
        message.number_value = value
    elif kind is dict or kind is list:
        if depth == MAX_DEPTH:
            raise InvalidArgumentError(
                f"{path}: lists and maps may be at most {MAX_DEPTH} levels deep", reason="TOO_DEEP"
            )
        if kind is dict:
            message.struct_value.SetInParent()
            fill_struct(message.struct_value, value, path, largest, depth + 1)
        else:
            _fill_list(message.list_value, value, path, largest, depth + 1)
    elif value is None:
        message.null_value = NULL_VALUE
    elif kind is float:
        if not math.isfinite(value):
            raise InvalidArgumentError(f"{path}: {value} is no JSON number", reason="WRONG_TYPE")
        if abs(value) >= largest:
            raise _too_large(path, value)
        message.number_value = value
    else:
        fill_value(message, _plain(value, path), path, largest, depth)


def _fill_list(message: ListValue, items: list[object], path: str, largest: float, depth: int) -> None:
    message.SetInParent()
    add = message.values.add
    for index, item in enumerate(items):
        if item.__class__ is str:
            add().string_value = item
        else:
            fill_value(add(), item, f"{path}[{index}]", largest, depth)


def _plain(value: object, path: str) -> object:
    """Returns a value of a subclass, or of another class that is as good, as JSON's own class."""
    for plain in (str, int, float):
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | tuple):
        return list(value)
    raise InvalidArgumentError(
        f"{path}: a value of type {type(value).__name__} is no JSON", reason="WRONG_TYPE"
    )


def _too_large(path: str, value: float) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{path}: {str(value)[:30]} is beyond 2^53, where numbers are not exact: give it as a string",
        reason="NUMBER_TOO_LARGE",
    )


def _not_unicode(path: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{path}: a text in it is not Unicode", reason="WRONG_TYPE")
