"""Sliding windows and growing pauses, in chains that are small enough to see what happens."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_pb2 import Job, JobChain
from spincycle_grpc.v1.runner_reports_pb2 import TryReport
from spincycle_server.chain import Actions, RunningChain, retried_chain
from spincycle_server.chain.retry_wait import LONGEST, RetryWait
from tests.chain.generated import tried

SECOND = 1_000_000_000


def add_job(chain: JobChain, job_id: str, sequence: str = "begin", parent: str = "") -> Job:
    job = chain.jobs[job_id]
    job.id = job.name = job_id
    job.type, job.state = "work", state_pb2.STATE_PENDING
    job.sequence_id, job.parent_sequence_id = sequence, parent
    return job


def add_edges(chain: JobChain, *ids: str) -> None:
    """Makes each job depend on the one before it."""
    for before, after in itertools.pairwise(ids):
        chain.adjacency_list[before].ids.append(after)


def window_chain(elements: int, *, most: int, stop_after: int = 1, steps: int = 1) -> JobChain:
    """Returns a chain of elements e0, e1, ... in a window. With more than one step, they are sequences."""
    chain = JobChain(request_id="request", state=state_pb2.STATE_PENDING)
    add_job(chain, "begin")
    add_job(chain, "end")
    window = chain.windows["begin"]
    window.max, window.stop_after_failures = most, stop_after
    for number in range(elements):
        first = f"e{number}"
        ids = [first if step == 0 else f"{first}.{step}" for step in range(steps)]
        for job_id in ids:
            add_job(chain, job_id, *((first, "begin") if steps > 1 else ()))
        add_edges(chain, "begin", *ids, "end")
        window.first_job_ids.append(ids[0])
        window.last_job_ids.append(ids[-1])
    return chain


def started(actions: Actions) -> set[str]:
    return {run.job_id for run in actions.run}


def begun(chain: JobChain) -> tuple[RunningChain, set[str]]:
    """Returns a chain whose first job is COMPLETE, and what runs then."""
    running = RunningChain.new(chain)
    running.start(0)
    return running, started(running.try_finished("begin", State.COMPLETE, 0))


def finished(running: RunningChain, *ids: str, state: State = State.COMPLETE) -> set[str]:
    """Ends tries one after the other. Returns the jobs that this starts."""
    found: set[str] = set()
    for job_id in ids:
        found |= started(running.try_finished(job_id, state, 0))
    return found


def test_the_next_element_begins_when_any_element_ends() -> None:
    running, first = begun(window_chain(5, most=2))
    assert first == {"e0", "e1"}
    assert finished(running, "e1") == {"e2"}
    assert finished(running, "e2") == {"e3"}
    assert finished(running, "e0", "e3") == {"e4"}
    assert finished(running, "e4") == {"end"}


def test_an_element_ends_with_its_last_job() -> None:
    running, _ = begun(window_chain(2, most=1, steps=2))
    assert finished(running, "e0") == {"e0.1"}
    assert finished(running, "e0.1") == {"e1"}


@pytest.mark.parametrize(("stop_after", "begin"), [(1, 2), (2, 3), (3, 4), (0, 6)])
def test_no_element_begins_after_so_many_have_failed(stop_after: int, begin: int) -> None:
    running, waiting = begun(window_chain(6, most=2, stop_after=stop_after))
    seen = set(waiting)
    while waiting:
        job_id = min(waiting)
        waiting.discard(job_id)
        actions = running.try_finished(job_id, State.FAIL, 0)
        waiting |= started(actions)
        seen |= started(actions)
    assert seen == {f"e{number}" for number in range(begin)}
    assert actions.done is State.FAIL
    assert all(running.state_of(f"e{number}") is State.PENDING for number in range(begin, 6))


def test_a_failed_element_that_is_tried_again_keeps_its_place() -> None:
    chain = window_chain(3, most=1, steps=2)
    chain.jobs["e0"].sequence_retry, chain.jobs["e0"].sequence_retry_wait = 1, "5s"
    running, _ = begun(chain)
    finished(running, "e0")
    failed = running.try_finished("e0.1", State.FAIL, 0)
    assert (started(failed), len(failed.wait)) == (set(), 1)
    assert started(running.wait_over(failed.wait[0].key, 0)) == {"e0"}
    assert finished(running, "e0", "e0.1") == {"e0.1", "e1"}


def test_an_element_that_times_out_makes_room() -> None:
    chain = window_chain(2, most=1, stop_after=0, steps=2)
    chain.jobs["e0"].sequence_timeout = "10s"
    running = RunningChain.new(chain)
    running.start(0)
    (timer,) = running.try_finished("begin", State.COMPLETE, 0).timers
    assert [stop.job_id for stop in running.timer_over(timer.key, 10 * SECOND).stop] == ["e0"]
    assert finished(running, "e0", state=State.FAIL) == {"e1"}


def records(*ids: str) -> list[tuple[int, TryReport]]:
    return [(1, tried(job_id, 1, State.COMPLETE)) for job_id in ids]


def test_a_rebuilt_chain_goes_on_with_the_elements_that_had_begun() -> None:
    chain = window_chain(5, most=2, steps=2)
    rebuilt = RunningChain.rebuilt(chain, records("begin", "e1", "e0", "e0.1", "e2"))
    assert started(rebuilt.start(0)) == {"e1.1", "e2.1"}
    assert finished(rebuilt, "e1.1") == {"e3"}


def test_a_retry_runs_no_more_half_done_elements_at_a_time_than_its_window_allows() -> None:
    chain = window_chain(6, most=2, stop_after=4, steps=2)
    done = [("begin", State.COMPLETE)]
    for number in range(4):
        done += [(f"e{number}", State.COMPLETE), (f"e{number}.1", State.FAIL)]
    recorded = [(1, tried(job_id, 1, state)) for job_id, state in done]
    retry = RunningChain.rebuilt(retried_chain(chain, recorded, "retry"), [])
    assert started(retry.start(0)) == {"e0.1", "e1.1"}
    assert finished(retry, "e1.1") == {"e2.1"}
    assert finished(retry, "e2.1", "e0.1") == {"e3.1", "e4"}


def test_the_timeout_of_a_half_done_element_begins_with_the_element() -> None:
    chain = window_chain(2, most=1, stop_after=2, steps=2)
    for first in ("e0", "e1"):
        chain.jobs[first].sequence_timeout = "10s"
    done = [("begin", State.COMPLETE)]
    for first in ("e0", "e1"):
        done += [(first, State.COMPLETE), (f"{first}.1", State.FAIL)]
    recorded = [(1, tried(job_id, 1, state)) for job_id, state in done]
    retry = RunningChain.rebuilt(retried_chain(chain, recorded, "retry"), [])
    assert [timer.key[1] for timer in retry.start(0).timers] == ["e0"]
    assert [timer.key[1] for timer in retry.try_finished("e0.1", State.COMPLETE, 0).timers] == ["e1"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda chain: chain.windows["begin"].ClearField("max"), "needs max"),
        (lambda chain: chain.windows["begin"].last_job_ids.pop(), "as many last jobs"),
        (lambda chain: chain.windows["nobody"].CopyFrom(chain.windows["begin"]), "does not exist"),
        (lambda chain: chain.windows["begin"].first_job_ids.__setitem__(0, "end"), "does not follow"),
        (
            lambda chain: chain.windows["begin"].first_job_ids.__setitem__(0, "e1"),
            "not a sequence of its own",
        ),
        (lambda chain: chain.windows["begin"].last_job_ids.__setitem__(0, "nobody"), "bad ids"),
    ],
)
def test_a_chain_with_a_bad_window_is_refused(change: Callable[[JobChain], object], said: str) -> None:
    chain = window_chain(3, most=1)
    change(chain)
    with pytest.raises(InvalidArgumentError, match=said) as caught:
        RunningChain.new(chain)
    assert caught.value.reason == "INVALID_JOB_CHAIN"


def test_pauses_grow_up_to_the_longest() -> None:
    wait = RetryWait(SECOND, 2.0, 10 * SECOND)
    assert [wait.before(retry, "a") // SECOND for retry in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert wait.before(10**9, "a") == 10 * SECOND
    assert RetryWait(SECOND, 1.5).before(10**6, "a") == LONGEST
    assert [RetryWait(SECOND).before(retry, "a") for retry in (1, 100)] == [SECOND, SECOND]
    assert RetryWait(0, 2.0).before(3, "a") == 0


def test_jitter_shortens_pauses_by_up_to_a_half_and_tells_jobs_apart() -> None:
    wait = RetryWait(SECOND, 1.0, SECOND, has_jitter=True)
    waits = [wait.before(1, f"job {number}") for number in range(1000)]
    assert SECOND / 2 < min(waits) < 0.52 * SECOND
    assert 0.98 * SECOND < max(waits) <= SECOND
    assert wait.before(1, "job 1") == waits[1]


def test_a_chain_waits_as_its_backoff_says() -> None:
    chain = window_chain(1, most=1, steps=2)
    job, sequence = chain.jobs["e0.1"], chain.jobs["e0"]
    job.retry, job.retry_wait, job.retry_backoff.factor = 2, "1s", 3
    sequence.sequence_retry, sequence.sequence_retry_wait = 2, "10s"
    sequence.sequence_retry_backoff.factor, sequence.sequence_retry_backoff.max = 2, "15s"
    running, _ = begun(chain)
    seconds = []
    for _ in range(3):
        finished(running, "e0")
        for _ in range(3):
            for wait in running.try_finished("e0.1", State.FAIL, 0).wait:
                seconds.append(wait.nanoseconds // SECOND)
                running.wait_over(wait.key, 0)
    assert seconds == [1, 3, 10, 1, 3, 15, 1, 3]
    assert running.done is State.FAIL
