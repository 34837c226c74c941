"""`spincycle graph`: a chain shown in every format, and what it says when it cannot be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from spincycle_grpc import wire
from spincycle_grpc.v1.job_pb2 import JobChain
from tests.limits import COMMAND
from tests.reference.recordings import SPECS

REPOSITORY = Path(__file__).parents[2]


def graph(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "SPINCYCLE_JOBS": "tests.fixture_jobs:factory",
    }
    if path is not None:
        environment["PATH"] = path
    return subprocess.run(
        [sys.executable, "-m", "spincycle_server", "graph", str(SPECS), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=COMMAND,
        check=False,
    )


def shown(*arguments: str) -> str:
    done = graph(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_text_tree_names_every_job() -> None:
    text = shown("nap", "ms=5")
    assert "before" in text
    assert "sleep" in text
    assert "after" in text


def test_json_is_the_chain_of_the_wire() -> None:
    text = shown("nap", "ms=5", "--format=json")
    chain = wire.decode(text.encode(), JobChain)
    assert len(chain.jobs) == 5
    [sleep] = [job for job in chain.jobs.values() if job.type == "sleep"]
    assert json.loads(sleep.bytes) == {"duration": 5_000_000}
    assert chain.request_id == ""


@pytest.mark.parametrize(("output_format", "start"), [("dot", "digraph"), ("mermaid", "flowchart")])
def test_graphs_have_all_jobs_and_edges(output_format: str, start: str) -> None:
    text = shown("nap", f"--format={output_format}")
    arrow = "->" if output_format == "dot" else "-->"
    assert text.startswith(start)
    assert text.count(arrow) == 4


def test_svg_is_drawn_by_graphviz() -> None:
    if shutil.which("dot") is None:
        pytest.skip("Graphviz is not installed")
    root = ElementTree.fromstring(shown("nap", "--format=svg"))
    assert root.tag.endswith("svg")


def test_without_graphviz_svg_is_one_clear_sentence(tmp_path: Path) -> None:
    done = graph("nap", "--format=svg", path=str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Graphviz" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nosuch",), "cannot find definition for request: nosuch"),
        (("one-job",), "required arg 'out' not set"),
        (("nap", "ms"), "ms"),
    ],
)
def test_what_cannot_be_built_is_one_clear_sentence(arguments: tuple[str, ...], said: str) -> None:
    done = graph(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
