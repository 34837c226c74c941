from __future__ import annotations

import asyncio
import base64
import time
from typing import Any

import pytest

from spincycle_grpc.jobs import JobId, Return, UnknownJobTypeError, make_job
from spincycle_grpc.state import State
from spincycle_server.builtin_jobs import Noop, Sleep, builtin_factory
from tests.limits import STEP


def new_sleep(duration: Any) -> Sleep:
    """Returns a sleep as a runner gets it: created, serialized and deserialized."""
    created, run = Sleep(), Sleep()
    created.create({"duration": duration})
    run.deserialize(created.serialize())
    return run


def test_the_factory_makes_only_the_builtin_types() -> None:
    names = {"noop": "Noop", "sleep": "Sleep", "shell-command": "ShellCommand"}
    for job_type, class_name in names.items():
        assert type(make_job(builtin_factory, JobId(job_type, "n", "aaaa", "r"))).__name__ == class_name
    with pytest.raises(UnknownJobTypeError, match="unknown job type: nap"):
        builtin_factory(JobId("nap", "n", "aaaa", "r"))


async def test_noop_is_complete_and_has_no_bytes() -> None:
    job = Noop()
    job.create({"extra": 1})
    assert job.serialize() == b""
    job.deserialize(b"")
    assert await job.run({}) == Return()


@pytest.mark.parametrize(
    ("duration", "recorded"),
    [("1500", "eyJkdXJhdGlvbiI6MTUwMDAwMDAwMH0="), ("30000", "eyJkdXJhdGlvbiI6MzAwMDAwMDAwMDB9")],
)
def test_sleep_has_the_bytes_of_the_original(duration: str, recorded: str) -> None:
    assert base64.b64encode(new_sleep(duration).serialize()).decode() == recorded


@pytest.mark.parametrize("duration", ["0", 0, 1500, 1500.0, "9223372036854"])
def test_sleep_takes_milliseconds(duration: Any) -> None:
    assert new_sleep(duration).duration == int(duration) * 1_000_000


@pytest.mark.parametrize(
    "duration", ["", "-1", "1.5", "1s", "\u0661", -1, 1.5, True, None, [], "9223372036855", "9" * 5000, 1e300]
)
def test_sleep_refuses_an_invalid_duration(duration: Any) -> None:
    message = "^job arg duration must be a whole number of milliseconds, not "
    with pytest.raises(ValueError, match=message) as caught:
        Sleep().create({"duration": duration})
    assert len(str(caught.value)) < 130


def test_sleep_requires_a_duration() -> None:
    with pytest.raises(ValueError, match="job arg duration is missing: give the milliseconds to sleep"):
        Sleep().create({})


async def test_sleep_sleeps() -> None:
    job = new_sleep("50")
    start = time.monotonic()
    assert await job.run({}) == Return()
    assert time.monotonic() - start >= 0.05


async def test_sleep_stops() -> None:
    job = new_sleep("9223372036854")
    assert job.status() == "sleeping"
    run = asyncio.ensure_future(job.run({}))
    await asyncio.sleep(0)
    await job.stop()
    assert await asyncio.wait_for(run, STEP) == Return(State.STOPPED)


async def test_a_sleep_that_is_stopped_before_run_ends_at_once() -> None:
    job = new_sleep("9223372036854")
    await job.stop()
    assert await asyncio.wait_for(job.run({}), STEP) == Return(State.STOPPED)
