"""Addresses: how they are written, and who can reach them."""

from __future__ import annotations

import pytest

from spincycle_server.listening import LONGEST_SOCKET_PATH, Address


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("10.0.0.1:80", Address("10.0.0.1", 80), "10.0.0.1:80"),
        ("[::1]:80", Address("::1", 80), "[::1]:80"),
        (":80", Address("0.0.0.0", 80), "0.0.0.0:80"),
        ("unix:/run/s", Address("unix:/run/s", 0), "unix:/run/s"),
        ("unix:s:1", Address("unix:s:1", 0), "unix:s:1"),
    ],
)
def test_an_address_is_parsed_and_shown(text: str, address: Address, shown: str) -> None:
    assert Address.parse(text) == address
    assert str(address) == shown


@pytest.mark.parametrize("text", ["", "host", "host:", "host:x", "host:65536", "unix:"])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        Address.parse(text)


def test_the_path_of_a_socket_has_a_limit_in_bytes() -> None:
    assert Address.parse("unix:" + "s" * LONGEST_SOCKET_PATH).is_unix
    with pytest.raises(ValueError, match="1 to 107 bytes"):
        Address.parse("unix:" + "\xe9" * 54)


def test_a_socket_has_a_path_a_grpc_socket_beside_it_and_no_other_machine_reaches_it() -> None:
    address = Address.parse("unix:/run/s")
    assert (address.socket_path, str(address.for_grpc())) == ("/run/s", "unix:/run/s.grpc")
    assert address.is_loopback
    assert address.reachable_here == address
