"""The messages of gRPC server reflection, versions v1 and v1alpha, in a pool of their own.

The pool is private because the names are those of the package grpcio-reflection: a program that also loads
that package would have two descriptors of one name in the default pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

VERSIONS = ("v1", "v1alpha")
"""The versions of the service. Their messages are equal, except for the package."""

_ONEOFS = {"ServerReflectionRequest": "message_request", "ServerReflectionResponse": "message_response"}

_FIELDS: dict[str, tuple[tuple[int, str, str, bool], ...]] = {
    "ServerReflectionRequest": (
        (1, "host", "string", False),
        (3, "file_by_filename", "string", True),
        (4, "file_containing_symbol", "string", True),
        (5, "file_containing_extension", "ExtensionRequest", True),
        (6, "all_extension_numbers_of_type", "string", True),
        (7, "list_services", "string", True),
    ),
    "ExtensionRequest": (
        (1, "containing_type", "string", False),
        (2, "extension_number", "int32", False),
    ),
    "ServerReflectionResponse": (
        (1, "valid_host", "string", False),
        (2, "original_request", "ServerReflectionRequest", False),
        (4, "file_descriptor_response", "FileDescriptorResponse", True),
        (5, "all_extension_numbers_response", "ExtensionNumberResponse", True),
        (6, "list_services_response", "ListServiceResponse", True),
        (7, "error_response", "ErrorResponse", True),
    ),
    "FileDescriptorResponse": ((1, "file_descriptor_proto", "repeated bytes", False),),
    "ExtensionNumberResponse": (
        (1, "base_type_name", "string", False),
        (2, "extension_number", "repeated int32", False),
    ),
    "ListServiceResponse": ((1, "service", "repeated ServiceResponse", False),),
    "ServiceResponse": ((1, "name", "string", False),),
    "ErrorResponse": ((1, "error_code", "int32", False), (2, "error_message", "string", False)),
}
"""The fields of each message: number, name, type, and whether the field is in the message's oneof."""

_SCALARS = {
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "string": FieldDescriptorProto.TYPE_STRING,
}


@dataclass(frozen=True, slots=True)
class ReflectionMessages:
    """One version of the service.

    Attributes:
        file: The descriptor of its file.
        service: The full name of the service.
        request: The class of requests.
        response: The class of responses.
    """

    file: FileDescriptorProto
    service: str
    request: Any
    response: Any


@cache
def reflection_messages(version: str) -> ReflectionMessages:
    """Returns the messages of one of the VERSIONS."""
    package = f"grpc.reflection.{version}"
    file = FileDescriptorProto(
        name=f"grpc/reflection/{version}/reflection.proto", package=package, syntax="proto3"
    )
    file.message_type.extend(_message(package, name) for name in _FIELDS)
    service = file.service.add(name="ServerReflection")
    service.method.add(
        name="ServerReflectionInfo",
        input_type=f".{package}.ServerReflectionRequest",
        output_type=f".{package}.ServerReflectionResponse",
        client_streaming=True,
        server_streaming=True,
    )
    pool = DescriptorPool()
    pool.Add(file)

    def message_class(name: str) -> Any:
        return GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))

    return ReflectionMessages(
        file=file,
        service=f"{package}.{service.name}",
        request=message_class("ServerReflectionRequest"),
        response=message_class("ServerReflectionResponse"),
    )


def _message(package: str, name: str) -> DescriptorProto:
    message = DescriptorProto(name=name)
    if name in _ONEOFS:
        message.oneof_decl.add(name=_ONEOFS[name])
    for number, field_name, kind, is_in_oneof in _FIELDS[name]:
        type_name = kind.removeprefix("repeated ")
        first, *words = field_name.split("_")
        field = message.field.add(
            name=field_name,
            json_name=first + "".join(word.title() for word in words),
            number=number,
            label=(
                FieldDescriptorProto.LABEL_REPEATED
                if kind.startswith("repeated ")
                else FieldDescriptorProto.LABEL_OPTIONAL
            ),
            type=_SCALARS.get(type_name, FieldDescriptorProto.TYPE_MESSAGE),
        )
        if type_name not in _SCALARS:
            field.type_name = f".{package}.{type_name}"
        if is_in_oneof:
            field.oneof_index = 0
    return message
