"""The fixture jobs match the recordings of the original."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from spincycle_grpc.jobs import JobId, make_job
from spincycle_server.builtin_jobs import builtin_factory
from spincycle_server.job_factories import combine
from tests import fixture_jobs

DATA = Path(__file__).parent / "reference" / "data"


def recorded_jobs() -> list[dict[str, Any]]:
    """Returns one recorded job for each combination of type, args, and bytes."""
    found: dict[str, dict[str, Any]] = {}
    for case in json.loads((DATA / "requests.json").read_text()):
        for job in ((case.get("request") or {}).get("JobChain") or {}).get("jobs", {}).values():
            found[json.dumps([job["type"], job.get("args"), job.get("bytes")], sort_keys=True)] = job
    return list(found.values())


@pytest.mark.parametrize("recorded", recorded_jobs(), ids=lambda job: job["type"])
def test_jobs_have_the_recorded_bytes(recorded: dict[str, Any]) -> None:
    factory = combine([fixture_jobs.factory], builtin_factory)
    job_id = JobId(recorded["type"], recorded["name"], recorded["id"], "r")
    job = make_job(factory, job_id)
    job.create(dict(recorded.get("args") or {}))
    data = job.serialize()
    assert base64.b64encode(data).decode() == recorded.get("bytes", "")
    again = make_job(factory, job_id)
    again.deserialize(data)
    assert again.serialize() == data


def test_the_recordings_contain_all_fixture_jobs() -> None:
    recorded = {job["type"] for job in recorded_jobs()}
    assert recorded >= {"echo", "set-args", "set-data", "show-data", "fail-times", "panic"}


def test_set_args_sets_args() -> None:
    job_args = {"json": '{"app": "shop", "nodes": ["n1"]}'}
    make_job(fixture_jobs.factory, JobId("set-args", "find", "aaaa", "r")).create(job_args)
    assert job_args == {"json": '{"app": "shop", "nodes": ["n1"]}', "app": "shop", "nodes": ["n1"]}
