"""How large the requests of users may be, over HTTP and gRPC alike."""

from __future__ import annotations

from dataclasses import dataclass, field

from spincycle_server.rpc.body_budget import BodyBudget


@dataclass(frozen=True, slots=True)
class InputLimits:
    """The limits of requests before they are parsed.

    Attributes:
        max_body: The maximum size of one request in bytes, both compressed and decompressed.
        max_values: The maximum number of values in a request.
        bodies: Counts the bytes of all requests that are being read.
    """

    max_body: int = 16 * 1024 * 1024
    max_values: int = 500_000
    bodies: BodyBudget = field(default_factory=lambda: BodyBudget(256 * 1024 * 1024))

    @classmethod
    def of(cls, *, max_body: int, max_bodies: int, max_values: int) -> InputLimits:
        """Returns limits with room for at least one body, both compressed and decompressed."""
        return cls(max_body, max_values, BodyBudget(max(max_bodies, 2 * max_body)))
