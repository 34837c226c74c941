"""Random messages of every type, generated from the descriptors."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st

import spincycle_grpc.v1
from spincycle_grpc.structs import LARGEST_EXACT, fill_struct, fill_value
from spincycle_grpc.v1 import json_pb2

_SECONDS_OF_YEARS_1_TO_9999 = (-62135596800, 253402300799)
_LONGEST_DURATION = 315_576_000_000
_NANOS = 999_999_999
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (0, 2**31 - 1),
}


def _message_types() -> list[Descriptor]:
    found = []
    for module in pkgutil.iter_modules(spincycle_grpc.v1.__path__):
        if module.name.endswith("_pb2") and module.name != "json_pb2":
            file = importlib.import_module(f"spincycle_grpc.v1.{module.name}").DESCRIPTOR
            found += file.message_types_by_name.values()
    return found


MESSAGE_TYPES: list[Descriptor] = _message_types()
"""Every message type of the contracts."""

texts = st.text(max_size=8) | st.sampled_from(["<a&b>", "\u2028", '"\\', "\0"])
numbers = st.integers(-LARGEST_EXACT, LARGEST_EXACT) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.booleans() | numbers | texts
json_values = st.recursive(
    scalars | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
"""The values that args and job data can have."""


@functools.cache
def messages(descriptor: Descriptor) -> st.SearchStrategy[Message]:
    """Returns random messages of a type, without the fields that JSON does not have."""
    special = _SPECIAL.get(descriptor.full_name)
    return special if special is not None else _of_fields(descriptor)


@st.composite
def _of_fields(draw: st.DrawFn, descriptor: Descriptor) -> Message:
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        options = field.GetOptions().Extensions[json_pb2.json_field]
        if not options.hidden and draw(st.booleans()):
            _set(draw, message, field)
            if options.omit_empty and not _holds_anything(message, field):
                message.ClearField(field.name)
    return message


def _set(draw: st.DrawFn, message: Any, field: FieldDescriptor) -> None:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, value = entry.fields
        target = getattr(message, field.name)
        for name in draw(_keys(key)):
            if value.message_type is not None:
                target[name].MergeFrom(draw(messages(value.message_type)))
            else:
                target[name] = draw(_single(value))
    elif field.is_repeated:
        getattr(message, field.name).extend(draw(_list(field)))
    elif entry is not None:
        part = draw(messages(entry))
        getattr(message, field.name).SetInParent()
        getattr(message, field.name).CopyFrom(part)
    else:
        setattr(message, field.name, draw(_single(field)))


def _holds_anything(message: Any, field: FieldDescriptor) -> bool:
    """Whether a field is written with omit_empty. An empty map or list is not."""
    value = getattr(message, field.name)
    return bool(value.ByteSize() if isinstance(value, Message) else value)


@functools.cache
def _single(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=8)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return texts
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return st.floats(allow_nan=False, allow_infinity=False)
    return st.integers(*_INTEGERS[field.cpp_type])


@functools.cache
def _keys(field: FieldDescriptor) -> st.SearchStrategy[list[Any]]:
    return st.lists(_single(field), max_size=3, unique=True)


@functools.cache
def _list(field: FieldDescriptor) -> st.SearchStrategy[list[Any]]:
    return st.lists(_single(field), max_size=3)


@st.composite
def _structs(draw: st.DrawFn) -> Struct:
    struct = Struct()
    fill_struct(struct, draw(st.dictionaries(texts, json_values, max_size=3)), "")
    return struct


@st.composite
def _values(draw: st.DrawFn) -> Value:
    value = Value()
    fill_value(value, draw(json_values.filter(lambda one: one is not None)), "")
    return value


@st.composite
def _durations(draw: st.DrawFn) -> Duration:
    seconds, nanos = draw(st.integers(0, _LONGEST_DURATION - 1)), draw(st.integers(0, _NANOS))
    sign = draw(st.sampled_from((1, -1)))
    return Duration(seconds=sign * seconds, nanos=sign * nanos)


_SPECIAL: dict[str, st.SearchStrategy[Any]] = {
    Struct.DESCRIPTOR.full_name: _structs(),
    Value.DESCRIPTOR.full_name: _values(),  # An unset Value is written as null.
    Duration.DESCRIPTOR.full_name: _durations(),
    Timestamp.DESCRIPTOR.full_name: st.builds(
        Timestamp, seconds=st.integers(*_SECONDS_OF_YEARS_1_TO_9999), nanos=st.integers(0, _NANOS)
    ),
}
