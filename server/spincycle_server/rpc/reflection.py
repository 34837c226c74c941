"""Server reflection: gRPC clients ask a server for its services and their .proto files, with comments.

Everybody may call it, so the number of streams, their requests and the size of a request are limited.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2

from spincycle_grpc.contracts import descriptor_set
from spincycle_grpc.errors import InvalidArgumentError, ResourceExhaustedError, SpinCycleError, Status
from spincycle_server.rpc.reflection_files import ReflectionFiles
from spincycle_server.rpc.reflection_messages import VERSIONS, ReflectionMessages, reflection_messages
from spincycle_server.rpc.status import abort
from spincycle_server.telemetry.limits import REFLECTION_STREAMS, LimitUse

MAX_STREAMS = 16
"""The maximum number of open reflection streams. gRPC keeps up to 64 MiB of the next message of each."""

MAX_REQUESTS = 10_000
"""The maximum number of requests of one reflection stream. The stream then ends; clients open another one."""

MAX_REQUEST_BYTES = 8192
"""The maximum size of one request."""

IDLE_TIMEOUT = 10.0
"""Seconds that a reflection stream stays open without a request. It then ends, as after MAX_REQUESTS."""


class Reflection:
    """Answers reflection requests for the contracts, the details of errors, the health service and itself.

    Args:
        services: The full names of the server's services. The reflection services are added.
    """

    def __init__(self, services: Sequence[str]) -> None:
        self._versions = [reflection_messages(version) for version in VERSIONS]
        self._services = sorted({*services, *(messages.service for messages in self._versions)})
        self._files: ReflectionFiles | None = None
        self._open = 0

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limit and the number of open streams."""
        return (LimitUse(REFLECTION_STREAMS, MAX_STREAMS, self._open),)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Adds both versions of the reflection service to a server."""
        for messages in self._versions:
            handler: Any = grpc.stream_stream_rpc_method_handler(self._stream(messages))
            server.add_registered_method_handlers(messages.service, {"ServerReflectionInfo": handler})

    def _stream(self, messages: ReflectionMessages) -> Callable[..., AsyncIterator[bytes]]:
        async def behavior(
            requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
        ) -> AsyncIterator[bytes]:
            try:
                async for answer in self._answers(messages, requests):
                    yield answer.SerializeToString()
            except SpinCycleError as error:
                await abort(context, error)

        return behavior

    async def _answers(
        self, messages: ReflectionMessages, requests: AsyncIterator[bytes]
    ) -> AsyncIterator[Any]:
        """Yields the answers of one stream. A file that was sent on it is not sent again as an import."""
        if self._open >= MAX_STREAMS:
            raise ResourceExhaustedError(
                f"the limit of {MAX_STREAMS} reflection streams is reached: try again later",
                reason="TOO_MANY_REFLECTION_STREAMS",
            )
        self._open += 1
        sent: set[str] = set()
        try:
            for _ in range(MAX_REQUESTS):
                async with asyncio.timeout(IDLE_TIMEOUT):
                    data = await anext(requests)
                yield self._answer(messages, _parsed(messages, data), sent)
        except (TimeoutError, StopAsyncIteration):
            return
        finally:
            self._open -= 1

    def _answer(self, messages: ReflectionMessages, request: Any, sent: set[str]) -> Any:
        answer = messages.response(valid_host=request.host, original_request=request)
        kind = request.WhichOneof("message_request")
        if kind == "list_services":
            for name in self._services:
                answer.list_services_response.service.add(name=name)
        elif kind == "all_extension_numbers_of_type":
            name = request.all_extension_numbers_of_type
            numbers = self._known_files().extension_numbers(name)
            if numbers is None:
                _set_not_found(answer, f"there is no message {name}")
            else:
                answer.all_extension_numbers_response.base_type_name = name
                answer.all_extension_numbers_response.extension_number.extend(numbers)
        else:
            found = self._known_files().with_imports(self._path(request), sent)
            if found is None:
                _set_not_found(answer, "no file declares the name: list the services for names that exist")
            else:
                sent.update(found)
                answer.file_descriptor_response.file_descriptor_proto.extend(found.values())
        return answer

    def _path(self, request: Any) -> str:
        """Returns the path of the file that a request asks for. "" if there is none."""
        kind = request.WhichOneof("message_request")
        files = self._known_files()
        if kind == "file_by_filename":
            return str(request.file_by_filename)
        if kind == "file_containing_symbol":
            return files.of_symbol(request.file_containing_symbol.removeprefix(".")) or ""
        extension = request.file_containing_extension
        return files.of_extension(extension.containing_type, extension.extension_number) or ""

    def _known_files(self) -> ReflectionFiles:
        """Returns the index of files, which is built for the first request that needs it."""
        if self._files is None:
            health = FileDescriptorProto.FromString(health_pb2.DESCRIPTOR.serialized_pb)
            health.name = "grpc/health/v1/health.proto"  # Its published path, as other languages know it.
            contracts = FileDescriptorSet.FromString(descriptor_set()).file
            details = _file_and_imports(error_details_pb2.DESCRIPTOR)
            own = (messages.file for messages in self._versions)
            # Of a file that is in both, that of the contracts stays, because it comes later.
            self._files = ReflectionFiles([*details, *contracts, health, *own])
        return self._files


def _file_and_imports(file: FileDescriptor) -> Iterator[FileDescriptorProto]:
    """Yields the imports of a file, and then the file."""
    for imported in file.dependencies:
        yield from _file_and_imports(imported)
    yield FileDescriptorProto.FromString(file.serialized_pb)


def _parsed(messages: ReflectionMessages, data: bytes) -> Any:
    try:
        if len(data) > MAX_REQUEST_BYTES:
            raise DecodeError
        return messages.request.FromString(data)
    except DecodeError:
        raise InvalidArgumentError(
            f"the request is not a valid ServerReflectionRequest of at most {MAX_REQUEST_BYTES} bytes",
            reason="BAD_MESSAGE",
        ) from None


def _set_not_found(answer: Any, message: str) -> None:
    answer.error_response.error_code = Status.NOT_FOUND.grpc_code
    answer.error_response.error_message = message
