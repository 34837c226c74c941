"""How large the requests of users may be, over HTTP and gRPC alike."""

from __future__ import annotations

from dataclasses import dataclass, field

from spincycle_server.rpc.body_budget import BodyBudget

VALUES_PER_NAME = 4
"""How many values a name in an object counts as, in JSON and in messages.

A parser holds the interpreter's lock while it puts all names of an object into a hash table. 250,000 names
in one object took 75 ms, and 500,000 numbers in one list 4 ms. With this weight, an object has at most
100,000 names by default, which take about 20 ms.
"""


@dataclass(frozen=True, slots=True)
class InputLimits:
    """The limits of requests before they are parsed.

    Attributes:
        max_body: The maximum size of one request in bytes, both compressed and decompressed.
        max_values: The maximum number of values in a request. A name counts as VALUES_PER_NAME.
        bodies: Counts the bytes of all requests that are being read.
    """

    max_body: int = 16 * 1024 * 1024
    max_values: int = 500_000
    bodies: BodyBudget = field(default_factory=lambda: BodyBudget(256 * 1024 * 1024))

    @classmethod
    def of(cls, *, max_body: int, max_bodies: int, max_values: int) -> InputLimits:
        """Returns limits with room for at least one body, both compressed and decompressed."""
        return cls(max_body, max_values, BodyBudget(max(max_bodies, 2 * max_body)))
