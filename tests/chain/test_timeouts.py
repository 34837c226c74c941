"""Timeouts of sequences, over all tries, and of requests."""

from __future__ import annotations

from random import Random

from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_server.chain import Actions, RunningChain, Stop, Timer, Wait
from tests.chain.generated import ChainMaker, for_seeds, tried
from tests.chain.test_interleavings import Driver, gone_on

SECOND = 1_000_000_000


def chain_of(timeout: str = "") -> JobChain:
    """Returns outer(inner(a and b in parallel), after). Both have two tries; inner has a timeout of 10 s."""
    chain = JobChain(request_id="request", timeout=timeout)
    sequence_of = {"outs": ("outs", ""), "inns": ("inns", "outs"), "a": ("inns", "outs"),
                   "b": ("inns", "outs"), "inne": ("inns", "outs"), "aftr": ("outs", ""),
                   "oute": ("outs", "")}  # fmt: skip
    for job_id, (sequence_id, parent_id) in sequence_of.items():
        job = chain.jobs[job_id]
        job.id, job.name, job.type, job.state = job_id, job_id, "noop", state_pb2.STATE_PENDING
        job.sequence_id, job.parent_sequence_id = sequence_id, parent_id
    chain.jobs["inns"].sequence_timeout = "10s"
    chain.jobs["inns"].sequence_retry = chain.jobs["outs"].sequence_retry = 1
    chain.jobs["a"].retry, chain.jobs["a"].retry_wait = 3, "2s"
    for before, after in [("outs", "inns"), ("inns", "a"), ("inns", "b"), ("a", "inne"), ("b", "inne"),
                          ("inne", "aftr"), ("aftr", "oute")]:  # fmt: skip
        chain.adjacency_list[before].ids.append(after)
    return chain


def stops_of(actions: Actions) -> list[Stop]:
    """Returns the stops, sorted by job, because parallel jobs have no order."""
    return sorted(actions.stop, key=lambda stop: stop.job_id)


def begun(chain: RunningChain) -> Timer:
    """Runs a chain up to a and b. Returns the timer of inner, which began at 1 s."""
    chain.start(0)
    [timer] = chain.try_finished("outs", State.COMPLETE, SECOND).timers
    chain.try_finished("inns", State.COMPLETE, SECOND)
    return timer


TIMED_OUT = "sequence timed out after 10s"


def test_a_sequence_that_times_out_is_not_retried_but_the_sequence_around_it_is() -> None:
    chain = RunningChain.new(chain_of())
    timer = begun(chain)
    assert timer.nanoseconds == 10 * SECOND
    over = chain.timer_over(timer.key, 11 * SECOND)
    assert stops_of(over) == [Stop("a", TIMED_OUT), Stop("b", TIMED_OUT)]
    assert not over.run
    chain.try_finished("a", State.FAIL, 11 * SECOND, is_last=True)
    again = chain.try_finished("b", State.FAIL, 11 * SECOND, is_last=True)
    assert [run.job_id for run in again.run] == ["outs"]
    assert (again.run[0].number, again.run[0].sequence_try) == (2, 2)


def test_a_timeout_covers_all_tries_and_restarts_with_the_sequence_around() -> None:
    chain = RunningChain.new(chain_of())
    timer = begun(chain)
    chain.try_finished("a", State.COMPLETE, 2 * SECOND)
    again = chain.try_finished("b", State.FAIL, 3 * SECOND)
    assert [run.job_id for run in again.run] == ["inns"]
    assert again.timers == []
    chain.try_finished("inns", State.COMPLETE, 3 * SECOND)
    over = chain.timer_over(timer.key, 11 * SECOND)
    assert [stop.job_id for stop in stops_of(over)] == ["a", "b"]
    chain.try_finished("a", State.FAIL, 11 * SECOND, is_last=True)
    chain.try_finished("b", State.FAIL, 11 * SECOND, is_last=True)
    [fresh] = chain.try_finished("outs", State.COMPLETE, 12 * SECOND).timers
    assert fresh.nanoseconds == 10 * SECOND
    assert chain.timer_over(timer.key, 13 * SECOND).stop == [], "the old timer is of the old time"


