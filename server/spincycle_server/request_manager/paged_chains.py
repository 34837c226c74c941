"""Job chains whose next pages will probably be asked for.

Each page needs the whole chain: it is decoded from the database, or built for a plan. Without this memory, a
chain would be decoded or built again for each of its pages. A chain as created never changes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_server.telemetry.limits import PAGED_CHAINS, LimitUse

MAX_BYTES = 64 * 1024 * 1024
"""The maximum size of all kept chains together, serialized. The least recently used ones are dropped."""

MAX_CHAINS = 100
"""The maximum number of kept chains."""

KEPT = 30.0
"""Seconds for which a chain is kept after its newest page."""


class _Kept(NamedTuple):
    job_chain: JobChain
    size: int
    expiry: asyncio.TimerHandle


class PagedChains:
    """Keeps chains for a short time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._bytes = 0

    def limits(self) -> Iterable[LimitUse]:
        """Returns the limit and the number of kept chains."""
        return (LimitUse(PAGED_CHAINS, MAX_CHAINS, len(self._kept)),)

    def take(self, key: bytes) -> JobChain | None:
        """Returns a chain, and forgets it; None if it is not kept."""
        kept = self._kept.pop(key, None)
        if kept is None:
            return None
        kept.expiry.cancel()
        self._bytes -= kept.size
        return kept.job_chain

    def keep(self, key: bytes, job_chain: JobChain, size: int) -> None:
        """Keeps a chain of `size` bytes, unless it is larger than all kept chains may be."""
        self.take(key)
        if size > MAX_BYTES:
            return
        expiry = asyncio.get_running_loop().call_later(KEPT, self.take, key)
        self._kept[key] = _Kept(job_chain, size, expiry)
        self._bytes += size
        while self._bytes > MAX_BYTES or len(self._kept) > MAX_CHAINS:
            self.take(next(iter(self._kept)))
