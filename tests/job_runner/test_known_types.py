"""Which job types a factory knows: each list is asked once, in a thread. A factory may hang."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from spincycle_grpc.v1.runner_reports_pb2 import AskedJobTypes
from spincycle_server.job_runner import known_types as known_types_module
from spincycle_server.job_runner.known_types import KnownTypes
from tests.limits import STEP

STEP_TYPES = 2 * int(STEP / 0.05)
"""More types than can each wait for a thread before a step ends."""


class Asked:
    """A factory's knowledge, which records what it was asked."""

    def __init__(self, *known: str) -> None:
        self.known = set(known)
        self.asked: list[str] = []
        self.release = threading.Event()

    def __call__(self, job_type: str) -> bool:
        assert threading.current_thread() is not threading.main_thread()
        self.asked.append(job_type)
        if job_type.startswith("hangs"):
            self.release.wait(STEP)
            return True
        if job_type == "exits":
            raise SystemExit(1)
        return job_type in self.known


async def answered(known: KnownTypes, until: Callable[[], bool]) -> None:
    """Waits until a condition holds after a change."""
    changed = asyncio.Event()
    known.on_change = changed.set
    async with asyncio.timeout(STEP):
        while not until():
            await changed.wait()
            changed.clear()


def asked(version: str, *types: str) -> AskedJobTypes:
    return AskedJobTypes(version=version, types=types)


async def test_the_known_types_of_a_list_are_told_with_its_version() -> None:
    known = KnownTypes(Asked("a", "b"))
    assert (known.message.version, list(known.message.types)) == ("", [])
    known.ask(asked("v1", "a", "x", "b"))
    await answered(known, lambda: known.message.version == "v1")
    assert list(known.message.types) == ["a", "b"]
    await known.close()


async def test_a_list_is_asked_once() -> None:
    factory = Asked("a")
    known = KnownTypes(factory)
    for _ in range(3):
        known.ask(asked("v1", "a"))
    await answered(known, lambda: known.message.version == "v1")
    known.ask(asked("v1", "a"))
    known.ask(asked("v2", "a", "b"))
    await answered(known, lambda: known.message.version == "v2")
    assert factory.asked == ["a", "a", "b"]
    await known.close()


async def test_types_of_an_earlier_list_stay_known_and_may_become_known() -> None:
    factory = Asked("a")
    known = KnownTypes(factory)
    known.ask(asked("v1", "a", "b"))
    await answered(known, lambda: known.message.version == "v1")
    factory.known = {"b"}
    known.ask(asked("v2", "b"))
    await answered(known, lambda: known.message.version == "v2")
    assert list(known.message.types) == ["a", "b"]
    await known.close()


async def test_a_factory_that_raises_anything_else_knows_the_type() -> None:
    known = KnownTypes(Asked())
    known.ask(asked("v1", "exits", "x"))
    await answered(known, lambda: known.message.version == "v1")
    assert list(known.message.types) == ["exits"]
    await known.close()


async def test_a_type_for_which_the_factory_hangs_is_unknown_until_it_answers() -> None:
    factory = Asked("a")
    known = KnownTypes(factory, answer_timeout=0.05)
    known.ask(asked("v1", "hangs", "a"))
    # On a busy machine, the answer about "a" can be late too.
    await answered(known, lambda: known.message.version == "v1" and "a" in known.message.types)
    assert list(known.message.types) == ["a"]
    factory.release.set()
    await answered(known, lambda: "hangs" in known.message.types)
    assert (known.message.version, list(known.message.types)) == ("v1", ["a", "hangs"])
    await known.close()


async def test_types_for_which_the_factory_hangs_do_not_delay_others_by_their_whole_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known_types_module, "PACE", 0.05)
    factory = Asked("a")
    known = KnownTypes(factory, answer_timeout=2 * STEP)
    known.ask(asked("v1", "hangs-1", "hangs-2", "hangs-3", "a"))
    await answered(known, lambda: known.message.version == "v1")
    assert list(known.message.types) == ["a"]
    factory.release.set()
    await answered(known, lambda: len(known.message.types) == 4)
    await known.close()


async def test_more_hanging_types_than_threads_do_not_delay_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known_types_module, "MAX_HANGING", 1)
    monkeypatch.setattr(known_types_module, "PACE", 0.1)
    factory = Asked("a")
    known = KnownTypes(factory, answer_timeout=2 * STEP)
    known.ask(asked("v1", "a", *(f"hangs-{number}" for number in range(STEP_TYPES))))
    await answered(known, lambda: known.message.version == "v1")
    assert list(known.message.types) == ["a"]
    factory.release.set()
    await known.close()


async def test_types_are_asked_again_for_which_there_was_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_types_module, "MAX_HANGING", 0)
    monkeypatch.setattr(known_types_module, "RETRY_PAUSE", 0.05)
    factory = Asked("a", "b")
    known = KnownTypes(factory, answer_timeout=0.2)
    known.ask(asked("v1", "hangs", "a", "b"))
    await answered(known, lambda: known.message.version == "v1")
    assert list(known.message.types) == []
    factory.release.set()
    await answered(known, lambda: len(known.message.types) == 3)
    assert known.message.version == "v1"
    await known.close()


async def test_a_new_list_replaces_one_that_is_being_asked() -> None:
    factory = Asked("a", "b")
    known = KnownTypes(factory)
    known.ask(asked("v1", "hangs", "a"))
    known.ask(asked("v2", "b"))
    await answered(known, lambda: known.message.version == "v2")
    assert list(known.message.types) == ["b"]
    factory.release.set()
    await known.close()


async def test_the_number_of_answers_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spincycle_server.job_runner.known_types.MAX_TYPES", 3)
    known = KnownTypes(Asked("a", "b", "c", "d"))
    known.ask(asked("v1", "a", "b", "c", "d"))
    await answered(known, lambda: known.message.version == "v1")
    assert list(known.message.types) == ["a", "b", "c"]
    known.ask(asked("v2", "d"))
    await answered(known, lambda: known.message.version == "v2")
    assert list(known.message.types) == ["d"]
    await known.close()
