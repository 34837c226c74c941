"""What the parts of a Request Manager need to know if it is one of several workers."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from spincycle_grpc.errors import UnavailableError
from spincycle_server.config import Config
from spincycle_server.telemetry.metrics_text import OtherWorkers
from spincycle_server.workers.channel import Channel


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One of several processes that serve the same addresses.

    Attributes:
        config: The options of this worker: its share of the limits, and addresses with their ports.
        channel: The connection to the supervisor, and through it to the other workers.
        http: The socket of HTTP, which all share.
        metrics: The socket of `server.metrics`, which all share; None without that option.
    """

    config: Config
    channel: Channel
    http: socket.socket
    metrics: socket.socket | None

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return self.config.server_workers

    async def ask_others(self) -> OtherWorkers:
        """Returns the numbers of the other workers, for the metrics.

        Raises:
            UnavailableError: The supervisor does not answer.
        """
        try:
            gathered = await self.channel.gather()
        except TimeoutError as error:
            raise UnavailableError(
                "the supervisor of the workers does not answer: try again", reason="NOT_READY"
            ) from error
        return OtherWorkers(*gathered)
