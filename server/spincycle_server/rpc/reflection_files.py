"""Finds the .proto file that declares a name, for reflection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Set

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)


class ReflectionFiles:
    """An index of .proto files by the names that they declare.

    Args:
        files: The files. Each comes after those that it imports.
    """

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        self._serialized: dict[str, bytes] = {}
        self._with_imports: dict[str, tuple[str, ...]] = {}
        self._by_symbol: dict[str, str] = {}
        self._by_extension: dict[str, dict[int, str]] = defaultdict(dict)
        for file in files:
            self._serialized[file.name] = file.SerializeToString(deterministic=True)
            imported = [name for own in file.dependency for name in self._with_imports[own]]
            self._with_imports[file.name] = tuple(dict.fromkeys((file.name, *file.dependency, *imported)))
            self._by_symbol |= dict.fromkeys(_symbols(file), file.name)
            for extension in _extensions(file):
                self._by_extension[extension.extendee.removeprefix(".")][extension.number] = file.name

    def of_symbol(self, name: str) -> str | None:
        """Returns the path of the file that declares a full name. None: no file does."""
        return self._by_symbol.get(name)

    def of_extension(self, message: str, number: int) -> str | None:
        """Returns the path of the file that declares an extension of a message. None: no file does."""
        return self._by_extension.get(message, {}).get(number)

    def extension_numbers(self, message: str) -> list[int] | None:
        """Returns the numbers of the extensions of a message. None: there is no such message."""
        if message not in self._by_symbol:
            return None
        return sorted(self._by_extension.get(message, {}))

    def with_imports(self, path: str, known: Set[str]) -> dict[str, bytes] | None:
        """Returns a file, followed by the files that it imports, directly and indirectly.

        Args:
            path: The path of the file.
            known: The paths of files to leave out, except for the file itself.

        Returns:
            The serialized descriptors by path. None: there is no such file.
        """
        paths = self._with_imports.get(path)
        if paths is None:
            return None
        return {name: self._serialized[name] for name in paths if name == path or name not in known}


def _symbols(file: FileDescriptorProto) -> Iterator[str]:
    prefix = f"{file.package}." if file.package else ""
    for message in file.message_type:
        yield from _message_symbols(message, prefix)
    for enum in file.enum_type:
        yield from _enum_symbols(enum, prefix)
    yield from (prefix + extension.name for extension in file.extension)
    for service in file.service:
        yield prefix + service.name
        yield from (f"{prefix}{service.name}.{method.name}" for method in service.method)


def _message_symbols(message: DescriptorProto, prefix: str) -> Iterator[str]:
    yield prefix + message.name
    inner = f"{prefix}{message.name}."
    for parts in (message.field, message.oneof_decl, message.extension):
        yield from (inner + part.name for part in parts)
    for nested in message.nested_type:
        yield from _message_symbols(nested, inner)
    for enum in message.enum_type:
        yield from _enum_symbols(enum, inner)


def _enum_symbols(enum: EnumDescriptorProto, prefix: str) -> Iterator[str]:
    """Yields an enum and its values, which are in the scope of the enum, in both usual spellings."""
    yield prefix + enum.name
    for value in enum.value:
        yield prefix + value.name
        yield f"{prefix}{enum.name}.{value.name}"


def _extensions(part: FileDescriptorProto | DescriptorProto) -> Iterator[FieldDescriptorProto]:
    yield from part.extension
    for message in part.message_type if isinstance(part, FileDescriptorProto) else part.nested_type:
        yield from _extensions(message)
