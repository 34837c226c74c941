"""The args of a call, as Python values."""

from __future__ import annotations

import math
from collections.abc import Iterator

from google.protobuf.struct_pb2 import Struct

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.structs import LARGEST_EXACT, from_struct
from spincycle_server.rpc import CallContext


def received_args(struct: Struct, context: CallContext) -> dict[str, object]:
    """Returns args as Python values.

    Over gRPC, a number is a double when it arrives. From 2^53 on, it may stand for a neighbour that the
    caller meant: 2^53 + 1 arrives as 2^53. The JSON codec has seen the digits, and has checked them.

    Raises:
        InvalidArgumentError: A number came over gRPC and may be inexact, or is not a JSON number.
            Reasons: NUMBER_TOO_LARGE, WRONG_TYPE.
    """
    args = from_struct(struct)
    if context.transport == "grpc":
        for path, number in _numbers(args):
            if not math.isfinite(number):
                raise InvalidArgumentError(
                    f"{path}: {number} is not a JSON number", reason="WRONG_TYPE", field=path
                )
            if abs(number) >= LARGEST_EXACT:
                raise InvalidArgumentError(
                    f"{path}: {number} is not below 2^53, where numbers are exact: pass it as a string",
                    reason="NUMBER_TOO_LARGE",
                    field=path,
                )
    return args


def _numbers(args: dict[str, object]) -> Iterator[tuple[str, int | float]]:
    """Yields the numbers in args that are not surely exact, with their paths."""
    waiting: list[tuple[str, object]] = [(f"args.{name}", value) for name, value in args.items()]
    while waiting:
        path, value = waiting.pop()
        if value.__class__ is str:
            continue
        if isinstance(value, dict):
            waiting += [(f"{path}.{name}", item) for name, item in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{path}[{index}]", item) for index, item in enumerate(value)]
        elif isinstance(value, int | float):
            yield path, value
