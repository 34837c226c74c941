"""`spincycle graph`: the job chain in every format, and the errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from subprocess import CompletedProcess
from xml.etree import ElementTree

import pytest

from spincycle_grpc import wire
from spincycle_grpc.v1.job_pb2 import JobChain
from tests.commands.in_process import REPOSITORY, spincycle
from tests.reference.recordings import SPECS


def graph(*arguments: str, **environment: str) -> CompletedProcess[str]:
    jobs = {"SPINCYCLE_JOBS": "tests.fixture_jobs:factory"}
    return spincycle(REPOSITORY, "graph", str(SPECS), *arguments, **jobs, **environment)


def printed(*arguments: str) -> str:
    done = graph(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_text_tree_names_every_job() -> None:
    text = printed("nap", "ms=5")
    assert "before" in text
    assert "sleep" in text
    assert "after" in text


def test_json_is_the_chain_in_the_format_of_the_api() -> None:
    text = printed("nap", "ms=5", "--format=json")
    chain = wire.decode(text.encode(), JobChain)
    assert len(chain.jobs) == 5
    [sleep] = [job for job in chain.jobs.values() if job.type == "sleep"]
    assert json.loads(sleep.bytes) == {"duration": 5_000_000}
    assert chain.request_id == ""


@pytest.mark.parametrize(("output_format", "start"), [("dot", "digraph"), ("mermaid", "flowchart")])
def test_dot_and_mermaid_have_all_edges(output_format: str, start: str) -> None:
    text = printed("nap", f"--format={output_format}")
    arrow = "->" if output_format == "dot" else "-->"
    assert text.startswith(start)
    assert text.count(arrow) == 4


def test_graphviz_draws_the_svg() -> None:
    if shutil.which("dot") is None:
        pytest.skip("Graphviz is not installed")
    root = ElementTree.fromstring(printed("nap", "--format=svg"))
    assert root.tag.endswith("svg")


def test_svg_without_graphviz_fails_with_one_sentence(tmp_path: Path) -> None:
    done = graph("nap", "--format=svg", PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Graphviz" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nosuch",), "cannot find definition for request: nosuch"),
        (("one-job",), "required arg 'out' not set"),
        (("nap", "ms"), "ms"),
    ],
)
def test_an_impossible_request_fails_with_one_sentence(arguments: tuple[str, ...], message: str) -> None:
    done = graph(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
