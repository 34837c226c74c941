"""The field `limits` of a request: keys with the values of args, how many may hold them, and the policy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spincycle_server.specs.limits import parse_key
from spincycle_server.specs.linter import lint
from spincycle_server.specs.parser import parse_specs


def told(limits: str, *, more: str = "") -> list[str]:
    """Returns the codes and severities of the problems of specs with a field `limits`."""
    text = (
        f"sequences:\n  s:\n    request: true\n    limits: {limits}\n"
        "    args: {required: [{name: cluster}]}\n"
        f"    nodes:\n      n: {{category: job, type: noop}}\n{more}"
    )
    result = parse_specs({"a.yaml": text.encode()})
    problems = result.problems or lint(result.specs, None)
    return [f"{problem.severity.value} {problem.code}" for problem in problems]


def test_an_arg_that_only_a_limit_uses_is_used() -> None:
    assert told('[{key: "cluster/{cluster}", max: 3, policy: replace}]') == []
    assert told("[{key: all}]") == ["warning UNUSED_ARG"]


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ('[{key: "{cluster}/{nobody}"}]', "UNKNOWN_LIMIT_ARG"),
        ('[{key: "{cluster}", policy: wait}]', "BAD_LIMIT_POLICY"),
        ('[{key: "{cluster}", max: 0}]', "BAD_LIMIT_MAX"),
        ('[{key: "{cluster}", max: 1001}]', "BAD_LIMIT_MAX"),
        ('[{max: 2}, {key: "{cluster}"}]', "MISSING_KEY"),
        ('[{key: "{cluster"}, {key: "{cluster}"}]', "BAD_LIMIT_KEY"),
        ('[{key: "a}"}, {key: "{cluster}"}]', "BAD_LIMIT_KEY"),
        ('[{key: "{}"}, {key: "{cluster}"}]', "BAD_LIMIT_KEY"),
        (f'[{{key: "{"x" * 201}"}}, {{key: "{{cluster}}"}}]', "BAD_LIMIT_KEY"),
        ('[{key: "a\\tb"}, {key: "{cluster}"}]', "BAD_LIMIT_KEY"),
        ('[{key: "{cluster}"}, {key: "{cluster}"}]', "DUPLICATE_LIMIT"),
        ("[" + ", ".join(f'{{key: "{n}{{cluster}}"}}' for n in range(11)) + "]", "TOO_MANY_LIMITS"),
        ("cluster", "WRONG_TYPE"),
        ("[cluster]", "WRONG_TYPE"),
        ('[{key: "{cluster}", least: 1}]', "UNKNOWN_FIELD"),
        ('[{key: "{cluster}", max: many}]', "WRONG_TYPE"),
    ],
)
def test_the_linter_finds_faulty_limits(limits: str, code: str) -> None:
    assert told(limits) == [f"error {code}"]


def test_a_key_has_the_same_maximum_everywhere() -> None:
    other = (
        "  t:\n    request: true\n    limits: [{{key: 'x/{{cluster}}', max: {}}}]\n"
        "    args: {{required: [{{name: cluster}}]}}\n    nodes:\n      n: {{category: job, type: noop}}\n"
    )
    assert told("[{key: 'x/{cluster}', max: 2}]", more=other.format(2)) == []
    assert told("[{key: 'x/{cluster}', max: 2}]", more=other.format(3)) == ["error LIMITS_DIFFER"]
    renamed = other.replace("cluster", "name")
    assert told("[{key: 'x/{cluster}', max: 2}]", more=renamed.format(2)) == []
    assert told("[{key: 'x/{cluster}', max: 2}]", more=renamed.format(3)) == ["error LIMITS_DIFFER"]
    apart = other.replace("x/{{cluster}}", "x/{{cluster}}/b")
    assert told("[{key: 'x/{cluster}', max: 2}]", more=apart.format(3)) == []


@pytest.mark.parametrize("arg", ["password", "apiToken", "db_secret"])
def test_a_key_has_no_secret(arg: str) -> None:
    text = (
        f"sequences:\n  s:\n    request: true\n    limits: [{{key: 'db/{{{arg}}}'}}]\n"
        f"    args: {{required: [{{name: {arg}}}]}}\n    nodes:\n      n: {{category: job, type: noop}}\n"
    )
    problems = lint(parse_specs({"a.yaml": text.encode()}).specs, None)
    assert [(one.severity.value, one.code) for one in problems] == [("error", "SECRET_IN_LIMIT")]


def calling(node: str) -> str:
    return (
        "  t:\n    request: true\n    args: {required: [{name: secrets}, {name: of}]}\n"
        f"    nodes:\n      n: {{category: sequence, type: s, {node}}}\n"
    )


def test_a_node_may_call_a_sequence_with_limits() -> None:
    used = calling("args: [{expected: cluster, given: of}], each: ['secrets:host']")
    assert told("[{key: '{cluster}'}]", more=used) == ["warning ARG_NOT_TAKEN"]
    inner = "  u:\n    limits: [{key: a, max: 2}]\n    nodes:\n      n: {category: job, type: noop}\n"
    assert "error" not in " ".join(told("[{key: '{cluster}'}, {key: a, max: 2}]", more=inner))
    assert "error LIMITS_DIFFER" in told("[{key: '{cluster}'}, {key: a}]", more=inner)


@pytest.mark.parametrize("node", ["args: [{expected: cluster, given: secrets}]", "each: ['secrets:cluster']"])
def test_a_key_of_a_called_sequence_has_no_secret_under_another_name(node: str) -> None:
    assert "error SECRET_IN_LIMIT" in told("[{key: 'x/{cluster}'}]", more=calling(node))
    assert "error SECRET_IN_LIMIT" not in told("[{key: 'x'}]", more=calling(node))


def test_a_key_has_no_secret_by_way_of_several_calls_and_harmless_names() -> None:
    between = (
        "  u:\n    args: {{required: [{{name: value}}]}}\n"
        "    nodes:\n      n: {{category: sequence, type: s, args: [{{expected: {}, given: value}}]}}\n"
    )
    outer = calling("args: [{expected: value, given: secrets}]").replace("type: s", "type: u")
    assert "error SECRET_IN_LIMIT" in told("[{key: 'x/{cluster}'}]", more=between.format("cluster") + outer)
    assert "error SECRET_IN_LIMIT" not in told("[{key: 'x/{cluster}'}]", more=between.format("other") + outer)


def test_a_key_has_no_secret_that_a_job_sets_under_another_name() -> None:
    setting = (
        "  t:\n    request: true\n    nodes:\n"
        "      log-in: {{category: job, type: noop, sets: [{{arg: {}, as: found}}]}}\n"
        "      n: {{category: sequence, type: s, deps: [log-in],"
        " args: [{{expected: cluster, given: found}}]}}\n"
    )
    assert "error SECRET_IN_LIMIT" in told("[{key: 'x/{cluster}'}]", more=setting.format("token"))
    assert "error SECRET_IN_LIMIT" not in told("[{key: 'x/{cluster}'}]", more=setting.format("cluster"))


@given(st.text(alphabet="ab{}", max_size=12))
def test_a_key_is_read_by_parts_or_not_at_all(key: str) -> None:
    parts = parse_key(key)
    if parts is None:
        assert "{" in key or "}" in key
    else:
        assert "".join(text + (f"{{{arg}}}" if arg else "") for text, arg in parts) == key
        assert all("{" not in text + arg and "}" not in text + arg for text, arg in parts)
