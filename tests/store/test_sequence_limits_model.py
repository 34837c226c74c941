"""Keys of sequences of two Request Managers against a plain model: order, no double hold, no lost release.

Reports arrive again and late, requests get other runners, and some sequences would wait for each other.
"""

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

from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.limit_pb2 import LimitPolicy
from spincycle_grpc.v1.runner_reports_pb2 import ChainReport
from spincycle_server.store import Store
from tests.databases import DATABASES, SharedServers
from tests.interleavings import share_of
from tests.store.limit_model import LimitModel
from tests.store.limit_samples import QUEUE, REFUSE, REPLACE, Sequences, create_limited, owners_by_key
from tests.store.managers import open_beside
from tests.store.samples import RUNNER, a_report, a_suspended_chain

KEYS = {"a": 1, "b": 2, "c": 1}

# "in" is within "out", and "low" is within both.
AROUND = {"out1": (), "in01": ("out1",), "low1": ("out1", "in01"), "out2": (), "in02": ("out2",)}

key_sets = st.lists(st.sampled_from(sorted(KEYS)), min_size=1, max_size=2, unique=True).map(tuple)
stores = st.sampled_from([0, 1])
pick = st.integers(min_value=0, max_value=1_000_000)


class SequenceModel(LimitModel):
    """The owners are requests, and sequences as "request/sequence"."""

    def inside(self, owner: str) -> list[str]:
        """Returns the sequences that use keys in an owner."""
        request, _, sequence = owner.partition("/")
        mine = [one for one in self.claims if one.startswith(f"{request}/")]
        return [one for one in mine if not sequence or sequence in AROUND[one.partition("/")[2]]]

    def waits_for_ever(self, owner: str, stopping: set[str]) -> bool:
        """Whether an owner is left if all owners end that can, one after another."""
        around = [one for one in self.claims if owner in self.inside(one)]
        left = dict(self.claims)
        while True:
            ending = [one for one in left if self._can_end(one, left, stopping, [owner, *around])]
            if not ending:
                return owner in left
            for one in ending:
                del left[one]

    def _can_end(
        self, owner: str, left: dict[str, tuple[str, ...]], stopping: set[str], known: list[str]
    ) -> bool:
        if owner.partition("/")[0] in stopping and owner not in known:
            return True
        if any(one in left and (one in known or one.partition("/")[0] not in stopping)
               for one in self.inside(owner)):  # fmt: skip
            return False
        return all(
            sum(one in left for one in self.before(owner, key)) < self.limits[key] or owner in self.holding
            for key in self.claims[owner]
        )


