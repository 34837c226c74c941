"""Opens gRPC channels with the options that all clients and servers of the project share."""

from __future__ import annotations

import re
from functools import lru_cache

import grpc
import grpc.aio

from spincycle_grpc.loopback import is_loopback_host

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""The largest message that a client or server sends or accepts. A chain of about 200,000 jobs fits."""

_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A channel reconnects within two seconds after its server comes back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A stream to a server that has vanished ends. There are pings only while calls are open.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)


_HOST_AND_PORT = re.compile(r"(?:(?P<name>[^:\[\]/]+)|\[(?P<ipv6>[^\]]+)\]):[0-9]+", re.ASCII)


def open_channel(address: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
    """Opens a channel for synchronous calls. It connects on its first call.

    Args:
        address: host:port of the server.
        credentials: For TLS, from `grpc.ssl_channel_credentials`. None: plain text.
    """
    if credentials is None:
        return grpc.insecure_channel(address, _plain_text_options(address))
    return grpc.secure_channel(address, credentials, _OPTIONS)


def open_async_channel(
    address: str,
    credentials: grpc.ChannelCredentials | None = None,
    *,
    shares_connection: bool = True,
    uses_proxy: bool = True,
) -> grpc.aio.Channel:
    """Opens a channel for asyncio. It belongs to the event loop in which it is opened.

    Args:
        address: As for `open_channel`.
        credentials: As for `open_channel`.
        shares_connection: Whether the channel shares its connection, and the pause before it connects again,
            with other channels to the same address.
        uses_proxy: Whether to connect through the proxy of `http_proxy`, if it is set. Servers reach each
            other without it.
    """
    own: tuple[tuple[str, int], ...] = () if shares_connection else (("grpc.use_local_subchannel_pool", 1),)
    if not uses_proxy:
        own += (("grpc.enable_http_proxy", 0),)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=(*_plain_text_options(address), *own))
    return grpc.aio.secure_channel(address, credentials, options=(*_OPTIONS, *own))


@lru_cache(maxsize=1000)  # It depends on the text alone, and Request Managers ask for each call of a runner.
def is_this_machine(address: str) -> bool:
    """Whether what is sent to an address stays on this machine: loopback or a unix socket.

    Only "localhost" and IP addresses count, because other names may lead anywhere.
    """
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None:
        return False
    return is_loopback_host((match["name"] or match["ipv6"]).lower())


def _plain_text_options(address: str) -> tuple[tuple[str, int], ...]:
    """Returns the options of a channel without TLS.

    gRPC would send calls to this machine through the proxy of `http_proxy`, which cannot reach it, but could
    read their tokens.
    """
    return (*_OPTIONS, ("grpc.enable_http_proxy", 0)) if is_this_machine(address) else _OPTIONS
