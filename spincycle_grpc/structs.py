"""Converts Python values to google.protobuf.Struct and Value, and back.

A Struct holds numbers as doubles, which are exact for whole numbers up to 2^53. A larger whole number is an
error; it is never rounded. A whole number comes back as an int. A value that nests deeper than MAX_DEPTH is
an error because no gRPC peer could read its message.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any, TypeAlias

from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value

from spincycle_grpc.errors import InvalidArgumentError

LARGEST_EXACT = 2**53
"""A double holds every whole number up to this one exactly."""

MAX_DEPTH = 30
"""How deep lists and mappings may nest, without the outermost one.

gRPC reads messages of at most 100 levels. Each nested mapping takes three, and the messages around a job's
args and data take the rest.
"""


Path: TypeAlias = "str | tuple[Path, str | int]"
"""The place of a value, for errors: the outermost name, or the path of a list or mapping and a name or index.

It becomes text only for an error. The text of each path would cost too much if a name around many values is
long.
"""

_LONGEST_SHOWN_NAME = 100
"""Characters of a name that an error shows."""

_SHOWN_BITS = 10_000
"""Larger whole numbers are not shown in errors."""

_CONTAINERS = (dict, list)

_MANY = 5_000
"""More names than this are sorted in several steps, between which other threads can run."""


def to_struct(mapping: Mapping[str, object], path: str = "args") -> Struct:
    """Converts a mapping of JSON values to a Struct.

    Args:
        mapping: Names to values: None, bool, int, float, str, and lists and mappings of these.
        path: The mapping's name in errors.

    Raises:
        InvalidArgumentError: A value is not JSON, nests too deep, or is a whole number beyond 2^53.
            The message names it by its path. Reasons: WRONG_TYPE, TOO_DEEP, NUMBER_TOO_LARGE.
    """
    struct = Struct()
    fill_unicode_struct(struct, mapping, path)
    return struct


def fill_unicode_struct(struct: Struct, mapping: Mapping[str, object], path: str) -> None:
    """Adds a mapping of JSON values to a Struct.

    Raises:
        InvalidArgumentError: As in `to_struct`.
    """
    try:
        fill_struct(struct, mapping, path)
    except UnicodeEncodeError as error:
        raise _not_unicode(path) from error


def to_value(value: object, path: str) -> Value:
    """Converts a JSON value to a Value.

    Raises:
        InvalidArgumentError: As in `to_struct`.
    """
    message = Value()
    fill_unicode(message, value, path)
    return message


def fill_unicode(message: Value, value: object, path: str) -> None:
    """Sets a Value to a JSON value.

    Raises:
        InvalidArgumentError: As in `to_struct`.
    """
    try:
        fill_value(message, value, path)
    except UnicodeEncodeError as error:
        raise _not_unicode(path) from error


def from_struct(struct: Struct) -> dict[str, object]:
    """Converts a Struct to a dict with sorted names."""
    fields = struct.fields
    written: dict[str, object] = {}
    for name in sorted_names(fields):
        value = fields[name]
        written[name] = value.string_value or from_value(value)  # Most values are text.
    return written


def sorted_names(names: Collection[str]) -> list[str]:
    """Returns names in order. Many names are sorted in steps, between which other threads can run."""
    if len(names) <= _MANY:
        return sorted(names)
    left, listed = iter(names), []
    while part := list(islice(left, _MANY)):
        listed += part
    borders = sorted(random.sample(listed, len(listed) // _MANY))
    buckets: list[list[str]] = [[] for _ in range(len(borders) + 1)]
    for name in listed:
        buckets[bisect_right(borders, name)].append(name)
    ordered: list[str] = []
    for bucket in buckets:  # Not in one call, which would let no other thread run.
        bucket.sort()
        ordered += bucket
    return ordered


def from_value(value: Value) -> object:
    """Converts a Value to a Python value. An empty Value becomes None."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return from_struct(value.struct_value)
    if kind == "list_value":
        return [item.string_value or from_value(item) for item in value.list_value.values]
    return scalar_of(value, kind)


def scalar_of(value: Value, kind: str | None) -> object:
    """Returns the Python value of a Value that is neither a list nor a Struct.

    Args:
        value: The Value.
        kind: The field of the Value that is set; None for an empty Value, which becomes None.
    """
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        number = value.number_value
        if not number.is_integer() or abs(number) > LARGEST_EXACT:
            return number
        return int(number) or (0 if math.copysign(1, number) > 0 else number)
    if kind == "bool_value":
        return value.bool_value
    return None


