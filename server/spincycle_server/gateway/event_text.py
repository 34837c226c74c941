"""Server-sent events: how messages and errors become text, as the HTML standard defines it."""

from __future__ import annotations

from google.protobuf.message import Message

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.v1.error_pb2 import Error
from spincycle_grpc.wire import encode
from spincycle_server.gateway.content_coding import weights_of

MEDIA_TYPE = "text/event-stream"

RETRY = 2.0
"""Seconds after which a browser connects again if its connection ends."""

BEGIN = b"retry: %d\n\n" % int(RETRY * 1000)
"""What every stream begins with. It also carries the head of the answer to the client."""

HEARTBEAT = b": heartbeat\n\n"
"""A comment, which clients ignore. Proxies see that the connection is in use."""

END = b"event: end\ndata: {}\n\n"
"""The last event of a stream that is complete. A browser would connect again without it."""

_ID_FIELD = "cursor"


def message_event(message: Message) -> bytes:
    """Returns the event of a message. Its id is the message's cursor.

    A message that has a cursor and nothing else becomes an id without data: browsers remember the id, and
    dispatch no event.
    """
    cursor: str = getattr(message, _ID_FIELD, "")
    if not cursor:
        return b"data: %s\n\n" % encode(message)
    if len(message.ListFields()) == 1:
        return b": heartbeat\nid: %s\n\n" % cursor.encode()
    return b"id: %s\ndata: %s\n\n" % (cursor.encode(), encode(message))


def error_event(error: SpinCycleError, http_status: int) -> bytes:
    """Returns the event of an error that ends a stream. Its data has the reason, which no header can have."""
    body = encode(Error(message=error.message, request_id=error.request_id, http_status=http_status))
    reason = encode(Error(message=error.reason), "message")
    return b'event: error\ndata: %s,"reason":%s}\n\n' % (body[:-1], reason)


def accepts_events(accept: str) -> bool:
    """Whether an Accept header accepts server-sent events. An empty one accepts everything."""
    weights = weights_of(accept)
    ranges = (MEDIA_TYPE, "text/*", "*/*")  # The most specific one counts.
    return not accept.strip() or next((weights[name] > 0 for name in ranges if name in weights), False)
