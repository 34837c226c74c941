"""Runs `spincycle` with a wrong wall clock.

Usage: python -m tests.e2e.skewed_server SECONDS ARGUMENTS...
"""

from __future__ import annotations

import importlib
import sys
import time
from types import SimpleNamespace
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from spincycle_server.grpc_settings import import_grpc


def skew(seconds: int) -> None:
    """Moves the wall clock of this process ahead by some seconds. Monotonic clocks stay correct."""
    time_ns, right_time, current = time.time_ns, time.time, Timestamp.GetCurrentTime

    def get_current_time(self: Any) -> None:
        current(self)
        self.seconds += seconds

    time.time_ns = lambda: time_ns() + seconds * 1_000_000_000
    time.time = lambda: time.time_ns() / 1e9
    Timestamp.GetCurrentTime = get_current_time  # type: ignore[method-assign]
    # gRPC's core keeps the right time. The deadline of each call would be over at once, or far away.
    import_grpc()
    utilities: Any = importlib.import_module("grpc.aio._utils")
    utilities.time = SimpleNamespace(time=right_time)


if __name__ == "__main__":
    skew(int(sys.argv.pop(1)))
    from spincycle_server.__main__ import main

    main()
