"""The ids of requests: xids, which sort by the time of creation and need nobody to hand them out.

An xid is twelve bytes, written as twenty characters of 0-9a-v: four bytes of seconds since 1970,
five that tell processes apart, and a counter of three.
"""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Callable

_COUNTER_MASK = 0xFFFFFF


class RequestIdGenerator:
    """Makes request ids, each once among all threads, processes and machines.

    The ids of one generator sort in the order in which they were made, also when the clock goes
    back; only once in 16.7 million ids, when the counter begins anew, can two ids of the same
    second come out of order.

    Args:
        clock: Tells the seconds since 1970.
        random_bytes: Returns that many random bytes. What tells processes apart is random, since
            host names and process ids are often the same in containers.
    """

    def __init__(
        self, clock: Callable[[], float] = time.time, random_bytes: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._clock = clock
        self._random_bytes = random_bytes
        self._lock = threading.Lock()
        self._seconds = 0
        self._process_id = -1
        self._process = b""
        self._counter = 0

    def next(self) -> str:
        """Returns a new id."""
        with self._lock:
            if os.getpid() != self._process_id:
                self._become_process()
            self._seconds = max(self._seconds, int(self._clock()))
            self._counter = (self._counter + 1) & _COUNTER_MASK
            raw = self._seconds.to_bytes(4, "big") + self._process + self._counter.to_bytes(3, "big")
        return base64.b32hexencode(raw).decode().rstrip("=").lower()

    def _become_process(self) -> None:
        # Also after a fork: parent and child would go on with the same ids.
        self._process_id = os.getpid()
        self._process = self._random_bytes(5)
        # The upper half stays free at first, so that a counter does not soon begin anew.
        self._counter = int.from_bytes(self._random_bytes(3), "big") >> 1
