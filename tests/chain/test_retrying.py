"""Retries of random chains: how they start, compared with a slow model, and how they run."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from spincycle_grpc.state import State
from spincycle_grpc.structs import from_struct
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.v1.runner_reports_pb2 import TryReport
from spincycle_server.chain import RunningChain, begun_sequences, retried_chain
from spincycle_server.chain.retrying import start_of
from tests.chain.generated import ChainMaker, Structure, for_seeds, tried
from tests.chain.model import Model
from tests.chain.test_interleavings import MOST_EVENTS, Driver, assert_follows, gone_on

many = for_seeds(2500)

Records = Sequence[tuple[int, TryReport]]


class RetryModel:
    """The start of a retry, from the rules: which jobs are COMPLETE, and what data each job has.

    A job is COMPLETE if its last try was, and no sequence around it began again later. A sequence begins
    again when its first job runs.
    """

    def __init__(self, chain: JobChain, structure: Structure, records: Records, first: str) -> None:
        reports = [report for _, report in records]
        again = self._after(structure, first) if first else set()
        complete = {one for one in structure.job_ids if self._is_complete(chain, structure, reports, one)}
        for final in structure.finals:
            if not complete.issuperset(structure.jobs_in[final.body]):
                again |= final.jobs
        self.complete = complete - again
        receivers = {
            job_id: [*structure.children[job_id], *structure.finals_after(job_id)]
            for job_id in structure.job_ids
        }
        before = {job_id: from_struct(job.data) for job_id, job in chain.jobs.items()}
        data: dict[str, dict[str, Any]] = before
        fresh: dict[str, dict[str, Any]] = {job_id: {} for job_id in again}
        last = {report.entry.job_id: report for report in reports}
        for job_id in sorted(self.complete - last.keys()):
            for child in again & set(receivers[job_id]):
                fresh[child].update(data[job_id])
        for report in reports:
            job_id = report.entry.job_id
            if report.entry.state != state_pb2.STATE_COMPLETE:
                continue
            if report.HasField("job_data"):
                data[job_id] = from_struct(report.job_data)
            for child in receivers[job_id]:
                data[child] = {**data[child], **data[job_id]}
                if child in again and job_id in self.complete and last[job_id] is report:
                    fresh[child].update(data[job_id])
        self.data = {**data, **fresh}

    @staticmethod
    def _after(structure: Structure, first: str) -> set[str]:
        found = {first}
        for _ in structure.job_ids:
            found |= {child for job_id in found for child in structure.children[job_id]}
        return found

    @staticmethod
    def _is_complete(
        chain: JobChain, structure: Structure, reports: Sequence[TryReport], job_id: str
    ) -> bool:
        places = [place for place, one in enumerate(reports) if one.entry.job_id == job_id]
        last = places[-1] if places else -1
        state = reports[last].entry.state if places else chain.jobs[job_id].state
        if state != state_pb2.STATE_COMPLETE:
            return False
        around = set(structure.around[structure.sequence_of[job_id]]) - {job_id}
        return not any(one.entry.job_id in around for one in reports[last + 1 :])


def ended(driver: Driver, random: Random, odds_of_failure: float) -> Driver:
    """Runs a chain until it ends, with crashes on the way, and a stop in one of three."""
    stop_at = random.choice([None, None, random.randint(0, 30)])
    for count in range(MOST_EVENTS):
        if driver.done is not None:
            break
        if count == stop_at:
            driver.take(driver.chain.stop(0))
        elif random.random() < 0.03:
            driver = gone_on(driver, RunningChain.rebuilt(driver.job_chain, driver.records))
        elif (index := random.randrange(driver.events())) < len(driver.running):
            job_id = list(driver.running)[index]
            is_noop = job_id in driver.structure.noops
            state = State.FAIL if not is_noop and random.random() < odds_of_failure else State.COMPLETE
            driver.finish(job_id, state, is_last=state is State.FAIL and random.random() < 0.2)
        else:
            driver.wait_over(driver.waits[index - len(driver.running)])
    return driver


def start_from(job_chain: JobChain) -> RunningChain:
    """Returns the chain of a retry, before it starts: a runner gets it as a suspended chain."""
    if job_chain.finished_jobs:
        return RunningChain.resume(start_of(job_chain))
    return RunningChain.new(job_chain)


def an_ended_request(random: Random) -> Driver:
    """Returns a request that has ended as FAIL or STOPPED, which may be the retry of another one."""
    while True:
        job_chain = ChainMaker(random).make()
        driver = ended(Driver(RunningChain.new(job_chain), job_chain, random), random, 0.5)
        if random.random() < 0.3 and driver.done is not State.COMPLETE:
            job_chain = retried_chain(job_chain, driver.records, "second")
            driver = ended(Driver(start_from(job_chain), job_chain, random), random, 0.5)
        if driver.done is not State.COMPLETE:
            return driver


def model_of(job_chain: JobChain, structure: Structure) -> Model:
    """Returns the model of a retry that has just started."""
    model = Model(job_chain, structure)
    for job_id, job in job_chain.jobs.items():
        is_complete = job.state == state_pb2.STATE_COMPLETE
        model.states[job_id] = State.COMPLETE if is_complete else State.PENDING
        model.tries[job_id] = model.run_tries[job_id] = 0
        model.data[job_id] = from_struct(job.data)
        if job.sequence_id == job_id:
            model.sequence_tries[job_id] = int(is_complete)
    model.resume()
    return model


@many
def test_a_retry_keeps_what_is_complete_and_runs_the_rest(seed: int) -> None:
    random = Random(seed)
    first = an_ended_request(random)
    again_from = random.choice(["", "", random.choice(first.structure.job_ids)])
    job_chain = retried_chain(first.job_chain, first.records, "retry", again_from)
    expected = RetryModel(first.job_chain, first.structure, first.records, again_from)
    complete = {one for one, job in job_chain.jobs.items() if job.state == state_pb2.STATE_COMPLETE}
    assert complete == expected.complete
    assert job_chain.finished_jobs == len(complete)
    assert {one: from_struct(job.data) for one, job in job_chain.jobs.items()} == expected.data
    for job_id, job in job_chain.jobs.items():
        job.state = first.job_chain.jobs[job_id].state
        job.data.CopyFrom(first.job_chain.jobs[job_id].data)
        if not first.job_chain.jobs[job_id].HasField("data"):
            job.ClearField("data")
    job_chain.request_id, job_chain.state = first.job_chain.request_id, first.job_chain.state
    job_chain.finished_jobs = first.job_chain.finished_jobs
    assert job_chain == first.job_chain, "a retry changes more than states and data"


@many
def test_a_retry_follows_the_model_event_by_event(seed: int) -> None:
    random = Random(seed)
    first = an_ended_request(random)
    job_chain = retried_chain(first.job_chain, first.records, "retry")
    driver = Driver(start_from(job_chain), job_chain, random)
    model = model_of(job_chain, driver.structure)
    assert_follows(driver, model, random)


@many
def test_a_retry_of_what_works_now_runs_each_unfinished_job_once_whatever_crashes(seed: int) -> None:
    random = Random(seed)
    first = an_ended_request(random)
    again_from = random.choice(["", random.choice(first.structure.job_ids)])
    job_chain = retried_chain(first.job_chain, first.records, "retry", again_from)
    unfinished = {one for one, job in job_chain.jobs.items() if job.state == state_pb2.STATE_PENDING}
    driver = Driver(start_from(job_chain), job_chain, random)
    while driver.done is None:
        if random.random() < 0.2:
            driver = gone_on(driver, RunningChain.rebuilt(job_chain, driver.records))
        else:
            driver.finish(random.choice(list(driver.running)), State.COMPLETE)
    assert driver.done is State.COMPLETE
    assert sorted(report.entry.job_id for _, report in driver.records) == sorted(unfinished)
    assert {(getattr(report.entry, "try"), report.sequence_try) for _, report in driver.records} <= {(1, 1)}


def a_chain() -> JobChain:
    """Returns begin, drain, check, end, one after the other in one sequence with one retry."""
    chain = JobChain(request_id="first", state=state_pb2.STATE_PENDING)
    for job_id, name, after in (
        ("aaaa", "noop", "bbbb"),
        ("bbbb", "drain", "cccc"),
        ("cccc", "check", "dddd"),
        ("dddd", "noop", ""),
    ):
        job = chain.jobs[job_id]
        job.id, job.name, job.sequence_id, job.state = job_id, name, "aaaa", state_pb2.STATE_PENDING
        if after:
            chain.adjacency_list[job_id].ids.append(after)
    return chain


def a_failed_record() -> Records:
    return [
        (1, tried("aaaa", 1, State.COMPLETE)),
        (1, tried("bbbb", 1, State.COMPLETE, data={"drained": "web7"})),
        (1, tried("cccc", 1, State.FAIL)),
    ]


def test_a_job_of_a_retry_gets_the_data_of_the_jobs_that_do_not_run_again() -> None:
    retried = retried_chain(a_chain(), a_failed_record(), "second")
    running = start_from(retried)
    assert [run.job_id for run in running.start(0).run] == ["cccc"]
    assert running.data_of("cccc") == {"drained": "web7"}


def test_a_job_that_runs_again_although_it_was_complete_starts_without_its_own_data() -> None:
    retried = retried_chain(a_chain(), a_failed_record(), "second", "bbbb")
    running = start_from(retried)
    assert [run.job_id for run in running.start(0).run] == ["bbbb"]
    assert running.data_of("bbbb") == {}
    assert running.data_of("cccc") == {}


def test_a_retry_gives_a_sequence_that_had_begun_its_first_try_again_and_all_its_retries() -> None:
    chain = a_chain()
    chain.jobs["aaaa"].sequence_retry = 1
    records = [*a_failed_record()]
    records += [
        (epoch, tried(job_id, 2, state, sequence_try=2))
        for epoch, job_id, state in (
            (1, "aaaa", State.COMPLETE),
            (1, "bbbb", State.COMPLETE),
            (1, "cccc", State.FAIL),
        )
    ]
    retried = retried_chain(chain, records, "second")
    assert begun_sequences(retried) == {"aaaa": 1}
    running = start_from(retried)
    running.start(0)
    again = running.try_finished("cccc", State.FAIL, 0).run
    assert [(run.job_id, run.sequence_try) for run in again] == [("aaaa", 2)]


def test_the_timeout_of_a_sequence_begins_anew_with_a_retry() -> None:
    chain = a_chain()
    chain.jobs["aaaa"].sequence_timeout = "10s"
    running = start_from(retried_chain(chain, a_failed_record(), "second"))
    assert [timer.nanoseconds for timer in running.start(0).timers] == [10_000_000_000]
