"""The keys of limits, computed from args: those of a request and those of the sequences in it."""

from __future__ import annotations

import pytest

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.job_paths import sequence_path_of
from spincycle_grpc.render.labels import sequence_limits
from spincycle_grpc.v1 import limit_pb2
from spincycle_grpc.v1.limit_pb2 import Limit
from spincycle_server.builtin_jobs import builtin_factory
from spincycle_server.capabilities import SEQUENCE_LIMITS
from spincycle_server.graph import ChainBuilder
from spincycle_server.specs.parser import parse_specs

SPECS = b"""
sequences:
  s:
    request: true
    limits:
      - {key: "cluster/{cluster}/{zone}", max: 2}
      - {key: "all", policy: refuse}
      - {key: "cluster/{cluster}/b", policy: replace}
    args:
      required: [{name: cluster}]
      optional: [{name: zone, default: a}]
    nodes:
      n: {category: job, type: noop}
  plain:
    request: true
    nodes:
      n: {category: job, type: noop}
"""


@pytest.fixture
def builder() -> ChainBuilder:
    return ChainBuilder(parse_specs({"a.yaml": SPECS}).specs, builtin_factory)


def keys_of(builder: ChainBuilder, **args: object) -> list[str]:
    return [limit.key for limit in builder.build("s", args, "").job_chain.limits]


def test_a_chain_has_the_keys_of_its_request(builder: ChainBuilder) -> None:
    chain = builder.build("s", {"cluster": "x"}, "").job_chain
    assert list(chain.limits) == [
        Limit(key="cluster/x/a", max=2, policy=limit_pb2.LIMIT_POLICY_QUEUE),
        Limit(key="all", max=1, policy=limit_pb2.LIMIT_POLICY_REFUSE),
        Limit(key="cluster/x/b", max=1, policy=limit_pb2.LIMIT_POLICY_REPLACE),
    ]
    assert not builder.build("plain", {}, "").job_chain.limits


@pytest.mark.parametrize(
    ("value", "text"), [("", ""), (7, "7"), (7.0, "7"), (0.5, "0.5"), (True, "true"), ("ü b", "ü b")]
)
def test_a_key_has_the_text_of_a_value(builder: ChainBuilder, value: object, text: str) -> None:
    assert keys_of(builder, cluster=value)[0] == f"cluster/{text}/a"


def test_limits_with_the_same_key_are_one(builder: ChainBuilder) -> None:
    assert keys_of(builder, cluster="x", zone="b") == ["cluster/x/b", "all"]


@pytest.mark.parametrize("value", [["x"], {"x": 1}, None, "x" * 200, "a\nb"])
def test_other_values_are_refused(builder: ChainBuilder, value: object) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        keys_of(builder, cluster=value)
    assert refused.value.reason == "BAD_LIMIT_KEY"


NESTED = b"""
sequences:
  roll:
    request: true
    limits: [{key: "roll/{name}"}]
    args:
      required: [{name: hosts}]
      optional: [{name: name, default: a}]
    nodes:
      all: {category: sequence, type: host, each: ["hosts:host"], args: [{expected: name}], retry: 1}
    finally:
      end: {category: sequence, type: plain}
  host:
    limits:
      - {key: "host/{host}", max: 2, policy: replace}
      - {key: "roll/{name}"}
    args: {required: [{name: host}, {name: name}]}
    nodes:
      work: {category: job, type: noop, args: [{expected: host}]}
      inner: {category: sequence, type: plain, deps: [work]}
    finally:
      undo: {category: job, type: noop}
  plain:
    limits: [{key: all, policy: refuse}]
    nodes:
      n: {category: job, type: noop}
  free:
    request: true
    nodes:
      n: {category: job, type: noop}
"""


def test_the_first_job_of_a_called_sequence_has_its_limits() -> None:
    builder = ChainBuilder(parse_specs({"a.yaml": NESTED}).specs, builtin_factory)
    built = builder.build("roll", {"hosts": ["x", "y"]}, "request")
    chain = built.job_chain
    assert [limit.key for limit in chain.limits] == ["roll/a"]
    keys = {
        sequence_path_of(chain, job_id): [limit.key for limit in job.sequence_limits]
        for job_id, job in chain.jobs.items()
        if job.sequence_limits
    }
    assert keys == {
        ("roll", "host x"): ["host/x", "roll/a"],
        ("roll", "host x", "inner"): ["all"],
        ("roll", "host y"): ["host/y", "roll/a"],
        ("roll", "host y", "inner"): ["all"],
        ("roll", "finally", "end"): ["all"],
    }
    assert {limit.policy for job in chain.jobs.values() for limit in job.sequence_limits} == {
        limit_pb2.LIMIT_POLICY_REPLACE,
        limit_pb2.LIMIT_POLICY_QUEUE,
        limit_pb2.LIMIT_POLICY_REFUSE,
    }
    assert SEQUENCE_LIMITS in built.requirement.features
    assert SEQUENCE_LIMITS not in builder.build("free", {}, "").requirement.features
    titles = [sequence_limits(job, chain) for job in chain.jobs.values() if job.sequence_limits]
    assert ["at most 2 with host/x, replaces others", "at most 1 with roll/a"] in titles


def test_the_limits_of_a_sequence_with_a_finally_belong_to_the_sequence_around_both() -> None:
    builder = ChainBuilder(parse_specs({"a.yaml": NESTED}).specs, builtin_factory)
    chain = builder.build("roll", {"hosts": ["x", "y"]}, "request").job_chain
    jobs = chain.jobs.values()
    around = next(job for job in jobs if any(one.key == "host/x" for one in job.sequence_limits))
    inside = [job for job in jobs if job.id == job.sequence_id and job.parent_sequence_id == around.id]
    assert sorted(job.is_finally for job in inside) == [False, True]
    assert [job.sequence_retry for job in inside if not job.is_finally] == [1]
    assert not around.sequence_retry


def test_a_bad_value_in_the_key_of_a_called_sequence_is_refused() -> None:
    builder = ChainBuilder(parse_specs({"a.yaml": NESTED}).specs, builtin_factory)
    with pytest.raises(InvalidArgumentError) as refused:
        builder.build("roll", {"hosts": ["x", ["y"]]}, "")
    assert refused.value.reason == "BAD_LIMIT_KEY"
    assert "host" in refused.value.message
