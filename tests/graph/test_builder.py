"""The chains that the builder makes from specs, rule by rule."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from random import Random
from typing import Any

import pytest

from spincycle_grpc.channels import MAX_MESSAGE_BYTES
from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.jobs import JobId
from spincycle_grpc.structs import from_struct
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_server.capabilities import RETRY_BACKOFF, SLIDING_WINDOW
from spincycle_server.graph import ChainBuilder, chain_writer, job_creator, job_ids
from spincycle_server.request_manager.chain_sender import MAX_CHAIN
from spincycle_server.specs.model import NodeSpec, SequenceSpec
from tests.graph.chains import assert_sound, children_of, named, one, parents_of
from tests.graph.generated import BACKOFF
from tests.graph.job_types import Keep, factory
from tests.graph.models import node, sequence, specs


def chain_of(*sequences: SequenceSpec, given: Mapping[str, object] | None = None) -> JobChain:
    """Returns the chain of the first sequence."""
    chain = ChainBuilder(specs(*sequences), factory).build(sequences[0].name, given or {}, "").job_chain
    assert_sound(chain)
    return chain


def request(*nodes: NodeSpec, required: tuple[str, ...] = (), **args: Any) -> SequenceSpec:
    return sequence("request", *nodes, request=True, required=required, **args)


def names(chain: JobChain, job_ids_: list[str]) -> list[str]:
    return [chain.jobs[job_id].name for job_id in job_ids_]


def test_a_chain_has_the_id_and_the_timeout_of_its_request() -> None:
    spec = sequence("request", request=True, timeout="1h")
    chain = ChainBuilder(specs(spec), factory).build("request", {}, "dc26aor8di16sqictj30").job_chain
    assert (chain.request_id, chain.timeout) == ("dc26aor8di16sqictj30", "1h")
    assert len(chain.jobs) == 2


def test_edges_follow_deps_in_the_order_of_the_file() -> None:
    chain = chain_of(
        request(node("a"), node("b", deps=["a"]), node("c", deps=["a", "a"]), node("d", deps=["c", "b"]))
    )
    children = children_of(chain)
    assert names(chain, children[one(chain, "a").id]) == ["b", "c"]
    assert sorted(names(chain, parents_of(chain)[one(chain, "d").id])) == ["b", "c"]
    assert names(chain, children[one(chain, "d").id]) == ["noop"]


def test_nodes_are_built_when_their_args_exist_in_the_order_of_the_file() -> None:
    order = []

    class Noting(Keep):
        def create(self, job_args: dict[str, object]) -> None:
            order.append(self.id.name)
            if self.id.name in ("p", "q"):
                job_args[self.id.name] = "set"

    builder = ChainBuilder(
        specs(
            request(
                node("a", args=["p", "q"]),
                node("b", args=["p"]),
                node("q", sets=["q"], deps=["a"]),
                node("c"),
                node("p", sets=["p"]),
                node("d"),
            )
        ),
        lambda job_id: Noting(),
    )
    builder.build("request", {}, "")
    assert order == ["q", "c", "p", "a", "b", "d"]


def test_a_node_is_given_only_the_args_that_it_names() -> None:
    chain = chain_of(
        request(
            node("say", args={"out": "given", "err": "text"}), required=("given",), optional={"text": "t"}
        ),
        given={"given": [1, {"a": None}], "extra": True},
    )
    assert from_struct(one(chain, "say").args) == {"out": [1, {"a": None}], "err": "t"}


def test_nodes_can_be_given_args_that_the_spec_does_not_declare() -> None:
    chain = chain_of(request(node("say", args=["extra"])), given={"extra": "more"})
    assert from_struct(one(chain, "say").args) == {"extra": "more"}


def test_args_are_recorded_as_they_were_before_create() -> None:
    chain = chain_of(request(node("x", node_type='set "new"', args=["a"])), given={"a": "1"})
    assert from_struct(one(chain, "x").args) == {"a": "1"}
    assert one(chain, "x").bytes == b'{"a": "1"}'


def test_empty_args_and_bytes_are_left_out() -> None:
    job = one(chain_of(request(node("x"))), "x")
    assert not job.HasField("args")
    assert not job.bytes


def test_the_factory_does_not_make_the_noops_around_sequences() -> None:
    asked: list[JobId] = []

    def noting(job_id: JobId) -> Keep:
        asked.append(job_id)
        return Keep()

    built = ChainBuilder(specs(request(node("x", node_type="t"))), noting).build("request", {}, "r")
    job = one(built.job_chain, "x")
    assert asked == [JobId("t", "x", job.id, "r")]


def test_jobs_share_no_lists_with_each_other_or_the_caller() -> None:
    given = {"hosts": ["a", {"b": ["c"]}]}
    chain = chain_of(
        request(node("one", node_type="keep", args=["hosts"]), node("two", node_type="keep", args=["hosts"])),
        given=given,
    )
    assert given == {"hosts": ["a", {"b": ["c"]}]}
    assert one(chain, "one").bytes == one(chain, "two").bytes == b'{"hosts": ["a", {"b": ["c"]}]}'


def test_an_arg_that_a_job_sets_can_be_renamed_and_leave_its_sequence() -> None:
    chain = chain_of(
        request(
            node("say", args={"x": "outside"}),
            node("inner", "sequence", "inner", sets={"inside": "outside"}),
        ),
        sequence("inner", node("find", node_type='set ["n1"]', sets={"out": "inside"})),
    )
    assert from_struct(one(chain, "say").args) == {"x": ["n1"]}


def test_a_job_cannot_change_an_arg_after_it_has_set_it() -> None:
    class Careless(Keep):
        kept: list[str]

        def create(self, job_args: dict[str, object]) -> None:
            if "hosts" not in job_args:
                type(self).kept = job_args["hosts"] = ["h1"]
            else:
                type(self).kept.append("late")
                super().create(job_args)

    spec = request(node("a", sets=["hosts"]), node("b", args=["hosts"]))
    chain = ChainBuilder(specs(spec), lambda job_id: Careless()).build("request", {}, "").job_chain
    assert one(chain, "b").bytes == b'{"hosts": ["h1"]}'


def test_a_sequence_has_its_own_optional_and_static_args() -> None:
    chain = chain_of(
        request(
            node("plain", "sequence", "inner"),
            node("other", "sequence", "inner", args={"port": "p", "fixed": "p"}),
            static={"p": "1"},
        ),
        sequence(
            "inner", node("say", args=["port", "fixed"]), optional={"port": "3306"}, static={"fixed": "f"}
        ),
    )
    assert [from_struct(job.args) for job in named(chain, "say")] == [
        {"port": "3306", "fixed": "f"},
        {"port": "1", "fixed": "1"},
    ]


def test_a_job_with_retries_always_has_a_retry_wait() -> None:
    chain = chain_of(
        request(node("a", retry=2), node("b", retry=1, retry_wait="50ms"), node("c", timeout="30s"))
    )
    a, b, c = (one(chain, name) for name in "abc")
    assert (a.retry, a.retry_wait, a.timeout) == (2, "0s", "")
    assert (b.retry, b.retry_wait) == (1, "50ms")
    assert (c.retry, c.retry_wait, c.timeout) == (0, "", "30s")


@pytest.mark.parametrize(
    "spec",
    [
        node("x", "sequence", "inner", retry=3, retry_wait="1s", timeout="5m"),
        node(
            "x", "conditional", "", if_arg="go", eq={"yes": "inner"}, retry=3, retry_wait="1s", timeout="5m"
        ),
    ],
    ids=["sequence", "conditional"],
)
def test_the_first_job_of_a_sequence_has_its_retries_and_its_timeout(spec: NodeSpec) -> None:
    chain = chain_of(request(spec, static={"go": "yes"}), sequence("inner", node("job")))
    start = chain.jobs[one(chain, "job").sequence_id]
    assert (start.sequence_retry, start.sequence_retry_wait, start.sequence_timeout) == (3, "1s", "5m")
    assert (start.retry, start.retry_wait, start.timeout) == (0, "", "")
    outside = [job for job in chain.jobs.values() if job.id != start.id]
    assert not any(job.sequence_retry or job.sequence_retry_wait or job.sequence_timeout for job in outside)


def test_a_sequence_with_retries_and_no_wait_has_a_wait_of_zero() -> None:
    chain = chain_of(request(node("x", "sequence", "inner", retry=1)), sequence("inner", node("job")))
    assert chain.jobs[one(chain, "job").sequence_id].sequence_retry_wait == "0s"


def test_jobs_have_the_ids_of_their_sequence_and_its_parent() -> None:
    chain = chain_of(
        request(node("x", "sequence", "middle"), node("top")),
        sequence("middle", node("y", "conditional", if_arg="go", eq={"default": "inner"}), static={"go": ""}),
        sequence("inner", node("job")),
    )
    job, top = one(chain, "job"), one(chain, "top")
    middle = chain.jobs[job.parent_sequence_id]
    assert middle.parent_sequence_id == top.sequence_id
    assert top.parent_sequence_id == ""
    around = [parent for parent in chain.jobs.values() if parent.sequence_id == middle.id]
    assert len(around) == 4  # Its own two noops, and those of the conditional.


@pytest.mark.parametrize(("value", "branch"), [("yes", "on"), ("no", "rest"), ("default", "rest")])
def test_a_conditional_selects_by_value_or_takes_the_default(value: str, branch: str) -> None:
    pick = node("pick", "conditional", if_arg="mode", eq={"yes": "on", "default": "rest"})
    chain = chain_of(
        request(pick, required=("mode",)),
        sequence("on", node("on", args=["mode"])),
        sequence("rest", node("rest", args=["mode"])),
        given={"mode": value},
    )
    assert from_struct(one(chain, branch).args) == {"mode": value}
    assert len(chain.jobs) == 7


def test_the_noop_sequence_is_empty_unless_the_specs_define_it() -> None:
    spec = request(node("x", "conditional", if_arg="go", eq={"default": "noop"}), static={"go": ""})
    assert len(chain_of(spec).jobs) == 6
    assert one(chain_of(spec, sequence("noop", node("own"))), "own").type == "noop"


@pytest.mark.parametrize(
    ("hosts", "parallel", "jobs"),
    [
        ([], None, 2 + 2),
        (["a"], None, 2 + 1),
        (["a"], 1, 2 + 1),
        (["a", "b", "c"], None, 2 + 2 + 2 + 3),
        (["a", "b", "c"], 2, 2 + 2 + 4 + 3),
        (["a", "b", "c"], 3, 2 + 2 + 2 + 3),
        (["a", "b", "c"], 9, 2 + 2 + 2 + 3),
        (["a", "b", "c"], 1, 2 + 2 + 6 + 3),
    ],
)
def test_each_makes_groups_of_at_most_parallel(hosts: list[str], parallel: int | None, jobs: int) -> None:
    spec = request(node("say", args=["x"], each=["hosts:host"], parallel=parallel), required=("hosts",))
    chain = chain_of(spec, given={"hosts": hosts, "x": "x"})
    assert len(chain.jobs) == jobs
    assert [from_struct(job.args) for job in named(chain, "say")] == [
        {"x": "x", "host": host} for host in hosts
    ]


@pytest.mark.parametrize(
    ("hosts", "options", "features"),
    [
        (["a", "b"], {"parallel": 1, "window": "sliding"}, {SLIDING_WINDOW}),
        (["a"], {"parallel": 1, "window": "sliding"}, set()),
        ([], {"parallel": 1, "window": "sliding"}, set()),
        (["a", "b"], {"parallel": 1, "window": "batches"}, set()),
        (["a", "b"], {"retry": 1, "retry_wait": "1s", "backoff": BACKOFF}, {RETRY_BACKOFF}),
        (["a", "b"], {"retry": 0, "backoff": BACKOFF}, set()),
    ],
)
def test_a_request_needs_the_features_that_its_chain_uses(
    hosts: list[str], options: dict[str, Any], features: set[str]
) -> None:
    spec = request(node("say", each=["hosts:host"], **options), required=("hosts",))
    built = ChainBuilder(specs(spec), factory).build("request", {"hosts": hosts}, "id")
    assert built.requirement.features == features
    assert bool(built.job_chain.windows) == (SLIDING_WINDOW in features)


def test_each_iterates_over_all_lists_in_step() -> None:
    given = {"xs": ["s", 1, None, [2]], "ys": [True, {"k": "v"}, 1.5, ""]}
    chain = chain_of(request(node("say", each=["xs:x", "ys:y"])), given=given)
    assert [from_struct(job.args) for job in named(chain, "say")] == [
        {"x": x, "y": y} for x, y in zip(given["xs"], given["ys"], strict=True)
    ]


def test_an_arg_that_each_sets_has_the_value_of_the_last_item() -> None:
    spec = request(
        node("say", args=["host"]), node("per", "sequence", "per", each=["hosts:host"], sets=["host"])
    )
    chain = chain_of(spec, sequence("per", required=("host",)), given={"hosts": ["a", "b"]})
    assert from_struct(one(chain, "say").args) == {"host": "b"}


def test_each_item_of_a_sequence_with_retries_has_the_retries() -> None:
    spec = request(node("per", "sequence", "per", each=["hosts:host"], retry=1))
    chain = chain_of(spec, sequence("per", node("job")), given={"hosts": ["a", "b"]})
    assert [chain.jobs[job.sequence_id].sequence_retry for job in named(chain, "job")] == [1, 1]


def test_two_requests_do_not_affect_each_other() -> None:
    builder = ChainBuilder(
        specs(request(node("x", "conditional", if_arg="go", eq={"a": "s", "default": "t"}, retry=2),
                      required=("go",)),
              sequence("s", node("in-s", "sequence", "t", sets=["set"])),
              sequence("t", node("in-t", node_type='set "1"', sets={"out": "set"}))),
        factory,
    )  # fmt: skip
    first = [builder.build("request", {"go": go}, "", ids=job_ids(Random(1))).job_chain for go in ("a", "b")]
    again = [builder.build("request", {"go": go}, "", ids=job_ids(Random(1))).job_chain for go in ("b", "a")]
    assert first == again[::-1]


def test_job_ids_come_from_the_given_iterator() -> None:
    spec = request(node("x"))
    ids = (f"{number:04d}" for number in count())
    built = ChainBuilder(specs(spec), factory).build("request", {}, "", ids=ids)
    assert sorted(built.job_chain.jobs) == ["0000", "0001", "0002"]


@pytest.mark.parametrize("depth", [200, 5_000])
def test_sequences_may_nest_more_deeply_than_python_calls(depth: int) -> None:
    inner = [sequence(f"s{n}", node("in", "sequence", f"s{n + 1}")) for n in range(1, depth)]
    chain = chain_of(
        request(node("in", "sequence", "s1")), *inner, sequence(f"s{depth}", node("bottom", retry=1))
    )
    assert len(chain.jobs) == 2 * (depth + 1) + 1
    assert one(chain, "bottom").retry == 1


def test_a_sequence_of_many_nodes_in_reverse_order_is_built_fast() -> None:
    """Each node needs an arg of the next one. A quadratic build would take minutes."""
    size = 5_000
    nodes = [
        node(f"n{i}", node_type='set "x"', args=[f"a{i + 1}"], sets={"out": f"a{i}"}) for i in range(size)
    ]
    chain = chain_of(request(*nodes), given={f"a{size}": "start"})
    assert len(chain.jobs) == size + 2


def test_a_chain_over_the_limit_of_jobs_is_refused() -> None:
    builder = ChainBuilder(specs(request(node("x", each=["hosts:host"]))), factory, max_jobs=26)
    assert len(builder.build("request", {"hosts": list(range(20))}, "").job_chain.jobs) == 26
    with pytest.raises(InvalidArgumentError, match="more than 26 jobs") as caught:
        builder.build("request", {"hosts": list(range(21))}, "")
    assert caught.value.reason == "TOO_MANY_JOBS"


def test_a_chain_that_cannot_be_sent_to_a_runner_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs themselves have a size too, even without args."""
    monkeypatch.setattr(chain_writer, "MAX_CHAIN_BYTES", 2_000)
    builder = ChainBuilder(specs(request(node("x", each=["hosts:host"]))), factory)
    assert builder.build("request", {"hosts": [1, 2, 3]}, "").job_chain.ByteSize() <= 2_000
    with pytest.raises(InvalidArgumentError, match="at most 2000 can be sent") as caught:
        builder.build("request", {"hosts": list(range(100))}, "")
    assert caught.value.reason == "CHAIN_TOO_LARGE"


def test_a_message_to_a_runner_has_room_for_the_largest_chain() -> None:
    assert chain_writer.MAX_CHAIN_BYTES < MAX_CHAIN < MAX_MESSAGE_BYTES


def test_a_large_arg_for_many_jobs_is_refused_before_it_fills_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job_creator, "MAX_CONTENT", 100_000)
    each = node("x", each=["hosts:host"], args=["text"])
    builder = ChainBuilder(specs(request(each)), factory)
    text = "x" * 10_000
    assert len(builder.build("request", {"hosts": [1, 2, 3, 4], "text": text}, "").job_chain.jobs) > 4
    with pytest.raises(InvalidArgumentError, match="more than 100000 bytes") as caught:
        builder.build("request", {"hosts": list(range(100_000)), "text": text}, "")
    assert caught.value.reason == "CHAIN_TOO_LARGE"
