"""Opens gRPC channels with the options that all clients and servers of the project share."""

from __future__ import annotations

import grpc
import grpc.aio

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""The largest message that a client or server sends or accepts. A chain of about 200,000 jobs fits."""

_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A channel reconnects within two seconds after its server comes back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


def open_channel(address: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
    """Opens a channel for synchronous calls. It connects on its first call.

    Args:
        address: host:port of the server.
        credentials: For TLS, from `grpc.ssl_channel_credentials`. None: plain text.
    """
    if credentials is None:
        return grpc.insecure_channel(address, _OPTIONS)
    return grpc.secure_channel(address, credentials, _OPTIONS)


def open_async_channel(address: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.aio.Channel:
    """Opens a channel for asyncio. It belongs to the event loop in which it is opened.

    The arguments are those of `open_channel`.
    """
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    return grpc.aio.secure_channel(address, credentials, options=_OPTIONS)
