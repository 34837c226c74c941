"""The values of args: JSON values, of which each job gets its own copy."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.struct_pb2 import Struct

from spincycle_grpc.structs import from_struct, to_struct

_SCALARS = frozenset({str, int, float, bool, type(None)})

_KIND_NAMES: dict[type, str] = {
    str: "string",
    bool: "bool",
    int: "number",
    float: "number",
    dict: "map",
    list: "slice",
    type(None): "null",
}


def kind_name(value: object) -> str:
    """Returns the kind of a JSON value, as error messages show it ("string", "number")."""
    return _KIND_NAMES.get(value.__class__, value.__class__.__name__)


def copied_args(args: Mapping[str, object]) -> dict[str, object]:
    """Returns a copy of args that shares no list or map with them."""
    return {name: value if value.__class__ in _SCALARS else _copied(value) for name, value in args.items()}


def _copied(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    return value


def checked_struct(args: Mapping[str, object]) -> Struct:
    """Returns the args of a request as a Struct.

    Raises:
        InvalidArgumentError: A value is not JSON, or a Struct cannot hold it. Reason: WRONG_TYPE,
            NUMBER_TOO_LARGE, TOO_DEEP.
    """
    return to_struct(args, "args")


def checked_copy(name: str, value: object) -> object:
    """Returns a copy of a value, as a receiver gets it if it is sent as a Struct.

    Raises:
        InvalidArgumentError: As for `checked_struct`.
    """
    return from_struct(checked_struct({name: value}))[name]