def test_a_job_between_two_tries_fails_at_once_on_a_timeout() -> None:
    chain = RunningChain.new(chain_of())
    timer = begun(chain)
    chain.try_finished("b", State.COMPLETE, 2 * SECOND)
    [wait] = chain.try_finished("a", State.FAIL, 10 * SECOND).wait
    assert isinstance(wait, Wait)
    again = chain.timer_over(timer.key, 11 * SECOND)
    assert again.stop == []
    assert [run.job_id for run in again.run] == ["outs"]
    assert chain.wait_over(wait.key, 12 * SECOND).run == []


def test_a_timer_does_not_affect_a_sequence_that_has_ended() -> None:
    chain = RunningChain.new(chain_of())
    timer = begun(chain)
    for job_id in ("a", "b", "inne"):
        chain.try_finished(job_id, State.COMPLETE, 2 * SECOND)
    assert chain.timer_over(timer.key, 11 * SECOND).stop == []
    chain.try_finished("aftr", State.COMPLETE, 12 * SECOND)
    assert chain.try_finished("oute", State.COMPLETE, 12 * SECOND).done is State.COMPLETE


def test_a_job_that_completes_when_it_is_stopped_is_complete() -> None:
    chain = RunningChain.new(chain_of())
    timer = begun(chain)
    chain.timer_over(timer.key, 11 * SECOND)
    chain.try_finished("a", State.COMPLETE, 11 * SECOND)
    assert chain.state_of("a") is State.COMPLETE


def test_a_sequence_whose_last_job_completes_as_it_is_stopped_is_complete() -> None:
    chain = RunningChain.new(chain_of())
    timer = begun(chain)
    chain.try_finished("a", State.COMPLETE, 2 * SECOND)
    chain.try_finished("b", State.COMPLETE, 2 * SECOND)
    assert [stop.job_id for stop in chain.timer_over(timer.key, 11 * SECOND).stop] == ["inne"]
    after = chain.try_finished("inne", State.COMPLETE, 11 * SECOND)
    assert [run.job_id for run in after.run] == ["aftr"]
    assert [run.job_id for run in chain.try_finished("aftr", State.COMPLETE, 12 * SECOND).run] == ["oute"]
    assert chain.try_finished("oute", State.COMPLETE, 12 * SECOND).done is State.COMPLETE


def test_a_request_that_times_out_fails() -> None:
    chain = RunningChain.new(chain_of(timeout="30s"))
    [timer] = chain.start(0).timers
    assert timer.nanoseconds == 30 * SECOND
    chain.try_finished("outs", State.COMPLETE, SECOND)
    chain.try_finished("inns", State.COMPLETE, SECOND)
    over = chain.timer_over(timer.key, 30 * SECOND)
    assert stops_of(over) == [Stop(job_id, "request timed out after 30s") for job_id in ("a", "b")]
    chain.try_finished("a", State.FAIL, 30 * SECOND, is_last=True)
    assert chain.try_finished("b", State.COMPLETE, 30 * SECOND).done is State.FAIL
    assert chain.state_of("a") is State.FAIL


def test_a_resumed_chain_has_the_remaining_time() -> None:
    chain = RunningChain.new(chain_of(timeout="30s"))
    begun(chain)
    suspended = chain.suspended(4 * SECOND)
    timers = RunningChain.resume(suspended).start(100 * SECOND).timers
    assert {timer.key[0]: timer.nanoseconds for timer in timers} == {
        "request": 26 * SECOND, "sequence": 7 * SECOND,
    }  # fmt: skip


def test_a_rebuilt_chain_has_the_time_that_its_tries_have_left() -> None:
    records = [
        (1, tried("outs", 1, State.COMPLETE, from_to=(0, SECOND))),
        (1, tried("inns", 1, State.COMPLETE, from_to=(SECOND, 2 * SECOND))),
        (1, tried("a", 1, State.STOPPED, from_to=(2 * SECOND, 3 * SECOND))),
        (2, tried("a", 2, State.FAIL, from_to=(900 * SECOND, 904 * SECOND))),
    ]
    timers = RunningChain.rebuilt(chain_of(timeout="30s"), records).start(0).timers
    assert {timer.key[0]: timer.nanoseconds for timer in timers} == {
        "request": 23 * SECOND, "sequence": 4 * SECOND,
    }  # fmt: skip


def test_a_chain_that_is_resumed_after_its_timeout_ends_at_once() -> None:
    chain = RunningChain.new(chain_of(timeout="30s"))
    begun(chain)
    actions = RunningChain.resume(chain.suspended(31 * SECOND)).start(100 * SECOND)
    assert (actions.run, actions.done) == ([], State.FAIL)


