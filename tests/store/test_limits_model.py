"""Limits of two Request Managers against a plain model: order, fairness, no double hold, no lost release."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from spincycle_grpc.errors import FailedPreconditionError
from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_server.store import Store
from tests.databases import DATABASES, SharedServers
from tests.interleavings import share_of
from tests.store.limit_model import LimitModel
from tests.store.limit_samples import QUEUE, REFUSE, REPLACE, claims_by_key, create_limited
from tests.store.managers import open_beside
from tests.store.samples import RUNNER, a_report, a_suspended_chain

KEYS = {"a": 1, "b": 2, "c": 1}

key_sets = st.lists(st.sampled_from(sorted(KEYS)), min_size=1, unique=True).map(tuple)
stores = st.sampled_from([0, 1])
pick = st.integers(min_value=0, max_value=1_000_000)


class Limits(RuleBasedStateMachine):
    """Creates and ends requests through two stores, and compares each step with the model."""

    url: str
    runner: asyncio.Runner
    both: list[Store]

    def __init__(self) -> None:
        super().__init__()
        self.model = LimitModel(KEYS)
        self.states: dict[str, State] = {}
        self.epochs: dict[str, int] = defaultdict(int)
        self.stopping: set[str] = set()

    def teardown(self) -> None:
        for request_id in [*self.model.claims]:
            self.runner.run(self._finish(0, request_id))
        assert self.runner.run(claims_by_key(self.url)) == {}

    def _one_of(self, number: int, *states: State) -> str:
        them = [one for one in self.model.claims if self.states[one] in states]
        return them[number % len(them)] if them else ""

    @rule(store=stores, keys=key_sets)
    def create(self, store: int, keys: tuple[str, ...]) -> None:
        made = self.runner.run(create_limited(self.both[store], *keys, most=KEYS, policy=QUEUE))
        self._add(made.id, keys)

    @rule(store=stores, keys=key_sets)
    def refuse(self, store: int, keys: tuple[str, ...]) -> None:
        creation = create_limited(self.both[store], *keys, most=KEYS, policy=REFUSE)
        if self.model.is_full(keys):
            with pytest.raises(FailedPreconditionError) as refused:
                self.runner.run(creation)
            assert refused.value.reason == "LIMIT_REACHED"
        else:
            self._add(self.runner.run(creation).id, keys)

    @rule(store=stores, keys=key_sets)
    def replace(self, store: int, keys: tuple[str, ...]) -> None:
        full = [key for key in keys if len([o for o in self.model.claims.values() if key in o]) >= KEYS[key]]
        made = self.runner.run(create_limited(self.both[store], *keys, most=KEYS, policy=REPLACE))
        self._add(made.id, keys)
        before = {key: self.model.before(made.id, key) for key in full}
        for key in sorted(full, key=keys.index):
            going = [one for one in before[key] if one in self.model.claims and one not in self.stopping]
            for one in going[: max(0, len(going) - KEYS[key] + 1)]:
                if self.states[one] is State.RUNNING:
                    self.stopping.add(one)
                else:
                    self._end(one)

    @rule(store=stores, number=pick)
    @precondition(lambda self: self.model.holding)
    def assign(self, store: int, number: int) -> None:
        request_id = self._one_of(number, State.PENDING, State.SUSPENDED)
        if request_id not in self.model.holding:
            return
        assignment = self.runner.run(
            self.both[store].assign(request_id, RUNNER, expected_state=self.states[request_id])
        )
        assert assignment is not None
        self.epochs[request_id] = assignment.epoch
        self.states[request_id] = State.RUNNING

    @rule(store=stores, number=pick)
    def suspend(self, store: int, number: int) -> None:
        if request_id := self._one_of(number, State.RUNNING):
            report = a_report(request_id, epoch=self.epochs[request_id], ends=a_suspended_chain(request_id))
            assert not self.runner.run(self.both[store].apply_reports(RUNNER.runner_id, [report]))
            self.states[request_id] = State.SUSPENDED
            if request_id in self.stopping:  # Nobody resumes it: it ends when it would be assigned.
                self.runner.run(self.both[store].assign(request_id, RUNNER, expected_state=State.SUSPENDED))
                self._end(request_id)

    @rule(store=stores, number=pick)
    def end(self, store: int, number: int) -> None:
        if request_id := self._one_of(number, State.PENDING, State.RUNNING, State.SUSPENDED):
            self.runner.run(self._finish(store, request_id))
            self._end(request_id)

    @rule(store=stores, number=pick)
    @precondition(lambda self: self.model.claims)
    def pause_and_resume(self, store: int, number: int) -> None:
        request_id = self._one_of(number, State.PENDING, State.SUSPENDED)
        if request_id:
            self.runner.run(self.both[store].begin_pause(request_id, "finch", stops_jobs=False))
            self.runner.run(self.both[1 - store].end_pause(request_id))

    @invariant()
    def the_database_says_the_same(self) -> None:
        claims = self.runner.run(claims_by_key(self.url))
        expected = {
            key: [(one, one in self.model.holding) for one, keys in self.model.claims.items() if key in keys]
            for key in KEYS
        }
        assert claims == {key: theirs for key, theirs in expected.items() if theirs}

    async def _finish(self, store: int, request_id: str) -> None:
        if self.states[request_id] is State.RUNNING:
            report = a_report(request_id, epoch=self.epochs[request_id], ends=state_pb2.STATE_COMPLETE)
            assert not await self.both[store].apply_reports(RUNNER.runner_id, [report])
        else:
            assert await self.both[store].stop_unassigned(request_id)

    def _add(self, request_id: str, keys: tuple[str, ...]) -> None:
        self.model.add(request_id, keys)
        self.states[request_id] = State.PENDING

    def _end(self, request_id: str) -> None:
        self.model.end(request_id)
        self.stopping.discard(request_id)


@pytest.fixture(params=DATABASES)
def machine(
    request: pytest.FixtureRequest, database_servers: SharedServers, tmp_path: Path
) -> Iterator[type[Limits]]:
    """The machine with two stores on a database of each kind."""
    with database_servers.migrated(request.param, tmp_path) as url, asyncio.Runner() as runner:
        both = [runner.run(open_beside(url)) for _ in range(2)]
        yield type("LimitsThere", (Limits,), {"url": url, "runner": runner, "both": both})
        for store in both:
            runner.run(store.close())


def test_two_request_managers_agree_with_the_model(machine: type[Limits]) -> None:
    run_state_machine_as_test(
        machine, settings=settings(max_examples=share_of(30), stateful_step_count=25, deadline=None)
    )
