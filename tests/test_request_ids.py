from __future__ import annotations

import base64
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spincycle_server.request_ids import RequestIdGenerator
from tests.limits import STEP

XID = re.compile(r"[0-9a-v]{20}")


def fixed(*parts: bytes) -> Callable[[int], bytes]:
    left = list(parts)
    return lambda _: left.pop(0)


def test_an_id_is_seconds_process_and_counter_in_base32_hex() -> None:
    ids = RequestIdGenerator(lambda: 0x65432100, fixed(bytes(5), bytes(3)))
    assert ids.next() == "cl1i200000000000000g"
    assert ids.next() == "cl1i2000000000000010"


@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5),
    st.binary(min_size=5, max_size=5),
    st.binary(min_size=3, max_size=3),
)
def test_ids_are_those_of_an_encoder_of_the_standard_library(
    clock: list[int], process: bytes, random: bytes
) -> None:
    times = iter(clock)
    ids = RequestIdGenerator(lambda: next(times), fixed(process, random))
    counter = int.from_bytes(random, "big") >> 1
    for number in range(len(clock)):
        seconds = max(clock[: number + 1])
        raw = seconds.to_bytes(4, "big") + process + (counter + number + 1).to_bytes(3, "big")
        assert ids.next() == base64.b32hexencode(raw).decode().rstrip("=").lower()


def test_ids_have_the_form_of_the_originals() -> None:
    assert XID.fullmatch("dc26aor8di16sqictj30")
    assert all(XID.fullmatch(RequestIdGenerator().next()) for _ in range(100))


def test_ids_sort_by_time_and_then_by_order() -> None:
    now = 1_700_000_000.0
    ids = RequestIdGenerator(lambda: now)
    made = []
    for second in range(50):
        now = 1_700_000_000.0 + second
        made += [ids.next() for _ in range(20)]
    assert made == sorted(made)


def test_ids_keep_their_order_when_the_clock_goes_back() -> None:
    times = iter([1_700_000_100.0, 1_700_000_000.0, 1_700_000_101.0])
    ids = RequestIdGenerator(lambda: next(times))
    made = [ids.next() for _ in range(3)]
    assert made == sorted(set(made))


def test_the_counter_wraps() -> None:
    ids = RequestIdGenerator(lambda: 0, fixed(bytes(5), bytes(3)))
    assert ids.next() == "0000000000000000000g"
    ids._counter = 0xFFFFFF
    assert ids.next() == "0" * 20


def test_threads_never_get_the_same_id() -> None:
    ids = RequestIdGenerator()
    start = threading.Barrier(4)

    def make(_: int) -> list[str]:
        start.wait(STEP)
        return [ids.next() for _ in range(5_000)]

    with ThreadPoolExecutor(4) as pool:
        made = [request_id for part in pool.map(make, range(4)) for request_id in part]
    assert len(set(made)) == len(made)


def test_random_bytes_identify_processes() -> None:
    def clock() -> float:
        return 1_700_000_000.0

    one = RequestIdGenerator(clock, fixed(b"aaaaa", bytes(3)))
    other = RequestIdGenerator(clock, fixed(b"aaaab", bytes(3)))
    assert one.next() != other.next()


def test_a_forked_process_does_not_repeat_the_ids_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = RequestIdGenerator(lambda: 1_700_000_000.0)
    before = ids.next()
    monkeypatch.setattr(os, "getpid", lambda: -2)
    after = ids.next()
    assert after[:6] == before[:6]
    assert after[6:15] != before[6:15]
