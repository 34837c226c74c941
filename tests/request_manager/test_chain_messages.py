"""Serialized chains parse to the messages that they stand for."""

from __future__ import annotations

import pytest

from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_pb2 import Job, JobChain, SuspendedJobChain
from spincycle_grpc.v1.job_runner_pb2 import AssignedJobChain, StartJobChainsRequest
from spincycle_grpc.v1.runner_reports_pb2 import Assignment
from spincycle_server.request_manager.chain_messages import (
    first_chain,
    new_chain,
    resumed_chain,
    start_request,
)

SIZES = (0, 1, 120, 127, 128, 129, 16_383, 16_384, 2_100_000)
"""Bytes of a job, around the sizes at which the varint of the length grows by a byte."""


def a_chain(size: int) -> JobChain:
    chain = JobChain(request_id="a")
    if size:
        chain.jobs["0000"].CopyFrom(Job(id="0000", bytes=b"x" * size))
    return chain


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("epoch", [0, 1, 300])
def test_a_serialized_chain_parses_to_its_message(size: int, epoch: int) -> None:
    chain, suspended = a_chain(size), SuspendedJobChain(request_id="a", job_chain=a_chain(size))
    assert AssignedJobChain.FromString(new_chain(epoch, chain)) == AssignedJobChain(
        epoch=epoch, job_chain=chain
    )
    assignment = Assignment(request_id="a", epoch=epoch, ending=state_pb2.STATE_STOPPED)
    assert AssignedJobChain.FromString(resumed_chain(assignment, suspended)) == AssignedJobChain(
        epoch=epoch, suspended_job_chain=suspended, ending=state_pb2.STATE_STOPPED
    )


@pytest.mark.parametrize("size", SIZES)
def test_the_chain_of_a_retry_is_sent_as_a_suspended_chain_in_its_first_tries(size: int) -> None:
    chain = a_chain(size)
    assert first_chain(7, chain) == new_chain(7, chain)
    chain.finished_jobs = 1
    chain.jobs["aaaa"].CopyFrom(Job(id="aaaa", sequence_id="aaaa", state=state_pb2.STATE_COMPLETE))
    chain.jobs["bbbb"].CopyFrom(Job(id="bbbb", sequence_id="aaaa", state=state_pb2.STATE_COMPLETE))
    chain.jobs["cccc"].CopyFrom(Job(id="cccc", sequence_id="cccc", state=state_pb2.STATE_PENDING))
    suspended = SuspendedJobChain(request_id="a", job_chain=chain, sequence_tries={"aaaa": 1})
    assert AssignedJobChain.FromString(first_chain(7, chain)) == AssignedJobChain(
        epoch=7, suspended_job_chain=suspended
    )


def test_an_empty_chain_is_set() -> None:
    assigned = AssignedJobChain.FromString(new_chain(1, JobChain()))
    assert assigned.WhichOneof("chain") == "job_chain"


@pytest.mark.parametrize("runner_id", ["", "r1"])
@pytest.mark.parametrize("chains", [0, 1, 3])
def test_a_serialized_request_parses_to_its_message(runner_id: str, chains: int) -> None:
    messages = [AssignedJobChain(epoch=1, job_chain=a_chain(size)) for size in SIZES[:chains]]
    data = start_request(runner_id, [message.SerializeToString() for message in messages])
    assert StartJobChainsRequest.FromString(data) == StartJobChainsRequest(
        runner_id=runner_id, chains=messages
    )
