"""Counts the values of a serialized message and its depth before the message is parsed.

The parser holds the interpreter's lock until it has parsed the whole message, which takes long for many
values. This scan is slower, but other threads run meanwhile, and it ends at the limit. It knows the fields
from the descriptor, so it skips text. What it cannot read is left to the parser, which fails at the same
place.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.struct_pb2 import Value

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_server.rpc.input_limits import VALUES_PER_NAME

MAX_DEPTH = 100
"""How deep messages may nest. The parser has the same limit."""

FIELDS_PER_VALUE = 4
"""How many fields a message may have per value. An item of a list has two, and an item of a Struct four."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}
_FIXED_TYPES = {
    FieldDescriptor.TYPE_DOUBLE: _FIXED64,
    FieldDescriptor.TYPE_FIXED64: _FIXED64,
    FieldDescriptor.TYPE_SFIXED64: _FIXED64,
    FieldDescriptor.TYPE_FLOAT: _FIXED32,
    FieldDescriptor.TYPE_FIXED32: _FIXED32,
    FieldDescriptor.TYPE_SFIXED32: _FIXED32,
}
_TEXT_TYPES = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
_CONTINUED = bytes(range(128, 256))
"""The bytes of a varint except its last one."""


class _Field(NamedTuple):
    """A field as it occurs in the bytes.

    Attributes:
        weight: How many values an occurrence counts as.
        message: The type of the message in it; None if it has none.
        packed: The wire type of the packed elements in it; None if it has none.
    """

    weight: int
    message: Descriptor | None = None
    packed: int | None = None


def check_message(descriptor: Descriptor, data: bytes, max_values: int) -> None:
    """Checks that a message has at most `max_values` values, and nests at most MAX_DEPTH levels deep.

    Each element of a list counts, and each message. The name of an item of a map counts as
    VALUES_PER_NAME values, and a Value counts once with the list or Struct in it.

    Raises:
        InvalidArgumentError: It has more values, or nests deeper, or has a group, which no message of the
            contracts has. Reasons: TOO_MANY_VALUES, TOO_DEEP, BAD_MESSAGE.
    """
    if len(data) * VALUES_PER_NAME <= 2 * max_values:  # An item of a map takes at least two bytes.
        return
    try:
        _scan(descriptor, data, max_values)
    except IndexError:
        return  # The parser refuses it too: it ends in the middle of a field.


def _scan(descriptor: Descriptor, data: bytes, max_values: int) -> None:
    fields, at, end = _fields_of(descriptor), 0, len(data)
    outer: list[tuple[Mapping[int, _Field], int]] = []
    values, left = 0, FIELDS_PER_VALUE * max_values
    while True:
        while at >= end:
            if at > end or not outer:
                return
            fields, end = outer.pop()
        tag, at = data[at], at + 1
        if tag >= 0x80:
            tag, at = _varint(data, at - 1)
        weight, message, packed = fields.get(tag, _UNKNOWN)
        values += weight
        left -= 1
        if values > max_values or left < 0:
            raise _too_many_values(max_values)
        if tag & 7 != _LENGTH:
            at = _after_scalar(tag & 7, data, at)
            continue
        size, at = data[at], at + 1
        if size >= 0x80:
            size, at = _varint(data, at - 1)
        if message is not None and at + size <= end:
            if len(outer) == MAX_DEPTH:
                raise _too_deep()
            outer.append((fields, end))
            fields, end = _fields_of(message), at + size
            continue
        if packed is not None:
            values += _packed_elements(packed, data[at : at + size])
            if values > max_values:
                raise _too_many_values(max_values)
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns a varint of at most ten bytes, and the position after it."""
    number = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    return number, at


def _after_scalar(wire_type: int, data: bytes, at: int) -> int:
    """Returns the position after a number."""
    if wire_type == _VARINT:
        while data[at] >= 0x80:
            at += 1
        return at + 1
    if wire_type not in _SIZES:
        raise InvalidArgumentError(
            "the request has a group, which the .proto files do not use", reason="BAD_MESSAGE"
        )
    return at + _SIZES[wire_type]


def _packed_elements(wire_type: int, data: bytes) -> int:
    if wire_type == _VARINT:
        return len(data.translate(None, _CONTINUED))
    return len(data) // _SIZES[wire_type]


_UNKNOWN = _Field(0)


def _weight(field: FieldDescriptor) -> int:
    is_item = field.message_type is not None and field.message_type.GetOptions().map_entry
    return VALUES_PER_NAME if is_item else 1


@cache
def _fields_of(descriptor: Descriptor) -> Mapping[int, _Field]:
    """Returns the fields of a message by their tags: the number and the wire type."""
    fields: dict[int, _Field] = {}
    for field in descriptor.fields:
        if field.message_type is not None:
            # A Value and the list or Struct in it are one value.
            weight = 0 if descriptor is Value.DESCRIPTOR else _weight(field)
            fields[field.number << 3 | _LENGTH] = _Field(weight, field.message_type)
        elif field.type in _TEXT_TYPES:
            fields[field.number << 3 | _LENGTH] = _Field(int(field.is_repeated))
        else:
            wire_type = _FIXED_TYPES.get(field.type, _VARINT)
            fields[field.number << 3 | wire_type] = _Field(int(field.is_repeated))
            if field.is_repeated:
                fields[field.number << 3 | _LENGTH] = _Field(0, packed=wire_type)
    return fields


def _too_many_values(max_values: int) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"the request has too many values: at most {max_values} (server.max_values), and each name in a map "
        f"counts as {VALUES_PER_NAME}",
        reason="TOO_MANY_VALUES",
    )


def _too_deep() -> InvalidArgumentError:
    return InvalidArgumentError(
        f"the request nests too deep: messages may be at most {MAX_DEPTH} levels deep", reason="TOO_DEEP"
    )