def test_a_sequence_that_is_resumed_after_its_timeout_fails_the_sequence_around_it() -> None:
    chain = RunningChain.new(chain_of())
    begun(chain)
    actions = RunningChain.resume(chain.suspended(12 * SECOND)).start(100 * SECOND)
    assert [run.job_id for run in actions.run] == ["outs"]


def test_time_stands_still_for_a_paused_chain() -> None:
    chain = RunningChain.new(chain_of(timeout="30s"))
    begun(chain)
    assert chain.pause(2 * SECOND).done is None
    assert chain.try_finished("a", State.COMPLETE, 3 * SECOND).run == []
    assert chain.try_finished("b", State.COMPLETE, 4 * SECOND).done is State.SUSPENDED
    timers = RunningChain.resume(chain.suspended(4 * SECOND)).start(100 * SECOND).timers
    assert {timer.key[0]: timer.nanoseconds for timer in timers} == {
        "request": 26 * SECOND, "sequence": 7 * SECOND,
    }  # fmt: skip


def test_a_job_that_goes_on_after_a_pause_is_stopped_by_its_timeout() -> None:
    chain = RunningChain.new(chain_of())
    timer = begun(chain)
    chain.pause(2 * SECOND)
    assert stops_of(chain.timer_over(timer.key, 11 * SECOND)) == [Stop("a", TIMED_OUT), Stop("b", TIMED_OUT)]
    chain.try_finished("a", State.FAIL, 11 * SECOND, is_last=True)
    assert chain.try_finished("b", State.FAIL, 11 * SECOND, is_last=True).done is State.SUSPENDED
    resumed = RunningChain.resume(chain.suspended(11 * SECOND)).start(100 * SECOND)
    assert [run.job_id for run in resumed.run] == ["outs"]


def test_a_pause_uses_up_no_tries() -> None:
    chain = RunningChain.new(chain_of())
    begun(chain)
    chain.pause(2 * SECOND, not_begun=["b"])
    assert chain.try_finished("a", State.FAIL, 3 * SECOND).done is State.SUSPENDED
    suspended = chain.suspended(3 * SECOND)
    assert (suspended.total_job_tries["a"], suspended.latest_run_job_tries["a"]) == (1, 1)
    assert "b" not in suspended.total_job_tries
    resumed = RunningChain.resume(suspended).start(100 * SECOND)
    assert {run.job_id: run.number for run in resumed.run} == {"a": 2, "b": 1}


@for_seeds(1200)
def test_chains_with_timeouts_end_however_they_are_disturbed(seed: int) -> None:
    random = Random(seed)
    job_chain = ChainMaker(random).make()
    for job_id in sorted(job_chain.jobs):
        job = job_chain.jobs[job_id]
        if job.sequence_id == job_id and random.random() < 0.5:
            job.sequence_timeout = "10s"
    job_chain.timeout = random.choice(["", "100s"])
    driver = Driver(RunningChain.new(job_chain), job_chain, random)
    for _ in range(5000):
        if driver.done is State.SUSPENDED:
            driver = gone_on(driver, RunningChain.resume(driver.chain.suspended(0)))
        if driver.done is not None:
            break
        chance = random.random()
        if chance < 0.015 and driver.chain.can_pause:
            driver.pause(random)
        elif chance < 0.02 or not driver.events():
            driver.take(driver.chain.unpause(0))
        elif chance < 0.04:
            driver = gone_on(driver, RunningChain.rebuilt(job_chain, driver.records))
        elif chance < 0.06:
            driver = gone_on(driver, RunningChain.resume(driver.chain.suspended(0)))
        elif chance < 0.2 and driver.timers:
            key = driver.timers.pop(random.randrange(len(driver.timers)))
            driver.take(driver.chain.timer_over(key, 0))
        elif (index := random.randrange(driver.events())) < len(driver.running):
            job_id = list(driver.running)[index]
            driver.finish(job_id, random.choice([State.COMPLETE, State.COMPLETE, State.FAIL]))
        else:
            driver.wait_over(driver.waits[index - len(driver.running)])
    assert driver.done is not None, "the chain did not end"
    assert (driver.done is State.COMPLETE) == (driver.chain.finished_jobs == len(job_chain.jobs))
