"""The chain of a sequence with `finally`: a sequence around both parts, with ordinary edges and a flag."""

from __future__ import annotations

from collections import Counter

import pytest

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.job_paths import path_of
from spincycle_grpc.render.labels import sequence_title
from spincycle_grpc.v1.job_pb2 import Job, JobChain
from spincycle_server.capabilities import FINALLY
from spincycle_server.graph.builder import BuiltRequest, ChainBuilder
from spincycle_server.job_factories import combine
from spincycle_server.specs.parser import parse_specs
from tests.graph.chains import assert_sound, one, parents_of

SPECS = """
sequences:
  roll:
    request: true
    args: {required: [{name: hosts, desc: hosts}]}
    nodes:
      each: {category: sequence, type: host, each: ["hosts:host"], retry: 2, timeout: 1h}
    finally:
      tell: {category: job, type: noop}
  host:
    args: {required: [{name: host, desc: a host}]}
    nodes:
      drain: {category: job, type: noop, args: [{expected: host}]}
    finally:
      undrain: {category: job, type: noop, args: [{expected: host}], retry: 1}
      check: {category: job, type: noop, deps: [undrain]}
    finallyTimeout: 5m
  plain:
    request: true
    nodes:
      only: {category: job, type: noop}
  nested:
    request: true
    nodes:
      only: {category: job, type: noop}
    finally:
      bad: {category: sequence, type: host, args: [{expected: host, given: host}]}
    args: {static: [{name: host, default: a}]}
"""


def built(kind: str, **args: object) -> BuiltRequest:
    builder = ChainBuilder(parse_specs({"a.yaml": SPECS.encode()}).specs, combine(()))
    return builder.build(kind, args, "request")


@pytest.fixture
def chain() -> JobChain:
    return built("roll", hosts=["web1", "web2"]).job_chain


def finals(chain: JobChain) -> list[Job]:
    """Returns the first jobs of the `finally` parts."""
    return [
        job
        for job in chain.jobs.values()
        if job.is_finally and job.id == job.sequence_id and not chain.jobs[job.parent_sequence_id].is_finally
    ]


def test_the_chain_is_sound_and_its_parts_are_beside_each_other(chain: JobChain) -> None:
    assert_sound(chain)
    parts = finals(chain)
    assert sorted(part.sequence_timeout for part in parts) == ["30m", "5m", "5m"]
    for part in parts:
        (before,) = parents_of(chain)[part.id]
        body = chain.jobs[chain.jobs[before].sequence_id]
        assert body.parent_sequence_id == part.parent_sequence_id != ""
        assert not body.is_finally
        around = chain.jobs[part.parent_sequence_id]
        assert (around.sequence_retry, around.sequence_timeout, part.sequence_retry) == (0, "", 0)


def test_the_sequence_keeps_its_retries_and_its_timeout(chain: JobChain) -> None:
    retried = [job for job in chain.jobs.values() if job.sequence_retry]
    assert [(job.sequence_retry, job.sequence_timeout) for job in retried] == [(2, "1h")] * 2


def test_what_follows_needs_both_parts(chain: JobChain) -> None:
    parents = parents_of(chain)
    for part in finals(chain):
        (body_last,) = parents[part.id]
        (after,) = [one for one in chain.adjacency_list[body_last].ids if one != part.id]
        assert len(parents[after]) == 2


def test_paths_name_the_sequence_once(chain: JobChain) -> None:
    paths = {path_of(chain, job_id) for job_id in chain.jobs} - {()}
    assert paths == {
        ("roll", "host web1", "drain"),
        ("roll", "host web1", "finally", "undrain"),
        ("roll", "host web1", "finally", "check"),
        ("roll", "host web2", "drain"),
        ("roll", "host web2", "finally", "undrain"),
        ("roll", "host web2", "finally", "check"),
        ("roll", "finally", "tell"),
    }


def test_finally_needs_a_runner_that_knows_it() -> None:
    assert FINALLY in built("roll", hosts=["a"]).requirement.features
    plain = built("plain")
    assert not plain.requirement.features
    assert not any(job.is_finally for job in plain.job_chain.jobs.values())
    assert one(plain.job_chain, "only")


def test_a_finally_in_a_finally_is_refused() -> None:
    with pytest.raises(SpinCycleError, match="calls a sequence with a 'finally'"):
        built("nested")


def test_the_views_of_a_chain_name_both_parts(chain: JobChain) -> None:
    begins = [job for job in chain.jobs.values() if job.id == job.sequence_id]
    names = Counter(sequence_title(job, chain) for job in begins)
    assert names == {"roll": 1, "nodes": 3, "finally": 3, "host web1": 1, "host web2": 1}
