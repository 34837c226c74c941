"""Server reflection over the loopback interface, with both versions of the service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from spincycle_grpc.rpc_errors import error_from_rpc
from spincycle_server.rpc import reflection
from spincycle_server.rpc.reflection_messages import VERSIONS, ReflectionMessages, reflection_messages
from tests.limits import ANSWER
from tests.rpc.servers import REQUEST_MANAGER, rpc_error, serving

MANAGER_FILE = "spincycle/v1/request_manager.proto"


class Manager:
    """Has no method that a test calls."""

    def __getattr__(self, _: str) -> None:
        return None


class Client:
    """Opens streams of one version of the service."""

    def __init__(self, channel: grpc.aio.Channel, messages: ReflectionMessages) -> None:
        self.messages = messages
        self._method: Any = channel.stream_stream(
            f"/{messages.service}/ServerReflectionInfo",
            request_serializer=messages.request.SerializeToString,
            response_deserializer=messages.response.FromString,
        )

    def open(self) -> Any:
        return self._method()

    async def answers(self, *requests: dict[str, Any]) -> list[Any]:
        """Returns the answers of one stream to requests."""
        sent: Iterable[Any] = [self.messages.request(**fields) for fields in requests]
        return [answer async for answer in self._method(iter(sent), timeout=ANSWER)]


@asynccontextmanager
async def reflecting(version: str = "v1") -> AsyncIterator[Client]:
    async with (
        serving(REQUEST_MANAGER, Manager()) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
        asyncio.timeout(ANSWER),
    ):
        yield Client(channel, reflection_messages(version))


def files_in(answer: Any) -> dict[str, FileDescriptorProto]:
    """Returns the files of an answer by path."""
    assert answer.WhichOneof("message_response") == "file_descriptor_response", answer
    files = map(FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto)
    return {file.name: file for file in files}


@pytest.fixture(params=VERSIONS)
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    async with reflecting(request.param) as client:
        yield client


async def test_the_services_of_the_server_are_listed(client: Client) -> None:
    (answer,) = await client.answers({"list_services": "", "host": "here"})
    assert [service.name for service in answer.list_services_response.service] == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "spincycle.v1.RequestManager",
    ]
    assert (answer.valid_host, answer.original_request.host) == ("here", "here")


@pytest.mark.parametrize(
    ("symbol", "path"),
    [
        ("spincycle.v1.RequestManager", MANAGER_FILE),
        (".spincycle.v1.RequestManager", MANAGER_FILE),
        ("spincycle.v1.RequestManager.Create", MANAGER_FILE),
        ("spincycle.v1.CreateRequest", MANAGER_FILE),
        ("spincycle.v1.CreateRequest.args", MANAGER_FILE),
        ("spincycle.v1.AssignedJobChain.chain", "spincycle/v1/job_runner.proto"),
        ("spincycle.v1.State", "spincycle/v1/state.proto"),
        ("spincycle.v1.STATE_FAIL", "spincycle/v1/state.proto"),
        ("spincycle.v1.State.STATE_FAIL", "spincycle/v1/state.proto"),
        ("spincycle.v1.JobChain.JobsEntry.value", "spincycle/v1/job.proto"),
        ("spincycle.v1.json_field", "spincycle/v1/json.proto"),
        ("google.api.http", "google/api/annotations.proto"),
        ("google.protobuf.FieldOptions.CType", "google/protobuf/descriptor.proto"),
        ("google.rpc.ErrorInfo", "google/rpc/error_details.proto"),
        ("google.protobuf.Duration", "google/protobuf/duration.proto"),
        ("grpc.health.v1.Health.Check", "grpc/health/v1/health.proto"),
        ("grpc.reflection.v1.ServerReflection", "grpc/reflection/v1/reflection.proto"),
        ("grpc.reflection.v1alpha.ExtensionRequest", "grpc/reflection/v1alpha/reflection.proto"),
    ],
)
async def test_the_file_of_a_symbol_comes_first_and_with_all_of_its_imports(symbol: str, path: str) -> None:
    async with reflecting() as client:
        (answer,) = await client.answers({"file_containing_symbol": symbol})
    files = files_in(answer)
    assert next(iter(files)) == path
    assert {name for file in files.values() for name in file.dependency} <= set(files)


async def test_methods_have_comments_and_fields_have_json_names(client: Client) -> None:
    (answer,) = await client.answers({"file_by_filename": MANAGER_FILE})
    file = files_in(answer)[MANAGER_FILE]
    comments = {tuple(one.path): one.leading_comments for one in file.source_code_info.location}
    assert comments[6, 0, 2, 0].startswith(" Creates a request and starts it.\n")
    (create,) = [message for message in file.message_type if message.name == "CreateRequest"]
    names = [field.json_name for field in create.field]
    assert names == ["Type", "Args", "User", "idempotencyKey", "StrictArgs"]


async def test_a_stream_gets_each_import_once(client: Client) -> None:
    first, second = await client.answers(
        {"file_containing_symbol": "spincycle.v1.RequestManager"},
        {"file_containing_symbol": "spincycle.v1.JobRunner"},
    )
    assert "spincycle/v1/job.proto" in files_in(first)
    assert set(files_in(second)) == {"spincycle/v1/job_runner.proto"}


async def test_extensions_are_found_by_number(client: Client) -> None:
    numbers, none, file = await client.answers(
        {"all_extension_numbers_of_type": "google.protobuf.MethodOptions"},
        {"all_extension_numbers_of_type": "spincycle.v1.Job"},
        {
            "file_containing_extension": {
                "containing_type": "google.protobuf.MethodOptions",
                "extension_number": 72295728,
            }
        },
    )
    found = numbers.all_extension_numbers_response
    assert (found.base_type_name, list(found.extension_number)) == (
        "google.protobuf.MethodOptions",
        [50501, 72295728],
    )
    assert none.WhichOneof("message_response") == "all_extension_numbers_response"
    assert not none.all_extension_numbers_response.extension_number
    assert "google/api/annotations.proto" in files_in(file)


async def test_what_does_not_exist_is_not_found_and_the_stream_goes_on(client: Client) -> None:
    extension = {"containing_type": "spincycle.v1.Job", "extension_number": 1}
    *missing, listed = await client.answers(
        {"file_containing_symbol": "spincycle.v1.Nothing"},
        {"file_by_filename": "nothing.proto"},
        {"all_extension_numbers_of_type": "spincycle.v1.Nothing"},
        {"file_containing_extension": extension},
        {},
        {"list_services": ""},
    )
    assert len(missing) == 5
    for answer in missing:
        assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
        assert answer.error_response.error_message
    assert listed.list_services_response.service


async def test_the_python_client_describes_a_method_and_its_messages() -> None:
    async with serving(REQUEST_MANAGER, Manager()) as (_, address):

        def described() -> Any:
            with grpc.insecure_channel(address) as channel:
                database = ProtoReflectionDescriptorDatabase(channel)
                assert "spincycle.v1.RequestManager" in database.get_services()
                return DescriptorPool(database).FindMethodByName("spincycle.v1.RequestManager.Create")

        method = await asyncio.wait_for(asyncio.to_thread(described), ANSWER)
    names = [field.name for field in method.input_type.fields]
    assert names == ["type", "args", "user", "idempotency_key", "strict_args"]
    assert method.output_type.fields_by_name["request"].message_type.full_name == "spincycle.v1.Request"


def test_the_messages_are_those_of_the_published_service() -> None:
    published = FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    own = reflection_messages("v1alpha").file
    messages = {message.name: message for message in own.message_type}
    for message in published.message_type:
        fields = {field.name: field for field in messages.pop(message.name).field}
        for field in message.field:
            mine = fields.pop(field.name)
            mine.ClearField("json_name")
            assert mine == field
        assert not fields
    assert not messages
    assert published.service == own.service


@pytest.mark.parametrize("data", [b"\xff", b"\x22" + b"\xff\xff\x03" + b"x" * 65535])
async def test_a_request_that_is_malformed_or_too_large_ends_the_stream(data: bytes) -> None:
    async def requests() -> AsyncIterator[bytes]:
        yield data

    async with (
        serving(REQUEST_MANAGER, Manager()) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        method: Any = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        error = await rpc_error(method(requests(), timeout=ANSWER).read())
    assert error_from_rpc(error, address).reason == "BAD_MESSAGE"


async def test_open_streams_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflection, "MAX_STREAMS", 1)
    async with reflecting() as client:
        stream = client.open()
        await stream.write(client.messages.request(list_services=""))
        await stream.read()
        error = await rpc_error(client.open().read())
        assert error_from_rpc(error, "").reason == "TOO_MANY_REFLECTION_STREAMS"
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        await client.answers({"list_services": ""})


async def test_a_silent_stream_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflection, "IDLE_TIMEOUT", 0.01)
    async with reflecting() as client:
        stream = client.open()
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK


async def test_a_stream_ends_after_its_last_allowed_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflection, "MAX_REQUESTS", 2)
    async with reflecting() as client:
        assert len(await client.answers(*[{"list_services": ""}] * 3)) == 2
