"""The chain with which a retry of a request starts, and how such a chain begins to run.

The chain of a retry has jobs that are COMPLETE before it starts. They keep the data that they passed on, and
never run. So the chain as created says all about how the retry begins: no counter is stored beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spincycle_grpc.state import State
from spincycle_grpc.structs import to_struct
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_pb2 import JobChain, SuspendedJobChain
from spincycle_grpc.v1.runner_reports_pb2 import TryReport
from spincycle_server.chain.linked_chain import ChainJob
from spincycle_server.chain.linking import link_chain
from spincycle_server.chain.records import replay
from spincycle_server.chain.suspension import restore


def begun_sequences(chain: JobChain) -> dict[str, int]:
    """Returns the sequences that have begun before a chain starts, each with 1: their first try goes on."""
    return {
        job_id: 1
        for job_id, job in chain.jobs.items()
        if job.sequence_id == job_id and job.state == state_pb2.STATE_COMPLETE
    }


def start_of(chain: JobChain) -> SuspendedJobChain:
    """Returns the suspended chain with which the chain of a retry starts."""
    return SuspendedJobChain(
        request_id=chain.request_id, job_chain=chain, sequence_tries=begun_sequences(chain)
    )


def retried_chain(
    chain: JobChain, records: Iterable[tuple[int, TryReport]], request_id: str, first: str = ""
) -> JobChain:
    """Returns the chain with which the retry of a request starts.

    The jobs that are COMPLETE in the record stay COMPLETE with their data. All others are PENDING. So are the
    `finally` parts of sequences that are not complete, because they run again after these.

    Args:
        chain: The chain of the request as created. It may be the chain of a retry.
        records: The finished tries of the request, see `RunningChain.rebuilt`.
        request_id: The id of the retry.
        first: The id of a job that is PENDING too, with all jobs after it; "" for none.

    Raises:
        InvalidArgumentError: The record does not fit the chain. Reason: INVALID_JOB_CHAIN.
    """
    linked = link_chain(chain)
    if chain.finished_jobs:
        restore(start_of(chain), linked)
    tries = list(records)
    replay(linked, tries, chain.request_id)
    jobs = linked.jobs
    again = _from(jobs[first]) if first else {}
    for final in linked.finals:
        if not final.body.is_complete():
            again |= {job.id: job for job in final.jobs}
    kept = {one.id for one in jobs.values() if one.state is State.COMPLETE and one.id not in again}
    data = {job_id: one.data for job_id, one in jobs.items() if job_id not in again}
    data |= _passed_on(jobs, kept, again, _completion_order(kept, tries))
    retried = JobChain()
    retried.CopyFrom(chain)
    retried.request_id = request_id
    retried.state = state_pb2.STATE_PENDING
    retried.finished_jobs = len(kept)
    for job_id, job in retried.jobs.items():
        job.state = state_pb2.STATE_COMPLETE if job_id in kept else state_pb2.STATE_PENDING
        job.ClearField("data")
        if data[job_id]:
            job.data.CopyFrom(to_struct(data[job_id], "data"))
    return retried


def _from(first: ChainJob) -> dict[str, ChainJob]:
    """Returns a job and all jobs after it, by id."""
    found = {first.id: first}
    stack = [first]
    while stack:
        for child in stack.pop().children:
            if child.id not in found:
                found[child.id] = child
                stack.append(child)
    return found


def _completion_order(kept: set[str], tries: Sequence[tuple[int, TryReport]]) -> list[str]:
    """Returns the kept jobs in the order in which they became COMPLETE.

    Those of earlier requests are first. Nothing says in which order those were COMPLETE, so ids decide.
    """
    last = {tried.entry.job_id: place for place, (_, tried) in enumerate(tries)}
    return sorted(kept, key=lambda job_id: (last.get(job_id, -1), job_id))


def _passed_on(
    jobs: Mapping[str, ChainJob], kept: set[str], again: Mapping[str, ChainJob], order: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Returns the data of jobs that run again: what the kept jobs before them have passed on."""
    data: dict[str, dict[str, Any]] = {job_id: {} for job_id in again}
    for parent_id in order if again else ():
        parent = jobs[parent_id]
        for child in (*parent.children, *parent.sequence.receivers):
            if child.id in again:
                data[child.id].update(parent.data)
    return data
