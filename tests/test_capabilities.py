"""What a request needs of a runner, and what a runner has, against a plain model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spincycle_server.capabilities import (
    ID_LENGTH,
    KNOWS_ALL,
    Capabilities,
    Requirement,
    bad_feature,
    bad_label,
    labels_of,
    why_not,
)

TYPES = st.frozensets(st.sampled_from("abcd"))
LABELS = st.dictionaries(st.sampled_from("xyz"), st.sampled_from("12"), max_size=3)
FEATURES = st.frozensets(st.sampled_from("fg"))
REQUIREMENTS = st.builds(Requirement, TYPES, LABELS.map(labels_of), FEATURES)
CAPABILITIES = st.builds(Capabilities, st.none() | TYPES, LABELS.map(labels_of), FEATURES)


@given(REQUIREMENTS, CAPABILITIES)
def test_a_runner_can_run_what_it_knows_with_the_labels_that_it_has(
    needed: Requirement, has: Capabilities
) -> None:
    knows = all(has.types is None or one in has.types for one in needed.types)
    is_labelled = all(dict(has.labels).get(name) == value for name, value in needed.labels)
    has_features = all(one in has.features for one in needed.features)
    assert has.meet(needed) == (knows and is_labelled and has_features)


@given(REQUIREMENTS, st.lists(CAPABILITIES, max_size=4))
def test_there_is_a_reason_exactly_if_no_runner_can_run_it(
    needed: Requirement, runners: list[Capabilities]
) -> None:
    assert bool(why_not(needed, runners)) == (not any(one.meet(needed) for one in runners))


@given(REQUIREMENTS, REQUIREMENTS)
def test_requirements_are_equal_by_content_alone(one: Requirement, other: Requirement) -> None:
    is_equal = (one.types, one.labels, one.features) == (other.types, other.labels, other.features)
    assert (one == other) is (one.requirement_id == other.requirement_id) is is_equal
    assert len(one.requirement_id) == ID_LENGTH


@given(REQUIREMENTS, CAPABILITIES)
def test_json_keeps_the_content(needed: Requirement, has: Capabilities) -> None:
    read, has_read = Requirement.from_json(needed.to_json()), Capabilities.from_json(has.to_json())
    assert (read, read.types, read.labels) == (needed, needed.types, needed.labels)
    assert (has_read, has_read.types, has_read.labels) == (has, has.types, has.labels)
    assert (read.features, has_read.features) == (needed.features, has.features)


def test_the_id_without_features_is_that_of_releases_without_features() -> None:
    assert Requirement(frozenset("a")).to_json() == b'{"types":["a"],"labels":{}}'
    assert Capabilities(None).to_json() == b'{"types":null,"labels":{}}'


@pytest.mark.parametrize(
    "features", [["pause"] * 51, [""], ["a b"], ["x" * 64]], ids=["many", "empty", "blank", "long"]
)
def test_names_of_features_are_checked(features: list[str]) -> None:
    assert bad_feature(features)
    assert bad_feature(["pause", "a/b-1._"]) == ""


AB = Requirement(frozenset("ab"))
IN_A = Requirement(frozenset("ab"), frozenset({("zone", "a")}))
PAUSED = Requirement(frozenset("a"), features=frozenset({"pause"}))
MANY = Requirement(frozenset("abcdefgh"))


@pytest.mark.parametrize(
    ("needed", "runners", "reason"),
    [
        (AB, [KNOWS_ALL], ""),
        (AB, [Capabilities(frozenset("a"))], "no job runner knows the job type b"),
        (AB, [Capabilities(frozenset("c"))], "no job runner knows the job types a and b"),
        (
            AB,
            [Capabilities(frozenset("a")), Capabilities(frozenset("b"))],
            "no job runner knows all of the job types a and b",
        ),
        (MANY, [Capabilities(frozenset())], "no job runner knows the job types a, b, c, d, e and 3 more"),
        (IN_A, [KNOWS_ALL], "no job runner has the label zone=a"),
        (
            Requirement(frozenset(), labels_of({f"l{n}": "x" for n in range(8)})),
            [KNOWS_ALL],
            "no job runner has the labels l0=x, l1=x, l2=x, l3=x, l4=x and 3 more",
        ),
        (
            IN_A,
            [KNOWS_ALL, Capabilities(frozenset("a"), IN_A.labels)],
            "no job runner with the label zone=a knows the job type b",
        ),
        (PAUSED, [KNOWS_ALL], "no job runner knows the feature pause: upgrade the job runners"),
        (
            PAUSED,
            [Capabilities(frozenset("a")), Capabilities(frozenset(), features=PAUSED.features)],
            "no job runner knows all of the feature pause and the job type a",
        ),
        (
            Requirement(frozenset(), features=frozenset("fg")),
            [Capabilities(None, features=frozenset("f")), Capabilities(None, features=frozenset("g"))],
            "no job runner knows all of the features f and g",
        ),
    ],
)
def test_the_reason_names_what_is_missing(
    needed: Requirement, runners: list[Capabilities], reason: str
) -> None:
    assert why_not(needed, runners) == reason


def test_the_longest_reason_is_bounded() -> None:
    labels = labels_of({f"{n:063}": "v" * 63 for n in range(50)})
    needed = Requirement(frozenset(f"{n:075}" for n in range(1000)), labels)
    reasons = [
        why_not(needed, [Capabilities(frozenset(), labels)]),
        why_not(needed, [Capabilities(frozenset(), frozenset())]),
        why_not(needed, [Capabilities(frozenset({one}), labels) for one in needed.types]),
    ]
    assert max(len(reason.encode()) for reason in reasons) < 1500


@pytest.mark.parametrize(
    "labels",
    [{"": "x"}, {"x": ""}, {"a b": "x"}, {"x": "ä"}, {"x": "y" * 64}, {f"x{n}": "y" for n in range(51)}],
)
def test_a_malformed_label_is_named(labels: dict[str, str]) -> None:
    assert bad_label(labels)


def test_well_formed_labels_are_accepted() -> None:
    assert bad_label({"zone": "eu-1.a", "example.com/gpu": "yes_2", "x" * 63: "y" * 63}) == ""
