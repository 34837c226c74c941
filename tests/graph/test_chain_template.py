"""Chains that are made from templates are those that the expander makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings

from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.trace_context import TraceContext
from spincycle_grpc.wire import encode
from spincycle_server.graph import chain_template, job_ids
from spincycle_server.graph.builder import BuiltRequest, ChainBuilder
from spincycle_server.graph.chain_texts import PREFIXES, ChainTexts
from spincycle_server.graph.plan import Plans
from spincycle_server.specs.model import NodeSpec, Specs
from spincycle_server.specs.parser import parse_specs
from tests.graph.generated import Written, broken_requests, written_requests
from tests.graph.job_types import factory
from tests.graph.models import node, sequence, specs

SPECS = """
sequences:
  roll:
    request: true
    timeout: 3h
    args:
      required: [{name: host, desc: a host}]
      optional: [{name: size, desc: its size, default: small}]
    nodes:
      drain:
        {category: sequence, type: drain, args: [{expected: name, given: host}], sets: [{arg: out, as: old}],
         retry: 2}
      stop:
        {category: job, type: keep, args: [{expected: old}, {expected: size}], deps: [drain], retry: 1,
         retryWait: 5s}
    finally:
      undrain:
        {category: sequence, type: drain, args: [{expected: name, given: old}],
         sets: [{arg: out, as: ignored}]}
      tell: {category: job, type: noop, deps: [undrain]}
    finallyTimeout: 5m
  drain:
    args:
      required: [{name: name, desc: a host}]
      static: [{name: mode, default: slow}]
    nodes:
      first:
        {category: job, type: 'set "drained"', args: [{expected: name}, {expected: mode}],
         sets: [{arg: out}]}
      later: {category: job, type: keep, args: [{expected: out}], deps: [first], timeout: 30s}
