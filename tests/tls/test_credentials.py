"""TLS of real gRPC and HTTP servers while their files change."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
import trustme

from spincycle_grpc.channels import open_async_channel
from spincycle_grpc.v1 import request_manager_pb2, runner_reports_pb2
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from spincycle_grpc.v1.runner_reports_pb2_grpc import RunnerReportsStub
from spincycle_server.config import ConfigError
from spincycle_server.identity import Authentication, Cluster
from spincycle_server.identity.certificate_trust import CertificateTrust
from spincycle_server.listening import TlsFiles
from spincycle_server.rpc import Gate, GrpcServer, MethodTable
from spincycle_server.tls.credentials import (
    ServerTls,
    channel_tls,
    http_context,
    server_credentials,
    server_tls,
)
from spincycle_server.tls.reloaded import Reloaded
from tests.certificates import FUTURE, write_ca, write_certificate
from tests.limits import ANSWER, STEP

if TYPE_CHECKING:
    from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerAsyncStub

REQUEST_MANAGER = request_manager_pb2.DESCRIPTOR.services_by_name["RequestManager"]
RUNNER_REPORTS = runner_reports_pb2.DESCRIPTOR.services_by_name["RunnerReports"]


class Manager:
    """Answers Version alone."""

    async def Version(self, request: Any, context: Any) -> Any:
        certificate = context.credentials.certificate
        return request_manager_pb2.RequestManagerVersionResponse(
            version=certificate.common_name if certificate else "none"
        )

    def __getattr__(self, name: str) -> Any:
        return self.Version


class Installation:
    """The files of a server, which a test changes."""

    def __init__(self, directory: Path, client_auth: str) -> None:
        self._directory = directory
        self.authority = trustme.CA()
        self.users = trustme.CA()
        self.own = write_certificate(directory, "own", self.authority.issue_cert("127.0.0.1"))
        self.trust(self.users)
        self.tls = self._tls(client_auth)
        self.client_auth = client_auth

    def _tls(self, client_auth: str) -> Reloaded[ServerTls]:
        tls = server_tls(TlsFiles(self.own.cert, self.own.key, self.ca), client_auth)
        assert tls is not None
        return tls

    def trust(self, *authorities: trustme.CA) -> None:
        self.ca = write_ca(self._directory, *authorities, name="users")

    def renew(self, authority: trustme.CA) -> None:
        write_certificate(self._directory, "own", authority.issue_cert("127.0.0.1"))

    def credentials(self, trusted: trustme.CA, user: trustme.CA | None) -> grpc.ChannelCredentials:
        if user is None:
            return grpc.ssl_channel_credentials(trusted.cert_pem.bytes())
        leaf = user.issue_cert("alice@example.com", common_name="alice")
        return grpc.ssl_channel_credentials(
            trusted.cert_pem.bytes(), leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes()
        )


@contextlib.asynccontextmanager
async def serving(tls: Reloaded[ServerTls], client_auth: str) -> AsyncIterator[str]:
    credentials = server_credentials(tls, require_client_auth=client_auth == "require")
    server = GrpcServer([MethodTable(REQUEST_MANAGER, Manager(), Gate(100))], "127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.stop(0)


async def version(channel: grpc.aio.Channel) -> str:
    stub: RequestManagerAsyncStub = RequestManagerStub(channel)
    answer = await stub.Version(request_manager_pb2.RequestManagerVersionRequest(), timeout=ANSWER)
    return answer.version


async def called_once(address: str, credentials: grpc.ChannelCredentials | None) -> str:
    async with open_async_channel(address, credentials) as channel:
        return await version(channel)


async def test_grpc_gives_new_connections_the_new_certificate_and_keeps_old_ones(tmp_path: Path) -> None:
    files = Installation(tmp_path, "none")
    old, new = files.authority, trustme.CA()
    async with serving(files.tls, "none") as address:
        async with open_async_channel(address, files.credentials(old, None)) as channel:
            assert await version(channel) == "none"
            files.renew(new)
            files.tls.reload()
            assert await version(channel) == "none"
        assert await called_once(address, files.credentials(new, None)) == "none"
        with pytest.raises(grpc.aio.AioRpcError, match="CERTIFICATE_VERIFY_FAILED"):
            await called_once(address, files.credentials(old, None))


async def test_grpc_follows_added_and_removed_authorities(tmp_path: Path) -> None:
    files = Installation(tmp_path, "require")
    first, second = files.users, trustme.CA()
    async with serving(files.tls, "require") as address:
        assert await called_once(address, files.credentials(files.authority, first)) == "alice"
        with pytest.raises(grpc.aio.AioRpcError):
            await called_once(address, files.credentials(files.authority, second))
        files.trust(first, second)
        files.tls.reload()
        assert await called_once(address, files.credentials(files.authority, first)) == "alice"
        assert await called_once(address, files.credentials(files.authority, second)) == "alice"
        files.trust(second)
        files.tls.reload()
        with pytest.raises(grpc.aio.AioRpcError):
            await called_once(address, files.credentials(files.authority, first))
        assert await called_once(address, files.credentials(files.authority, second)) == "alice"


async def test_a_server_with_a_ca_file_alone_asks_no_client_for_a_certificate(tmp_path: Path) -> None:
    files = Installation(tmp_path, "none")
    async with serving(files.tls, "none") as address:
        assert await called_once(address, files.credentials(files.authority, files.users)) == "none"
        assert await called_once(address, files.credentials(files.authority, None)) == "none"


@contextlib.asynccontextmanager
async def echoing(tls: Reloaded[ServerTls]) -> AsyncIterator[int]:
    """Serves the client's common name to each line, over TLS."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while await reader.readline():
                peer = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                writer.write(b"certificate\n" if peer else b"none\n")
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=http_context(tls))
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class Connection:
    """One TLS connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self) -> str:
        self._writer.write(b"who\n")
        async with asyncio.timeout(ANSWER):
            return (await self._reader.readline()).decode().strip()

    def close(self) -> None:
        self._writer.transport.abort()


@contextlib.asynccontextmanager
async def connected(
    port: int, trusted: trustme.CA, user: trustme.CA | None = None, *, sni: bool = True
) -> AsyncIterator[Connection]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusted.configure_trust(context)
    if user is not None:
        user.issue_cert("alice@example.com", common_name="alice").configure_cert(context)
    name = "127.0.0.1"  # An address is not sent as SNI.
    if sni:
        context.check_hostname = False
        name = "server.example.com"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    connection = Connection(reader, writer)
    try:
        yield connection
    finally:
        connection.close()


@pytest.mark.parametrize("sni", [True, False])
async def test_http_gives_new_connections_the_new_certificate_and_keeps_old_ones(
    tmp_path: Path, sni: bool
) -> None:
    files = Installation(tmp_path, "none")
    old, new = files.authority, trustme.CA()
    async with echoing(files.tls) as port, connected(port, old, sni=sni) as connection:
        assert await connection.ask() == "none"
        files.renew(new)
        files.tls.reload()
        assert await connection.ask() == "none"
        async with connected(port, new, sni=sni) as second:
            assert await second.ask() == "none"
        with pytest.raises(ssl.SSLCertVerificationError):
            async with connected(port, old, sni=sni):
                pass


async def test_http_requests_certificates_and_follows_removed_authorities(tmp_path: Path) -> None:
    files = Installation(tmp_path, "request")
    first, second = files.users, trustme.CA()
    async with echoing(files.tls) as port:
        async with connected(port, files.authority) as connection:
            assert await connection.ask() == "none"
        async with connected(port, files.authority, first) as connection:
            assert await connection.ask() == "certificate"
        files.trust(second)
        files.tls.reload()
        async with connected(port, files.authority, first) as connection:
            assert await asked_in_vain(connection)
        async with connected(port, files.authority, second) as connection:
            assert await connection.ask() == "certificate"


async def test_http_requires_certificates(tmp_path: Path) -> None:
    files = Installation(tmp_path, "require")
    async with echoing(files.tls) as port:
        async with connected(port, files.authority) as connection:
            assert await asked_in_vain(connection)
        async with connected(port, files.authority, files.users) as connection:
            assert await connection.ask() == "certificate"


async def asked_in_vain(connection: Connection) -> bool:
    """Returns whether the server refuses the client. With TLS 1.3 it does so after the client connected."""
    try:
        return await connection.ask() == ""
    except (ConnectionError, ssl.SSLError):
        return True


def test_a_ca_file_without_a_certificate_of_the_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"server\.tls\.cert_file: must be set too"):
        server_tls(TlsFiles(ca_file=write_ca(tmp_path, trustme.CA())))


def test_files_that_change_while_they_are_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Installation(tmp_path, "none")
    old = files.tls.value
    files.renew(files.authority)
    load = ssl.SSLContext.load_cert_chain

    def load_and_change(context: ssl.SSLContext, *arguments: Any) -> None:
        load(context, *arguments)
        files.renew(files.authority)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", load_and_change)
    files.tls.reload()
    assert files.tls.value is old
    monkeypatch.undo()
    files.tls.reload()
    assert files.tls.value is not old


def test_outgoing_credentials_are_another_object_after_a_change(tmp_path: Path) -> None:
    tls = channel_tls(TlsFiles(ca_file=write_ca(tmp_path, trustme.CA())))
    assert tls is not None
    old = tls.value
    tls.reload()
    assert tls.value is old
    write_ca(tmp_path, trustme.CA())
    tls.reload()
    assert tls.value is not old


def test_without_files_there_is_no_tls() -> None:
    assert server_tls(TlsFiles()) is None
    assert channel_tls(TlsFiles()) is None
    assert server_credentials(None) is None
    assert http_context(None) is None


class Reports:
    """Acknowledges each message."""

    async def Report(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for message in requests:
            yield runner_reports_pb2.ReportResponse(number=message.number)

    def __getattr__(self, name: str) -> Any:
        return self.Report


async def test_a_stream_ends_when_the_certificate_of_its_connection_expires(tmp_path: Path) -> None:
    files = Installation(tmp_path, "require")
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=5)
    leaf = files.users.issue_cert("runner.example.com", common_name="runner", not_after=end)
    credentials = grpc.ssl_channel_credentials(
        files.authority.cert_pem.bytes(), leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes()
    )
    authentication = Authentication(
        cluster=Cluster(certificates=["runner"]), trust=CertificateTrust(lambda: files.tls.value.pems.ca)
    )
    table = MethodTable(RUNNER_REPORTS, Reports(), Gate(10), authentication)
    server = GrpcServer([table], "127.0.0.1:0", server_credentials(files.tls, require_client_auth=True))
    await server.start()
    try:
        async with open_async_channel(f"127.0.0.1:{server.port}", credentials) as channel:
            call = RunnerReportsStub(channel).Report()
            assert await acknowledged_until(call, end)
            with pytest.raises(grpc.aio.AioRpcError, match="has expired") as raised:
                await acknowledged_until(call, FUTURE)
    finally:
        await server.stop(0)
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def acknowledged_until(call: Any, end: datetime.datetime) -> int:
    """Sends reports until a second before a time. Returns how many were acknowledged."""
    count = 0
    async with asyncio.timeout(STEP):
        while datetime.datetime.now(datetime.UTC) < end - datetime.timedelta(seconds=1):
            await call.write(runner_reports_pb2.ReportRequest(number=1))
            await call.read()
            count += 1
            await asyncio.sleep(0.05)
    return count
