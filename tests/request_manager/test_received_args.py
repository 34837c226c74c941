"""Numbers in args are exact, or the call is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_server.request_manager.received_args import received_args
from spincycle_server.rpc import CallContext

GRPC = CallContext(transport="grpc")
HTTP = CallContext(transport="http")


def struct(**args: Any) -> Struct:
    message = Struct()
    message.update(args)
    return message


@pytest.mark.parametrize("number", [2**53 + 1, 2**53, -(2**53), 1e300])
def test_a_number_that_a_double_may_have_changed_is_refused_over_grpc(number: float) -> None:
    for args, path in (
        (struct(ok=1, host=number), "args.host"),
        (struct(hosts=["a", {"ids": [1, number]}]), "args.hosts[1].ids[1]"),
    ):
        with pytest.raises(InvalidArgumentError, match="pass it as a string") as caught:
            received_args(args, GRPC)
        assert caught.value.reason == "NUMBER_TOO_LARGE"
        assert caught.value.message.startswith(f"{path}: ")
        assert caught.value.field == path


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_what_is_not_a_json_number_is_refused_over_grpc(number: float) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        received_args(struct(host=number), GRPC)
    assert caught.value.reason == "WRONG_TYPE"


def test_exact_numbers_and_all_other_values_are_returned() -> None:
    args: dict[str, Any] = {
        "a": 2**53 - 1,
        "b": 1 - 2**53,
        "c": 0.5,
        "d": True,
        "e": None,
        "f": "9007199254740993",
    }
    args["g"] = [args.copy()]
    assert received_args(struct(**args), GRPC) == args


def test_json_has_checked_its_numbers_itself() -> None:
    assert received_args(struct(host=2**53), HTTP) == {"host": 2**53}
