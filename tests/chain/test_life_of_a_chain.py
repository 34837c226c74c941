"""A random chain through all that can happen to it, compared with the slow model after each step."""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from spincycle_grpc.state import State
from spincycle_server.chain import RunningChain
from tests.chain.generated import ChainMaker
from tests.chain.model import WAITING, Model
from tests.chain.test_interleavings import SEEDS, Driver, assert_same, gone_on

CHOICES = st.integers(min_value=0, max_value=1 << 16)
ENDS = st.sampled_from([State.COMPLETE, State.COMPLETE, State.FAIL, State.FAIL, State.STOPPED])


class LifeOfAChain(RuleBasedStateMachine):
    """The chain and its model; every rule is one thing that can happen."""

    @initialize(seed=SEEDS)
    def begin(self, seed: int) -> None:
        self.job_chain = ChainMaker(Random(seed)).make()
        self.driver = Driver(RunningChain.new(self.job_chain), self.job_chain, Random(seed))
        self.model = Model(self.job_chain)
        self.stopped = False

    def goes_on(self) -> bool:
        return self.driver.done is None

    @precondition(lambda self: self.goes_on() and self.driver.running)
    @rule(choice=CHOICES, state=ENDS)
    def a_try_finishes(self, choice: int, state: State) -> None:
        job_id = list(self.driver.running)[choice % len(self.driver.running)]
        self.driver.finish(job_id, state)
        self.model.finish(job_id, state)

    @precondition(lambda self: self.goes_on() and self.driver.waits)
    @rule(choice=CHOICES)
    def a_wait_is_over(self, choice: int) -> None:
        key = self.driver.waits[choice % len(self.driver.waits)]
        self.driver.wait_over(key)
        if key[0] == "job":
            self.model.job_wait_over(key[1])
        else:
            self.model.sequence_wait_over(key[1])

    @precondition(lambda self: self.goes_on() and not self.stopped)
    @rule(odds=st.integers(0, 19))
    def it_is_stopped(self, odds: int) -> None:
        if odds:  # seldom, since not much can happen afterwards
            return
        self.stopped = True
        self.driver.take(self.driver.chain.stop(0))
        self.model.end("stopping")

    @precondition(lambda self: self.goes_on() and not self.stopped)
    @rule(choices=st.lists(st.tuples(CHOICES, ENDS), min_size=1, max_size=8))
    def it_is_suspended_and_resumed(self, choices: list[tuple[int, State]]) -> None:
        self.driver.take(self.driver.chain.suspend(0))
        self.model.end("suspending")
        turn = 0
        while self.driver.running:
            choice, state = choices[turn % len(choices)]
            job_id = list(self.driver.running)[choice % len(self.driver.running)]
            self.driver.finish(job_id, state)
            self.model.finish(job_id, state)
            turn += 1
        assert self.driver.done is self.model.done()
        if self.driver.done is State.SUSPENDED:
            self.driver = gone_on(self.driver, RunningChain.resume(self.driver.chain.suspended(0)))
            self.model.go_on()

    @precondition(lambda self: self.goes_on() and not self.stopped)
    @rule()
    def its_runner_dies(self) -> None:
        self.driver = gone_on(self.driver, RunningChain.rebuilt(self.job_chain, self.driver.records))
        self.model.crash()
        # A sequence's wait that was over is waited for anew if nothing in its new try has finished.
        while any(kind == "sequence" for kind, _, _ in self.driver.waits):
            self.driver.wait_over(next(key for key in self.driver.waits if key[0] == "sequence"))
        for sequence_id in [one for one, what in self.model.sequences.items() if what == WAITING]:
            self.model.sequence_wait_over(sequence_id)

    @precondition(lambda self: not self.goes_on())
    @rule()
    def it_has_ended(self) -> None:
        """Nothing more can happen."""

    @invariant()
    def it_is_as_the_model(self) -> None:
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
    max_examples=1000, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
