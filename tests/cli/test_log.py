"""`spinc log`: which tries it shows, and how much of each."""

from __future__ import annotations

import json

import pytest

from spincycle_grpc import State
from spincycle_grpc.v1.job_pb2 import Job, JobChain, JobIds
from spincycle_grpc.v1.request_manager_pb2 import GetJobChainResponse, GetLogRequest
from tests.cli.conftest import Spinc
from tests.fake_manager import JOB_ID, REQUEST_ID, FakeManager, entry

LINES = "".join(f"line {number}\n" for number in range(30))


class HostManager(FakeManager):
    """Has a request that drains and restarts two hosts. One restart has failed."""

    def __init__(self) -> None:
        super().__init__()
        jobs = (("dra1", "web1", "drain"), ("res1", "web1", "restart"))
        more = (("dra2", "web2", "drain"), ("res2", "web2", "restart"))
        paths = {job_id: ("rolling", f"host {host}", name) for job_id, host, name in (*jobs, *more)}
        self.log = [
            entry(
                1, job_id=job_id, path=path, name=path[-1], state=State.COMPLETE, exit=0, finished_at=10 + at
            )
            for at, (job_id, path) in enumerate(paths.items())
        ]
        self.log.append(entry(1, job_id="noop", name="noop", type="noop", state=State.COMPLETE, exit=0))
        for number in (1, 2):
            failure = {
                "error": "exit status 7",
                "stderr": LINES,
                "stdout": "out",
                "finished_at": 100 + number,
            }
            self.log.append(entry(number, job_id="fail", path=("rolling", "host web3", "check"), **failure))
        self.chain = JobChain(path_labels={"begi": "rolling", "seq1": "host web1", "seq2": "host web2"})
        self.chain.jobs["begi"].MergeFrom(noop("begi", "begi", ""))
        for job_id, host, name in (*jobs, *more):
            sequence = host.replace("web", "seq")
            self.chain.jobs[sequence].MergeFrom(noop(sequence, sequence, "begi"))
            self.chain.jobs[job_id].MergeFrom(
                Job(id=job_id, name=name, type="sleep", sequence_id=sequence, parent_sequence_id="begi")
            )
        self.chain.adjacency_list["begi"].MergeFrom(JobIds(ids=["seq1", "seq2"]))

    def GetJobChain(self, request: object, context: object) -> GetJobChainResponse:
        self._called("GetJobChain", request, context)  # type: ignore[arg-type]
        return GetJobChainResponse(job_chain=self.chain)


def noop(job_id: str, sequence_id: str, parent: str) -> Job:
    return Job(id=job_id, name="noop", type="noop", sequence_id=sequence_id, parent_sequence_id=parent)


@pytest.fixture
def manager() -> HostManager:
    return HostManager()


def ids(output: str) -> list[str]:
    """Returns the ids in the rows of a table."""
    headings, *rows = output.splitlines()
    start = headings.index("ID ")
    return [row[start : start + 4] for row in rows]


def test_the_table_has_all_tries_without_noops_oldest_first(manager: HostManager, spinc: Spinc) -> None:
    result = spinc("log", REQUEST_ID)
    assert result.exit_code == 0
    assert ids(result.stdout) == ["dra1", "res1", "dra2", "res2", "fail", "fail"]
    assert result.stdout.splitlines()[1].startswith("rolling / host web1 / drain    dra1  1    COMPLETE  0 ")
    assert result.stdout.splitlines()[-1].endswith("exit status 7")
    assert "noop" in ids(spinc("log", REQUEST_ID, "--all").stdout)


def test_the_tail_is_the_newest_tries(manager: HostManager, spinc: Spinc) -> None:
    assert ids(spinc("log", REQUEST_ID, "--tail=3").stdout) == ["res2", "fail", "fail"]
    [asked] = manager.requests("GetLog")
    assert asked == GetLogRequest(request_id=REQUEST_ID, omit_noops=True, newest_first=True, page_size=3)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("host web2", ["dra2", "res2"]),
        ("web2", ["dra2", "res2"]),
        ("drain", ["dra1", "dra2"]),
        ("rolling", ["dra1", "res1", "dra2", "res2"]),
        ("rolling / host web1", ["dra1", "res1"]),
    ],
)
def test_a_part_of_a_path_chooses_jobs(
    named: str, expected: list[str], manager: HostManager, spinc: Spinc
) -> None:
    assert ids(spinc("log", REQUEST_ID, "--job", named).stdout) == expected
    shown = json.loads(spinc("log", REQUEST_ID, "--job", named, "--json").stdout)
    assert [one["jobId"] for one in shown] == expected


@pytest.mark.parametrize("named", ["res2", "host web2 / restart", "host web2/restart", "web2 / restart"])
def test_one_job_is_shown_with_its_output(named: str, manager: HostManager, spinc: Spinc) -> None:
    shown = spinc("log", REQUEST_ID, "--job", named).stdout
    assert shown.startswith("job      rolling / host web2 / restart (job res2, sleep)\n")


