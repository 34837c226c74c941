"""Labels: short, different, without secrets, and as many as there are sequences and elements."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spincycle_grpc.job_paths import MAX_LABEL, MAX_PARTS, connects, path_of, shortened
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_server.graph import ChainBuilder
from spincycle_server.graph.path_labels import element_labels
from spincycle_server.graph.plan import NodePlan, plan_sequence
from tests.graph.job_types import factory
from tests.graph.models import node, sequence, specs

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab\n😀", max_size=90),
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text("ab", max_size=3), inner),
    max_leaves=8,  # A few long texts are more than a label can show.
)


def plan_of(*elements: str, name: str = "n") -> NodePlan:
    each = [f"list{place}:{element}" for place, element in enumerate(elements)]
    return plan_sequence(sequence("s", node(name, each=each))).nodes[0]


def paths_of(chain: JobChain) -> list[tuple[str, ...]]:
    return sorted(path_of(chain, job_id) for job_id, job in chain.jobs.items() if not connects(job))


def chain_of(*sequences: Any, **args: object) -> JobChain:
    return ChainBuilder(specs(*sequences), factory).build(sequences[0].name, args, "").job_chain


@given(st.lists(st.tuples(JSON, JSON), max_size=8))
def test_no_two_labels_are_equal_and_none_is_long(rows: list[tuple[object, object]]) -> None:
    labels = element_labels(plan_of("host", "port"), rows)
    assert len(labels) == len(set(labels)) == len(rows)
    assert all(label.startswith("host ") and len(label) <= MAX_LABEL for label in labels)


@given(st.text(), st.integers(4, 200))
def test_a_shortened_text_keeps_its_beginning_and_its_end(text: str, longest: int) -> None:
    short = shortened(text, longest)
    assert len(short) <= longest
    if short != text:
        beginning, _, end = short.partition("…") if "…" not in text else ("", "", "")
        assert text.startswith(beginning)
        assert text.endswith(end)


@pytest.mark.parametrize(
    ("elements", "rows", "labels"),
    [
        (["host"], [("web1",), ("web2",)], ["host web1", "host web2"]),
        (["host"], [("web1",)], ["host web1"]),
        (["host", "ip"], [("a", "1"), ("b", "2")], ["host a", "host b"]),
        (["host", "zone", "port"], [("a", "z", 1), ("a", "z", 2)], ["host a port 1", "host a port 2"]),
        (["host"], [("a",), ("a",)], ["host a #1", "host a #2"]),
        (["host"], [({"name": "é", "port": 1},)], ['host {"name": "é", "port": 1}']),
        (["password", "host"], [("x", "a"), ("y", "b")], ["host a", "host b"]),
        (["db_password"], [("x",), ("y",)], ["n #1", "n #2"]),
        (["api-token"], [("x",)], ["n #1"]),
    ],
)
def test_a_label_names_what_distinguishes_the_element(
    elements: list[str], rows: list[tuple[object, ...]], labels: list[str]
) -> None:
    assert element_labels(plan_of(*elements), rows) == labels


def test_two_nodes_with_the_same_element_name_have_different_labels() -> None:
    chain = chain_of(
        sequence(
            "request",
            node("drain-all", "sequence", "work", each=["hosts:host"]),
            node("start-all", "sequence", "work", each=["hosts:host"]),
            request=True,
            required=["hosts"],
        ),
        sequence("work", node("run"), required=["host"]),
        hosts=["a"],
    )
    assert paths_of(chain) == [
        ("request", "drain-all host a", "run"),
        ("request", "start-all host a", "run"),
    ]


def test_a_request_without_nested_sequences_has_no_labels_and_no_paths() -> None:
    chain = chain_of(sequence("request", node("a"), node("b", deps=["a"]), request=True))
    assert not chain.path_labels
    assert paths_of(chain) == [(), ()]


def test_a_chain_from_before_labels_has_no_paths() -> None:
    chain = chain_of(
        sequence("request", node("n", "sequence", "inner"), request=True), sequence("inner", node("a"))
    )
    chain.ClearField("path_labels")
    assert paths_of(chain) == [()]


def test_a_deep_path_shows_its_inner_end() -> None:
    depth = 400
    sequences = [
        sequence(f"s{number}", node(f"n{number}", "sequence", f"s{number + 1}")) for number in range(1, depth)
    ]
    first = sequence("s0", node("n0", "sequence", "s1"), request=True)
    chain = chain_of(first, *sequences, sequence(f"s{depth}", node("last")))
    (path,) = paths_of(chain)
    assert len(path) == MAX_PARTS
    assert path[0] == "…"
    assert path[1:] == (*(f"n{number}" for number in range(depth - MAX_PARTS + 2, depth)), "last")


def test_a_chain_whose_sequences_are_unknown_or_contain_each_other_has_finite_paths() -> None:
    chain = JobChain(path_labels={"a": "x"})
    chain.jobs["a"].sequence_id = "a"
    chain.jobs["a"].parent_sequence_id = "b"
    chain.jobs["b"].parent_sequence_id = "a"
    chain.jobs["c"].sequence_id = "gone"
    assert len(path_of(chain, "a")) <= MAX_PARTS
    assert path_of(chain, "c") == ("…", "")


def test_a_chain_over_ten_thousand_hosts_has_one_short_label_per_host() -> None:
    hosts = [f"web{number}.example.com" for number in range(10_000)]
    chain = chain_of(
        sequence(
            "rolling-restart",
            node("restart-hosts", "sequence", "restart-host", each=["hosts:host"]),
            request=True,
            required=["hosts"],
        ),
        sequence("restart-host", node("drain"), node("restart", deps=["drain"]), required=["host"]),
        hosts=hosts,
    )
    assert len(chain.jobs) == 4 * len(hosts) + 6
    assert len(chain.path_labels) == len(hosts) + 1
    stored = JobChain(path_labels=chain.path_labels).ByteSize()
    assert stored <= len(hosts) * (max(map(len, hosts)) + 20)
    paths = paths_of(chain)
    assert paths[0] == ("rolling-restart", "host web0.example.com", "drain")
    assert len(set(paths)) == 2 * len(hosts)
