"""gRPC's process-wide settings. Its library reads them from the environment once, when it is loaded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_SETTINGS = {
    # The library's own log repeats what this project's errors and log already report.
    "GRPC_VERBOSITY": "NONE",
    # The library's fork handlers run between fork and exec, in a copy of a process with many threads.
    # With them, a command that a job starts can die of signal 11 before it is executed.
    "GRPC_ENABLE_FORK_SUPPORT": "0",
}

_DEFAULTS = {
    # Connections are read and written by the thread that hands events to Python, as in all releases before
    # 1.80. gRPC's newer engine has four more threads, which wake each other for each event. With one client,
    # that takes a Request Manager and a Job Runner a tenth of their CPU time. A release that no longer knows
    # these names ignores them.
    "GRPC_EXPERIMENTS": "-event_engine_client,-event_engine_listener",
}
"""Settings for which the environment may have other values."""


def load_grpc() -> None:
    """Loads gRPC with the settings of a server, and starts its core. Call it before anything imports gRPC.

    It restores the environment before it returns, so that the commands of jobs do not inherit the settings.
    """
    with _in_environment():
        from grpc import aio

        aio.init_grpc_aio()


def import_grpc() -> None:
    """Imports gRPC with the settings of a server, but starts nothing, so that the process may still fork."""
    with _in_environment():
        import grpc.aio  # noqa: F401 (it reads the environment)


@contextlib.contextmanager
def _in_environment() -> Iterator[None]:
    settings = {**_SETTINGS, **{name: os.environ.get(name, value) for name, value in _DEFAULTS.items()}}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
