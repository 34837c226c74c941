"""A plain model of limits: one list of requests in the order of their commits, and who of them may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class LimitModel:
    """The requests that hold keys or wait for them, oldest first.

    Attributes:
        limits: The maximum of each key.
        claims: The keys of each request.
        holding: The requests that hold their keys.
    """

    limits: Mapping[str, int]
    claims: dict[str, tuple[str, ...]] = field(default_factory=dict)
    holding: set[str] = field(default_factory=set)

    def is_full(self, keys: tuple[str, ...]) -> bool:
        """Whether a new request would wait."""
        return any(len(self._of(key)) >= self.limits[key] for key in keys)

    def add(self, request_id: str, keys: tuple[str, ...]) -> None:
        """Adds a request as the newest."""
        self.claims[request_id] = keys
        self._grant()

    def end(self, request_id: str) -> None:
        """Ends a request."""
        del self.claims[request_id]
        self.holding.discard(request_id)
        self._grant()

    def before(self, request_id: str, key: str) -> list[str]:
        """Returns the requests before another one at a key, oldest first."""
        there = self._of(key)
        return there[: there.index(request_id)]

    def _of(self, key: str) -> list[str]:
        return [one for one, keys in self.claims.items() if key in keys]

    def _grant(self) -> None:
        for request_id, keys in self.claims.items():
            if all(len(self.before(request_id, key)) < self.limits[key] for key in keys):
                self.holding.add(request_id)
