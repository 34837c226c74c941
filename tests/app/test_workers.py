"""What workers share: limits are divided, and a port is taken before they start."""

from __future__ import annotations

import socket
from dataclasses import fields

import pytest

from spincycle_grpc.errors import UnavailableError
from spincycle_server.app.divided_limits import divided
from spincycle_server.app.shared_ports import reserved_port
from spincycle_server.app.workers import longest_stop
from spincycle_server.config import Config, ConfigError
from spincycle_server.listening import Address
from spincycle_server.rpc import InputLimits

MIB = 1024 * 1024


def test_limits_of_a_process_are_divided_and_rounded_up() -> None:
    whole = Config()
    one = divided(whole, 4)
    changed = {
        field.name: getattr(one, field.name)
        for field in fields(Config)
        if getattr(one, field.name) != getattr(whole, field.name)
    }
    assert changed == {
        "server_max_requests": 125,
        "server_max_followers": 125,
        "server_max_watchers": 1250,
        "server_max_connections": 1000,
        "server_max_bodies": 64 * MIB,
        "database_connections": 2,
    }
    assert divided(Config(server_max_requests=10), 4).server_max_requests == 3
    assert divided(Config(database_connections=1), 4).database_connections == 1
    assert divided(Config(database_connections=16), 4).database_connections == 4


@pytest.mark.parametrize("workers", [1, 2, 9, 64])
def test_a_worker_can_always_read_the_largest_body(workers: int) -> None:
    one = divided(Config(), workers)
    InputLimits.of(
        max_body=one.server_max_body, max_bodies=one.server_max_bodies, max_values=one.server_max_values
    )
    assert one.server_max_bodies >= 2 * one.server_max_body
    assert divided(Config(), 1) == Config()


def test_the_longest_stop_is_the_documented_one() -> None:
    assert longest_stop(Config()) == 95.0
    assert longest_stop(Config(cluster_listen=Address("127.0.0.1", 1))) == 125.0


def listen(port: int, *, shares: bool) -> socket.socket:
    """Listens as a server does that shares its port with SO_REUSEPORT, or that does not."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shares))
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_only_workers_can_listen_on_a_reserved_port(host: str) -> None:
    with reserved_port(Address(host, 0), "server.grpc") as address:
        assert address.port
        for _ in range(2):  # before and after workers listen
            with pytest.raises(OSError, match="in use"):
                listen(address.port, shares=False)
            with (
                pytest.raises(UnavailableError, match=r"the address is in use \(option server.grpc\)"),
                reserved_port(address, "server.grpc"),
            ):
                pass
            workers = [listen(address.port, shares=True) for _ in range(2)]
            for worker in workers:
                worker.close()
    listen(address.port, shares=False).close()


@pytest.mark.parametrize("shares", [False, True])
def test_a_port_on_which_somebody_listens_cannot_be_reserved(shares: bool) -> None:
    with (
        listen(0, shares=shares) as other,
        pytest.raises(UnavailableError) as refused,
        reserved_port(Address("127.0.0.1", other.getsockname()[1]), "server.grpc"),
    ):
        pass
    assert refused.value.reason == "ADDRESS_IN_USE"


def test_a_host_that_does_not_exist_and_a_unix_socket_are_refused() -> None:
    with (
        pytest.raises(UnavailableError, match="not an address of this machine"),
        reserved_port(Address("host.invalid", 1), "server.grpc"),
    ):
        pass
    with (
        pytest.raises(ConfigError, match="several workers cannot share the unix socket /x"),
        reserved_port(Address("unix:/x", 0), "server.grpc"),
    ):
        pass
