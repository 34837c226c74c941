"""`spinc status` and the end of `--wait`: what failed, why, and what to type next."""

from __future__ import annotations

import json
import time

import pytest

from spincycle_grpc import State
from spincycle_grpc.errors import PermissionDeniedError
from spincycle_grpc.structs import to_value
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.request_pb2 import RequestArg
from tests.cli.conftest import Spinc
from tests.fake_manager import REQUEST_ID, RETRY_ID, FakeManager, entry, running_job, stage

PATH = ("rolling-restart", "host web7", "drain")
SECOND = 1_000_000_000


def failed(job_id: str, path: tuple[str, ...] = PATH, tries: int = 1, **fields: object) -> list[JobLog]:
    """Returns the tries of a job that all failed, a minute apart."""
    return [
        entry(
            number,
            job_id=job_id,
            path=path,
            started_at=(1_800_000_000 + 60 * number) * SECOND,
            finished_at=(1_800_000_002 + 60 * number) * SECOND,
            **fields,
        )
        for number in range(1, tries + 1)
    ]


def test_a_request_that_is_complete_needs_no_attention(manager: FakeManager, spinc: Spinc) -> None:
    manager.stages = [stage(State.COMPLETE, 5)]
    result = spinc("status", REQUEST_ID)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"request   {REQUEST_ID}",
        "type      nap",
        "state     COMPLETE",
        "jobs      5 of 5 done",
        "created   2027-01-15 08:00:00 UTC",
        "started   2027-01-15 08:00:01 UTC",
        "finished  2027-01-15 08:00:02 UTC",
        "took      1.5s",
    ]
    assert {asked.method for asked in manager.asked} == {"Get"}


def test_a_request_that_another_one_replaced_says_why_it_was_stopped(
    manager: FakeManager, spinc: Spinc
) -> None:
    manager.stages = [stage(State.STOPPED, 1)]
    reason = f"request {RETRY_ID} replaced it at the limit cluster/a"
    manager.stages[0].stop_reason = reason
    assert f"stop reason  {reason}" in spinc("status", REQUEST_ID).stdout.splitlines()
    assert f"- Stop reason: `{reason}`" in spinc("export", REQUEST_ID).stdout


def test_a_failed_job_has_its_path_its_tries_its_error_and_the_next_command(
    manager: FakeManager, spinc: Spinc
) -> None:
    manager.stages = [stage(State.FAIL, 3)]
    lines = "".join(f"line {number}\n" for number in range(30))
    manager.log = [
        *failed("aB3x", tries=2, error="exit status 7", stderr=f"\x1b[31m{lines}\x1b[0m"),
        entry(1, job_id="good", state=State.COMPLETE),
        *failed("once", tries=1),
        entry(2, job_id="once", state=State.COMPLETE, exit=0),
    ]
    shown = spinc("status", REQUEST_ID).stdout
    assert shown.partition("\n\n")[2].splitlines() == [
        "1 failed job:",
        "  rolling-restart / host web7 / drain (job aB3x)",
        "    try 1 of 2: 2027-01-15 08:01:00 UTC, 2s, exit 7",
        "    try 2 of 2: 2027-01-15 08:02:00 UTC, 2s, exit 7",
        "    error: exit status 7",
        "    stderr, the last 5 lines:",
        *(f"      line {number}" for number in range(25, 30)),
        "",
        "next:",
        f"  spinc log {REQUEST_ID} --job aB3x  # its output",
        f"  spinc retry {REQUEST_ID}           # do the rest",
    ]


def test_of_many_failed_jobs_the_first_ones_are_shown(manager: FakeManager, spinc: Spinc) -> None:
    manager.stages = [stage(State.FAIL, 3)]
    manager.log = [one for number in range(22) for one in failed(f"j{number:03}", tries=2)]
    shown = spinc("status", REQUEST_ID).stdout
    assert "22 failed jobs:" in shown
    assert f"  and 17 more: spinc log {REQUEST_ID} --failed" in shown
    assert shown.count("try 2 of 2") == 5
    assert len(manager.requests("GetLog")) == 6
    whole = spinc("status", REQUEST_ID, "--full").stdout
    assert whole.count("try 2 of 2") == 22


