"""The keys of sequences: who claims and releases them, and that chains end when few may hold a key."""

from __future__ import annotations

from random import Random

import pytest

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_pb2 import JobChain, SuspendedJobChain
from spincycle_server.chain import Actions, RunningChain
from tests.chain import test_finals
from tests.chain.generated import ChainMaker, for_seeds
from tests.chain.test_interleavings import MOST_EVENTS, Driver, gone_on

MOST = {"a": 1, "b": 1, "c": 2}


class KeyTable:
    """The keys of one request as a Request Manager keeps them: each in the order of the claims.

    A sequence holds its keys if it is among the first at all of them.
    """

    def __init__(self, wanted: dict[str, set[str]]) -> None:
        self._wanted = wanted
        self._claims: list[str] = []
        self._holders: list[str] = []

    @property
    def owners(self) -> set[str]:
        return set(self._claims)

    @property
    def holders(self) -> set[str]:
        return set(self._holders)

    def keep(self, claimed: list[str]) -> None:
        """Begins an assignment: a sequence that is not claimed at once releases its keys."""
        self.apply([one for one in self._claims if one not in claimed], [])

    def apply(self, released: list[str], claimed: list[str]) -> None:
        for sequence_id in released:
            self._claims.remove(sequence_id)
            self._holders = [one for one in self._holders if one != sequence_id]
        self._claims += [one for one in claimed if one not in self._claims]
        for sequence_id in self._claims:
            if sequence_id not in self._holders and self._is_free(sequence_id):
                self._holders.append(sequence_id)

    def _is_free(self, sequence_id: str) -> bool:
        before = self._claims[: self._claims.index(sequence_id)]
        return all(
            sum(key in self._wanted[one] for one in before) < MOST[key] for key in self._wanted[sequence_id]
        )

    def held(self, key: str) -> int:
        return sum(key in self._wanted[one] for one in self._holders)


class KeyedDriver(Driver):
    """Drives a chain whose tries begin when the sequences around them hold their keys."""

    table: KeyTable
    is_new = True

    def take_keys(self, actions: Actions) -> None:
        super().take_keys(actions)
        if not hasattr(self, "table"):
            self.table = KeyTable(self.structure.keys)
        if self.is_new:
            self.is_new = False
            self.table.keep(actions.claim)
        self.table.apply(actions.release, actions.claim)
        assert self.table.owners == self.used
        assert all(self.table.held(key) <= most for key, most in MOST.items())

    def begun(self) -> list[str]:
        """Returns the jobs with a running try that has begun, because it has all keys."""
        around = self.structure.keyed_around
        return [one for one in self.running if self.table.holders.issuperset(around[one])]


def a_keyed_chain(random: Random) -> JobChain:
    chain = ChainMaker(random, keyed=0.5).make()
    for job in chain.jobs.values():
        for limit in job.sequence_limits:
            limit.max = MOST[limit.key]
    return chain


def on_another_runner(driver: KeyedDriver, chain: RunningChain) -> KeyedDriver:
    """Continues a chain, with the keys so far."""
    other = KeyedDriver.__new__(KeyedDriver)
    other.table = driver.table
    other.__init__(chain, driver.job_chain, driver.random, driver.structure)  # type: ignore[misc]
    other.records = driver.records
    return other


@for_seeds(800)
def test_a_chain_ends_when_its_sequences_hold_their_keys_one_after_another(seed: int) -> None:
    random = Random(seed)
    job_chain = a_keyed_chain(random)
    driver = KeyedDriver(RunningChain.new(job_chain), job_chain, random)
    stop_at = random.choice([None, None, random.randint(0, 30)])
    for count in range(MOST_EVENTS):
        if driver.done is State.SUSPENDED:
            driver = on_another_runner(driver, RunningChain.resume(driver.chain.suspended(0)))
        elif driver.done is not None:
            break
        elif count == stop_at:
            driver.take(driver.chain.stop(0))
        elif driver.chain.can_suspend and random.random() < 0.03:
            driver.suspend()
        elif random.random() < 0.03 and stop_at is None:
            driver = on_another_runner(driver, RunningChain.rebuilt(job_chain, driver.records))
        elif driver.waits and random.random() < 0.3:
            driver.wait_over(random.choice(driver.waits))
        elif begun := driver.begun():
            state = random.choice([State.COMPLETE, State.COMPLETE, State.COMPLETE, State.FAIL])
            driver.finish(random.choice(begun), state)
        elif driver.running:
            # Sequences within sequences wait for each other, or the request is being stopped.
            state = State.FAIL if driver.chain.can_pause else State.STOPPED
            driver.finish(random.choice(list(driver.running)), state, is_last=True)
    assert driver.done in (State.COMPLETE, State.FAIL, State.STOPPED)


