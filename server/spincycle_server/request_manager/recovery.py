"""Requests whose runner died: how far the record says that they came, and what is left to do."""

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
        The chain to go on with, and, where it is to stop, the state that it ends in.

    Raises:
        InvalidArgumentError: The record is not one of the chain. Reason: INVALID_JOB_CHAIN.
    """
    chain = RunningChain.rebuilt(record.job_chain, record.tries, base=record.base)
    suspended = chain.suspended(0)
    return suspended, chain.stop(0).done if record.stop_requested else None


class MissingChains:
    """The chains that a runner should hold and says, on one stream, that it does not.

    A chain may be on its way, so one counts as missing only when it was not there for a while.

    Args:
        patience: For how many seconds it was not there.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: dict[tuple[str, int], float] = {}

    def update(self, assigned: Mapping[str, int], held: Collection[tuple[str, int]]) -> list[tuple[str, int]]:
        """Takes in what the runner holds and what is assigned to it.

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
