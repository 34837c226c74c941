"""How the limits of a server are divided among its workers. docs/operating.md#workers explains it."""

from __future__ import annotations

from dataclasses import replace

from spincycle_server.config import Config

MIN_READERS = 2
"""The least connections for reading of one worker, so that one slow find does not block all other reads."""


def divided(config: Config, workers: int) -> Config:
    """Returns the options of one worker.

    Limits of what a process holds are divided, and rounded up. Not divided are limits of one call, body or
    connection, and those of requests, which all workers count in the database.
    """

    def share(limit: int, least: int = 1) -> int:
        return max(min(limit, least), -(-limit // workers))

    return replace(
        config,
        server_max_requests=share(config.server_max_requests),
        server_max_followers=share(config.server_max_followers),
        server_max_watchers=share(config.server_max_watchers),
        server_max_connections=share(config.server_max_connections),
        # A worker that could not read two of the largest bodies would not start.
        server_max_bodies=share(config.server_max_bodies, 2 * config.server_max_body),
        database_connections=share(config.database_connections, MIN_READERS),
    )
