"""The contracts of the package: its .proto files, and protoc's descriptors with their comments.

They also contain the option messages of google/api, so that they compile without other files.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

DESCRIPTORS = "descriptors.binpb"
"""The file beside the stubs with the descriptor set."""

SERVICE_CONFIG = "service_config.json"
"""The file beside the .proto files with the gRPC service config."""

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The time of each file in a zip: the earliest that the format has."""

_NAMED_PARTS = {
    "FileDescriptorProto": {4: "message_type", 5: "enum_type", 6: "service"},
    "DescriptorProto": {2: "field", 3: "nested_type", 4: "enum_type"},
    "EnumDescriptorProto": {2: "value"},
    "ServiceDescriptorProto": {2: "method"},
}
"""For each kind of descriptor: the field numbers of its named parts."""


def proto_files() -> dict[str, bytes]:
    """Returns the .proto files by path, for example "spincycle/v1/job.proto". The paths are sorted."""
    return dict(sorted(_files_below(resources.files("spincycle_grpc") / "protos", "")))


def service_config() -> str:
    """Returns the gRPC service config for clients as JSON: retries, health checking and load balancing."""
    return (resources.files("spincycle_grpc") / "protos" / SERVICE_CONFIG).read_text(encoding="utf-8")


def contract_files() -> dict[str, bytes]:
    """Returns the .proto files and the service config by path."""
    return proto_files() | {SERVICE_CONFIG: service_config().encode()}


def protos_zip() -> bytes:
    """Returns a zip of `contract_files`, without compression: equal files always give equal bytes."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for path, content in contract_files().items():
            entry = zipfile.ZipInfo(path, _ZIP_TIME)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3  # Unix, on every system.
            archive.writestr(entry, content)
    return written.getvalue()


def descriptor_set() -> bytes:
    """Returns a serialized google.protobuf.FileDescriptorSet of the .proto files and all that they import.

    The files of the project have their comments.
    """
    return (resources.files("spincycle_grpc.v1") / DESCRIPTORS).read_bytes()


@cache
def comments() -> Mapping[str, str]:
    """Returns the comments by the full name of the commented message, field, enum, value, service or method.

    The lines of each paragraph and of each list item are joined.
    """
    files = FileDescriptorSet.FromString(descriptor_set()).file
    return {name: text for file in files for name, text in _comments_of(file)}


def _files_below(directory: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in directory.iterdir():
        if entry.is_dir():
            yield from _files_below(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".proto"):
            yield prefix + entry.name, entry.read_bytes()


def _comments_of(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    for location in file.source_code_info.location:
        name = _name_at(file, location.path)
        if name and location.leading_comments:
            yield f"{file.package}.{name}", _joined(location.leading_comments)


def _name_at(file: FileDescriptorProto, path: Sequence[int]) -> str:
    """Returns the name of the part at a path of field numbers and indexes. "" if it has none."""
    names: list[str] = []
    part: Any = file
    if len(path) % 2:
        return ""
    for number, index in zip(path[::2], path[1::2], strict=True):
        field = _NAMED_PARTS.get(type(part).__name__, {}).get(number)
        if field is None:
            return ""
        part = getattr(part, field)[index]
        names.append(part.name)
    return ".".join(names)


def _joined(comment: str) -> str:
    joined: list[str] = []
    for line in comment.strip().splitlines():
        text = line.strip()
        if joined and joined[-1] and text and not text.startswith("- "):
            joined[-1] += f" {text}"
        else:
            joined.append(text)
    return "\n".join(joined)
