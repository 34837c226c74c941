"""JSON Schemas of messages, in the JSON that spincycle_grpc/wire.py writes and reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from spincycle_grpc.json_form import entry_fields, enum_literals, is_map, json_options
from spincycle_grpc.v1 import json_pb2

Schema: TypeAlias = dict[str, Any]

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: ("int32", -(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: ("int64", -(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: ("uint32", 0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: ("uint64", 0, 2**64 - 1),
}
_WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array"},
}


class Schemas:
    """Builds schemas and collects them in `components`.

    A message has different schemas for reading and for writing. A written message contains all of its fields,
    except for those that are omitted if empty, and later versions may add fields. In a message that is read,
    any field that is not required may be missing or null, and unknown keys are ignored.

    Args:
        comments: The comments of the contracts, by full name.

    Attributes:
        components: The schemas by name, for the `components` of a document.
    """

    def __init__(self, comments: Mapping[str, str]) -> None:
        self._comments = comments
        self.components: dict[str, Schema] = {}

    def of_message(self, descriptor: Descriptor, *, is_read: bool) -> Schema:
        """Returns the schema of a message, or a reference to it in `components`."""
        known = _WELL_KNOWN.get(descriptor.full_name)
        if known is not None:
            return dict(known)
        if descriptor.GetOptions().Extensions[json_pb2.json_message].unwrapped:
            return self.of_field(descriptor.fields[0], is_read=is_read)
        # The two schemas need two names. A request is only read, so its name needs no suffix.
        name = descriptor.name + ("Input" if is_read and not descriptor.name.endswith("Request") else "")
        if name not in self.components:
            self.components[name] = {}
            self.components[name] = self._object(descriptor, is_read=is_read)
        return {"$ref": f"#/components/schemas/{name}"}

    def of_field(self, field: FieldDescriptor, *, is_read: bool) -> Schema:
        """Returns the schema of a field's value, without null."""
        if is_map(field):
            value = self._one(entry_fields(field)[1], is_read=is_read)
            return {"type": "object", "additionalProperties": _nullable(value) if is_read else value}
        one = self._one(field, is_read=is_read)
        if not field.is_repeated:
            return one
        return {"type": "array", "items": _nullable(one) if is_read else one}

    def described(self, schema: Schema, full_name: str) -> Schema:
        """Returns a schema with the comment on a message or a field as its description."""
        comment = self._comments.get(full_name)
        return {**schema, "description": comment} if comment else schema

    def _object(self, descriptor: Descriptor, *, is_read: bool) -> Schema:
        properties: dict[str, Schema] = {}
        required: list[str] = []
        for field in descriptor.fields:
            options = json_options(field)
            if options.hidden:
                continue
            schema = self.of_field(field, is_read=is_read)
            is_required = options.required if is_read else not options.omit_empty
            may_be_null = not options.required if is_read else field.has_presence and is_required
            if is_read and is_required and schema.get("type") == "string":
                schema["minLength"] = 1
            properties[field.json_name] = self.described(
                _nullable(schema) if may_be_null else schema, field.full_name
            )
            if is_required:
                required.append(field.json_name)
        schema = {"type": "object", "properties": properties}
        if required:
            schema["required"] = required
        return self.described(schema, descriptor.full_name)

    def _one(self, field: FieldDescriptor, *, is_read: bool) -> Schema:
        """Returns the schema of a single value of a field."""
        if field.message_type is not None:
            return self.of_message(field.message_type, is_read=is_read)
        if field.enum_type is not None:
            return self._enum(field)
        if field.type == FieldDescriptorProto.TYPE_BYTES:
            return {"type": "string", "contentEncoding": "base64", "pattern": _BASE64}
        if field.cpp_type in _INTEGERS:
            form, smallest, largest = _INTEGERS[field.cpp_type]
            return {"type": "integer", "format": form, "minimum": smallest, "maximum": largest}
        if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return {"type": "boolean"}
        return {"type": "string"} if field.cpp_type == FieldDescriptor.CPPTYPE_STRING else {"type": "number"}

    def _enum(self, field: FieldDescriptor) -> Schema:
        """Returns a reference to an enum. Its values are numbers, or strings if the contract says so."""
        enum = field.enum_type
        assert enum is not None  # noqa: S101 (the caller checks this)
        if enum.name not in self.components:
            literals = enum_literals(field)
            shown = [literals.get(value.number, value.number) for value in enum.values]
            schema: Schema = {"type": "string" if literals else "integer", "enum": shown}
            schema["x-enum-varnames"] = [value.name for value in enum.values]
            lines = [
                f"- `{value}` {it.name}: {self._comments.get(f'{enum.full_name}.{it.name}', '')}"
                for value, it in zip(shown, enum.values, strict=True)
            ]
            comments = [self._comments.get(enum.full_name, ""), "\n".join(lines)]
            self.components[enum.name] = {**schema, "description": "\n\n".join(comments)}
        return {"$ref": f"#/components/schemas/{enum.name}"}


_BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"


def _nullable(schema: Schema) -> Schema:
    if not schema:
        return schema
    if "type" in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}
