"""Which addresses count as this machine, and that calls to it avoid proxies."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import grpc
import grpc.aio
import pytest

from spincycle_grpc import AsyncClient, Client, errors
from spincycle_grpc.channels import is_this_machine, open_async_channel
from tests.fake_manager import FakeManager, serving
from tests.limits import STEP


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:1",
        "127.9.9.9:32318",
        "[::1]:1",
        "localhost:1",
        "LOCALHOST:1",
        "unix:/run/s",
        "unix:///run/s",
    ],
)
def test_loopback_and_unix_sockets_are_this_machine(address: str) -> None:
    assert is_this_machine(address)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1:1",
        "db1:1",
        "localhost.example.com:1",
        "127.0.0.1.example.com:1",
        "127.0.0.1@example.com:1",
        "127.0.0.1:1,10.0.0.1:1",
        "ipv4:127.0.0.1:1,10.0.0.1:1",
        "dns://10.0.0.1/localhost:1",
        "::1:1",  # gRPC reads this as the host ::1:1 with its default port.
        "[::1]x:1",
        "[::ffff:10.0.0.1]:1",
        "0.0.0.0:1",
        "[::]:1",
        "127.0.0.1",
        "",
    ],
)
def test_every_other_address_is_another_machine(address: str) -> None:
    assert not is_this_machine(address)


async def test_calls_to_this_machine_do_not_use_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy, serving(FakeManager()) as address:
        for name in ("grpc_proxy", "https_proxy", "http_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_grpc_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        with Client(address, token="t0ken") as client:
            assert client.version() == "1.0.12"
        async with AsyncClient(address, token="t0ken") as async_client:
            assert await async_client.version() == "1.0.12"
        proxy.settimeout(0)
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_calls_to_other_machines_use_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def answer(proxy: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = proxy.accept()
            with connection:
                asked.append(connection.recv(1024))

    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(STEP)
        thread = threading.Thread(target=answer, args=(proxy,))
        thread.start()
        monkeypatch.setenv("grpc_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_grpc_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        with Client("spincycle.invalid:1") as client, pytest.raises(errors.SpinCycleError):
            client.start("x")
        thread.join()
    assert asked[0].startswith(b"CONNECT spincycle.invalid:1 ")


async def test_servers_do_not_reach_each_other_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0)
        for name in ("grpc_proxy", "https_proxy", "http_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_grpc_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        for credentials in (None, grpc.ssl_channel_credentials()):
            async with open_async_channel("spincycle.invalid:1", credentials, uses_proxy=False) as channel:
                call: Any = channel.unary_unary("/spincycle.v1.RequestManager/Version")
                with pytest.raises(grpc.aio.AioRpcError):
                    await call(b"", timeout=STEP)
        with pytest.raises(BlockingIOError):
            proxy.accept()
