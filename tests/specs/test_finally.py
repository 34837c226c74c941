"""The field `finally` of a sequence: nodes that see all its args, and what they may not be or call."""

from __future__ import annotations

import pytest

from spincycle_server.specs.linter import lint
from spincycle_server.specs.parser import parse_specs

NOOP = "{category: job, type: noop}"


def told(final: str, *, timeout: str = "", more: str = "") -> list[str]:
    """Returns the codes and severities of the problems of specs with a field `finally`."""
    text = (
        "sequences:\n  s:\n    request: true\n    args: {required: [{name: host, desc: a host}]}\n"
        "    nodes:\n"
        "      take: {category: job, type: take, args: [{expected: host}], sets: [{arg: lock}]}\n"
        f"    finally: {final}\n" + (f"    finallyTimeout: {timeout}\n" if timeout else "") + more
    )
    result = parse_specs({"a.yaml": text.encode()})
    problems = result.problems or lint(result.specs, None)
    return [f"{problem.severity.value} {problem.code}" for problem in problems]


@pytest.mark.parametrize(
    "final",
    [
        f"{{a: {NOOP}}}",
        "{a: {category: job, type: give, args: [{expected: lock}]}}",
        f"{{a: {NOOP}, b: {{category: job, type: noop, deps: [a], retry: 2, retryWait: 1s}}}}",
    ],
)
def test_finally_has_nodes_that_see_all_args(final: str) -> None:
    assert told(final, timeout="10m") == []


@pytest.mark.parametrize(
    ("final", "code"),
    [
        ("{}", "NO_FINALLY_NODES"),
        ("[]", "WRONG_TYPE"),
        (f"{{take: {NOOP}}}", "DUPLICATE_NODE"),
        ("{a: {category: approval, roles: [dba]}}", "APPROVAL_IN_FINALLY"),
        ("{a: {category: job, type: noop, deps: [take]}}", "UNKNOWN_DEP"),
        ("{a: {category: job, type: noop, deps: [a]}}", "DEP_CIRCLE"),
        ("{a: {category: job, type: noop, args: [{expected: nothing}]}}", "MISSING_ARG"),
        ("{a: {category: sequence, type: s, args: [{expected: host}]}}", "SEQUENCE_CIRCLE"),
        ("{a: {category: sequence, type: nothing}}", "UNKNOWN_SEQUENCE"),
        ("{a: {category: job}}", "MISSING_TYPE"),
    ],
)
def test_the_linter_finds_faulty_nodes(final: str, code: str) -> None:
    assert f"error {code}" in told(final)


@pytest.mark.parametrize("timeout", ["0s", "soon", "-1m"])
def test_the_time_limit_is_a_positive_duration(timeout: str) -> None:
    assert told(f"{{a: {NOOP}}}", timeout=timeout) == ["error BAD_DURATION"]


def test_a_time_limit_needs_finally() -> None:
    text = (
        "sequences:\n  s:\n    request: true\n    nodes:\n      n: {category: job, type: noop}\n"
        "    finallyTimeout: 1m\n"
    )
    problems = lint(parse_specs({"a.yaml": text.encode()}).specs, None)
    assert [problem.code for problem in problems] == ["TIMEOUT_WITHOUT_FINALLY"]


@pytest.mark.parametrize(
    "inner",
    [
        f"    nodes: {{n: {NOOP}}}\n    finally: {{f: {NOOP}}}\n",
        "    nodes: {n: {category: approval, roles: [dba]}}\n",
        "    nodes: {n: {category: sequence, type: deeper}}\n"
        f"  deeper:\n    nodes: {{n: {NOOP}}}\n    finally: {{f: {NOOP}}}\n",
    ],
)
def test_finally_calls_no_sequence_that_could_not_end(inner: str) -> None:
    final = "{a: {category: sequence, type: inner}}"
    assert told(final, more=f"  inner:\n{inner}") == ["error NESTED_FINALLY"]


def test_what_only_finally_sets_is_not_there_before() -> None:
    text = """
sequences:
  s:
    request: true
    nodes:
      use: {category: job, type: use, args: [{expected: late}]}
    finally:
      set: {category: job, type: set, sets: [{arg: late}]}
"""
    problems = lint(parse_specs({"a.yaml": text.encode()}).specs, None)
    assert [(problem.code, problem.node) for problem in problems] == [("MISSING_ARG", "use")]
