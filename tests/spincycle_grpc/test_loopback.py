"""The hosts that count as this machine."""

from __future__ import annotations

import pytest

from spincycle_grpc.loopback import is_loopback_host


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.10", "::1"])
def test_loopback_hosts_are_this_machine(host: str) -> None:
    assert is_loopback_host(host)


@pytest.mark.parametrize(
    "host", ["", "localhost.example.com", "0.0.0.0", "::", "10.0.0.1", "127.0.0.1.example.com", "127.1"]
)
def test_other_hosts_are_not_although_they_may_resolve_to_it(host: str) -> None:
    assert not is_loopback_host(host)
