"""Whatever a spec file contains, the parser returns specs and problems, and does not hang."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spincycle_server.spec_files import check_specs, read_spec_files

TESTS = Path(__file__).parents[1]
FILES = [
    data
    for directory in (
        TESTS / "reference/data/specs",
        TESTS / "specs/data/faulty",
        TESTS / "specs/data/unreadable",
    )
    for data in read_spec_files(directory).values()
]
WORDS = [
    b"sequences:", b"nodes:", b"args:", b"each:", b"retry: 1", b"<<: *a", b"&a ", b"*a", b"- ", b"? ", b": ",
    b"{", b"}", b"[", b"]", b"'", b'"', b"|\n", b">\n", b"\n", b"  ", b"\t", b"#", b"%", b"!", b"!!binary ",
    b"---\n", b"...\n", b"~", b"\x00", b"\xff", b"\xe2\x80\xa8", b"\xf0\x9f\x98\x80",
]  # fmt: skip

many = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
spliced = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(b"".join) | st.binary(max_size=6)


def check(data: bytes) -> None:
    """The specs that come of a file can be checked, and its problems shown."""
    specs, problems = check_specs({"a.yaml": data}, lambda job_type: job_type == "known")
    assert all(str(problem) for problem in problems)
    assert all(problem.position.file == "a.yaml" for problem in problems)
    if not problems:
        assert all(sequence.nodes for sequence in specs.sequences.values())


@many
@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    check(data)


@many
@given(st.lists(st.sampled_from(WORDS) | st.binary(max_size=3), max_size=40).map(b"".join))
def test_random_yaml_words(data: bytes) -> None:
    check(data)


@many
@given(st.sampled_from(FILES), st.data())
def test_random_edits_of_specs(text: bytes, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 40)))
        kind = data.draw(st.sampled_from(["delete", "replace", "duplicate", "move"]))
        piece = text[start:end]
        text = text[:start] + (data.draw(spliced) if kind == "replace" else b"") + text[end:]
        if kind in ("duplicate", "move"):
            at = data.draw(st.integers(0, len(text)))
            text = text[:at] + piece * (2 if kind == "duplicate" else 1) + text[at:]
    check(text)
