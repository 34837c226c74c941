"""Messages that many streams send. Each is encoded once for all of them."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message


class SharedMessage:
    """A message that several streams send. Nobody may change it.

    Args:
        message: The message.

    Attributes:
        message: See there.
        size: Its bytes as protobuf.
    """

    __slots__ = ("_encoded", "message", "size")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.size = message.ByteSize()
        self._encoded: dict[Callable[..., bytes], bytes] = {}

    def encoded(self, encode: Callable[[Message], bytes]) -> bytes:
        """Returns what a function makes of the message. It is called once."""
        data = self._encoded.get(encode)
        if data is None:
            data = self._encoded[encode] = encode(self.message)
        return data
