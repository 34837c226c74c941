"""The values and the depth of serialized messages are counted before they are parsed."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Value
from hypothesis import given, settings
from hypothesis import strategies as st

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.structs import to_struct
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest, FindRequest
from spincycle_grpc.v1.state_pb2 import STATE_RUNNING
from spincycle_server.rpc import message_counting
from spincycle_server.rpc.input_limits import VALUES_PER_NAME
from spincycle_server.rpc.message_counting import check_message
from tests.spincycle_grpc.messages import MESSAGE_TYPES, messages


def counted(message: Message) -> int:
    """Returns how many values a message has: the slow model."""
    count = 0
    for field, value in message.ListFields():
        is_map = field.is_repeated and field.message_type is not None and not hasattr(value, "add")
        elements: Any = value.values() if is_map else value if field.is_repeated else [value]
        weight = 1
        if is_map:
            weight = VALUES_PER_NAME + hasattr(next(iter(elements)), "ListFields")
        if not field.is_repeated and (field.message_type is None or isinstance(message, Value)):
            weight = 0
        for element in elements:
            count += weight
            if hasattr(element, "ListFields"):
                count += counted(element)
    return count


@settings(max_examples=300)
@given(data=st.data())
def test_values_are_counted_as_the_model_counts_them(data: st.DataObject) -> None:
    message = data.draw(st.sampled_from(MESSAGE_TYPES).flatmap(messages))
    descriptor: Any = message.DESCRIPTOR
    serialized, count = message.SerializeToString(), counted(message)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(message_counting, "FIELDS_PER_VALUE", 10**6)
        message_counting._scan(descriptor, serialized, max(count, 1))
        if count > 1:
            with pytest.raises(InvalidArgumentError) as caught:
                message_counting._scan(descriptor, serialized, count - 1)
            assert caught.value.reason == "TOO_MANY_VALUES"


@pytest.mark.parametrize(
    "args",
    [
        {"a": [1] * 1000},
        {"a": [[[]]] * 500},
        {f"k{number}": "x" for number in range(1000)},
        {"a": [{"b": {}}] * 300},
    ],
)
def test_args_within_the_limit_have_few_enough_fields(args: dict[str, Any]) -> None:
    request = CreateRequest(type="t", args=to_struct(args))
    limit = counted(request)
    check_message(request.DESCRIPTOR, request.SerializeToString(), limit)
    with pytest.raises(InvalidArgumentError):
        check_message(request.DESCRIPTOR, request.SerializeToString(), limit - 1)


def test_packed_elements_count() -> None:
    request = FindRequest()
    request.filter.states.extend([STATE_RUNNING] * 1000)
    check_message(request.DESCRIPTOR, request.SerializeToString(), 1001)
    with pytest.raises(InvalidArgumentError) as caught:
        check_message(request.DESCRIPTOR, request.SerializeToString(), 1000)
    assert caught.value.reason == "TOO_MANY_VALUES"


@pytest.mark.parametrize(
    "data",
    [
        b"\x08\x00" * 5000,
        b"\xf8\x01\x00" * 5000,
        b"\x0a\x00" * 5000,
        b"\x8a\x80\x00\x00" * 5000,
        b"\x1a\x00" * 5000,
    ],
    ids=["number", "unknown", "text", "long tag", "message"],
)
def test_a_field_that_is_repeated_without_end_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check_message(CreateRequest.DESCRIPTOR, data, 1000)
    assert caught.value.reason == "TOO_MANY_VALUES"


def test_messages_nest_as_deep_as_the_parser_allows() -> None:
    value = Value(number_value=1)
    for _ in range(message_counting.MAX_DEPTH // 2):
        outer = Value()
        outer.list_value.values.append(value)
        value = outer
    data = value.SerializeToString()
    Value.FromString(data)
    check_message(Value.DESCRIPTOR, data, 60)
    outer = Value()
    outer.list_value.values.append(value)
    with pytest.raises(DecodeError):
        Value.FromString(outer.SerializeToString())
    with pytest.raises(InvalidArgumentError) as caught:
        check_message(Value.DESCRIPTOR, outer.SerializeToString(), 60)
    assert caught.value.reason == "TOO_DEEP"


def test_a_group_is_refused() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check_message(CreateRequest.DESCRIPTOR, b"\xfb\x01" * 50, 10)
    assert caught.value.reason == "BAD_MESSAGE"


@given(data=st.binary(max_size=200))
def test_any_bytes_are_scanned_or_refused(data: bytes) -> None:
    reasons = {"TOO_MANY_VALUES", "TOO_DEEP", "BAD_MESSAGE"}
    for descriptor in MESSAGE_TYPES:
        try:
            check_message(descriptor, data, 10)
        except InvalidArgumentError as error:
            if error.reason not in reasons:
                raise
