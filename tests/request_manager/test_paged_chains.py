"""The memory of job chains whose next pages will be asked for."""

from __future__ import annotations

import asyncio

import pytest

from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_server.request_manager import paged_chains
from spincycle_server.request_manager.paged_chains import PagedChains

CHAIN = JobChain(request_id="r")


async def test_a_kept_chain_can_be_taken_once() -> None:
    chains = PagedChains()
    chains.keep(b"a", CHAIN, 10)
    assert chains.take(b"b") is None
    assert chains.take(b"a") is CHAIN
    assert chains.take(b"a") is None


async def test_the_least_recently_used_chains_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged_chains, "MAX_BYTES", 30)
    chains = PagedChains()
    for key in (b"a", b"b", b"c", b"b", b"d"):
        chains.keep(key, CHAIN, 10)
    assert [chains.take(key) is not None for key in (b"a", b"b", b"c", b"d")] == [False, True, True, True]
    chains.keep(b"e", CHAIN, 31)
    assert chains.take(b"e") is None


async def test_the_number_of_chains_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged_chains, "MAX_CHAINS", 2)
    chains = PagedChains()
    for key in (b"a", b"b", b"c"):
        chains.keep(key, CHAIN, 0)
    assert [chains.take(key) is not None for key in (b"a", b"b", b"c")] == [False, True, True]


async def test_a_chain_is_kept_for_a_short_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged_chains, "KEPT", 0)
    chains = PagedChains()
    chains.keep(b"a", CHAIN, 10)
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(0, later.set)
    await later.wait()
    assert chains.take(b"a") is None
