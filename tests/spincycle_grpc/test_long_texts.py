"""Long JSON texts: their errors cost no more than valid text, and they mean the same as short ones."""

from __future__ import annotations

import gc
import json
import traceback
from typing import Any

import orjson
import pytest

from spincycle_grpc import wire
from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.structs import discard, from_struct, to_struct
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest

PADDING = b" " * wire.LONGEST_LOCATED


def decoded(text: bytes) -> CreateRequest:
    return wire.decode(PADDING + text, CreateRequest)


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        (b"", "BAD_JSON", "EOF"),
        (b'{"type":', "BAD_JSON", "unexpected EOF"),
        (b"{'type'}", "BAD_JSON", "Syntax error: offset=65538, error=Expecting property name"),
        (b'{"a":"\xff\xff",]', "BAD_JSON", "Syntax error: offset="),
        (b'{"args":{"a":NaN}}', "BAD_JSON", "Syntax error: offset=0, error=NaN is not JSON"),
        (b'{"a":' + b"[" * 5000, "BAD_JSON", "Syntax error: offset=0, error=exceeded max depth"),
        (b'{"type":3}', "WRONG_TYPE", "expected=string, got=number, field=Type, offset=0"),
        (b'{"args":{"n":9007199254740993}}', "NUMBER_TOO_LARGE", "Args.n: 9007199254740993 is beyond"),
    ],
)
def test_an_error_has_the_position_of_the_parser_or_none(text: bytes, reason: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        decoded(text)
    assert caught.value.reason == reason
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("text", "args"),
    [
        (b'{"args":{"a":"\xff"}} and {"more', {"a": "\ufffd"}),
        (
            b'{"args":{"\\ud800":["\\ud83d\\ude00",{"\\udfff":1}]}}]',
            {"\ufffd": ["\U0001f600", {"\ufffd": 1}]},
        ),
        (b'{"args":{"n":1e300,"m":-0.0}}', {"n": 1e300, "m": -0.0}),
    ],
)
def test_text_that_the_original_accepts_is_accepted(text: bytes, args: dict[str, Any]) -> None:
    assert from_struct(decoded(text).args) == args


@pytest.mark.parametrize("levels", [500, 900])
def test_deep_text_with_lone_surrogates_is_refused_or_read(levels: int) -> None:
    deep = b'{"unknown":' + b"[" * levels + b'"\\ud800"' + b"]" * levels + b'}"'
    for text in (deep, PADDING + deep):
        try:
            wire.decode(text, CreateRequest)
        except InvalidArgumentError as error:
            assert error.reason == "BAD_JSON"  # noqa: PT017 (both outcomes are allowed)


def test_escapes_are_written_across_the_borders_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    request = CreateRequest(type="a<\u2028é\U0001f600>&" * 50)
    expected = wire.encode(request)
    for step in range(1, 9):
        monkeypatch.setattr(wire, "_ESCAPED_FRAGMENT", step)
        assert wire.encode(request) == expected
    assert json.loads(expected)["Type"] == request.type


def test_a_long_name_around_many_values_does_not_multiply_the_cost() -> None:
    # With the text of each value's path, this would copy 2 TB.
    value = {"x" * 10_000_000: [[number] for number in range(200_000)]}
    assert len(to_struct(value).fields) == 1


def test_errors_show_only_the_beginning_of_a_long_name() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        to_struct({"x" * 5000: {"y" * 5000: [2**60]}})
    assert caught.value.message.startswith(f"args.{'x' * 100}.{'y' * 100}[0]: {2**60} is beyond")


def test_very_many_names_come_back_sorted() -> None:
    names = [f"{number * 7919 % 50_021:x}" for number in range(50_021)]
    assert list(from_struct(to_struct(dict.fromkeys(names, 1)))) == sorted(names)


@pytest.mark.parametrize(
    "text",
    [
        b'{"args":{"a":[[1],[2],',
        b'{"args":{"a":[[1]],"b":1e300},"type":1}',
        b'{"args":{"a":[[1],9007199254740993]}}',
    ],
)
def test_an_error_does_not_keep_the_parsed_values(text: bytes) -> None:
    gc.collect()
    gc.disable()
    try:
        for padding in (b"", PADDING):
            try:
                wire.decode(padding + text, CreateRequest)
            except InvalidArgumentError as error:
                frames = list(traceback.walk_tb(error.__traceback__))
                assert not any("value" in frame.f_locals for frame, _ in frames)
                assert error.__context__ is None  # noqa: PT017
                del frames
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("text", ["x", "<", "\u2028", "é>"])
def test_json_that_is_longer_than_allowed_is_not_made(text: str) -> None:
    for length in (10, 300_000, 900_000):
        request = CreateRequest(type=text * length)
        made = wire.encode(request)
        assert wire.encode(request, longest=len(made)) == made
        with pytest.raises(wire.JsonTooLongError):
            wire.encode(request, longest=len(made) - 1)


def test_values_of_any_size_and_depth_are_written_as_python_values_are() -> None:
    deep: object = 1
    for _ in range(28):
        deep = [deep]
    values: tuple[object, ...] = (
        [],
        {},
        [None, True, 1.5, -0.0, "", "é", {}, []],
        list(range(1000)),
        [[number, {"n": [str(number)]}] for number in range(700)],
        {f"name {number}": [number] for number in range(50_000)},
        [deep] * 300,
    )
    for value in values:
        written = wire.encode(CreateRequest(args=to_struct({"value": value})), "args")
        assert written == orjson.dumps({"value": value}, option=orjson.OPT_SORT_KEYS)


def test_a_discarded_value_is_empty_with_everything_in_it() -> None:
    inner: list[object] = [1, 2]
    named: dict[str, object] = {"a": inner, "b": {"c": inner}}
    outer: list[object] = [named, "text", inner]
    discard(outer)
    assert (outer, named, inner) == ([], {}, [])
    discard("text")
