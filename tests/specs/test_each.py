"""The linter and the builder agree on every `each`: the builder refuses what the linter calls an error."""

from __future__ import annotations

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from spincycle_grpc.errors import InternalError, SpinCycleError
from spincycle_server.graph import ChainBuilder
from spincycle_server.specs.each import EachPair, each_pairs, parse_each_pair
from spincycle_server.specs.linter import lint
from spincycle_server.specs.model import NodeSpec
from spincycle_server.specs.problems import Severity
from tests.graph.job_types import factory
from tests.graph.models import node, sequence, specs

NAMES = st.sampled_from(["xs", "ys", "x", "y", "a", ""])
TEXTS = st.lists(NAMES, min_size=1, max_size=3).map(":".join) | st.text(alphabet="xy:", max_size=4)
LISTS = {name: ["p", "q"] for name in ("xs", "ys", "x", "y", "a", "xy", "yx", "xx", "yy", "xyx", "yxy")}


def lint_errors(spec: NodeSpec) -> list[str]:
    request = sequence("request", spec, request=True, required=sorted(LISTS))
    return [one.code for one in lint(specs(request), None) if one.severity is Severity.ERROR]


def build_error(spec: NodeSpec) -> SpinCycleError | None:
    builder = ChainBuilder(specs(sequence("request", spec, request=True)), factory)
    try:
        builder.build("request", LISTS, "")
    except SpinCycleError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("xs:x", EachPair("xs", "x")),
        ("xs:b:c", None),
        ("xs", None),
        ("xs:", None),
        (":x", None),
        (":", None),
        ("", None),
    ],
)
def test_a_pair_is_one_list_and_one_element(text: str, pair: EachPair | None) -> None:
    assert parse_each_pair(text) == pair
    assert each_pairs(node("n", each=[text])) == ([pair] if pair else [])


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        (node("n", each=["xs:b:c"]), "BAD_EACH"),
        (node("n", each=["xs"]), "BAD_EACH"),
        (node("n", each=["xs:x", "ys:x"]), "DUPLICATE_ELEMENT"),
        (node("n", args={"x": "a"}, each=["xs:x"]), "ELEMENT_IS_ARG"),
    ],
)
def test_the_builder_refuses_an_each_that_the_linter_refuses(spec: NodeSpec, code: str) -> None:
    assert lint_errors(spec) == [code]
    error = build_error(spec)
    assert isinstance(error, InternalError)
    assert error.reason == "BAD_SPEC"
    assert "in seq sequence_request, node n: invalid 'each:' each:[" in str(error)


@given(
    each=st.lists(TEXTS, min_size=1, max_size=3),
    expected=st.sets(st.sampled_from(["x", "y"])),
)
def test_the_linter_and_the_builder_accept_the_same_each(each: list[str], expected: set[str]) -> None:
    spec = node("n", "job", "noop", args=dict.fromkeys(sorted(expected), "a"), each=each)
    refused = lint_errors(spec)
    error = build_error(spec)
    event(f"refused: {refused[0] if refused else 'no'}")
    if refused:
        assert error is not None
        assert error.reason == "BAD_SPEC"
    else:
        assert error is None
