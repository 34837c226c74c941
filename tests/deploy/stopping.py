"""How long servers take to stop at most, from their options. docs/production.md explains the sum."""

from __future__ import annotations

from spincycle_server.app.running import EXIT_TIMEOUT
from spincycle_server.config import Config


def longest_stop(command: str, config: Config) -> float:
    """Returns the most seconds between SIGTERM and the exit of a server.

    Args:
        command: "request-manager", "job-runner" or "server", which stops the runner before the manager.
        config: The options of the server.
    """
    # The calls in flight, then what is left of them at each endpoint: HTTP, gRPC, and that for servers.
    endpoints = (2 if config.cluster_listen is None else 3) * config.server_stop_timeout
    manager = config.server_stop_timeout + endpoints
    runner = config.job_runner_stop_timeout + config.server_stop_timeout + endpoints
    longest = {"request-manager": manager, "job-runner": runner, "server": manager + runner}
    return longest[command] + EXIT_TIMEOUT
