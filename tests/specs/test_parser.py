"""The parser: spec files as the original reads them, and problems that the original ignores."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import structlog

from spincycle_server.spec_files import SpecsError, load_specs, read_spec_files
from spincycle_server.specs.model import NodeSpec, SequenceSpec
from spincycle_server.specs.parser import ParseResult, parse_specs

REFERENCE = Path(__file__).parents[1] / "reference" / "data" / "specs"


def parsed(text: str) -> ParseResult:
    return parse_specs({"a.yaml": text.encode()})


def sequence(text: str) -> SequenceSpec:
    """Returns the sequence s of a file without problems."""
    result = parsed(text)
    assert result.problems == []
    return result.specs.sequences["s"]


def node(fields: str) -> NodeSpec:
    """Returns the node n of the fields."""
    return sequence(f"sequences: {{s: {{nodes: {{n: {fields}}}}}}}").nodes["n"]


def told(text: str) -> list[str]:
    """Returns the problems of a file, each as place, code and message."""
    return [
        f"{one.position.line}:{one.position.column} {one.code} {one.message}" for one in parsed(text).problems
    ]


def test_the_specs_of_the_original_have_no_problems() -> None:
    result = parse_specs(read_spec_files(REFERENCE))
    assert result.problems == []
    assert len(result.specs.sequences) > 20


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ("[a, b]", [("a", "a"), ("b", "b")]),
        ("[{arg: a, as: x}, {arg: b}]", [("a", "x"), ("b", "b")]),
        ("[a, {arg: b, as: y}]", [("a", "a"), ("b", "y")]),
        ("[100, yes]", [("100", "100"), ("yes", "yes")]),
        ("", []),
    ],
)
def test_both_dialects_of_sets(sets: str, expected: list[tuple[str, str]]) -> None:
    assert [(one.arg, one.as_name) for one in node(f"{{sets: {sets}}}").sets] == expected


def test_given_may_be_left_out() -> None:
    args = node("{args: [{expected: a}, {expected: b, given: c}, {expected: d, given: null}]}").args
    assert [(one.expected, one.given) for one in args] == [("a", "a"), ("b", "c"), ("d", "d")]


@pytest.mark.parametrize(
    "text",
    ["yes", "no", "on", "off", "y", "true", "1", "010", "0x1F", "1.50", "1e3", "2020-01-01", "1:30", ".inf"],
)
def test_any_plain_scalar_is_a_text_in_a_text_field(text: str) -> None:
    spec = sequence(
        f"sequences: {{s: {{args: {{optional: [{{name: a, default: {text}}}]}},"
        f" nodes: {{n: {{type: {text}, deps: [{text}], eq: {{{text}: {text}}}}}}}}}}}"
    )
    assert spec.optional[0].default == text
    read = spec.nodes["n"]
    assert (read.type, read.deps, dict(read.eq)) == (text, (text,), {text: text})


@pytest.mark.parametrize("text", ["null", "~", ""])
def test_a_null_field_counts_as_missing(text: str) -> None:
    spec = sequence(f"sequences: {{s: {{request: {text}, acl: {text}, nodes: {{n: {{retry: {text}}}}}}}}}")
    assert (spec.request, spec.acl, spec.nodes["n"].retry, spec.nodes["n"].parallel) == (False, (), 0, None)


def test_an_empty_default_is_a_default_and_null_is_not() -> None:
    spec = sequence('sequences: {s: {args: {optional: [{name: a, default: ""}, {name: b, default: ~}]}}}')
    assert [arg.default for arg in spec.optional] == ["", None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("yes", True), ("On", True), ("TRUE", True), ("n", False), ("off", False), ("False", False)],
)
def test_bools(text: str, expected: bool) -> None:
    assert sequence(f"sequences: {{s: {{request: {text}}}}}").request is expected


@pytest.mark.parametrize(
    ("text", "expected"), [("3", 3), ("1_000", 1000), ("0x10", 16), ("010", 8), ("+2", 2)]
)
def test_integers(text: str, expected: int) -> None:
    assert node(f"{{retry: {text}}}").retry == expected


@pytest.mark.parametrize("text", ["'3'", "3.0", "-1", "three", "[3]", "9223372036854775808", "1e2"])
def test_a_count_that_is_not_an_integer_is_a_problem(text: str) -> None:
    [problem] = parsed(f"sequences: {{s: {{nodes: {{n: {{retry: {text}}}}}}}}}").problems
    assert problem.code == "WRONG_TYPE"
    assert (problem.sequence, problem.node, problem.field) == ("s", "n", "retry")


def test_problems_have_their_line_and_column() -> None:
    text = (
        "sequences:\n"
        "  s:\n"
        "    request: 1\n"
        "    nodse:\n"
        "      n: {}\n"
        "    nodes:\n"
        "      n: {type: a,\n"
        "          type: b}\n"
    )
    assert told(text) == [
        "3:14 WRONG_TYPE 'request' must be true or false, not '1'",
        "4:5 UNKNOWN_FIELD unknown field 'nodse': "
        "must be one of request, args, acl, nodes, timeout, runner, limits, finally, finallyTimeout",
        "8:11 DUPLICATE_KEY duplicate key 'type', first in line 7",
    ]


def test_the_first_of_two_sequences_with_the_same_name_wins() -> None:
    text = b"sequences: {s: {request: %s}}"
    result = parse_specs({"b.yaml": text % b"false", "a.yaml": text % b"true"})
    assert result.specs.sequences["s"].request
    assert [(one.position.file, one.code) for one in result.problems] == [("b.yaml", "DUPLICATE_SEQUENCE")]


def test_aliases_and_merge_keys_are_followed() -> None:
    spec = sequence(
        "sequences:\n"
        "  s:\n"
        "    nodes:\n"
        "      a: &a {category: job, type: t, retry: 2, args: [&host {expected: host}]}\n"
        "      b: {<<: *a, retry: 3}\n"
        "      c: *a\n"
        "      d: {args: [*host]}\n"
    )
    nodes = spec.nodes
    assert [(one.type, one.retry) for one in nodes.values()] == [("t", 2), ("t", 3), ("t", 2), ("", 0)]
    assert [one.args[0].expected for one in nodes.values()] == ["host"] * 4


def test_aliases_that_expand_exponentially_are_refused_fast() -> None:
    levels = "".join(f"  - &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]\n" for i in range(1, 12))
    lists = (
        f"anchors:\n  - &l0 [{{expected: a}}]\n{levels}sequences: {{s: {{nodes: {{n: {{args: *l11}}}}}}}}\n"
    )
    maps = "sequences:\n  s:\n    nodes: &m0 {a: {}, b: {}}\n" + "".join(
        f"  s{i}:\n    nodes: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 10)}]}}\n" for i in range(1, 12)
    )
    assert "TOO_MANY_ALIASES" in {one.code for one in parsed(maps).problems}
    assert {one.code for one in parsed(lists).problems} >= {"UNKNOWN_FIELD"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"sequences: [", "while parsing a flow node did not find expected node content"),
        (b"a: b: c", "mapping values are not allowed in this context"),
        (b"sequences: *nobody", "has no anchor"),
        (b"--- {}\n--- {}\n", "several documents"),
        (b"\xff\xfe\xff", ""),
        (b"a: \x00", "U+0000"),
        (b"a: \xe4", ""),
        (b"[" * 5000, "levels deep"),
    ],
)
def test_a_file_that_is_not_yaml_has_one_problem(data: bytes, said: str) -> None:
    [problem] = parse_specs({"a.yaml": data}).problems
    assert problem.code == "BAD_YAML"
    assert said in problem.message


@pytest.mark.parametrize("text", ["", "# nothing\n", "~", "sequences:", "sequences: {}", "---\n"])
def test_a_file_may_be_empty(text: str) -> None:
    assert parsed(text) == parse_specs({})


@pytest.mark.parametrize("text", ["[]", "text", "sequences: []", "sequences: {s: []}", "{[a]: b}"])
def test_another_value_instead_of_a_map_is_a_problem(text: str) -> None:
    assert [one.code for one in parsed(text).problems] == ["WRONG_TYPE"]


def test_spec_files_are_found_by_their_ending_in_all_directories(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.YAML", "sub/deep/c.Yaml", "d.yml", "sub/e.YML", "f.yaml.bak", "g", "yaml"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    found = read_spec_files(tmp_path)
    assert sorted(found) == ["a.yaml", "b.YAML", "d.yml", "sub/deep/c.Yaml", "sub/e.YML"]
    assert found["a.yaml"] == b"a.yaml"


@pytest.mark.parametrize(
    "name", [".hidden/f.yaml", "._a.yaml", ".#a.yaml", ".a.yaml.swp", "sub/.git/b.yml", "..2026_11/a.yaml"]
)
def test_names_with_a_leading_dot_are_ignored(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a")
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"\xff not YAML")
    assert list(read_spec_files(tmp_path)) == ["a.yaml"]


def test_a_mounted_config_map_is_read_once_also_after_an_update(tmp_path: Path) -> None:
    specs = tmp_path / "specs"
    specs.mkdir()
    (specs / "nothing.yaml").symlink_to("..data/nothing.yaml")
    for version in ("..2026_11_25_03_00_00.1", "..2026_11_25_04_00_00.2"):
        (specs / version).mkdir()
        (specs / version / "nothing.yaml").write_text(version)
        (specs / "..data_tmp").symlink_to(version)
        (specs / "..data_tmp").rename(specs / "..data")
        assert read_spec_files(specs) == {"nothing.yaml": version.encode()}


def test_what_is_not_a_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a")
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "link.yaml").symlink_to("fifo.yaml")
    (tmp_path / "null.yml").symlink_to("/dev/null")
    (tmp_path / "directory.yaml").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.yaml"))
        assert list(read_spec_files(tmp_path)) == ["a.yaml"]


def test_a_server_warns_of_a_directory_without_specs(tmp_path: Path) -> None:
    (tmp_path / "sequences.json").write_text("{}")
    with structlog.testing.capture_logs() as events:
        load_specs(tmp_path, lambda _: True)
    assert [event["log_level"] for event in events] == ["warning", "info"]
    assert "no specs" in events[0]["event"]


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SpecsError, match=r"gone\.yaml"):
        read_spec_files(tmp_path)
    with pytest.raises(SpecsError, match="does not exist"):
        read_spec_files(tmp_path / "nowhere")
