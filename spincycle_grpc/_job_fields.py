"""Fills the fields of dataclass jobs from job args and JSON, and writes them as JSON.

Fields with `field(init=False)` are ignored.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import inspect
import json
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from spincycle_grpc.errors import InvalidArgumentError

_T = TypeVar("_T")

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}


class WrongValueError(InvalidArgumentError, ValueError):
    """A value does not fit the type of its field. Reason: WRONG_TYPE."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="WRONG_TYPE")


@lru_cache(maxsize=1024)
def _hints(owner: Any) -> dict[str, Any]:
    """Returns the types of the fields with `init=True`, in their order."""
    return {field.name: _hint(owner, field) for field in _init_fields(owner)}


def _hint(owner: Any, field: dataclasses.Field[Any]) -> Any:
    """Returns the type of one field. Other fields are ignored: type checkers alone may know their types."""
    home = next(base for base in owner.__mro__ if field.name in inspect.get_annotations(base))
    alone = types.SimpleNamespace(__annotations__={field.name: field.type})
    try:
        return typing.get_type_hints(alone, vars(sys.modules[home.__module__]), dict(vars(home)))[field.name]
    except NameError as error:
        raise TypeError(
            f"field {field.name} of {home.__name__}: {error}; import the type at run time, "
            "or give the field init=False"
        ) from error


@lru_cache(maxsize=1024)
def _init_fields(owner: Any) -> tuple[dataclasses.Field[Any], ...]:
    return tuple(field for field in dataclasses.fields(owner) if field.init)


def _default(field: dataclasses.Field[Any]) -> Any:
    """Returns the default of a field, or MISSING."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def required(owner: type) -> list[str]:
    """Returns the names of a dataclass's fields without a default."""
    return [
        field.name
        for field in _init_fields(owner)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]


def blank(owner: type[_T]) -> _T:
    """Creates an object of a dataclass. Required fields are missing, other fields have their defaults."""
    blank_object = owner.__new__(owner)
    for field in dataclasses.fields(typing.cast(Any, owner)):
        value = _default(field)
        if value is not dataclasses.MISSING:
            object.__setattr__(blank_object, field.name, value)
    return blank_object


def fill(target: Any, values: Mapping[str, Any], noun: str) -> None:
    """Sets the fields that `values` contains. Then it calls `__post_init__`, if there is one.

    Args:
        target: An object of a dataclass, which may be frozen.
        values: JSON values by field name. Unknown names are ignored.
        noun: The word for a value in errors, for example "job arg".

    Raises:
        WrongValueError: A value has the wrong type.
        ValueError: A field without a default has no value.
        TypeError: A field has an unsupported type.
    """
    owner: Any = type(target)
    for name, hint in _hints(owner).items():
        if name in values:
            object.__setattr__(target, name, _convert(values[name], hint, f"{noun} {name}"))
        elif not hasattr(target, name):
            raise ValueError(f"{noun} {name} is missing")
    post_init = getattr(target, "__post_init__", None)
    if post_init is not None:
        post_init()


def dump(target: Any) -> bytes:
    """Returns the fields in their order as a JSON object without white space, in UTF-8.

    Raises:
        TypeError: A value is not JSON.
        ValueError: A number is not finite.
    """
    return _ENCODER.encode(_plain(target)).encode()


def load(target: Any, data: bytes) -> None:
    """Fills the fields from the bytes of `dump`. Empty bytes count as an object without fields.

    Raises:
        ValueError: The bytes are not a JSON object, or `fill` raises it.
        TypeError: A field has an unsupported type.
    """
    try:
        values = json.loads(data) if data else {}
    except ValueError as error:
        raise ValueError(f"the bytes of the job are not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError("the bytes of the job are not a JSON object")
    fill(target, values, "field")


def _plain(value: Any) -> Any:
    """Converts dataclasses, bytes and tuples to JSON types. The encoder refuses all other types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in _init_fields(type(value))}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _wrong(where: str, wanted: str, value: Any) -> WrongValueError:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return WrongValueError(f"{where} must be {wanted}, not {text if len(text) <= 60 else text[:57] + '...'}")


def _to_text(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return json.dumps(value)
    raise _wrong(where, "text", value)


def _to_whole_number(value: Any, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and len(value) <= 100 and _WHOLE_NUMBER.fullmatch(value):
        return int(value)
    raise _wrong(where, "a whole number", value)


def _to_number(value: Any, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _wrong(where, "a number", value)
    return number


def _to_boolean(value: Any, where: str) -> bool:
    boolean = _BOOLEANS.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(boolean, bool):
        raise _wrong(where, "true or false", value)
    return boolean


def _to_bytes(value: Any, where: str) -> bytes:
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            pass
    raise _wrong(where, "bytes in base64", value)


def _to_nothing(value: Any, where: str) -> None:
    if value is not None:
        raise _wrong(where, "null", value)


_SCALARS: dict[Any, Callable[[Any, str], Any]] = {
    str: _to_text,
    int: _to_whole_number,
    float: _to_number,
    bool: _to_boolean,
    bytes: _to_bytes,
    type(None): _to_nothing,
    Any: lambda value, _: value,
    object: lambda value, _: value,
}


def _convert(value: Any, hint: Any, where: str) -> Any:
    """Converts a JSON value to the type of a field."""
    scalar = _SCALARS.get(hint)
    if scalar is not None:
        return scalar(value, where)
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _to_optional(value, hint, arguments, where)
    if origin in (list, tuple):
        return origin(_to_items(value, hint, arguments, where))
    if origin is dict:
        return _to_dict(value, hint, arguments, where)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _to_dataclass(value, hint, where)
    raise _unsupported(hint, where)


def _unsupported(hint: Any, where: str) -> TypeError:
    name = hint.__name__ if isinstance(hint, type) else str(hint)
    return TypeError(
        f"{where} has type {name}, which job fields cannot have: "
        "write create, serialize and deserialize for this job, or give the field init=False"
    )


def _to_optional(value: Any, hint: Any, arguments: tuple[Any, ...], where: str) -> Any:
    others = [argument for argument in arguments if argument is not type(None)]
    if len(others) != 1 or len(arguments) != 2:
        raise _unsupported(hint, where)
    return None if value is None else _convert(value, others[0], where)


def _to_items(value: Any, hint: Any, arguments: tuple[Any, ...], where: str) -> list[Any]:
    if arguments[1:] not in ((), (...,)):
        raise _unsupported(hint, where)
    if not isinstance(value, list):
        raise _wrong(where, "a list", value)
    item_hint = arguments[0] if arguments else Any
    return [_convert(item, item_hint, f"{where}[{index}]") for index, item in enumerate(value)]


def _to_dict(value: Any, hint: Any, arguments: tuple[Any, ...], where: str) -> dict[str, Any]:
    if arguments and arguments[0] is not str:
        raise _unsupported(hint, where)
    if not isinstance(value, dict):
        raise _wrong(where, "a map", value)
    item_hint = arguments[1] if arguments else Any
    return {key: _convert(item, item_hint, f"{where}.{key}") for key, item in value.items()}


def _to_dataclass(value: Any, owner: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, "a map", value)
    missing = [name for name in required(owner) if name not in value]
    if missing:
        raise ValueError(f"{where}.{missing[0]} is missing")
    hints = _hints(owner)
    return owner(
        **{name: _convert(value[name], hints[name], f"{where}.{name}") for name in hints if name in value}
    )
