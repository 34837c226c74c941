"""Recovery: a chain continues from the record of its tries, and missing chains are found."""

from __future__ import annotations

import pytest

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_server.request_manager import recovery as recovery_module
from spincycle_server.request_manager.recovery import MissingChains, recovered
from spincycle_server.store import Store
from tests.request_manager.doubles import Clock
from tests.store.samples import a_log_entry, a_report, create

RUNS = ("request", 1)
LATER = ("request", 2)


async def test_a_chain_without_tries_continues_with_its_first_job(store: Store) -> None:
    request = await create(store)
    suspended, stopped = recovered(await store.get_record(request.id))
    assert stopped is None
    assert suspended.request_id == request.id
    assert {job.state for job in suspended.job_chain.jobs.values()} == {state_pb2.STATE_PENDING}


async def test_a_chain_keeps_the_jobs_that_are_complete(store: Store) -> None:
    request = await create(store)
    entries = [a_log_entry(request.id, job_id) for job_id in ("aaaa", "bbbb")]
    await store.apply_reports("r1", [a_report(request.id, *entries, finished_jobs=2)])
    suspended, stopped = recovered(await store.get_record(request.id))
    assert stopped is None
    assert {job_id: State(job.state) for job_id, job in suspended.job_chain.jobs.items()} == {
        "aaaa": State.COMPLETE,
        "bbbb": State.COMPLETE,
        "cccc": State.PENDING,
    }
    assert suspended.job_chain.finished_jobs == 2
    # The data of a complete job is the data of the next one.
    assert suspended.job_chain.jobs["cccc"].data["n"] == 2


async def test_a_chain_that_must_stop_ends_stopped_and_keeps_its_finished_jobs(store: Store) -> None:
    request = await create(store)
    await store.apply_reports("r1", [a_report(request.id, a_log_entry(request.id, "aaaa"), finished_jobs=1)])
    assert await store.request_stop(request.id)
    suspended, stopped = recovered(await store.get_record(request.id))
    assert stopped is State.STOPPED
    assert suspended.job_chain.finished_jobs == 1


async def test_a_record_with_an_unknown_job_is_refused(store: Store) -> None:
    request = await create(store)
    await store.apply_reports("r1", [a_report(request.id, a_log_entry(request.id, "zzzz"))])
    with pytest.raises(InvalidArgumentError) as caught:
        recovered(await store.get_record(request.id))
    assert (caught.value.reason, caught.value.request_id) == ("INVALID_JOB_CHAIN", request.id)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(recovery_module, "time", clock)
    return clock


def test_a_chain_is_missing_only_after_the_patience(clock: Clock) -> None:
    missing = MissingChains(patience=10)
    assert missing.update(dict([RUNS]), []) == []
    clock.now += 9.9
    assert missing.update(dict([RUNS]), []) == []
    clock.now += 0.1
    assert missing.update(dict([RUNS]), []) == [RUNS]


def test_a_chain_that_is_held_is_not_missing(clock: Clock) -> None:
    missing = MissingChains(patience=10)
    for _ in range(5):
        assert missing.update(dict([RUNS]), [RUNS]) == []
        clock.now += 10


def test_a_chain_that_was_held_in_between_is_counted_from_then_on(clock: Clock) -> None:
    missing = MissingChains(patience=10)
    missing.update(dict([RUNS]), [])
    clock.now += 6
    missing.update(dict([RUNS]), [RUNS])
    clock.now += 6
    assert missing.update(dict([RUNS]), []) == []
    clock.now += 10
    assert missing.update(dict([RUNS]), []) == [RUNS]


def test_a_chain_held_with_an_older_epoch_is_missing(clock: Clock) -> None:
    missing = MissingChains(patience=10)
    missing.update(dict([LATER]), [RUNS])
    clock.now += 10
    assert missing.update(dict([LATER]), [RUNS]) == [LATER]


def test_a_new_assignment_of_a_missing_request_has_its_own_patience(clock: Clock) -> None:
    missing = MissingChains(patience=10)
    missing.update(dict([RUNS]), [])
    clock.now += 10
    assert missing.update(dict([LATER]), []) == []


def test_a_chain_that_is_still_missing_is_returned_again_after_the_patience(clock: Clock) -> None:
    missing = MissingChains(patience=10)
    missing.update(dict([RUNS]), [])
    found = []
    for _ in range(4):
        clock.now += 5
        found.append(missing.update(dict([RUNS]), []))
    assert found == [[], [RUNS], [], []]
