"""The ids of requests: xids, which sort by creation time and need no coordination.

An xid has twelve bytes, written as twenty characters of 0-9a-v: four bytes for the seconds since 1970, five
random bytes that identify the process, and a counter of three bytes. The original uses xids too.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

_COUNTER_MASK = 0xFFFFFF

_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_LENGTH = 20
MIN_BEGINNING = 4
"""The shortest text that stands for an id, in characters. It can be that of all requests of nine hours."""

_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]
"""The two digits of each number of ten bits."""


def seconds_of(xid: str) -> int | None:
    """Returns the seconds since 1970 at which an xid was generated; None if the text is not an xid."""
    if len(xid) != _LENGTH or not set(xid) <= set(_DIGITS):
        return None
    # The first seven digits have 35 bits, of which the seconds are the first 32.
    return int(xid[:7], 32) >> 3


def is_beginning(text: str) -> bool:
    """Whether a text can stand for the id that begins with it. A whole id does not count."""
    return MIN_BEGINNING <= len(text) < _LENGTH and set(text) <= set(_DIGITS)


class RequestIdGenerator:
    """Generates request ids that are unique among all threads, processes and machines.

    The ids of one generator sort in the order of their creation, even if the clock goes back. There is one
    exception: once in 16.7 million ids the counter wraps, and then two ids of one second may be out of order.

    Args:
        clock: Returns the seconds since 1970.
        random_bytes: Returns the given number of random bytes. Random bytes identify a process, because host
            names and process ids are often equal in containers.
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
        # The digits of the seconds and of most of the process, which change once a second, and the bits that
        # are left over. An encoder of the standard library takes ten times as long for each id.
        self._head = ""
        self._left_over = 0

    def next(self) -> str:
        """Returns a new id."""
        with self._lock:
            if os.getpid() != self._process_id:
                self._identify_process()
            seconds = int(self._clock())
            if seconds > self._seconds or not self._head:
                self._begin_second(max(self._seconds, seconds))
            self._counter = (self._counter + 1) & _COUNTER_MASK
            head, rest = self._head, self._left_over | self._counter << 4
        return head + _PAIRS[rest >> 20] + _PAIRS[rest >> 10 & 1023] + _PAIRS[rest & 1023]

    def _begin_second(self, seconds: int) -> None:
        self._seconds = seconds
        number = int.from_bytes(seconds.to_bytes(4, "big") + self._process, "big")
        self._head = "".join(_PAIRS[number >> shift & 1023] for shift in range(62, 0, -10))
        self._left_over = (number & 3) << 28

    def _identify_process(self) -> None:
        """Draws new random bytes, also after a fork: otherwise parent and child would generate equal ids."""
        self._process_id = os.getpid()
        self._process = self._random_bytes(5)
        self._head = ""
        # The counter starts in the lower half of its range, so that it does not wrap soon.
        self._counter = int.from_bytes(self._random_bytes(3), "big") >> 1
