"""Builds in threads: a create that blocks, hangs or raises does not affect other requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from spincycle_grpc.errors import InternalError, ResourceExhaustedError
from spincycle_grpc.jobs import Job, JobId, Return
from spincycle_server.builtin_jobs import Noop
from spincycle_server.request_manager.build_pool import FEW_NODES, THREADS, BuildPool
from spincycle_server.specs.model import SequenceSpec
from tests.graph.models import node, sequence, specs
from tests.limits import STEP

SPECS = specs(
    sequence("hangs", node("first"), node("slow", node_type="hang", deps=["first"]), request=True),
    sequence("raises", node("bad", node_type="raise"), request=True),
    sequence("nested", node("inner", "sequence", "raises"), request=True),
    sequence("fine", node("job", node_type="fine"), request=True),
    replace(
        sequence("hangs-at-last", node("first", node_type="noop"), request=True),
        final_nodes={"slow": node("slow", node_type="hang")},
    ),
)


class Worker(Job):
    """A job whose create does what its type says."""

    def __init__(self, job_type: str, released: threading.Event) -> None:
        self._type, self._released = job_type, released

    def create(self, job_args: dict[str, Any]) -> None:
        if self._type == "hang":
            self._released.wait(STEP)
        elif self._type == "raise":
            raise ValueError("no such volume")

    def run(self, job_data: dict[str, Any]) -> Return:
        return Return()


@pytest.fixture
def build_pool() -> Iterator[BuildPool]:
    released = threading.Event()

    def factory(job_id: JobId) -> Job:
        return Noop() if job_id.type == "noop" else Worker(job_id.type, released)

    build_pool = BuildPool(SPECS, factory, create_timeout=0.2)
    yield build_pool
    released.set()


@pytest.mark.parametrize("request_type", ["hangs", "hangs-at-last"])
async def test_a_create_that_hangs_fails_the_build_and_is_named(
    build_pool: BuildPool, request_type: str
) -> None:
    with pytest.raises(InternalError) as caught:
        await build_pool.build(request_type, {}, "request")
    assert caught.value.reason == "JOB_CREATE_TIMEOUT"
    assert caught.value.request_id == "request"
    assert "node slow" in caught.value.message
    assert "200ms" in caught.value.message


async def test_hanging_creates_do_not_block_other_builds(build_pool: BuildPool) -> None:
    hanging = [build_pool.build("hangs", {}, "request") for _ in range(2 * THREADS)]
    failed = await asyncio.gather(*hanging, return_exceptions=True)
    assert {getattr(error, "reason", error) for error in failed} == {"JOB_CREATE_TIMEOUT"}
    built = await asyncio.wait_for(build_pool.build("fine", {}, "request"), STEP)
    assert built.job_chain.jobs


@pytest.mark.parametrize(
    ("request_type", "place"), [("raises", "seq sequence_raises, node bad"), ("nested", "node inner")]
)
async def test_a_create_that_raises_names_the_node(
    build_pool: BuildPool, request_type: str, place: str
) -> None:
    with pytest.raises(InternalError) as caught:
        await build_pool.build(request_type, {}, "request")
    assert caught.value.reason == "JOB_NOT_CREATED"
    assert place in caught.value.message
    assert "bad" in caught.value.message
    assert "no such volume" in caught.value.message
    assert "Traceback" not in caught.value.message


async def test_a_build_whose_caller_has_gone_creates_no_further_jobs() -> None:
    hanging, released, created = threading.Event(), threading.Event(), list[str]()

    class Recording(Worker):
        def create(self, job_args: dict[str, Any]) -> None:
            created.append(self._type)
            hanging.set()
            super().create(job_args)

    chain = sequence(
        "chain", node("slow", node_type="hang"), node("last", node_type="fine", deps=["slow"]), request=True
    )
    build_pool = BuildPool(specs(chain), lambda job_id: Recording(job_id.type, released), create_timeout=60)
    build = asyncio.ensure_future(build_pool.build("chain", {}, "request"))
    assert await asyncio.to_thread(hanging.wait, STEP)
    build.cancel()
    with pytest.raises(asyncio.CancelledError):
        await build
    released.set()
    async with asyncio.timeout(STEP):
        while not build_pool._threads._idle:  # noqa: ASYNC110 (threads set no event)
            await asyncio.sleep(0.01)
    assert created == ["hang"]


async def test_a_build_that_waits_too_long_for_a_thread_is_refused() -> None:
    hanging, released = threading.Semaphore(0), threading.Event()

    class Hanging(Worker):
        def create(self, job_args: dict[str, Any]) -> None:
            if self._type == "hang":
                hanging.release()
            super().create(job_args)

    build_pool = BuildPool(
        SPECS, lambda job_id: Hanging(job_id.type, released), create_timeout=STEP, longest_wait=0.1
    )
    builds = [asyncio.ensure_future(build_pool.build("hangs", {}, "request")) for _ in range(THREADS)]
    try:
        for _ in builds:
            assert await asyncio.to_thread(hanging.acquire, timeout=STEP)
        for _ in range(2):
            with pytest.raises(ResourceExhaustedError) as caught:
                await build_pool.build("fine", {}, "request")
            assert caught.value.reason == "BUILD_NOT_STARTED"
            assert "within 0.1 s" in caught.value.message
    finally:
        released.set()
    assert all(built.job_chain.jobs for built in await asyncio.gather(*builds))
    assert (await build_pool.build("fine", {}, "request")).job_chain.jobs


async def test_only_few_built_in_jobs_are_built_on_the_event_loop() -> None:
    threads: set[int] = set()

    def factory(job_id: JobId) -> Job:
        threads.add(threading.get_ident())
        return Noop()

    def many(name: str, number: int, category: str, kind: str, *, request: bool = True) -> SequenceSpec:
        return sequence(name, *(node(f"n{one}", category, kind) for one in range(number)), request=request)

    build_pool = BuildPool(
        specs(
            many("few", FEW_NODES - 1, "job", "noop"),
            many("wide", FEW_NODES, "job", "noop"),
            many("ten", 10, "job", "noop"),
            many("nested", 8, "sequence", "ten"),
            many("deep", 10, "sequence", "nested"),
            sequence("endless", node("again", "sequence", "endless"), request=True),
        ),
        factory,
        create_timeout=60,
    )
    for request_type, is_built_here in (("few", True), ("wide", False), ("nested", True), ("deep", False)):
        threads.clear()
        await build_pool.build(request_type, {}, "request")
        assert (threads == {threading.get_ident()}) == is_built_here, request_type
    with pytest.raises(InternalError):
        await build_pool.build("endless", {}, "request")
