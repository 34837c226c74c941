"""The keys of a request's limits, computed from its args."""

from __future__ import annotations

import pytest

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.v1 import limit_pb2
from spincycle_grpc.v1.limit_pb2 import Limit
from spincycle_server.builtin_jobs import builtin_factory
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
