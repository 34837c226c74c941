"""Every recorded request builds the same graph, or the same error, except for documented differences."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spincycle_grpc.errors import InternalError, InvalidArgumentError, SpinCycleError
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.wire import decode
from spincycle_server.graph import BuiltRequest, ChainBuilder
from spincycle_server.job_factories import combine
from spincycle_server.specs.parser import parse_specs
from tests.fixture_jobs import factory
from tests.graph.chains import assert_sound, same_graph
from tests.reference.recordings import CASES, SPECS

BUILT = [case for case in CASES if case.get("request")]
REFUSED = [case for case in CASES if not case.get("request") and "'noop'" not in case["response"]["message"]]
BUILT_HERE = [case for case in CASES if "'noop'" in case.get("response", {}).get("message", "")]
"""The sequence noop is built in, as the original's documentation says, though the original has none."""

CALLERS_FAULT = ("required arg", "cannot find definition", "invalid 'each:'", "'if")
"""Errors that are the caller's fault, so they are 400 here, where the original answers 500."""


def name_of(case: dict[str, Any]) -> str:
    return f"{case['create']['type']} {json.dumps(case['create'].get('args'))}"[:60]


@pytest.fixture(scope="module")
def builder() -> ChainBuilder:
    parsed = parse_specs({path.name: path.read_bytes() for path in SPECS.glob("*.yaml")})
    assert not parsed.problems
    return ChainBuilder(parsed.specs, combine([factory]))


def build(builder: ChainBuilder, case: dict[str, Any]) -> BuiltRequest:
    create = case["create"]
    return builder.build(create["type"], create.get("args") or {}, "")


@pytest.mark.parametrize("case", BUILT, ids=name_of)
def test_builds_the_recorded_chain(builder: ChainBuilder, case: dict[str, Any]) -> None:
    recorded = decode(json.dumps(case["request"]).encode(), Request)
    built = build(builder, case)
    assert_sound(built.job_chain)
    assert same_graph(built.job_chain, recorded.job_chain, with_parents=False)
    assert list(built.request.args) == list(recorded.args)
    assert len(built.job_chain.jobs) == recorded.total_jobs


@pytest.mark.parametrize("case", REFUSED, ids=name_of)
def test_refuses_as_recorded(builder: ChainBuilder, case: dict[str, Any]) -> None:
    with pytest.raises(SpinCycleError) as caught:
        build(builder, case)
    assert caught.value.message == case["response"]["message"]
    by_caller = any(part in caught.value.message for part in CALLERS_FAULT) or "not a request" in str(
        caught.value
    )
    assert isinstance(caught.value, InvalidArgumentError if by_caller else InternalError)


@pytest.mark.parametrize("case", BUILT_HERE, ids=name_of)
def test_the_built_in_noop_sequence(builder: ChainBuilder, case: dict[str, Any]) -> None:
    chain = build(builder, case).job_chain
    assert_sound(chain)
    assert {job.type for job in chain.jobs.values()} <= {"noop", "echo"}