@for_seeds(300)
def test_a_chain_uses_the_keys_of_what_runs_in_it_whatever_times_out(seed: int) -> None:
    random = Random(seed)
    job_chain = a_keyed_chain(random)
    for job in job_chain.jobs.values():
        if job.id == job.sequence_id and random.random() < 0.3:
            job.sequence_timeout = "1s"
    job_chain.timeout = random.choice(["", "1s"])
    driver = Driver(RunningChain.new(job_chain), job_chain, random)
    for _ in range(MOST_EVENTS):
        if driver.done is not None:
            break
        if driver.timers and random.random() < 0.05:
            driver.take(driver.chain.timer_over(driver.timers.pop(random.randrange(len(driver.timers))), 0))
        elif random.random() < 0.03:
            driver = gone_on(driver, RunningChain.rebuilt(job_chain, driver.records))
        elif (index := random.randrange(driver.events())) < len(driver.running):
            state = State.FAIL if random.random() < 0.3 else State.COMPLETE
            driver.finish(list(driver.running)[index], state)
        else:
            driver.wait_over(driver.waits[index - len(driver.running)])
        if driver.done is None:
            assert driver.used == used_by(driver)
    assert driver.done is not None


def used_by(driver: Driver) -> set[str]:
    """Returns the sequences in which something runs, waits, or is owed."""
    found = {one for job_id in driver.running for one in driver.structure.keyed_around[job_id]}
    for sequence in driver.chain._linked.sequences.values():
        for one in sequence.outwards():
            between = sequence.waiting or any(job.waits for job in sequence.jobs)
            if one.id in driver.structure.keys and (between or one.owed):
                found.add(one.id)
    return found


def a_chain() -> JobChain:
    """Returns begin, {inner, drain, last}, end: a sequence with two keys in a request with one of them."""
    chain = JobChain(request_id="first", state=state_pb2.STATE_PENDING)
    chain.limits.add(key="all", max=1)
    for job_id, sequence_id, after in (
        ("aaaa", "aaaa", "bbbb"),
        ("bbbb", "bbbb", "cccc"),
        ("cccc", "bbbb", "dddd"),
        ("dddd", "bbbb", "eeee"),
        ("eeee", "aaaa", ""),
    ):
        job = chain.jobs[job_id]
        job.id, job.name, job.sequence_id = job_id, "noop", sequence_id
        job.state = state_pb2.STATE_PENDING
        if sequence_id == "bbbb":
            job.parent_sequence_id = "aaaa"
        if after:
            chain.adjacency_list[job_id].ids.append(after)
    chain.jobs["bbbb"].sequence_limits.add(key="all", max=1)
    chain.jobs["bbbb"].sequence_limits.add(key="host", max=1)
    chain.jobs["bbbb"].sequence_retry = 1
    return chain


def test_a_sequence_claims_the_keys_that_nobody_around_it_holds_and_releases_them_when_it_is_over() -> None:
    running = RunningChain.new(a_chain())
    assert running.start(0).claim == []
    begins = running.try_finished("aaaa", State.COMPLETE, 0)
    assert (begins.claim, [run.job_id for run in begins.run]) == (["bbbb"], ["bbbb"])
    assert [limit.key for limit in running.keys_of("bbbb").limits] == ["host"]
    running.try_finished("bbbb", State.COMPLETE, 0)
    again = running.try_finished("cccc", State.FAIL, 0)
    assert ([run.job_id for run in again.run], again.claim, again.release) == (["bbbb"], [], [])
    running.try_finished("bbbb", State.COMPLETE, 0)
    assert running.try_finished("cccc", State.COMPLETE, 0).release == []
    assert running.try_finished("dddd", State.COMPLETE, 0).release == ["bbbb"]