def test_of_very_many_failed_jobs_not_all_are_read(
    manager: FakeManager, spinc: Spinc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spincycle_grpc.cli.request_record.MOST_FAILED", 7)
    manager.stages = [stage(State.FAIL, 3)]
    manager.log = [one for number in range(22) for one in failed(f"j{number:03}")]
    shown = spinc("status", REQUEST_ID).stdout
    assert "at least 7 failed jobs:" in shown
    assert f"  and at least 2 more: spinc log {REQUEST_ID} --failed" in shown


def test_many_tries_are_cut(manager: FakeManager, spinc: Spinc) -> None:
    manager.stages = [stage(State.FAIL, 3)]
    manager.log = failed("aB3x", tries=40)
    shown = spinc("status", REQUEST_ID).stdout
    assert "    35 earlier tries\n    try 36 of 40" in shown


def test_running_jobs_have_their_path_and_their_status(manager: FakeManager, spinc: Spinc) -> None:
    manager.stages = [stage(State.RUNNING, 3)]
    again = running_job(2, path=PATH, started_at=time.time_ns() - 90 * SECOND, status="copying")
    manager.status.jobs[0].CopyFrom(again)
    manager.log = [*failed("aB3x"), *failed("zzzz", ("rolling-restart", "announce"))]
    shown = spinc("status", REQUEST_ID).stdout
    assert "1 running job:" in shown
    [row] = [line for line in shown.splitlines() if line.endswith("copying")]
    assert row.split("  ")[1] == "rolling-restart / host web7 / drain"
    assert "1m3" in row
    assert "1 job that has failed and may be tried again:\n  rolling-restart / announce (job zzzz)" in shown
    assert f"spinc watch {REQUEST_ID}" in shown


@pytest.mark.parametrize(
    ("state", "waiting", "step"),
    [
        (State.SUSPENDED, "paused by ann at 2026-11-29T13:15:12Z", f"spinc resume {REQUEST_ID}"),
        (State.PENDING, "paused at 2026-11-29T13:15:12Z", f"spinc resume {REQUEST_ID}"),
        (State.PENDING, "no job runner knows the job type drain", None),
        (State.STOPPED, "", f"spinc retry {REQUEST_ID}"),
        (State.PENDING, "", None),
    ],
)
def test_the_next_command_depends_on_the_state(
    state: State, waiting: str, step: str | None, manager: FakeManager, spinc: Spinc
) -> None:
    manager.stages = [stage(state, 3)]
    manager.stages[0].waiting = waiting
    manager.log = []
    manager.status.Clear()
    shown = spinc("status", REQUEST_ID).stdout
    assert ("next:" in shown) is (step is not None)
    assert (step or "") in shown
    assert (f"waiting  {waiting}" in shown.replace("   ", "  ")) is bool(waiting)


def test_a_request_that_was_retried_names_the_retry(manager: FakeManager, spinc: Spinc) -> None:
    manager.stages = [stage(State.FAIL, 3)]
    manager.stages[0].retried_by, manager.stages[0].retry_of = RETRY_ID, "first"
    shown = spinc("status", REQUEST_ID).stdout
    assert f"spinc status {RETRY_ID}" in shown
    assert "spinc retry" not in shown
    assert ["retry", "of", "first"] in [line.split() for line in shown.splitlines()]


def test_args_that_were_not_given_and_long_lists_are_cut(manager: FakeManager, spinc: Spinc) -> None:
    hosts = [f"web{number}" for number in range(200)]
    manager.stages = [stage(State.COMPLETE, 3)]
    manager.stages[0].args.extend(
        [
            RequestArg(name="hosts", given=True, value=to_value(hosts, "")),
            RequestArg(name="settle", given=False, value=to_value("500", "")),
        ]
    )
    shown = spinc("status", REQUEST_ID).stdout
    assert "arg hosts   200 values: web0, web1, web2, ..." in shown
    assert "other args  1 not given: --full shows them" in shown
    whole = spinc("status", REQUEST_ID, "--full").stdout
    assert '"web199"' in whole
    assert "arg settle  500" in whole


def test_noops_do_not_count_as_jobs(manager: FakeManager, spinc: Spinc) -> None:
    manager.stages = [stage(State.COMPLETE, 9, 9)]
    manager.stages[0].total_tasks, manager.stages[0].finished_tasks = 4, 3
    manager.found = manager.stages
    assert "jobs      3 of 4 done" in spinc("status", REQUEST_ID).stdout
    assert spinc("find").stdout.splitlines()[1].endswith("3/4")
    assert "3 of 4 jobs" in spinc("start", "plain", "--wait").stdout


def test_json_has_the_same_information(manager: FakeManager, spinc: Spinc) -> None:
    manager.stages = [stage(State.FAIL, 3)]
    manager.log = failed("aB3x", tries=2, error="exit status 7", stderr="no route", stdout="much")
    shown = json.loads(spinc("status", "--json", REQUEST_ID).stdout)
    assert (shown["id"], shown["state"]) == (REQUEST_ID, State.FAIL)
    assert len(shown["JobChain"]["jobs"]) == 2
    [job] = shown["failedJobs"]
    assert (job["jobId"], job["name"], job["path"]) == ("aB3x", "nap", list(PATH))
    assert [(one["try"], one["exit"], one["stderr"]) for one in job["tries"]] == [
        (1, 7, "no route"), (2, 7, "no route"),
    ]  # fmt: skip
    assert shown["next"] == [f"spinc log {REQUEST_ID} --job aB3x", f"spinc retry {REQUEST_ID}"]
    assert shown["runningJobs"] == []


def test_without_permission_to_read_the_log_the_rest_is_shown(manager: FakeManager, spinc: Spinc) -> None:
    manager.stages = [stage(State.FAIL, 3)]
    manager.failures["GetLog"] = [PermissionDeniedError("no")] * 3
    shown = spinc("status", REQUEST_ID)
    assert shown.exit_code == 0
    assert "failed jobs are not shown: you may not read the job log" in shown.stdout
    assert f"spinc retry {REQUEST_ID}" in shown.stdout
    assert json.loads(spinc("status", REQUEST_ID, "--json").stdout)["failedJobs"] is None
    assert "the author may not read the job log" in spinc("export", REQUEST_ID).stdout


def test_an_unknown_request_is_one_sentence(spinc: Spinc) -> None:
    missing = spinc("status", "nosuch")
    assert (missing.exit_code, missing.stdout) == (3, "")
    assert missing.stderr == "spinc: request nosuch not found\n"


@pytest.mark.parametrize("arguments", [("start", "nap"), ("rerun", REQUEST_ID)])
def test_a_wait_ends_with_what_failed(arguments: tuple[str, ...], manager: FakeManager, spinc: Spinc) -> None:
    manager.stages = [stage(State.FAIL, 3)]
    manager.log = failed("aB3x", error="exit status 7")
    result = spinc(*arguments, "--wait")
    assert result.exit_code == 1
    assert "1 failed job:\n  rolling-restart / host web7 / drain (job aB3x)" in result.stdout
    assert "spinc retry " in result.stdout.splitlines()[-1]
