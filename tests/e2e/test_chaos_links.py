"""The links of the chaos test: each direction can be cut alone, and everything arrives afterwards."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.e2e.chaos_links import Link, Links
from tests.e2e.link_process import Direction
from tests.limits import STEP


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(STEP)
        yield listening


@pytest.fixture
def links() -> Iterator[Links]:
    with Links() as opened:
        yield opened


def connected(
    link: Link, server: socket.socket, stack: contextlib.ExitStack
) -> tuple[socket.socket, socket.socket]:
    """Returns both ends of a connection through a link."""
    client = stack.enter_context(socket.create_connection(link.listen, STEP))
    client.sendall(b"hello")
    served = stack.enter_context(server.accept()[0])
    served.settimeout(STEP)
    assert served.recv(100) == b"hello"
    return client, served


def arrives(end: socket.socket) -> bytes:
    """Returns what arrives without further events; b"" if nothing does."""
    end.settimeout(0.2)
    try:
        return end.recv(100)
    except TimeoutError:
        return b""
    finally:
        end.settimeout(STEP)


@pytest.mark.parametrize("cut", Direction)
def test_one_direction_is_cut_and_everything_arrives_afterwards(
    cut: Direction, links: Links, server: socket.socket
) -> None:
    link = links.add("link", 0, server.getsockname())
    with contextlib.ExitStack() as stack:
        client, served = connected(link, server, stack)
        sender, receiver = (client, served) if cut is Direction.FORTH else (served, client)
        with links.cut(link, cut):
            sender.sendall(b"lost")
            receiver.sendall(b"passes")
            assert sender.recv(100) == b"passes"
            assert arrives(receiver) == b""
        assert receiver.recv(100) == b"lost"
        sender.close()
        assert receiver.recv(100) == b""


def test_new_connections_wait_while_the_way_forth_is_cut(links: Links, server: socket.socket) -> None:
    link = links.add("link", 0, server.getsockname())
    accepted = threading.Event()

    def accept() -> None:
        server.accept()[0].close()
        accepted.set()

    accepting = threading.Thread(target=accept)
    accepting.start()
    with links.cut(link, Direction.FORTH), socket.create_connection(link.listen, STEP) as client:
        client.sendall(b"hello")
        assert not accepted.wait(0.2)
    assert accepted.wait(STEP)
    accepting.join(STEP)


def test_a_link_to_a_dead_server_closes_its_connections(links: Links) -> None:
    with socket.create_server(("127.0.0.1", 0)) as dead:
        target = dead.getsockname()
    link = links.add("link", 0, target)
    with socket.create_connection(link.listen, STEP) as client:
        assert client.recv(100) == b""
