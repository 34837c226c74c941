"""Finally parts by hand: which chains are invalid, what they get of data, and what a second stop does."""

from __future__ import annotations

import pytest

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_server.chain import Actions, RunningChain, Timer

AROUND, BODY, WORK, LAST, FINAL, CLEAN, FINAL_LAST, END = "abcdefgh"
IDS = (AROUND, BODY, WORK, LAST, FINAL, CLEAN, FINAL_LAST, END)
SEQUENCES = dict(zip(IDS, (AROUND, BODY, BODY, BODY, FINAL, FINAL, FINAL, AROUND), strict=True))
EDGES = [
    (AROUND, BODY), (BODY, WORK), (WORK, LAST), (LAST, FINAL), (LAST, END),
    (FINAL, CLEAN), (CLEAN, FINAL_LAST), (FINAL_LAST, END),
]  # fmt: skip
SECOND = 1_000_000_000


def a_chain(*edges: tuple[str, str]) -> JobChain:
    chain = JobChain(request_id="request", state=state_pb2.STATE_PENDING)
    for job_id in IDS:
        job = chain.jobs[job_id]
        job.id, job.name, job.type, job.state = job_id, job_id, "work", state_pb2.STATE_PENDING
        job.sequence_id = SEQUENCES[job_id]
        job.parent_sequence_id = "" if job.sequence_id == AROUND else AROUND
        job.is_finally = job.sequence_id == FINAL
    for before, after in edges or EDGES:
        chain.adjacency_list[before].ids.append(after)
    return chain


def run(chain: RunningChain, *jobs: str, state: State = State.COMPLETE) -> Actions:
    """Ends the running tries of some jobs, one after the other."""
    actions = Actions()
    for job_id in jobs:
        actions = chain.try_finished(job_id, state, 0, data={job_id: "done"})
    return actions


def started(chain: JobChain) -> RunningChain:
    running = RunningChain.new(chain)
    running.start(0)
    return running


def test_after_success_it_comes_next_and_after_a_failure_too() -> None:
    good = started(a_chain())
    run(good, AROUND, BODY, WORK, LAST, FINAL, CLEAN, FINAL_LAST)
    assert run(good, END).done is State.COMPLETE
    bad = started(a_chain())
    run(bad, AROUND, BODY)
    assert [one.job_id for one in run(bad, WORK, state=State.FAIL).run] == [FINAL]
    run(bad, FINAL, CLEAN)
    assert run(bad, FINAL_LAST).done is State.FAIL
    assert bad.state_of(END) is State.PENDING


def test_it_gets_the_data_of_all_jobs_before_it() -> None:
    chain = started(a_chain())
    run(chain, AROUND, BODY)
    chain.stop(0)
    run(chain, WORK)
    assert chain.data_of(FINAL) == {BODY: "done", WORK: "done"}
    assert chain.state_of(FINAL) is State.RUNNING


def test_a_failure_of_it_makes_a_stopped_chain_fail() -> None:
    chain = started(a_chain())
    run(chain, AROUND, BODY)
    chain.stop(0)
    run(chain, WORK, state=State.STOPPED)
    run(chain, FINAL)
    assert run(chain, CLEAN, state=State.FAIL).done is State.FAIL


def test_a_second_stop_ends_it() -> None:
    chain = started(a_chain())
    run(chain, AROUND, BODY)
    chain.stop(0)
    run(chain, WORK, state=State.STOPPED)
    run(chain, FINAL)
    assert not chain.stop(0).stop, "the same stop may be told twice"
    assert [one.job_id for one in chain.stop(0, skip_finally=True).stop] == [CLEAN]
    assert run(chain, CLEAN, state=State.STOPPED).done is State.STOPPED


def test_a_second_stop_keeps_it_from_beginning() -> None:
    chain = started(a_chain())
    run(chain, AROUND, BODY)
    chain.stop(0)
    chain.stop(0, skip_finally=True)
    assert run(chain, WORK, state=State.STOPPED).done is State.STOPPED


def test_it_is_not_owed_again_if_the_sequence_before_it_goes_on_after_it() -> None:
    """So it is if a job has stopped by itself, and the chain is suspended when the part has run."""
    message = a_chain()
    message.jobs[BODY].sequence_retry = 1
    chain = started(message)
    run(chain, AROUND, BODY)
    assert [one.job_id for one in run(chain, WORK, state=State.STOPPED).run] == [FINAL]
    run(chain, FINAL, CLEAN)
    chain.suspend(0)
    assert run(chain, FINAL_LAST).done is State.SUSPENDED
    again = RunningChain.resume(chain.suspended(0))
    assert [one.job_id for one in again.start(0).run] == [WORK]
    assert [one.job_id for one in run(again, WORK, state=State.FAIL).run] == [BODY]
    assert not again.owes_finally
    assert run(again, BODY, WORK, LAST, END).done is State.COMPLETE


