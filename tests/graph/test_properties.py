"""Generated specs: chains are sound and equal to those of a slow, simple builder."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings

from spincycle_grpc.errors import InternalError, InvalidArgumentError, SpinCycleError
from spincycle_grpc.job_paths import connects, path_of
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_server.graph import ChainBuilder, job_ids
from tests.graph.chains import assert_sound, same_graph
from tests.graph.generated import Written, broken_requests, written_requests
from tests.graph.job_types import factory
from tests.graph.slow_builder import RefusedError, SlowBuilder

MOST_JOBS_TO_COMPARE = 250
THE_CALLERS_FAULT = {
    "UNKNOWN_REQUEST_TYPE", "NOT_A_REQUEST", "STATIC_ARG_GIVEN", "BAD_EACH", "BAD_IF",
}  # fmt: skip

slowly = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def build(written: Written, seed: int = 1) -> JobChain:
    builder = ChainBuilder(written.specs, factory)
    return builder.build("request", written.given, "", ids=job_ids(Random(seed))).job_chain


def build_slowly(written: Written) -> tuple[JobChain | None, str]:
    """Returns the chain of the slow builder, or the reason of its error."""
    try:
        return SlowBuilder(written.specs, factory).build("request", written.given), ""
    except RefusedError as error:
        return None, error.reason


@slowly
@given(written_requests())
def test_valid_specs_build_a_sound_chain(written: Written) -> None:
    assert_sound(build(written))


@slowly
@given(written_requests())
def test_the_slow_builder_builds_the_same_chain(written: Written) -> None:
    chain = build(written)
    if len(chain.jobs) <= MOST_JOBS_TO_COMPARE:
        assert same_graph(chain, SlowBuilder(written.specs, factory).build("request", written.given))


@slowly
@given(written_requests())
def test_paths_are_those_of_the_slow_builder(written: Written) -> None:
    chain = build(written)
    if len(chain.jobs) > MOST_JOBS_TO_COMPARE:
        return
    slow = SlowBuilder(written.specs, factory)
    slow.build("request", written.given)
    expected = sorted(slow.paths)
    if not chain.path_labels:
        assert all(len(path) == 2 for path in expected)
        expected = [()] * len(expected)
    jobs = [job_id for job_id, job in chain.jobs.items() if not connects(job)]
    assert sorted(path_of(chain, job_id) for job_id in jobs) == expected


@slowly
@given(broken_requests())
def test_the_slow_builder_refuses_the_same_for_the_same_reason(written: Written) -> None:
    expected, reason = build_slowly(written)
    if expected is None:
        by_caller = reason in THE_CALLERS_FAULT
        with pytest.raises(InvalidArgumentError if by_caller else SpinCycleError) as caught:
            build(written)
        assert caught.value.reason == reason
        assert by_caller or reason == "REQUIRED_ARG_MISSING" or isinstance(caught.value, InternalError)
        return
    chain = build(written)
    if len(chain.jobs) <= MOST_JOBS_TO_COMPARE:
        assert same_graph(chain, expected)


@slowly
@given(written_requests())
def test_equal_ids_give_equal_chains_even_from_a_used_builder(written: Written) -> None:
    builder = ChainBuilder(written.specs, factory)
    chains = [builder.build("request", written.given, "", ids=job_ids(Random(7))).job_chain for _ in range(2)]
    assert chains[0] == chains[1] == build(written, seed=7)
