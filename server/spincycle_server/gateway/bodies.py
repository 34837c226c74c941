"""How many bytes of bodies are held at once, by all calls of a server together."""

from __future__ import annotations

import threading
from types import TracebackType

from spincycle_grpc.errors import ResourceExhaustedError


class Bodies:
    """Counts the bytes of bodies that are being read. Threads may share it.

    Args:
        limit: As many may be held.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = 0
        self._lock = threading.Lock()

    def share(self) -> Share:
        """Returns the share of one body, which is empty at first."""
        return Share(self)

    def change(self, by: int) -> bool:
        """Counts so many bytes more, or fewer. Returns whether there was room; without, nothing changes."""
        with self._lock:
            if by > 0 and self._held + by > self.limit:
                return False
            self._held += by
            return True


class Share:
    """What one body holds. It is given back at the end of its context."""

    __slots__ = ("_bodies", "_size")

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._size = 0

    def __enter__(self) -> Share:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._size:
            self._bodies.change(-self._size)
            self._size = 0

    def hold(self, size: int) -> None:
        """Holds so many bytes in all.

        Raises:
            ResourceExhaustedError: All bodies together would be over the limit. Reason: TOO_MANY_BODIES.
        """
        if not self._bodies.change(size - self._size):
            raise ResourceExhaustedError(
                f"bodies of {self._bodies.limit} bytes are being read, the limit: try again later",
                reason="TOO_MANY_BODIES",
            )
        self._size = size