def test_it_has_a_timeout_of_its_own_after_that_of_the_request() -> None:
    message = a_chain()
    message.timeout = "1s"
    message.jobs[FINAL].sequence_timeout = "2s"
    chain = RunningChain.new(message)
    (timer,) = chain.start(0).timers
    run(chain, AROUND, BODY)
    assert chain.timer_over(timer.key, SECOND).stop
    actions = run(chain, WORK, state=State.STOPPED)
    assert actions.timers == [Timer(("sequence", FINAL, 0), 2 * SECOND)]
    run(chain, FINAL)
    (stop,) = chain.timer_over(actions.timers[0].key, 3 * SECOND).stop
    assert (stop.job_id, stop.error) == (CLEAN, "sequence timed out after 2s")
    assert run(chain, CLEAN, state=State.STOPPED).done is State.FAIL


def test_a_chain_that_ends_can_be_suspended_only_while_it_owes_something() -> None:
    chain = started(a_chain())
    run(chain, AROUND, BODY)
    chain.stop(0)
    run(chain, WORK, state=State.STOPPED)
    assert chain.can_suspend
    chain.suspend(0)
    assert run(chain, FINAL, state=State.STOPPED).done is State.SUSPENDED
    again = RunningChain.resume(chain.suspended(0))
    assert [one.job_id for one in again.start(0, ending=State.STOPPED).run] == [FINAL]
    run(again, FINAL, CLEAN)
    assert run(again, FINAL_LAST).done is State.STOPPED


@pytest.mark.parametrize("ending", [State.FAIL, State.STOPPED])
def test_a_chain_that_owes_nothing_ends_at_once(ending: State) -> None:
    assert RunningChain.new(a_chain()).start(0, ending=ending).done is ending


def _not_flagged(chain: JobChain) -> None:
    chain.jobs[CLEAN].is_finally = False


def _retried(chain: JobChain) -> None:
    chain.jobs[FINAL].sequence_retry = 1


def _around_retried(chain: JobChain) -> None:
    chain.jobs[AROUND].sequence_retry = 1


def _elsewhere(chain: JobChain) -> None:
    for job_id in (FINAL, CLEAN, FINAL_LAST):
        chain.jobs[job_id].parent_sequence_id = BODY


def _outermost(chain: JobChain) -> None:
    for job_id in (FINAL, CLEAN, FINAL_LAST):
        chain.jobs[job_id].parent_sequence_id = ""


@pytest.mark.parametrize("fault", [_not_flagged, _retried, _around_retried, _elsewhere, _outermost])
def test_a_part_that_does_not_fit_is_refused(fault: object) -> None:
    chain = a_chain()
    assert callable(fault)
    fault(chain)
    with pytest.raises(InvalidArgumentError, match="finally"):
        RunningChain.new(chain)


def test_a_part_follows_exactly_one_job() -> None:
    with pytest.raises(InvalidArgumentError, match="must follow exactly one job"):
        RunningChain.new(a_chain(*EDGES, (WORK, FINAL)))


def in_a_retried_sequence(chain: JobChain) -> JobChain:
    """Returns a chain in another sequence, which has one more try."""
    for job_id in "yz":
        job = chain.jobs[job_id]
        job.id, job.name, job.type, job.state = job_id, job_id, "work", state_pb2.STATE_PENDING
        job.sequence_id = "y"
    chain.jobs["y"].sequence_retry = 1
    for job in chain.jobs.values():
        if job.sequence_id == AROUND:
            job.parent_sequence_id = "y"
    chain.adjacency_list["y"].ids.append(AROUND)
    chain.adjacency_list[END].ids.append("z")
    return chain


def test_a_timeout_between_two_tries_makes_a_stopped_chain_fail() -> None:
    """No try ends then, and a sequence around would have been tried again if nobody had stopped it."""
    message = in_a_retried_sequence(a_chain())
    message.jobs[CLEAN].retry, message.jobs[CLEAN].retry_wait = 1, "1h"
    message.jobs[FINAL].sequence_timeout = "1s"
    chain = started(message)
    run(chain, "y", AROUND, BODY)
    chain.stop(0)
    [timer] = run(chain, WORK, state=State.STOPPED).timers
    run(chain, FINAL)
    assert run(chain, CLEAN, state=State.FAIL).wait
    suspended = RunningChain.resume(chain.suspended(SECOND))
    assert chain.timer_over(timer.key, SECOND).done is State.FAIL
    assert suspended.start(0, ending=State.STOPPED).done is State.FAIL
