"""The requests that cost a Request Manager most, within its limits and just beyond them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from typing import Any

from spincycle_grpc.structs import to_struct
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest, FindRequest
from spincycle_server.rpc.input_limits import VALUES_PER_NAME

MAX_BODY = 16 * 1024 * 1024
MAX_VALUES = 500_000

_JSON = {"Content-Type": "application/json"}
_GZIP = {**_JSON, "Content-Encoding": "gzip"}


def _create(args: object, request_type: str = "keeps") -> bytes:
    return json.dumps({"type": request_type, "args": {"a": args}}, separators=(",", ":")).encode()


def _filled(text: str) -> bytes:
    """Returns a create of the maximum size whose arg is a repeated text."""
    empty = len(_create(""))
    return _create("").replace(b'""', b'"%s"' % (text.encode() * ((MAX_BODY - empty) // len(text.encode()))))


NUMBERS = [1] * (MAX_VALUES - 20)
LISTS: list[Any] = [[1]] * (MAX_VALUES // 2 - 20)
TEXTS = [f"{number:026}" for number in range(MAX_VALUES - 20)]
NAMES = {
    f"{number * 7_919_993 % 10**24:024}": 1 for number in range(MAX_VALUES // (VALUES_PER_NAME + 1) - 20)
}


def _deep(levels: int, value: object = 1) -> object:
    for _ in range(levels):
        value = [value]
    return value


HTTP: Mapping[str, Callable[[], tuple[bytes, dict[str, str]]]] = {
    "numbers": lambda: (_create(NUMBERS), _JSON),
    "lists of one number": lambda: (_create(LISTS), _JSON),
    "texts": lambda: (_create(TEXTS), _JSON),
    "names": lambda: (_create(NAMES), _JSON),
    "one text": lambda: (_filled("x"), _JSON),
    "one text of <": lambda: (_filled("<"), _JSON),
    "one text of U+2028": lambda: (_filled("\u2028"), _JSON),
    "30 levels": lambda: (_create([_deep(29)] * (MAX_VALUES // 31)), _JSON),
    "one name around lists": lambda: (_create({"x" * (MAX_BODY // 2): LISTS}), _JSON),
    "numbers for a job": lambda: (_create(NUMBERS, "passes"), _JSON),
    "names for a job": lambda: (_create(NAMES, "passes"), _JSON),
    "gzip: numbers": lambda: (gzip.compress(_create(NUMBERS)), _GZIP),
    "gzip: too many numbers": lambda: (gzip.compress(_create([1] * (MAX_BODY // 2 - 50))), _GZIP),
    "gzip: too long": lambda: (gzip.compress(_create("x" * 10 * MAX_BODY)), _GZIP),
    "refused: levels": lambda: (b"[" * MAX_BODY, _JSON),
    "refused: quotes": lambda: (b'"' * MAX_BODY, _JSON),
    "refused: no end": lambda: (_create(NUMBERS)[:-3], _JSON),
    "refused: names, no end": lambda: (_create(NAMES)[:-3], _JSON),
    "refused: last number is too large": lambda: (_create([*NUMBERS, 2**60]), _JSON),
    "refused: last type is wrong": lambda: (_create(NUMBERS)[:-1] + b',"type":1}', _JSON),
    "escapes and lone surrogates": lambda: (
        _create(TEXTS[: MAX_VALUES // 2]).replace(b'["', b'["\\ud800'),
        _JSON,
    ),
}
"""Bodies of creates over HTTP, with their headers."""


def _create_message(args: Any, request_type: str = "keeps") -> bytes:
    return CreateRequest(type=request_type, args=to_struct({"a": args})).SerializeToString()


def _find(**fields: Any) -> bytes:
    request = FindRequest()
    for name, value in fields.items():
        getattr(request.filter, name).extend(value)
    return request.SerializeToString()


GRPC: Mapping[str, Callable[[], tuple[str, bytes]]] = {
    "numbers": lambda: ("Create", _create_message(NUMBERS)),
    "lists of one number": lambda: ("Create", _create_message(LISTS)),
    "names": lambda: ("Create", _create_message(NAMES)),
    "one text": lambda: ("Create", _create_message("x" * (MAX_BODY - 100))),
    "numbers for a job": lambda: ("Create", _create_message(NUMBERS, "passes")),
    "refused: too many values": lambda: ("Create", _create_message([None] * (MAX_BODY // 8))),
    "refused: empty fields": lambda: ("Create", b"\x1a\x00" * (MAX_BODY // 2)),
    "refused: too long": lambda: ("Create", b"\x0a\x00" * (30 * 1024 * 1024)),
    "states of a find": lambda: ("Find", _find(states=[2] * 60_000)),
    "args of a find": lambda: ("Find", _find(args=[f"host=db{number}" for number in range(50)])),
    "refused: args of a find": lambda: ("Find", _find(args=["a=b"] * 8000)),
}
"""Methods and serialized requests over gRPC."""
