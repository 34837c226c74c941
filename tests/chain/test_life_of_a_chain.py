"""A random chain under all events that can happen to it, compared with the slow model after each event."""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from spincycle_grpc.state import State
from spincycle_server.chain import RunningChain
from tests.chain.generated import SEEDS, ChainMaker
from tests.chain.model import Model
from tests.chain.test_interleavings import (
    Driver,
    assert_same,
    crash,
    ending_of,
    finish,
    gone_on,
    pause,
    suspend,
)
from tests.interleavings import share_of

CHOICES = st.integers(min_value=0, max_value=1 << 16)
ENDS = (State.COMPLETE, State.COMPLETE, State.FAIL, State.FAIL, State.STOPPED)


def chosen_try(driver: Driver, choice: int) -> tuple[str, State]:
    """Returns the running job and the end of its try that a number stands for."""
    job_id = list(driver.running)[choice // len(ENDS) % len(driver.running)]
    return job_id, ENDS[choice % len(ENDS)]


class LifeOfAChain(RuleBasedStateMachine):
    """The chain and its model. Every rule is one event. When a chain has ended, another begins."""

    @initialize(seed=SEEDS)
    def begin(self, seed: int) -> None:
        self.job_chain = ChainMaker(Random(seed)).make()
        self.driver = Driver(RunningChain.new(self.job_chain), self.job_chain, Random(seed))
        self.model = Model.of(self.job_chain, self.driver.structure)
        self.stopped = False

    def goes_on(self) -> bool:
        return self.driver.done is None

    @precondition(lambda self: self.goes_on() and self.driver.running)
    @rule(choice=CHOICES)
    def a_try_finishes(self, choice: int) -> None:
        job_id, state = chosen_try(self.driver, choice)
        finish(self.driver, self.model, job_id, state)
        self.resume_if_it_has_left()

    @precondition(lambda self: self.goes_on() and self.driver.waits)
    @rule(choice=CHOICES)
    def a_wait_is_over(self, choice: int) -> None:
        key = self.driver.waits[choice % len(self.driver.waits)]
        is_stale = self.driver.is_stale(key)
        self.driver.wait_over(key)
        if is_stale:
            pass
        elif key[0] == "job":
            self.model.job_wait_over(key[1])
        else:
            self.model.sequence_wait_over(key[1])

    @precondition(lambda self: self.goes_on() and not self.stopped)
    @rule(odds=st.integers(0, 19))
    def it_is_stopped(self, odds: int) -> None:
        if odds:  # rarely, because not much can happen afterwards
            return
        self.stopped = True
        self.driver.take(self.driver.chain.stop(0))
        self.model.stop()

    @precondition(lambda self: self.goes_on() and not self.stopped)
    @rule(choices=SEEDS)
    def it_is_suspended_and_resumed(self, choices: int) -> None:
        suspend(self.driver, self.model)
        random = Random(choices)
        while self.driver.running:
            job_id, state = chosen_try(self.driver, random.getrandbits(16))
            finish(self.driver, self.model, job_id, state)
        self.resume_if_it_has_left()

    @precondition(lambda self: self.goes_on() and self.model.mode == "running")
    @rule(choices=SEEDS)
    def it_is_paused(self, choices: int) -> None:
        pause(self.driver, self.model, Random(choices))
        self.resume_if_it_has_left()

    @precondition(lambda self: self.goes_on() and self.model.mode == "pausing")
    @rule()
    def the_pause_ends_early(self) -> None:
        self.driver.take(self.driver.chain.unpause(0))
        self.model.unpause()

    def resume_if_it_has_left(self) -> None:
        assert self.driver.done is self.model.done()
        if self.driver.done is State.SUSPENDED:
            ending = ending_of(self.model) if self.stopped else None
            chain = RunningChain.resume(self.driver.chain.suspended(0))
            self.driver = gone_on(self.driver, chain, ending)
            self.model.resume("stopping" if self.stopped else "running")

    @precondition(lambda self: self.goes_on() and not self.stopped)
    @rule()
    def its_runner_dies(self) -> None:
        self.driver = crash(self.driver, self.model)

    @precondition(lambda self: not self.goes_on())
    @rule(seed=SEEDS)
    def another_begins(self, seed: int) -> None:
        self.begin(seed)

    @invariant()
    def it_equals_the_model(self) -> None:
        assert_same(self.driver, self.model)

    def teardown(self) -> None:
        """Every chain ends."""
        if not hasattr(self, "driver"):
            return
        for _ in range(5000):
            if self.driver.done is not None:
                return
            if self.driver.running:
                self.driver.finish(next(iter(self.driver.running)), State.FAIL)
            else:
                self.driver.wait_over(self.driver.waits[0])
        raise AssertionError("the chain does not end")


TestLifeOfAChain = LifeOfAChain.TestCase
TestLifeOfAChain.settings = settings(
    max_examples=share_of(300), stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
