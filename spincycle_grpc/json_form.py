"""The JSON form of a message's fields, as descriptors and the options of json.proto declare it."""

from __future__ import annotations

from google.protobuf.descriptor import FieldDescriptor

from spincycle_grpc.v1 import json_pb2


def json_options(field: FieldDescriptor) -> json_pb2.JsonField:
    """Returns the `json_field` option of a field, or an empty one."""
    options: json_pb2.JsonField = field.GetOptions().Extensions[json_pb2.json_field]
    return options


def is_map(field: FieldDescriptor) -> bool:
    """Whether the field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def entry_fields(field: FieldDescriptor) -> tuple[FieldDescriptor, FieldDescriptor]:
    """Returns the key field and the value field of a map's entries."""
    assert field.message_type is not None  # noqa: S101 (protobuf stores a map as a list of messages)
    key, value = field.message_type.fields
    return key, value


def enum_literals(field: FieldDescriptor) -> dict[int, str]:
    """Returns the JSON literals of an enum field by number. Empty if the JSON uses the numbers."""
    return {
        value.number: value.GetOptions().Extensions[json_pb2.json_literal]
        for value in (field.enum_type.values if field.enum_type is not None else ())
        if value.GetOptions().HasExtension(json_pb2.json_literal)
    }


def is_plain_type(field: FieldDescriptor) -> bool:
    """Whether a value of the field's type is the same object in Python and in parsed JSON."""
    if field.message_type is not None or field.type == FieldDescriptor.TYPE_BYTES:
        return False
    return field.enum_type is None or not enum_literals(field)
