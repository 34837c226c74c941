"""How many crashes of a suspect count: the newest one only if its runner is certainly dead."""

from __future__ import annotations

import pytest

from spincycle_grpc.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    SpinCycleError,
    UnavailableError,
)
from spincycle_grpc.state import State
from spincycle_grpc.v1.job_runner_pb2 import Suspect
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, ChainReport, StartedTry
from spincycle_server.request_manager.suspects import Suspects
from spincycle_server.store import Store, StoredSuspect
from tests.request_manager.doubles import WillingRunners, deliveries_end, make_dispatcher
from tests.store.samples import OTHER_RUNNER, RUNNER, create

CRASHED = StoredSuspect(["r0", "r1"], "bbbb", is_alone=True)


@pytest.mark.parametrize(
    ("answer", "crashes"),
    [
        (UnavailableError("connection refused"), 2),
        (FailedPreconditionError("this is job runner r9", reason="OTHER_RUNNER"), 2),
        (DeadlineExceededError("no answer in time"), 1),
        (None, 1),
    ],
    ids=["refused", "another-runner", "frozen", "alive"],
)
async def test_the_newest_crash_counts_if_its_runner_is_dead(
    store: Store, answer: SpinCycleError | None, crashes: int
) -> None:
    await store.renew_runner(RUNNER, 0, draining=False)
    runners = WillingRunners(store)
    runners.address_errors = [answer] if answer is not None else []
    said = await Suspects(store, runners).message(CRASHED)
    assert said == Suspect(crashes=crashes, job_id="bbbb", alone=True)
    assert runners.asked == ["r1"]


async def test_a_runner_that_another_one_replaced_at_its_address_is_dead(store: Store) -> None:
    await store.remove_runner("r1")
    runners = WillingRunners(store)
    assert (await Suspects(store, runners).message(CRASHED)).crashes == 2
    assert runners.asked == []


async def test_without_a_crash_no_runner_is_asked(store: Store) -> None:
    runners = WillingRunners(store)
    said = await Suspects(store, runners).message(StoredSuspect([], "", is_alone=False))
    assert said == Suspect()
    assert runners.asked == []


async def test_the_next_runner_is_told_of_a_suspect_and_its_crashes(store: Store) -> None:
    request = await create(store, RUNNER)
    await store.renew_runner(RUNNER, 0, draining=False)
    await store.renew_runner(OTHER_RUNNER, 60, draining=False)
    runners = WillingRunners(store)
    dispatcher = await make_dispatcher(store, runners)
    await dispatcher._round()
    await deliveries_end(dispatcher)
    started = StartedTry(job_id="aaaa")
    report = ChainReport(assignment=Assignment(request_id=request.id, epoch=2), started=[started])
    await store.apply_reports("r2", [report])
    await store.remove_runner("r2")
    after = type(RUNNER)(runner_id="r3", url="http://c:1", grpc_address="c:2")
    await store.renew_runner(after, 60, draining=False)
    await runners.refresh()
    await dispatcher._round()
    await deliveries_end(dispatcher)
    assert [(runner_id, chain.epoch, chain.suspect) for runner_id, chain in runners.delivered] == [
        ("r2", 2, Suspect()),
        ("r3", 3, Suspect(crashes=1, job_id="aaaa")),
    ]
    assert all(chain.HasField("suspect") for _, chain in runners.delivered)
    assert State((await store.get_request(request.id, with_job_chain=False)).state) is State.RUNNING
    await dispatcher.close()
