"""The memory that all request bodies of a server may take together."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from types import TracebackType

from spincycle_grpc.errors import ResourceExhaustedError
from spincycle_server.telemetry.limits import REQUEST_BODIES, LimitUse


class BodyBudget:
    """Counts the bytes of all bodies that are being read. It is thread-safe.

    Args:
        limit: The maximum number of bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = 0
        self._lock = threading.Lock()

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limit and the bytes that all bodies hold."""
        return (LimitUse(REQUEST_BODIES, self.limit, self._held),)

    def share(self) -> BodyShare:
        """Returns the share of one body, which holds nothing yet."""
        return BodyShare(self)

    def change(self, by: int) -> bool:
        """Adds bytes to the count, or subtracts them if `by` is negative.

        Returns:
            Whether the limit allows it. Otherwise, nothing changes.
        """
        with self._lock:
            if by > 0 and self._held + by > self.limit:
                return False
            self._held += by
            return True


class BodyShare:
    """The bytes that one body holds. As a context manager, it returns them to the budget on exit.

    Attributes:
        size: The number of bytes.
    """

    __slots__ = ("_budget", "size")

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self.size = 0

    def __enter__(self) -> BodyShare:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.size:
            self._budget.change(-self.size)
            self.size = 0

    def hold(self, size: int) -> None:
        """Sets the number of bytes that the body holds.

        Raises:
            ResourceExhaustedError: All bodies together would exceed the limit. Reason: TOO_MANY_BODIES.
        """
        if not self._budget.change(size - self.size):
            raise ResourceExhaustedError(
                f"the limit of {self._budget.limit} bytes for all request bodies is reached: try again later",
                reason="TOO_MANY_BODIES",
            )
        self.size = size
