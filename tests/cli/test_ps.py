"""`spinc ps`: which Job Runner runs what, for whom."""

from __future__ import annotations

import json
import time

from spincycle_grpc import State, errors
from tests.cli.conftest import Spinc
from tests.fake_manager import JOB_ID, REQUEST_ID, FakeManager, stage

PATH = ("rolling-restart", "host web7", "drain")


def cells(output: str, row: int) -> dict[str, str]:
    """Returns the cells of a row of a table by heading."""
    headings, *rows = output.splitlines()
    names = headings.split()
    starts = [headings.index(name) for name in names]
    line = rows[row]
    return {
        name: line[start:end].strip()
        for name, start, end in zip(names, starts, [*starts[1:], None], strict=True)
    }


def test_a_running_job_has_its_path_its_runner_and_its_user(manager: FakeManager, spinc: Spinc) -> None:
    job = manager.status.jobs[0]
    job.started_at = time.time_ns() - 90_000_000_000
    job.path[:] = PATH
    request = manager.status.requests[REQUEST_ID]
    request.user, request.job_runner_url = "ann", "http://runner1.example.com:32307"
    result = spinc("ps")
    assert result.exit_code == 0
    shown = cells(result.stdout, 0)
    assert shown.pop("FOR").startswith("1m3")
    assert shown == {
        "REQUEST": REQUEST_ID, "USER": "ann", "HOST": "runner1.example.com:32307", "DONE": "2/5",
        "JOB": "rolling-restart / host web7 / drain", "ID": JOB_ID, "TRY": "1", "STATUS": "sleeping",
    }  # fmt: skip
    assert json.loads(spinc("ps", REQUEST_ID, "--json").stdout)["jobs"][0]["jobId"] == JOB_ID
    assert [asked.filter.request_id for asked in manager.requests("Running")] == ["", REQUEST_ID]


def test_a_job_without_a_path_has_the_type_of_its_request_and_its_name(
    manager: FakeManager, spinc: Spinc
) -> None:
    manager.status.jobs[0].name = "sleep"
    assert cells(spinc("ps").stdout, 0)["JOB"] == "nap / sleep"


def test_a_request_whose_jobs_are_not_known_has_a_row(manager: FakeManager, spinc: Spinc) -> None:
    del manager.status.jobs[:]
    shown = cells(spinc("ps").stdout, 0)
    assert (shown["REQUEST"], shown["JOB"], shown["DONE"]) == (REQUEST_ID, "nap", "2/5")
    assert shown["STATUS"] == "(its jobs are not known)"


def test_requests_that_wait_say_why(manager: FakeManager, spinc: Spinc) -> None:
    waits, other = stage(State.PENDING, 0), stage(State.PENDING, 0)
    waits.id, waits.waiting = f"waits{'0' * 15}", "no job runner knows the job type drain"
    manager.found = [waits, other]
    shown = cells(spinc("ps").stdout, -1)
    assert (shown["REQUEST"], shown["DONE"], shown["STATUS"]) == (
        waits.id,
        "0/5",
        f"(waits: {waits.waiting})",
    )
    [waiting] = json.loads(spinc("ps", "--json").stdout)["waiting"]
    assert waiting["waiting"] == waits.waiting
    assert waits.waiting not in spinc("ps", REQUEST_ID).stdout
    assert waits.waiting in spinc("ps", waits.id).stdout


def test_without_a_running_job_the_state_of_the_request_is_named(manager: FakeManager, spinc: Spinc) -> None:
    del manager.status.jobs[:]
    manager.status.requests.clear()
    manager.stages = [stage(State.COMPLETE, 1000)]
    assert spinc("ps").stderr == "spinc: no job is running\n"
    assert spinc("ps", REQUEST_ID).stderr == f"spinc: {REQUEST_ID} is COMPLETE: no job is running\n"
    manager.failures["Get"] = [errors.NotFoundError("request gone not found")]
    unknown = spinc("ps", REQUEST_ID)
    assert (unknown.exit_code, unknown.stdout, unknown.stderr) == (3, "", "spinc: request gone not found\n")