"""

slowly = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def build(written: Specs, given: Mapping[str, Any], *, seed: int = 1, **named: Any) -> BuiltRequest:
    """Builds the request `request` or `roll`, twice, because the first build makes the template."""
    builder = ChainBuilder(written, factory)
    request = "request" if "request" in written.sequences else "roll"
    builder.build(request, given, "first", ids=job_ids(Random(0)))
    return builder.build(request, given, "b0c1d2", ids=job_ids(Random(seed)), **named)


def build_without_template(written: Specs, given: Mapping[str, Any], **named: Any) -> BuiltRequest:
    with patch.object(chain_template, "LARGEST", 0):
        return build(written, given, **named)


def built_or_refused(
    how: Callable[..., BuiltRequest], written: Specs, given: Mapping[str, Any]
) -> BuiltRequest | tuple[str, str]:
    """Returns what is built, or the reason and the message of its error."""
    try:
        return how(written, given)
    except SpinCycleError as error:
        return error.reason, error.message


def has_template(written: Specs, given: Mapping[str, Any]) -> bool:
    plans = Plans(written)
    request = written.sequences["request" if "request" in written.sequences else "roll"]
    return chain_template.Templates(plans, 1000).of(request, given) is not None


def assert_same(made: BuiltRequest, expected: BuiltRequest) -> None:
    assert made == replace(expected, chain_json=made.chain_json)
    assert made.chain_json() == expected.chain_json() == encode(made.job_chain)


def without_decisions(spec: NodeSpec) -> NodeSpec:
    """Returns a node whose jobs do not depend on the values of args."""
    plain = replace(spec, each=(), parallel=None, window="", stop_after_failures=None)
    if spec.category != "conditional":
        return plain
    return replace(plain, category="job", type="keep", if_arg="", eq={}, sets=())


def fixed(written: Written) -> Specs:
    """Returns specs of which some requests have a fixed shape. They may lack args that nodes need."""
    return Specs(
        {
            name: replace(one, nodes={key: without_decisions(inner) for key, inner in one.nodes.items()})
            for name, one in written.sequences.items()
        }
    )


@slowly
@given(written_requests() | broken_requests())
def test_all_requests_get_the_chain_of_the_expander_or_its_error(written: Written) -> None:
    for one in (written.specs, fixed(written)):
        made, expected = (
            built_or_refused(build, one, written.given),
            built_or_refused(build_without_template, one, written.given),
        )
        if isinstance(made, BuiltRequest) and isinstance(expected, BuiltRequest):
            assert_same(made, expected)
        else:
            assert made == expected


@slowly
@given(written_requests())
def test_a_request_without_decisions_has_a_template(written: Written) -> None:
    one = fixed(written)
    try:
        build_without_template(one, written.given)
    except SpinCycleError:
        return
    assert has_template(one, written.given)


@pytest.mark.parametrize("given", [{"host": "web1"}, {"host": {"<a>": ["é"]}, "size": 3, "more": None}])
def test_sequences_args_retries_and_a_finally(given: dict[str, Any]) -> None:
    written = parse_specs({"a.yaml": SPECS.encode()}).specs
    made = build(written, given)
    assert has_template(written, given)
    assert_same(made, build_without_template(written, given))
    assert sorted(job.name for job in made.job_chain.jobs.values() if job.type == "keep") == [
        "later", "later", "stop",
    ]  # fmt: skip


def test_each_build_creates_its_jobs_with_its_own_args() -> None:
    written = parse_specs({"a.yaml": SPECS.encode()}).specs
    builder = ChainBuilder(written, factory)
    made = [builder.build("roll", {"host": host}, f"id{host}") for host in ("web1", "web2")]
    for one, host in zip(made, ("web1", "web2"), strict=True):
        firsts = [job.bytes.decode() for job in one.job_chain.jobs.values() if job.name == "first"]
        assert sorted(firsts) == [
            '{"mode": "slow", "name": "drained"}',
            f'{{"mode": "slow", "name": "{host}"}}',
        ]
        assert one.job_chain.request_id == f"id{host}"
        assert one.chain_json() == encode(one.job_chain)
    assert set(made[0].job_chain.jobs).isdisjoint(made[1].job_chain.jobs)


def test_whether_an_arg_is_given_decides_about_the_template() -> None:
    """The node waits for an arg that another node sets if the caller does not give it."""
    takes = node("a", node_type="keep", args=["out"])
    sets = node("z", node_type='set "set"', sets=["out"], deps=[])
    written = specs(replace(sequence("request", takes, sets), request=True))
    for args in ({}, {"out": "given"}, {"out": "given", "unknown": 1}):
        assert_same(build(written, args), build_without_template(written, args))


def test_an_arg_with_a_default_needs_no_template_of_its_own() -> None:
    """Otherwise ten such args would make a thousand templates, and leave none for other requests."""
    written = parse_specs({"a.yaml": SPECS.encode()}).specs
    templates = chain_template.Templates(Plans(written), 1000)
    made = [templates.of(written.sequences["roll"], {"host": 1, **more}) for more in ({}, {"size": 2})]
    assert made[0] is not None
    assert made[0] is made[1]
    builder = ChainBuilder(written, factory)
    for args in ({"host": "a"}, {"host": "a", "size": 2}, {"host": "a"}):
        built = builder.build("roll", args, "b0c1d2", ids=job_ids(Random(1)))
        assert_same(built, build_without_template(written, args))


@pytest.mark.parametrize(
    "name",
    [
        "100%",
        "%s",
        "%(a)s",
        "<&>",
        "\u2028",
        "é",
        "a\nb",
        "\0",
        "QQ",
        *(f"{prefix}00" for prefix in PREFIXES[:3]),
    ],
)
def test_any_text_may_be_in_a_spec(name: str) -> None:
    inner = sequence(f"inner {name}", node(name, node_type="keep"))
    written = specs(inner, replace(sequence("request", node(name, "sequence", inner.name)), request=True))
    assert has_template(written, {})
    assert_same(build(written, {}), build_without_template(written, {}))


def test_a_traced_chain_has_its_trace_in_its_json() -> None:
    written = parse_specs({"a.yaml": SPECS.encode()}).specs
    trace = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1, "rojo=1")
    made = build(written, {"host": "a"}, trace=trace)
    assert made.job_chain.tracestate == "rojo=1"
    assert_same(made, build_without_template(written, {"host": "a"}, trace=trace))


@pytest.mark.parametrize(("most", "is_from_texts"), [(100, False), (100_000, True)])
def test_the_json_of_large_args_is_written_without_texts(
    monkeypatch: pytest.MonkeyPatch, most: int, is_from_texts: bool
) -> None:
    """The texts would need several copies of it, each made while no other thread runs."""
    written = parse_specs({"a.yaml": SPECS.encode()}).specs
    monkeypatch.setattr(chain_template, "MOST_CONTENT", most)
    with patch.object(ChainTexts, "json", autospec=True, side_effect=ChainTexts.json) as from_texts:
        made = build(written, {"host": "a" * 100})
        assert_same(made, build_without_template(written, {"host": "a" * 100}))
    assert from_texts.called is is_from_texts


def test_a_chain_with_too_many_jobs_is_refused() -> None:
    written = parse_specs({"a.yaml": SPECS.encode()}).specs
    with pytest.raises(SpinCycleError, match="more than 5 jobs") as caught:
        ChainBuilder(written, factory, max_jobs=5).build("roll", {"host": "a"}, "id")
    assert caught.value.reason == "TOO_MANY_JOBS"


def test_templates_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_template, "MOST_JOBS", 5)
    requests = [replace(sequence(name, node("only")), request=True) for name in ("a", "b", "c", "d")]
    templates = chain_template.Templates(Plans(specs(*requests)), 1000)
    made = [templates.of(request, {}) for request in requests]
    assert [one is not None for one in made] == [True, True, False, False]
    assert templates.of(requests[0], {}) is made[0]
