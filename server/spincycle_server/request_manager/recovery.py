"""Rebuilds the chains of lost requests, and notices chains that a live runner does not have."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from spincycle_grpc.state import State
from spincycle_server.chain import RunningChain

if TYPE_CHECKING:
    from spincycle_grpc.v1.job_pb2 import SuspendedJobChain
    from spincycle_server.store.record import Record


def recovered(record: Record) -> tuple[SuspendedJobChain, State | None]:
    """Rebuilds a chain from its record.

    Returns:
        The chain to continue with, and its final state; None if it goes on. It has a final state if a stop
        was requested and it owes no `finally` part, or if it is paused and nothing is left to do.

    Raises:
        InvalidArgumentError: The record does not fit the chain. Reason: INVALID_JOB_CHAIN.
    """
    chain = RunningChain.rebuilt(record.job_chain, record.tries, base=record.base)
    suspended = chain.suspended(0)
    if record.ending is State.FAIL:
        return suspended, State.FAIL if record.skip_finally else chain.start(0, ending=State.FAIL).done
    if record.stop_requested:
        return suspended, chain.stop(0, skip_finally=record.skip_finally).done
    if record.paused:
        done = chain.pause(0).done
        return suspended, None if done is State.SUSPENDED else done
    return suspended, None


class MissingChains:
    """The chains that are assigned to a runner but missing from the lists that it sends on one stream.

    A chain may still be on its way to the runner. So it counts as missing only after a while.

    Args:
        patience: Seconds after which a chain that the runner does not list counts as missing.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: dict[tuple[str, int], float] = {}

    def update(self, assigned: Mapping[str, int], held: Collection[tuple[str, int]]) -> list[tuple[str, int]]:
        """Compares the chains that the runner holds with those that are assigned to it.

        Args:
            assigned: Epoch by request id.
            held: Pairs of request id and epoch.

        Returns:
            The assignments that are missing, as pairs of request id and epoch.
        """
        now = time.monotonic()
        since = {pair: self._since.get(pair, now) for pair in assigned.items() if pair not in held}
        missing = [pair for pair, first in since.items() if now - first >= self._patience]
        self._since = {pair: first for pair, first in since.items() if pair not in missing}
        return missing