def test_a_pause_keeps_the_keys_of_a_sequence_that_is_not_complete() -> None:
    running = RunningChain.new(a_chain())
    running.start(0)
    running.try_finished("aaaa", State.COMPLETE, 0)
    running.try_finished("bbbb", State.COMPLETE, 0)
    running.pause(0)
    left = running.try_finished("cccc", State.COMPLETE, 0)
    assert (left.done, left.release) == (State.SUSPENDED, [])
    resumed = RunningChain.resume(running.suspended(0)).start(0)
    assert resumed.claim == ["bbbb"]


def test_the_end_of_a_pause_releases_the_keys_of_a_sequence_that_has_failed_meanwhile() -> None:
    chain = a_chain()
    chain.jobs["bbbb"].sequence_retry = 0
    beside = chain.jobs["ffff"]
    beside.CopyFrom(chain.jobs["eeee"])
    beside.id, beside.name = "ffff", "beside"
    chain.adjacency_list["aaaa"].ids.append("ffff")
    chain.adjacency_list["ffff"].ids.append("eeee")
    running = RunningChain.new(chain)
    running.start(0)
    running.try_finished("aaaa", State.COMPLETE, 0)
    running.try_finished("bbbb", State.COMPLETE, 0)
    running.pause(0)
    assert running.try_finished("cccc", State.FAIL, 0).release == []
    assert running.unpause(0).release == ["bbbb"]


def test_a_stop_releases_the_keys_for_which_a_sequence_waits() -> None:
    running = RunningChain.new(a_chain())
    running.start(0)
    running.try_finished("aaaa", State.COMPLETE, 0)
    assert [stop.job_id for stop in running.stop(0).stop] == ["bbbb"]
    assert running.try_finished("bbbb", State.STOPPED, 0).release == ["bbbb"]


def test_a_claim_and_a_later_release_are_nothing_together() -> None:
    running = RunningChain.new(a_chain())
    running.start(0)
    begins = running.try_finished("aaaa", State.COMPLETE, 0)
    begins.add(running.try_finished("bbbb", State.FAIL, 0, is_last=True))
    assert (begins.claim, begins.release) == (["bbbb"], [])  # It is tried again.
    begins.add(running.try_finished("bbbb", State.FAIL, 0, is_last=True))
    assert (begins.claim, begins.release, begins.done) == ([], [], State.FAIL)


def test_only_the_first_job_of_a_sequence_has_limits() -> None:
    chain = a_chain()
    chain.jobs["cccc"].sequence_limits.add(key="x", max=1)
    with pytest.raises(InvalidArgumentError, match="job cccc has sequenceLimits") as refused:
        RunningChain.new(chain)
    assert refused.value.reason == "INVALID_JOB_CHAIN"


def test_keys_are_needed_after_a_stop_once_a_finally_part_must_run() -> None:
    message = test_finals.a_chain()
    message.jobs[test_finals.AROUND].sequence_limits.add(key="around", max=1)
    message.jobs[test_finals.FINAL].sequence_limits.add(key="final", max=1)
    chain = RunningChain.new(message)
    chain.start(0)
    around, final = chain.keys_of(test_finals.AROUND), chain.keys_of(test_finals.FINAL)
    test_finals.run(chain, test_finals.AROUND)
    assert (around.outlasts_stop, final.outlasts_stop) == (False, True), "the body has only begun"
    test_finals.run(chain, test_finals.BODY)
    assert around.outlasts_stop
    test_finals.run(chain, test_finals.WORK, test_finals.LAST, test_finals.FINAL, test_finals.CLEAN)
    assert around.outlasts_stop
    test_finals.run(chain, test_finals.FINAL_LAST)
    assert not around.outlasts_stop


def test_keys_are_needed_after_a_stop_of_a_retry_of_a_sequence_that_is_half_done() -> None:
    message = test_finals.a_chain()
    message.jobs[test_finals.AROUND].sequence_limits.add(key="around", max=1)
    for job_id in (test_finals.AROUND, test_finals.BODY):
        message.jobs[job_id].state = state_pb2.STATE_COMPLETE
    message.finished_jobs = 2
    chain = RunningChain.resume(SuspendedJobChain(request_id="request", job_chain=message))
    actions = chain.start(0)
    assert [run.job_id for run in actions.run] == [test_finals.WORK]
    assert actions.claim == [test_finals.AROUND]
    assert chain.keys_of(test_finals.AROUND).outlasts_stop