def discard(value: object) -> None:
    """Empties a large value of lists and dicts in steps, between which other threads can run.

    Python would free all of it at once. Nobody else may use the value.
    """
    waiting = [value]
    del value
    while waiting:
        container = waiting.pop()
        if isinstance(container, dict):
            while container:
                item = container.popitem()[1]
                if item.__class__ in _CONTAINERS:
                    waiting.append(item)
        elif isinstance(container, list):
            while container:
                item = container.pop()
                if item.__class__ in _CONTAINERS:
                    waiting.append(item)


def fill_struct(
    struct: Struct, mapping: Mapping[str, Any], path: Path, largest: float = math.inf, depth: int = 0
) -> None:
    """Adds a mapping of JSON values to a Struct. See `to_struct` and `fill_value` for the arguments."""
    fields = struct.fields
    for name, value in mapping.items():  # The frequent kinds come first, because they need no path.
        if value.__class__ is str:
            fields[name].string_value = value
        elif value.__class__ is int and -LARGEST_EXACT <= value <= LARGEST_EXACT:
            fields[name].number_value = value
        elif isinstance(name, str):
            fill_value(fields[name], value, (path, name) if path else name, largest, depth)
        else:
            raise InvalidArgumentError(
                f"{_shown(path)}: the name {name!r} must be a string", reason="WRONG_TYPE"
            )


def fill_value(message: Value, value: Any, path: Path, largest: float = math.inf, depth: int = 0) -> None:
    """Sets a Value to a JSON value.

    Args:
        message: The Value.
        value: The JSON value.
        path: The value's name in errors.
        largest: Floats must be below this, because some parsers turn large whole numbers into floats.
        depth: The number of lists and mappings around the value.

    Raises:
        InvalidArgumentError: As in `to_struct`.
        UnicodeEncodeError: A text in the value is not Unicode.
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
        _fill_container(message, value, path, largest, depth)
    elif value is None:
        message.null_value = NULL_VALUE
    elif kind is float:
        message.number_value = _checked_float(value, path, largest)
    else:
        fill_value(message, _plain(value, path), path, largest, depth)


def _fill_container(message: Value, value: Any, path: Path, largest: float, depth: int) -> None:
    if depth == MAX_DEPTH:
        raise InvalidArgumentError(
            f"{_shown(path)}: lists and maps may be at most {MAX_DEPTH} levels deep", reason="TOO_DEEP"
        )
    if value.__class__ is dict:
        message.struct_value.SetInParent()
        fill_struct(message.struct_value, value, path, largest, depth + 1)
    else:
        _fill_list(message.list_value, value, path, largest, depth + 1)


def _checked_float(value: float, path: Path, largest: float) -> float:
    if not math.isfinite(value):
        raise InvalidArgumentError(f"{_shown(path)}: {value} is not a JSON number", reason="WRONG_TYPE")
    if abs(value) >= largest:
        raise _too_large(path, value)
    return value


def _fill_list(message: ListValue, items: list[Any], path: Path, largest: float, depth: int) -> None:
    message.SetInParent()
    add = message.values.add
    for index, item in enumerate(items):
        if item.__class__ is str:
            add().string_value = item
        elif item.__class__ is int and -LARGEST_EXACT <= item <= LARGEST_EXACT:
            add().number_value = item
        else:
            fill_value(add(), item, (path, index), largest, depth)


def _plain(value: object, path: Path) -> object:
    """Converts a value of a subclass, a mapping or a tuple to str, int, float, dict or list."""
    # Not `str(value)`: a subclass can have another text, as enums do.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | tuple):
        return list(value)
    raise InvalidArgumentError(
        f"{_shown(path)}: a value of type {type(value).__name__} is not JSON", reason="WRONG_TYPE"
    )


def _too_large(path: Path, value: float) -> InvalidArgumentError:
    # Python refuses to write numbers of thousands of digits.
    is_shown = isinstance(value, float) or value.bit_length() < _SHOWN_BITS
    shown = str(value)[:30] if is_shown else "a number"
    return InvalidArgumentError(
        f"{_shown(path)}: {shown} is beyond 2^53, where numbers are not exact: pass it as a string",
        reason="NUMBER_TOO_LARGE",
    )


def _not_unicode(path: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{path}: a text in the value is not Unicode", reason="WRONG_TYPE")


def _shown(path: Path) -> str:
    """Returns a path as errors show it, for example "args.hosts[3].name"."""
    names: list[str] = []
    while not isinstance(path, str):
        path, name = path
        names.append(f"[{name}]" if isinstance(name, int) else f".{name[:_LONGEST_SHOWN_NAME]}")
    return path[:_LONGEST_SHOWN_NAME] + "".join(reversed(names))
