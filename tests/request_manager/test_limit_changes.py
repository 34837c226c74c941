"""What happens after a change of limits is committed: runners are told, and requests are started."""

from __future__ import annotations

from typing import cast

import pytest
from structlog.testing import capture_logs

from spincycle_grpc.errors import SpinCycleError, UnavailableError
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.limit_pb2 import SequenceLimitOutcome
from spincycle_grpc.v1.runner_reports_pb2 import RunnerInfo
from spincycle_server.request_manager.limit_changes import LimitChanges
from spincycle_server.request_manager.request_stopper import RequestStopper
from spincycle_server.store import Store
from tests.request_manager.doubles import WillingRunners, deliveries_end, make_dispatcher
from tests.store.limit_samples import REPLACE, Sequences, create_limited
from tests.store.samples import RUNNER, a_report


class ToldRunners(WillingRunners):
    """Runners that remember which waits for keys have ended."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.ended: list[SequenceLimitOutcome] = []
        self.errors: list[SpinCycleError] = []

    async def end_limit_wait(self, runner: RunnerInfo, outcome: SequenceLimitOutcome) -> None:
        self.ended.append(outcome)
        if self.errors:
            raise self.errors.pop(0)


class Stopper:
    """Remembers the requests whose runners are told to stop them."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def tell_holder(self, request_id: str) -> None:
        self.told.append(request_id)


@pytest.mark.parametrize("is_silent", [False, True])
async def test_the_runner_is_told_which_sequences_hold_their_keys(store: Store, is_silent: bool) -> None:
    runners, stopper = ToldRunners(store), Stopper()
    dispatcher = await make_dispatcher(store, runners)
    changes = LimitChanges(store, runners, dispatcher, cast(RequestStopper, stopper))
    store.on_limits(changes.committed)
    if is_silent:
        runners.errors.append(UnavailableError("it does not answer"))
    one, two = await Sequences.started(store), await Sequences.started(store)
    await one.tell(store, one.claim("aaaa", "k"), one.claim("bbbb", "m"))
    await two.tell(store, two.claim("cccc", "k"), two.claim("dddd", "m"), two.claim("eeee", "k"))
    assert not runners.ended
    report = a_report(one.request_id, ends=state_pb2.STATE_COMPLETE)
    assert not await store.apply_reports(RUNNER.runner_id, [report])
    await deliveries_end(dispatcher)
    told = {(one.request_id, one.epoch, one.sequence_id, one.number, one.reason) for one in runners.ended}
    assert told == {(two.request_id, 1, "cccc", 1, ""), (two.request_id, 1, "dddd", 2, "")}
    assert not dispatcher._pending._wake.is_set()


async def test_a_request_that_holds_its_keys_is_started_and_a_replaced_one_is_stopped(store: Store) -> None:
    runners, stopper = ToldRunners(store), Stopper()
    dispatcher = await make_dispatcher(store, runners)
    changes = LimitChanges(store, runners, dispatcher, cast(RequestStopper, stopper))
    store.on_limits(changes.committed)
    one = await Sequences.started(store)
    await one.tell(store, one.claim("aaaa", "k"))
    with capture_logs() as logs:
        newest = await create_limited(store, "k", policy=REPLACE)
    assert stopper.told == [one.request_id]
    assert [(line["event"], line["log_level"], line["request_id"], line["why"]) for line in logs] == [
        ("request stopped", "info", one.request_id, f"replaced by request {newest.id} at the limit k")
    ]
    await one.tell(store, one.release("aaaa"))
    await deliveries_end(dispatcher)
    assert not runners.ended
    assert dispatcher._pending._wake.is_set()
