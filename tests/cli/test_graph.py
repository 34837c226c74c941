"""`spinc graph`: the boxes of a request's jobs."""

from __future__ import annotations

import json

import pytest

from spincycle_grpc.render import render
from spincycle_grpc.structs import to_struct
from spincycle_grpc.v1.job_pb2 import Job, JobChain, JobIds
from spincycle_grpc.v1.limit_pb2 import LIMIT_POLICY_REFUSE, LIMIT_POLICY_REPLACE
from tests.cli.conftest import Spinc, Terminal, end
from tests.fake_manager import REQUEST_ID, FakeManager

LABELS = {"aaaa": "restart", "host": "host web7", "ping": 'each "1" <b>'}


def chain(**labels: str) -> JobChain:
    """Returns a chain with a sequence in a sequence. Its labels are those of a server."""
    args = to_struct({"duration": "400", **{f"arg{number}": number for number in range(6)}}, "")
    jobs = [
        Job(id="aaaa", name="noop", type="noop", sequence_id="aaaa"),
        Job(id="host", name="noop", type="noop", sequence_id="host", parent_sequence_id="aaaa"),
        Job(id="drai", name="drain", type="sleep", sequence_id="host", parent_sequence_id="aaaa", args=args),
        Job(id="ping", name="ping", type="sh", sequence_id="aaaa", retry=2),
    ]
    edges = {"aaaa": JobIds(ids=["host"]), "host": JobIds(ids=["drai"]), "drai": JobIds(ids=["ping"])}
    return JobChain(jobs={job.id: job for job in jobs}, adjacency_list=edges, path_labels=labels)


def test_the_tree_has_the_names_of_sequences() -> None:
    lines = render(chain(**LABELS), "text").splitlines()
    assert lines[1] == "└── aaaa restart"
    assert lines[2] == "    ├── host host web7"
    assert lines[3].startswith("    │   └── drai drain (sleep) arg0=0 ")
    assert lines[4] == '    └── ping each "1" <b> / ping (sh), retry 2'


def test_the_boxes_of_graphviz_have_names_and_args() -> None:
    text = render(chain(**LABELS), "dot")
    assert '  subgraph "cluster_host" {\n  label="host web7";' in text
    assert 'label="drain (sleep)\\narg0=0\\narg1=1\\narg2=2\\narg3=3\\narg4=4\\nand 2 more args"' in text
    assert 'label="each \\"1\\" <b> / ping (sh)\\nretry 2"' in text


def test_the_boxes_of_mermaid_have_names_and_args() -> None:
    text = render(chain(**LABELS), "mermaid")
    assert '  subgraph sequence_host["host web7"]\n' in text
    assert '  job_drai["drain (sleep)<br/>arg0#61;0<br/>' in text
    assert "<b>" not in text


@pytest.mark.parametrize("output_format", ["text", "dot", "mermaid"])
def test_the_outermost_sequence_has_the_limits_of_the_request(output_format: str) -> None:
    limited = chain(**LABELS)
    limited.limits.add(key="cluster/a", max=2)
    limited.limits.add(key="b", max=1, policy=LIMIT_POLICY_REPLACE)
    limited.limits.add(key="c", max=3, policy=LIMIT_POLICY_REFUSE)
    [line] = [line for line in render(limited, output_format).splitlines() if "at most" in line]
    assert "restart" in line
    assert "at most 2 with cluster/a" in line
    assert "at most 1 with b, replaces others" in line
    assert "at most 3 with c, refused if reached" in line


@pytest.mark.parametrize(("output_format", "name"), [("text", "aaaa sequence"), ("dot", 'label="sequence"')])
def test_sequences_without_names_are_called_sequence(output_format: str, name: str) -> None:
    assert name in render(chain(), output_format)


@pytest.mark.parametrize(
    ("output_format", "part"),
    [
        ("tree", "└── bbbb nap (sleep)"),
        ("dot", "digraph"),
        ("mermaid", "flowchart"),
        ("json", '"adjacencyList"'),
    ],
)
def test_graph_draws_a_request(manager: FakeManager, spinc: Spinc, output_format: str, part: str) -> None:
    result = spinc("graph", REQUEST_ID, "--format", output_format)
    assert result.exit_code == 0
    assert part in result.stdout
    assert [asked.request_id for asked in manager.requests("GetJobChain")] == [REQUEST_ID]


def test_json_is_the_chain(spinc: Spinc) -> None:
    assert len(json.loads(spinc("graph", REQUEST_ID, "--json").stdout)["jobs"]) == 2


def test_names_cannot_control_a_terminal(manager: FakeManager, terminal: Terminal) -> None:
    for output_format in ("text", "dot", "mermaid"):
        evil = chain(aaaa="\x1b[2J", host="\x1b[2J", ping="\x07")
        evil.jobs["ping"].name = evil.jobs["ping"].type = "\x1b]0;evil\x07"
        evil.jobs["ping"].args.update({"\x1b": "\x1b"})
        assert render(evil, output_format).replace("\n", "").isprintable()
    assert end(terminal("graph", REQUEST_ID))[0] == 0
