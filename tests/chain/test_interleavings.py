"""Random chains under random events, compared with the slow model or with an undisturbed run."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from spincycle_grpc.state import State
from spincycle_grpc.v1.job_pb2 import JobChain, SuspendedJobChain
from spincycle_grpc.v1.runner_reports_pb2 import TryReport
from spincycle_server.chain import Actions, Run, RunningChain
from spincycle_server.chain.linked_chain import Phase
from tests.chain.generated import ChainMaker, Structure, for_seeds, tried
from tests.chain.model import WAITING, Model, data_after

MOST_EVENTS = 5000

# Here and in `test_retrying`, `make interleavings` runs more than 10,000 with pauses, retries, crashes and
# rebuilds.
many = for_seeds(2150)


class Driver:
    """Drives a chain: keeps its running tries, waits and timers, and records the finished tries."""

    def __init__(
        self,
        chain: RunningChain,
        job_chain: JobChain,
        random: Random,
        structure: Structure | None = None,
        ending: State | None = None,
    ) -> None:
        self.chain = chain
        self.job_chain = job_chain
        self.structure = structure or Structure(job_chain)
        self.random = random
        self.running: dict[str, Run] = {}
        self.taken_back: set[str] = set()
        self.records: list[tuple[int, TryReport]] = []
        self.waits: list[tuple[str, str, int]] = []
        self.stale_waits: set[tuple[str, str, int]] = set()
        self.timers: list[tuple[str, str, int]] = []
        self.used: set[str] = set()
        self.claims: dict[str, int] = {}
        self.done: State | None = None
        self.stopped = False
        self.take(chain.start(0, ending=ending))

    def take(self, actions: Actions) -> None:
        self.take_keys(actions)
        for run in actions.run:
            assert run.job_id not in self.running, "a job ran twice at once"
            is_final = run.job_id in {final.first for final in self.structure.finals}
            parents = () if is_final else self.structure.parents[run.job_id]
            assert all(self.chain.state_of(one) is State.COMPLETE for one in parents)
            self.running[run.job_id] = run
        self.take_unneeded(actions)
        self.waits += [wait.key for wait in actions.wait]
        self.timers += [timer.key for timer in actions.timers]
        if actions.done is not None:
            assert self.done is None
            assert not self.running
            self.done = actions.done
        complete = {one for one in self.structure.job_ids if self.chain.state_of(one) is State.COMPLETE}
        assert self.chain.finished_jobs == len(complete)
        assert self.chain.progress.finished_tasks == len(complete - self.structure.noops)
        if self.random.random() < 0.9:
            return
        counters = self.chain.suspended(0)
        for job_id, tries in counters.latest_run_job_tries.items():
            assert tries <= 1 + self.job_chain.jobs[job_id].retry
        for sequence_id, tries in counters.sequence_tries.items():
            assert tries <= 1 + self.job_chain.jobs[sequence_id].sequence_retry

    def take_unneeded(self, actions: Actions) -> None:
        """Takes some tries back that wait for keys, and keep a sequence from beginning its next try."""
        for job_id in actions.unneeded:
            assert job_id in self.running
            assert self.chain._linked.jobs[job_id].sequence.frozen
            if self.structure.keyed_around[job_id] and self.random.random() < 0.7:
                self.taken_back.add(job_id)

    def take_keys(self, actions: Actions) -> None:
        for sequence_id in actions.release:
            self.used.remove(sequence_id)
        for sequence_id in actions.claim:
            assert sequence_id not in self.used, "a sequence claimed what it holds"
            self.used.add(sequence_id)
            self.claims[sequence_id] = self.claims.get(sequence_id, 0) + 1
        for job_id in self.running.keys() | {run.job_id for run in actions.run}:
            around = self.structure.keyed_around[job_id]
            assert [one.sequence.id for one in reversed(self.chain.keys_around(job_id))] == around
            assert self.used.issuperset(around), "a job runs without the keys around it"

    def finish(self, job_id: str, state: State, *, is_last: bool = False) -> None:
        """Ends a try. A try that a pause has taken back can only be STOPPED."""
        is_taken_back = job_id in self.taken_back
        self.taken_back.discard(job_id)
        if is_taken_back:
            state, is_last = State.STOPPED, False
        run = self.running.pop(job_id)
        data = None
        if state is State.COMPLETE and job_id not in self.structure.noops:
            data = data_after(job_id, run.number, self.chain.data_of(job_id))
        report = tried(job_id, run.number, state, sequence_try=run.sequence_try, data=data)
        report.is_last = is_last
        self.records.append((1, report))
        self.take(
            self.chain.try_finished(job_id, state, 0, data=data, is_last=is_last, is_taken_back=is_taken_back)
        )

    def pause(self, random: Random) -> list[str]:
        """Pauses the chain. Returns the jobs whose try has not begun: approvals and a random part.

        Some of the others are about to begin, and are kept from it: they will end as STOPPED.
        """
        not_begun = self.taken_back_at_once(random)
        self.stale_waits.update(self.waits)
        self.taken_back |= {job_id for job_id in self.running if random.random() < 0.2}
        self.take(self.chain.pause(0, not_begun=not_begun))
        return not_begun

    def suspend(self) -> list[str]:
        """Suspends the chain. Returns the jobs whose try has not begun: approvals and a random part."""
        not_begun = self.taken_back_at_once(self.random)
        self.stale_waits.update(self.waits)
        self.take(self.chain.suspend(0, not_begun=not_begun))
        return not_begun

    def taken_back_at_once(self, random: Random) -> list[str]:
        """Takes back all waits for approvals, and some tries that have not begun. Returns their jobs."""
        approvals = self.structure.approvals
        not_begun = [job_id for job_id in self.running if job_id in approvals or random.random() < 0.3]
        for job_id in not_begun:
            del self.running[job_id]
        return not_begun

    def wait_over(self, key: tuple[str, str, int]) -> None:
        self.waits.remove(key)
        self.take(self.chain.wait_over(key, 0))

    def is_stale(self, key: tuple[str, str, int]) -> bool:
        """Whether a wait has ended early: by a pause, or because its job or sequence waits anew."""
        is_newest = max(wait for wait in self.waits if wait[:2] == key[:2]) == key
        return key in self.stale_waits or not is_newest

    def events(self) -> int:
        return len(self.running) + len(self.waits)


def assert_same(driver: Driver, model: Model) -> None:
    chain = driver.chain
    assert {job_id: chain.state_of(job_id) for job_id in model.states} == model.states
    assert {job_id: chain.tries_of(job_id) for job_id in model.tries} == model.tries
    assert {job_id: chain.data_of(job_id) for job_id in model.data} == model.data
    assert set(driver.running) == set(model.running()) - model.between
    if model.done() is None:
        assert driver.used == model.used
    assert driver.claims == model.claims
    assert driver.done is model.done()


def pause(driver: Driver, model: Model, random: Random) -> None:
    """Pauses a chain. Some of its tries have not begun."""
    model.pause(driver.pause(random))


def suspend(driver: Driver, model: Model) -> None:
    """Suspends a chain. Some of its tries have not begun, and the others are told to stop."""
    model.suspend(driver.suspend())


def finish(driver: Driver, model: Model, job_id: str, state: State, *, is_last: bool = False) -> None:
    """Ends a try of a chain and of its model."""
    is_taken_back = job_id in driver.taken_back
    driver.finish(job_id, state, is_last=is_last)
    if is_taken_back:
        model.finish(job_id, State.STOPPED, is_taken_back=True)
    else:
        model.finish(job_id, state, is_last=is_last)


def ending_of(model: Model) -> State:
    """Returns the state in which a chain is to end that was stopped, as its Request Manager knows it."""
    return State.FAIL if model.has_final_failed else State.STOPPED


def crash(driver: Driver, model: Model) -> Driver:
    """Loses the runner of a chain and of its model. The chain is rebuilt from its records."""
    ending = ending_of(model) if model.mode == "stopping" else None
    driver = rebuilt_after_a_crash(driver, ending)
    model.crash("running" if ending is None else "stopping")
    # A rebuilt chain repeats the wait of a sequence if nothing in its new try has finished.
    while any(kind == "sequence" for kind, _, _ in driver.waits):
        driver.wait_over(next(key for key in driver.waits if key[0] == "sequence"))
    for sequence_id in [one for one, what in model.sequences.items() if what == WAITING]:
        model.sequence_wait_over(sequence_id)
    return driver


def disturb(driver: Driver, model: Model) -> Driver:
    """Begins or ends a pause, or loses the runner, at random.

    A chain that has left its runner because of a pause is resumed.
    """
    ending = ending_of(model) if driver.stopped else None
    if driver.done is State.SUSPENDED:
        assert model.done() is State.SUSPENDED
        driver = gone_on(driver, RunningChain.resume(driver.chain.suspended(0)), ending)
        model.resume("running" if ending is None else "stopping")
    elif driver.done is not None:
        pass
    elif model.mode == "stopping":
        if driver.chain.owes_finally and driver.random.random() < 0.1:
            driver = crash(driver, model)
        elif driver.chain.can_suspend and driver.random.random() < 0.1:
            suspend(driver, model)
    elif model.mode == "pausing" and driver.random.random() < 0.05:
        suspend(driver, model)
    elif model.mode == "pausing" and driver.random.random() < 0.3:
        driver.take(driver.chain.unpause(0))
        model.unpause()
    elif driver.random.random() < 0.03:
        driver = crash(driver, model)
    elif model.mode == "running" and driver.random.random() < 0.05:
        pause(driver, model, driver.random)
    elif model.mode == "running" and driver.random.random() < 0.03:
        suspend(driver, model)
    return driver


def assert_follows(driver: Driver, model: Model, random: Random) -> None:
    """Runs a chain to its end with pauses, crashes and sometimes a stop. It equals its model all the time."""
    odds_of_failure = random.choice([0.0, 0.1, 0.4, 0.8])
    stop_at = random.choice([None, None, random.randint(0, 30)])
    assert_same(driver, model)
    for count in range(MOST_EVENTS):
        driver = disturb(driver, model)
        assert_same(driver, model)
        if driver.done is State.SUSPENDED:
            continue
        if driver.done is not None:
            break
        if count == stop_at:
            driver.stopped = True
            driver.take(driver.chain.stop(0))
            model.stop()
        elif driver.stopped and model.mode == "stopping" and random.random() < 0.02:
            driver.take(driver.chain.stop(0, skip_finally=True))
            model.stop(for_good=True)
        elif (index := random.randrange(driver.events())) < len(driver.running):
            job_id = list(driver.running)[index]
            state = State.FAIL if random.random() < odds_of_failure else State.COMPLETE
            if random.random() < 0.02:
                state = State.STOPPED
            finish(driver, model, job_id, state, is_last=state is State.FAIL and random.random() < 0.1)
        else:
            kind, part_id, _ = key = driver.waits[index - len(driver.running)]
            is_stale = driver.is_stale(key)
            driver.wait_over(key)
            if is_stale:
                pass
            elif kind == "job":
                model.job_wait_over(part_id)
            elif model.sequences.get(part_id) == WAITING:
                model.sequence_wait_over(part_id)
        assert_same(driver, model)
    assert driver.done is not None, "the chain did not end"


@for_seeds(3000)
def test_a_chain_follows_the_model_event_by_event(seed: int) -> None:
    random = Random(seed)
    job_chain = ChainMaker(random).make()
    driver = Driver(RunningChain.new(job_chain), job_chain, random)
    assert_follows(driver, Model.of(job_chain, driver.structure), random)


@for_seeds(400)
def test_a_chain_with_many_finally_parts_follows_the_model_event_by_event(seed: int) -> None:
    random = Random(seed)
    job_chain = ChainMaker(random, finals=0.7).make()
    driver = Driver(RunningChain.new(job_chain), job_chain, random)
    assert_follows(driver, Model.of(job_chain, driver.structure), random)


def outcomes(seed: int, job_chain: JobChain) -> Callable[[RunningChain, str], State]:
    """Returns a function that decides how a try ends, from nothing but the numbers of the try.

    These are the tries of all sequences around the job and of the job in them, without stopped and
    lost tries. So a chain ends in the same way however often it is disturbed.
    """
    odds = Random(seed).choice([0.1, 0.3, 0.6])
    structure = Structure(job_chain)

    def outcome(chain: RunningChain, job_id: str) -> State:
        if job_id in structure.noops:
            return State.COMPLETE
        # Not from `suspended`, which makes a message of the whole chain.
        linked = chain._linked
        sequences = structure.around[structure.sequence_of[job_id]]
        around = tuple(linked.sequences[sequence_id].tries for sequence_id in sequences)
        which = (seed, job_id, around, linked.jobs[job_id].run_tries - 1)
        return State.FAIL if Random(repr(which)).random() < odds else State.COMPLETE

    return outcome


def step(driver: Driver, outcome: Callable[[RunningChain, str], State]) -> None:
    index = driver.random.randrange(driver.events())
    if index < len(driver.running):
        job_id = list(driver.running)[index]
        driver.finish(job_id, outcome(driver.chain, job_id))
    else:
        driver.wait_over(driver.waits[index - len(driver.running)])


def end_of(driver: Driver) -> tuple[State | None, dict[str, State]]:
    return driver.done, {job_id: driver.chain.state_of(job_id) for job_id in driver.structure.job_ids}


def run_undisturbed(job_chain: JobChain, seed: int) -> Driver:
    driver = Driver(RunningChain.new(job_chain), job_chain, Random(seed))
    outcome = outcomes(seed, job_chain)
    while driver.done is None:
        step(driver, outcome)
    return driver


def suspended_and_resumed(driver: Driver, outcome: Callable[[RunningChain, str], State]) -> Driver:
    """Suspends and resumes a chain. Its running jobs are stopped, except some that complete first."""
    driver.suspend()
    while driver.done is None:
        job_id = driver.random.choice(list(driver.running))
        ends_itself = driver.random.random() < 0.3 and outcome(driver.chain, job_id) is State.COMPLETE
        driver.finish(job_id, State.COMPLETE if ends_itself else State.STOPPED)
    if driver.done is not State.SUSPENDED:
        return driver
    record = type(driver.chain.suspended(0)).FromString(driver.chain.suspended(0).SerializeToString())
    return gone_on(driver, RunningChain.resume(record))


def paused(driver: Driver, outcome: Callable[[RunningChain, str], State]) -> Driver:
    """Pauses a chain. Then it leaves its runner, or goes on, or is suspended, or its runner dies."""
    random = driver.random
    driver.pause(random)
    runs_to_lose = random.choice([0, 1, 2, MOST_EVENTS])
    while driver.done is None and driver.running and runs_to_lose:
        job_id = random.choice(list(driver.running))
        driver.finish(job_id, outcome(driver.chain, job_id))
        runs_to_lose -= 1
    if driver.done is State.SUSPENDED:
        return gone_on(driver, RunningChain.resume(driver.chain.suspended(0)))
    if driver.done is None:
        what_follows = random.choice(["unpause", "suspend", "crash"])
        if what_follows == "crash":
            return rebuilt_after_a_crash(driver)
        if what_follows == "suspend":
            return suspended_and_resumed(driver, outcome)
        driver.take(driver.chain.unpause(0))
    return driver


def rebuilt_after_a_crash(driver: Driver, ending: State | None = None) -> Driver:
    """Loses the running tries and rebuilds the chain from the records of the finished ones."""
    return gone_on(driver, RunningChain.rebuilt(driver.job_chain, driver.records), ending)


def gone_on(driver: Driver, chain: RunningChain, ending: State | None = None) -> Driver:
    """Continues a chain on another runner, with the records so far, perhaps only to end it."""
    other = Driver(chain, driver.job_chain, driver.random, driver.structure, ending)
    other.records = driver.records
    other.stopped = driver.stopped
    return other


@many
def test_a_chain_ends_the_same_however_often_it_is_suspended_paused_or_lost(seed: int) -> None:
    random = Random(seed)
    job_chain = ChainMaker(random, limits=False).make()
    expected = run_undisturbed(job_chain, seed)
    driver = Driver(RunningChain.new(job_chain), job_chain, random)
    outcome = outcomes(seed, job_chain)
    for _ in range(MOST_EVENTS):
        if driver.done is not None:
            break
        chance = random.random()
        if chance < 0.05:
            driver = suspended_and_resumed(driver, outcome)
        elif chance < 0.1:
            driver = rebuilt_after_a_crash(driver)
        elif chance < 0.15:
            driver = paused(driver, outcome)
        else:
            step(driver, outcome)
    assert end_of(driver) == end_of(expected)


def counters_of(driver: Driver) -> SuspendedJobChain:
    """Returns the state of a chain, without what the record need not tell, because it makes no difference.

    This is the first try of a sequence that has only just begun, which begins again. And it is how far the
    parts of a sequence came that waits for a `finally` part before it runs anew.
    """
    suspended = driver.chain.suspended(0)
    for sequence_id in list(suspended.sequence_tries):
        is_new = driver.chain.state_of(sequence_id) is State.PENDING
        if is_new and suspended.sequence_tries[sequence_id] == 1:
            del suspended.sequence_tries[sequence_id]
    linked = driver.chain._linked
    for sequence in linked.sequences.values():
        if sequence.phase is not Phase.DRAINING or not sequence.owed:
            continue
        suspended.job_chain.finished_jobs = 0
        for part in sequence.without_finals():
            suspended.sequence_tries.pop(part.id, None)
            for job in part.jobs:
                suspended.job_chain.jobs[job.id].ClearField("state")
                suspended.latest_run_job_tries.pop(job.id, None)
    return suspended


@many
def test_a_chain_rebuilt_from_its_records_equals_the_chain_that_ran(seed: int) -> None:
    random = Random(seed)
    job_chain = ChainMaker(random).make()
    driver = Driver(RunningChain.new(job_chain), job_chain, random)
    outcome = outcomes(seed, job_chain)
    while driver.done is None:
        step(driver, outcome)
        if driver.done is None and random.random() < 0.2:
            structure = driver.structure
            suspended = driver.chain.suspended(0)
            resumed = Driver(RunningChain.resume(suspended), job_chain, Random(1), structure)
            rebuilt = Driver(RunningChain.rebuilt(job_chain, driver.records), job_chain, Random(1), structure)
            for one in (resumed, rebuilt):  # a rebuilt chain may repeat the wait of a sequence
                while one.waits:
                    one.wait_over(one.waits[0])
            assert rebuilt.running == resumed.running
            assert counters_of(rebuilt) == counters_of(resumed)
        if random.random() < 0.05:
            driver = rebuilt_after_a_crash(driver)


def end_of_a_stop(chain: RunningChain) -> State | None:
    """Returns how a chain without a runner ends when it is stopped. Its `finally` parts succeed."""
    actions = chain.stop(0)
    running, waits = list(actions.run), list(actions.wait)
    while actions.done is None:
        if running:
            actions = chain.try_finished(running.pop().job_id, State.COMPLETE, 0)
        else:
            actions = chain.wait_over(waits.pop().key, 0)
        running += actions.run
        waits += actions.wait
    return actions.done


@many
def test_a_stopped_chain_ends_as_a_chain_that_is_rebuilt_from_its_records_and_stopped(seed: int) -> None:
    """It makes no difference whether the runner is alive when the stop arrives, and when it dies."""
    random = Random(seed)
    job_chain = ChainMaker(random).make()
    driver = Driver(RunningChain.new(job_chain), job_chain, random)
    outcome = outcomes(seed, job_chain)
    for _ in range(random.randint(0, 40)):
        if driver.done is None:
            step(driver, outcome)
    if driver.done is None and random.random() < 0.3:
        driver.pause(random)  # It may leave its runner at once.
    if driver.done is not None:
        return
    without_runner = end_of_a_stop(RunningChain.rebuilt(job_chain, driver.records))
    driver.take(driver.chain.stop(0))
    all_stopped = True
    while driver.done is None:
        if not driver.running:  # A job of a `finally` part is between two tries.
            driver.wait_over(driver.waits[0])
            continue
        job_id = random.choice(list(driver.running))
        # COMPLETE or FAIL before the stop, but reported after it; or FAIL because it does not stop.
        state = random.choice([State.STOPPED, State.STOPPED, State.COMPLETE, State.FAIL])
        if job_id in driver.structure.final_of:
            state = State.COMPLETE
        driver.finish(job_id, state, is_last=state is State.FAIL and random.random() < 0.5)
        is_final = job_id in driver.structure.final_of
        all_stopped = all_stopped and (is_final or state is State.STOPPED)
    assert end_of_a_stop(RunningChain.rebuilt(job_chain, driver.records)) is driver.done
    if all_stopped:
        assert without_runner is driver.done
