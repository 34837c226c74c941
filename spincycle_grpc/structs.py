"""Python values as google.protobuf.Struct and Value, and back.

Structs hold numbers as doubles: whole numbers are exact up to 2^53, and beyond that they are an
error here, never rounded. A whole number comes back as an int.
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.struct_pb2 import NULL_VALUE, Struct, Value

from spincycle_grpc.errors import InvalidArgumentError

LARGEST_EXACT = 2**53
"""The largest whole number that a double has exactly, with all below it."""


def to_struct(mapping: Mapping[str, object], path: str = "args") -> Struct:
    """Returns a mapping of JSON values as a Struct.

    Args:
        mapping: Names to values: None, bool, int, float, str, lists and mappings of these.
        path: The mapping's name in errors.

    Raises:
        InvalidArgumentError: A value is no JSON, or a whole number beyond 2^53; names it by its path.
    """
    struct = Struct()
    _fill_struct(struct, mapping, path)
    return struct


def to_value(value: object, path: str) -> Value:
    """Returns a JSON value as a Value.

    Raises:
        InvalidArgumentError: As `to_struct`.
    """
    message = Value()
    _fill_value(message, value, path)
    return message


def from_struct(struct: Struct) -> dict[str, object]:
    """Returns a Struct as a dict."""
    return {name: from_value(value) for name, value in struct.fields.items()}


def from_value(value: Value) -> object:
    """Returns a Value as a Python value; an empty one as None."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= LARGEST_EXACT else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return from_struct(value.struct_value)
    if kind == "list_value":
        return [from_value(item) for item in value.list_value.values]
    return None


def _fill_struct(struct: Struct, mapping: Mapping[str, object], path: str) -> None:
    fields = struct.fields
    for name, value in mapping.items():
        if not isinstance(name, str):
            raise InvalidArgumentError(f"{path}: the name {name!r} must be a string", reason="WRONG_TYPE")
        if value.__class__ is str:
            fields[name].string_value = value
        else:
            _fill_value(fields[name], value, f"{path}.{name}")


def _fill_value(message: Value, value: object, path: str) -> None:
    if isinstance(value, str):
        message.string_value = value
    elif value is None:
        message.null_value = NULL_VALUE
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, int):
        if abs(value) > LARGEST_EXACT:
            raise InvalidArgumentError(
                f"{path}: {value} is beyond 2^53, where numbers are not exact: give it as a string",
                reason="NUMBER_TOO_LARGE",
            )
        message.number_value = value
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise InvalidArgumentError(f"{path}: {value} is no JSON number", reason="WRONG_TYPE")
        message.number_value = value
    elif isinstance(value, Mapping):
        message.struct_value.SetInParent()
        _fill_struct(message.struct_value, value, path)
    elif isinstance(value, list | tuple):
        message.list_value.SetInParent()
        for index, item in enumerate(value):
            _fill_value(message.list_value.values.add(), item, f"{path}[{index}]")
    else:
        raise InvalidArgumentError(
            f"{path}: a value of type {type(value).__name__} is no JSON", reason="WRONG_TYPE"
        )
