"""The field `runner` of a request: the labels that a runner must have."""

from __future__ import annotations

import pytest

from spincycle_server.specs.linter import lint
from spincycle_server.specs.parser import parse_specs


def told(runner: str, *, request: str = "true") -> list[str]:
    """Returns the codes and severities of the problems of specs with a field `runner`."""
    text = (
        f"sequences:\n  s:\n    request: {request}\n    runner: {runner}\n"
        "    nodes:\n      n: {category: job, type: noop}\n"
    )
    result = parse_specs({"a.yaml": text.encode()})
    problems = result.problems or lint(result.specs, None)
    return [f"{problem.severity.value} {problem.code}: {problem.message}" for problem in problems]


def test_labels_are_read_as_texts() -> None:
    text = "sequences:\n  s: {request: true, runner: {zone: a, gpu: yes, rack: 7}}\n"
    sequence = parse_specs({"a.yaml": text.encode()}).specs.sequences["s"]
    assert sequence.runner == {"zone": "a", "gpu": "yes", "rack": "7"}


def test_a_sequence_without_labels_needs_none() -> None:
    for runner in ("", "{}", "null"):
        text = f"sequences:\n  s:\n    request: true\n    runner: {runner}\n"
        assert parse_specs({"a.yaml": text.encode()}).specs.sequences["s"].runner == {}


@pytest.mark.parametrize("runner", ["[zone]", "a", "{zone: [a]}", "{zone: {a: b}}"])
def test_labels_of_another_form_are_an_error(runner: str) -> None:
    assert [one.split(":")[0] for one in told(runner)] == ["error WRONG_TYPE"]


@pytest.mark.parametrize(
    "runner", ["{zone: }", "{'': a}", "{a b: c}", "{zone: 'a b'}", f"{{zone: {'x' * 64}}}"]
)
def test_malformed_labels_are_an_error(runner: str) -> None:
    assert [one.split(":")[0] for one in told(runner)] == ["error BAD_LABEL"]


def test_labels_of_a_sequence_that_is_not_a_request_are_a_warning() -> None:
    assert "warning UNUSED_RUNNER" in [one.split(":")[0] for one in told("{zone: a}", request="false")]
    assert told("{zone: a}") == []
