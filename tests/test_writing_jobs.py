"""The code in docs/writing-jobs.md runs, its tests pass, and its specs use its jobs."""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
import threading
from collections.abc import Awaitable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from spincycle_grpc.jobs import JobId, Return, UnknownJobTypeError, make_job
from spincycle_server.job_factories import combine, knows_job_type, load_factory
from tests.limits import STEP

PAGE = Path(__file__).parent.parent / "docs" / "writing-jobs.md"


def blocks(language: str) -> list[str]:
    """Returns the code blocks of the page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def my_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module with all Python blocks of the page, loaded as the page says."""
    (tmp_path / "my_jobs.py").write_text("\n\n".join(blocks("python")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    load_factory("my_jobs:factory")
    yield sys.modules["my_jobs"]
    del sys.modules["my_jobs"]


@pytest.mark.parametrize("name", re.findall(r"^(?:async )?def (test_\w+)", PAGE.read_text(), re.MULTILINE))
def test_the_tests_of_the_page_pass(my_jobs: ModuleType, name: str) -> None:
    test = getattr(my_jobs, name)
    if inspect.iscoroutinefunction(test):
        asyncio.run(asyncio.wait_for(test(), STEP))
    else:
        test()


def run_of(my_jobs: ModuleType, job_type: str, **job_args: Any) -> tuple[dict[str, Any], Return]:
    """Creates, serializes, and runs a job. Returns its job args after `create`, and its result."""
    job_id = JobId(job_type, "n", "aaaa", "r")
    created, running = make_job(my_jobs.factory, job_id), make_job(my_jobs.factory, job_id)
    created.create(job_args)
    running.deserialize(created.serialize())
    result = running.run({})
    return job_args, result if isinstance(result, Return) else asyncio.run(awaited(result))


async def awaited(result: Awaitable[Return]) -> Return:
    return await asyncio.wait_for(result, STEP)


@pytest.mark.parametrize(
    ("job_type", "job_args", "stdout"),
    [
        ("greet", {"name": "ops", "greeting": "Hi"}, "Hi, ops!\n"),
        ("drain", {"host": "web9", "grace": "0.01"}, "web9 is drained\n"),
        ("warm", {"hosts": ["old1"]}, "all caches are warm\n"),
        ("copy", {"blocks": "3"}, "copied 3 blocks\n"),
        ("echo", {"text": "as it is"}, "as it is"),
        ("show-rack", {"host": "web1"}, "r7"),
    ],
)
def test_the_jobs_of_the_page_run(
    my_jobs: ModuleType, job_type: str, job_args: dict[str, Any], stdout: str
) -> None:
    assert run_of(my_jobs, job_type, **job_args)[1] == Return(stdout=stdout)


def test_the_page_sets_job_args(my_jobs: ModuleType) -> None:
    job_args, result = run_of(my_jobs, "find-hosts", service="web")
    assert job_args == {"service": "web", "hosts": ["web1", "web2"]}
    assert result == Return()
    with pytest.raises(ValueError, match="there is no service mail"):
        run_of(my_jobs, "find-hosts", service="mail")


def test_the_handwritten_factory_makes_its_job_and_no_other(my_jobs: ModuleType) -> None:
    job_id = JobId("greet", "n", "aaaa", "r")
    assert make_job(my_jobs.greet_factory, job_id).id == job_id
    with pytest.raises(UnknownJobTypeError):
        my_jobs.greet_factory(JobId("drain", "n", "aaaa", "r"))


def test_the_specs_of_the_page_name_its_jobs(my_jobs: ModuleType) -> None:
    knows = knows_job_type(combine([my_jobs.factory]))
    specs = [yaml.safe_load(block) for block in blocks("yaml")]
    types = [
        node["type"]
        for spec in specs
        for sequence in spec["sequences"].values()
        for node in sequence["nodes"].values()
    ]
    assert types == ["greet", "find-hosts", "drain"]
    assert all(knows(job_type) for job_type in types)


def test_the_page_names_the_entry_point_group() -> None:
    (block,) = blocks("toml")
    assert '[project.entry-points."spincycle.jobs"]' in block


def test_the_job_of_the_page_passes_its_trace_on(my_jobs: ModuleType) -> None:
    traceparent = f"00-{'1' * 32}-{'2' * 16}-01"
    seen: list[tuple[str | None, str | None]] = []

    class Service(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.headers["traceparent"], self.headers["tracestate"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        for trace in (traceparent, ""):
            job = my_jobs.CheckHealth(f"http://127.0.0.1:{server.server_port}")
            job.id = JobId("check-health", "check", "aaaa", "request", trace)
            assert job.run({}) == Return(stdout="204\n")
        server.shutdown()
        thread.join()
    assert seen == [(traceparent, None), (None, None)]