class SequenceLimits(RuleBasedStateMachine):
    """Lets requests and sequences use keys through two stores, and compares each step with the model."""

    url: str
    runner: asyncio.Runner
    both: list[Store]

    def __init__(self) -> None:
        super().__init__()
        self.model = SequenceModel(KEYS)
        self.states: dict[str, State] = {}
        self.running: dict[str, Sequences] = {}
        self.stopping: set[str] = set()
        self.sent: defaultdict[str, list[ChainReport]] = defaultdict(list)

    def teardown(self) -> None:
        for request_id in list(self.states):
            self._finish(0, request_id)
        assert self.runner.run(owners_by_key(self.url)) == {}

    def _one_of(self, number: int, *states: State) -> str:
        them = [one for one, state in self.states.items() if state in states]
        return them[number % len(them)] if them else ""

    @rule(store=stores, keys=st.just(()) | key_sets)
    def create(self, store: int, keys: tuple[str, ...]) -> None:
        made = self.runner.run(create_limited(self.both[store], *keys, most=KEYS, policy=QUEUE)).id
        self.states[made] = State.PENDING
        if keys:
            self.model.add(made, keys)

    @rule(store=stores, number=pick)
    @precondition(lambda self: self.states)
    def assign(self, store: int, number: int) -> None:
        request_id = self._one_of(number, State.PENDING, State.SUSPENDED)
        if not request_id or (request_id in self.model.claims and request_id not in self.model.holding):
            return
        assignment = self.runner.run(
            self.both[store].assign(request_id, RUNNER, expected_state=self.states[request_id])
        )
        if assignment is None:  # It was stopped while it was suspended.
            self._forget(request_id)
            return
        self.states[request_id] = State.RUNNING
        self.running[request_id] = sequences = Sequences(request_id, assignment.epoch)
        self.sent[request_id].clear()
        mine = self._sequences_of(request_id)
        kept = mine[: number % (len(mine) + 1)]
        changes = [sequences.begins(*kept)]
        changes += [
            sequences.claim(one, *self.model.claims[f"{request_id}/{one}"], most=KEYS, around=AROUND[one])
            for one in kept
        ]
        self._send(store, request_id, sequences.report(*changes))
        for one in set(mine) - set(kept):
            self.model.end(f"{request_id}/{one}")

    @rule(store=stores, number=pick, sequence=st.sampled_from(sorted(AROUND)), keys=key_sets,
          policy=st.sampled_from([QUEUE, QUEUE, QUEUE, REFUSE, REPLACE]))  # fmt: skip
    @precondition(lambda self: self.running)
    def claim(
        self, store: int, number: int, sequence: str, keys: tuple[str, ...], policy: LimitPolicy.ValueType
    ) -> None:
        request_id = self._one_of(number, State.RUNNING)
        owner = f"{request_id}/{sequence}"
        mine = self._sequences_of(request_id)
        around = [one for one in AROUND[sequence] if one in mine]
        # A sequence does not ask for what is held around it, and runs only within sequences that hold keys.
        outer = [self.model.claims[f"{request_id}/{one}"] for one in around]
        outer.append(self.model.claims.get(request_id, ()))
        keys = tuple(key for key in keys if not any(key in held for held in outer))
        is_free = all(f"{request_id}/{one}" in self.model.holding for one in around)
        if owner in self.model.claims or not keys or not is_free or any(
            sequence in AROUND[one] for one in mine
        ):  # fmt: skip
            return
        sequences = self.running[request_id]
        asked = sequences.claim(sequence, *keys, most=KEYS, policy=policy, around=around)
        self._send(store, request_id, sequences.report(asked))
        told = self.runner.run(sequences.outcomes(self.both[store], {sequence: asked.number}))
        assert told == self._claimed(owner, keys, policy)

    def _claimed(self, owner: str, keys: tuple[str, ...], policy: LimitPolicy.ValueType) -> dict[str, str]:
        """Does the same in the model. Returns what the store must answer."""
        sequence = owner.partition("/")[2]
        full = [key for key in keys if sum(key in one for one in self.model.claims.values()) >= KEYS[key]]
        if full and policy == REFUSE:
            return {sequence: "LIMIT_REACHED"}
        self.model.add(owner, keys)
        if owner in self.model.holding:
            return {sequence: ""}
        if policy == REPLACE:
            self._replace(owner, full)
        if self.model.waits_for_ever(owner, self.stopping):
            self.model.end(owner)
            return {sequence: "LIMIT_DEADLOCK"}
        return {sequence: ""} if owner in self.model.holding else {}

    def _replace(self, owner: str, full: list[str]) -> None:
        mine = owner.partition("/")[0]
        before = {key: [one.partition("/")[0] for one in self.model.before(owner, key)] for key in full}
        for key in full:
            going = [one for one in before[key] if one == mine or self._goes_on(one)]
            while len(going) >= KEYS[key] and (others := [one for one in going if one != mine]):
                one = others[0]
                going = [other for other in going if other != one]
                if self.states[one] is State.RUNNING:
                    self.stopping.add(one)
                else:
                    self._forget(one)

    def _goes_on(self, request_id: str) -> bool:
        return request_id in self.states and request_id not in self.stopping

    @rule(store=stores, number=pick)
    @precondition(lambda self: self.running)
    def release(self, store: int, number: int) -> None:
        request_id = self._one_of(number, State.RUNNING)
        mine = [one for one in self._sequences_of(request_id) if not self.model.inside(f"{request_id}/{one}")]
        if mine:
            one = mine[number % len(mine)]
            sequences = self.running[request_id]
            self._send(store, request_id, sequences.report(sequences.release(one)))
            self.model.end(f"{request_id}/{one}")

    @rule(store=stores, number=pick, which=pick)
    @precondition(lambda self: self.running)
    def send_again(self, store: int, number: int, which: int) -> None:
        request_id = self._one_of(number, State.RUNNING)
        if sent := self.sent[request_id]:
            again = sent[which % len(sent)]
            assert not self.runner.run(self.both[store].apply_reports(RUNNER.runner_id, [again]))

    @rule(store=stores, number=pick)
    @precondition(lambda self: self.running)
    def suspend(self, store: int, number: int) -> None:
        request_id = self._one_of(number, State.RUNNING)
        epoch = self.running.pop(request_id).epoch
        report = a_report(request_id, epoch=epoch, ends=a_suspended_chain(request_id))
        assert not self.runner.run(self.both[store].apply_reports(RUNNER.runner_id, [report]))
        self.states[request_id] = State.SUSPENDED

    @rule(store=stores, number=pick)
    @precondition(lambda self: self.states)
    def end(self, store: int, number: int) -> None:
        request_id = self._one_of(number, State.PENDING, State.RUNNING, State.SUSPENDED)
        self._finish(store, request_id)
        self._forget(request_id)

    @invariant()
    def the_database_says_the_same(self) -> None:
        found = self.runner.run(owners_by_key(self.url))
        claims = {
            key: [(f"{one}/{sequence}" if sequence else one, holds) for one, sequence, holds in theirs]
            for key, theirs in found.items()
        }
        expected = {
            key: [(one, one in self.model.holding) for one, keys in self.model.claims.items() if key in keys]
            for key in KEYS
        }
        assert claims == {key: theirs for key, theirs in expected.items() if theirs}

    def _sequences_of(self, request_id: str) -> list[str]:
        return [one.partition("/")[2] for one in self.model.inside(request_id)]

    def _send(self, store: int, request_id: str, report: ChainReport) -> None:
        assert not self.runner.run(self.both[store].apply_reports(RUNNER.runner_id, [report]))
        self.sent[request_id].append(report)

    def _finish(self, store: int, request_id: str) -> None:
        if self.states[request_id] is State.RUNNING:
            epoch = self.running[request_id].epoch
            report = a_report(request_id, epoch=epoch, ends=state_pb2.STATE_COMPLETE)
            assert not self.runner.run(self.both[store].apply_reports(RUNNER.runner_id, [report]))
        else:
            assert self.runner.run(self.both[store].stop_unassigned(request_id))

    def _forget(self, request_id: str) -> None:
        for one in [*self.model.inside(request_id), request_id]:
            if one in self.model.claims:
                self.model.end(one)
        del self.states[request_id]
        self.running.pop(request_id, None)
        self.stopping.discard(request_id)


@pytest.fixture(params=DATABASES)
def machine(
    request: pytest.FixtureRequest, database_servers: SharedServers, tmp_path: Path
) -> Iterator[type[SequenceLimits]]:
    """The machine with two stores on a database of each kind."""
    with database_servers.migrated(request.param, tmp_path) as url, asyncio.Runner() as runner:
        both = [runner.run(open_beside(url)) for _ in range(2)]
        values = {"url": url, "runner": runner, "both": both}
        yield type("SequenceLimitsThere", (SequenceLimits,), values)
        for store in both:
            runner.run(store.close())


def test_two_request_managers_agree_with_the_model(machine: type[SequenceLimits]) -> None:
    run_state_machine_as_test(
        machine, settings=settings(max_examples=share_of(30), stateful_step_count=30, deadline=None)
    )
