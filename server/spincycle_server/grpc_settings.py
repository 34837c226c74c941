"""How this process uses gRPC's library, which reads its settings once, from the environment."""

from __future__ import annotations

import os

_SETTINGS = {
    # What the library logs, this project's errors and log say better.
    "GRPC_VERBOSITY": "NONE",
    # With it a command that a job starts can die of signal 11 before it is executed: the library's
    # handlers then run between fork and exec, in a copy of a process of many threads.
    "GRPC_ENABLE_FORK_SUPPORT": "0",
}


def load_grpc() -> None:
    """Loads gRPC's library with the settings of a server; to be called before anything else imports it.

    The environment is as before when it returns, so that the commands of jobs do not inherit the settings.
    """
    before = {name: os.environ.get(name) for name in _SETTINGS}
    os.environ.update(_SETTINGS)
    try:
        from grpc import aio

        aio.init_grpc_aio()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