def test_the_beginning_of_a_job_id_is_enough_if_no_other_id_begins_so(
    manager: HostManager, spinc: Spinc
) -> None:
    manager.chain.jobs["dra2"].id = "k2x9"
    manager.chain.jobs["k2x9"].MergeFrom(manager.chain.jobs.pop("dra2"))
    manager.log[2].job_id = "k2x9"
    for named in ("k2", "k2x", "k2x9"):
        assert spinc("log", REQUEST_ID, "--job", named).stdout.startswith(
            "job      rolling / host web2 / drain ("
        )
    several = spinc("log", REQUEST_ID, "--job", "res")
    assert (several.exit_code, several.stdout) == (3, "")
    assert several.stderr == (
        "spinc: the ids of 2 jobs begin with 'res': write the whole id: "
        "res1 (rolling / host web1 / restart), res2 (rolling / host web2 / restart)\n"
    )
    assert "has no job 'k'" in spinc("log", REQUEST_ID, "--job", "k").stderr


def test_a_name_in_a_path_comes_before_the_beginning_of_an_id(manager: HostManager, spinc: Spinc) -> None:
    manager.chain.jobs["dra1"].name = "res"
    assert spinc("log", REQUEST_ID, "--job", "res").stdout.startswith(
        "job      rolling / host web1 / drain ("
    )


def test_an_unknown_job_is_one_sentence(manager: HostManager, spinc: Spinc) -> None:
    for named in ("nosuch", "none", "host web", "restart / drain", "host web1 / ", " / drain"):
        result = spinc("log", REQUEST_ID, "--job", named)
        assert (result.exit_code, result.stdout) == (3, "")
        assert f"has no job '{named}'" in result.stderr
    assert "did you mean 'host web1'?" in spinc("log", REQUEST_ID, "--job", "hots web1").stderr
    manager.log = []
    unfinished = spinc("log", REQUEST_ID, "--job", "dra1")
    assert (unfinished.exit_code, unfinished.stdout) == (3, "")
    assert "has not finished a try" in unfinished.stderr


def test_the_newest_try_has_its_last_lines(manager: HostManager, spinc: Spinc) -> None:
    shown = spinc("log", REQUEST_ID, "fail").stdout
    assert "try      2\n" in shown
    assert "(last 10 of 30 lines, --full shows all)" in shown
    assert "  line 29\n" in shown
    assert "line 19\n" not in shown
    assert "(last 2 of 30 lines, --full shows all)" in spinc("log", REQUEST_ID, "fail", "--lines=2").stdout
    assert "line 0\n" in spinc("log", REQUEST_ID, "--job=fail", "--full").stdout
    assert "(last 3 of 30 lines, --full shows all)" in spinc("log", REQUEST_ID, "--lines=3").stdout
    both = spinc("log", REQUEST_ID, "--job=fail", "--tail=5").stdout
    assert both.index("try      1\n") < both.index("try      2\n")


def test_failed_shows_failed_jobs_with_all_their_tries(manager: HostManager, spinc: Spinc) -> None:
    shown = spinc("log", REQUEST_ID, "--failed").stdout.splitlines()
    assert shown[0] == "rolling / host web3 / check (job fail)"
    assert [line.split(":")[0] for line in shown[1:3]] == ["  try 1 of 2", "  try 2 of 2"]
    assert shown[4] == "  stderr, the last 10 lines:"
    assert "line 0" in spinc("log", REQUEST_ID, "--failed", "--full").stdout
    assert [one["try"] for one in json.loads(spinc("log", REQUEST_ID, "--failed", "--json").stdout)] == [1, 2]
    assert (
        spinc("log", REQUEST_ID, "--failed", "--job", "host web1").stdout == "none of these jobs has failed\n"
    )


def test_the_tail_of_failed_jobs_is_the_newest_ones(manager: HostManager, spinc: Spinc) -> None:
    manager.log = [entry(1, job_id=f"j{number:03}", finished_at=number) for number in range(9)]
    shown = spinc("log", REQUEST_ID, "--failed", "--tail=2").stdout
    assert [line for line in shown.splitlines() if "(job " in line] == ["nap (job j007)", "nap (job j008)"]


def test_the_beginning_of_an_id_is_resolved_once(manager: HostManager, spinc: Spinc) -> None:
    assert spinc("log", REQUEST_ID[:8], "--job", "drain").exit_code == 0
    assert [asked.request.request_id for asked in manager.asked] == [REQUEST_ID[:8], REQUEST_ID, REQUEST_ID]
    assert spinc("log", REQUEST_ID[:8], "--failed").exit_code == 0


def test_json_has_the_whole_entries(manager: HostManager, spinc: Spinc) -> None:
    shown = json.loads(spinc("log", REQUEST_ID, "--json").stdout)
    assert [one["jobId"] for one in shown][-2:] == ["fail", "fail"]
    assert shown[-1]["stderr"] == LINES
    assert json.loads(spinc("log", REQUEST_ID, "fail", "--json").stdout)["try"] == 2
    manager.log = []
    assert spinc("log", REQUEST_ID, "--json").stdout == "[]\n"


def test_a_request_from_before_paths_has_the_names_of_jobs(manager: FakeManager, spinc: Spinc) -> None:
    manager.log = [entry(1)]
    assert spinc("log", REQUEST_ID).stdout.splitlines()[1].startswith(f"nap  {JOB_ID}")


@pytest.mark.parametrize(
    "options",
    [
        ("--tail=0",), ("--lines=-1",), ("--lines=3", "--full"), ("aB3x", "--job=aB3x"), ("-f", "--failed"),
        ("-f", "--tail=3"), ("-f", "--all"), ("-f", "--json"), ("-f", "--lines=3"),
    ],
)  # fmt: skip
def test_impossible_options_are_one_sentence(
    options: tuple[str, ...], manager: FakeManager, spinc: Spinc
) -> None:
    result = spinc("log", REQUEST_ID, *options)
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert not manager.asked
