"""Large args are stored up to a limit, and finds compare their beginning."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.structs import to_value
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.request_pb2 import Request, RequestArg
from spincycle_server.store.creation import MAX_JSON, creation_of
from spincycle_server.store.rows import arg_rows
from spincycle_server.store.schema import MAX_ARG_VALUE

ITEMS: tuple[Any, ...] = (0, -7, "é", '"', [], [None], {"b": 1, "a": 2})


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [MAX_ARG_VALUE - 1, MAX_ARG_VALUE, MAX_ARG_VALUE + 1, 2 * MAX_ARG_VALUE])
@pytest.mark.parametrize("kind", [list, dict])
def test_a_find_compares_the_beginning_of_the_whole_json(kind: type, count: int, seed: int) -> None:
    chance = random.Random(seed)
    listed = [chance.choice(ITEMS) for _ in range(count)]
    names = [chr(chance.randrange(0x21, 0x2FF)) * 2 + str(number) for number in range(count)]
    value: Any = listed if kind is list else dict(zip(names, listed, strict=True))
    (row,) = arg_rows("r", 1, [RequestArg(name="a", value=to_value(value, "a"))])
    whole = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    assert row["value"] == whole[:MAX_ARG_VALUE]


def test_args_whose_json_is_too_long_are_refused() -> None:
    fits = "<" * (MAX_JSON // 6 - 100)
    for text, is_refused in ((fits, False), (fits + "<" * 100, True)):
        request = Request(args=[RequestArg(name="a", value=to_value(text, "a"))])
        if not is_refused:
            creation_of(request, CreateRequest(), JobChain(), None, None, now=1)
            continue
        with pytest.raises(InvalidArgumentError) as caught:
            creation_of(request, CreateRequest(), JobChain(), None, None, now=1)
        assert caught.value.reason == "TOO_LARGE_TO_STORE"
