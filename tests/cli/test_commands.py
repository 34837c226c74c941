"""The commands of `spinc`: output, calls and exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from spincycle_grpc import State, errors
from spincycle_grpc.calls import DEFAULT_ADDRESS
from spincycle_grpc.cli import settings
from spincycle_grpc.retries import DEFAULT_DEADLINE
from spincycle_grpc.v1.request_pb2 import RequestSpec
from spincycle_grpc.v1.status_pb2 import RunningStatus
from tests.cli.conftest import Spinc
from tests.fake_manager import JOB_ID, REQUEST_ID, FakeManager, entry, running_job, stage
from tests.limits import COMMAND

ESCAPE = "\x1b[31mred\x9b2J\u202e"


def test_without_a_command_it_lists_the_types_of_requests(spinc: Spinc) -> None:
    result = spinc()
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "REQUEST  ARGS",
        "nap      ms [host=localhost] [tags=[1, 2]]",
        "plain",
    ]
    assert [spec["Name"] for spec in json.loads(spinc("--json").stdout)] == ["nap", "plain"]


def test_help_shows_the_args_of_a_request(spinc: Spinc) -> None:
    result = spinc("help", "nap")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "spinc start nap ms [host=localhost] [tags=[1, 2]]"
    assert "ms    required             How long" in result.stdout
    assert "host  optional  localhost  Where" in result.stdout
    assert json.loads(spinc("help", "nap", "--json").stdout)["Name"] == "nap"
    unknown = spinc("help", "nosuch")
    assert (unknown.exit_code, unknown.stdout) == (3, "")
    assert "Exit status:" in spinc("help").stdout


def test_stop(manager: FakeManager, spinc: Spinc) -> None:
    assert REQUEST_ID in spinc("stop", REQUEST_ID).stdout
    assert json.loads(spinc("stop", REQUEST_ID, "--json").stdout) == {"requestId": REQUEST_ID}
    manager.failures["Stop"] = [errors.FailedPreconditionError("it has failed")]
    result = spinc("stop", REQUEST_ID)
    assert (result.exit_code, result.stdout, result.stderr) == (3, "", "spinc: it has failed\n")


def test_pause_and_resume(manager: FakeManager, spinc: Spinc) -> None:
    assert f"spinc resume {REQUEST_ID}" in spinc("pause", REQUEST_ID).stdout
    assert json.loads(spinc("pause", REQUEST_ID, "--now", "--json").stdout) == {
        "requestId": REQUEST_ID, "now": True,
    }  # fmt: skip
    assert [call.now for call in manager.requests("Pause")] == [False, True]
    assert REQUEST_ID in spinc("resume", REQUEST_ID).stdout
    assert json.loads(spinc("resume", REQUEST_ID, "--json").stdout) == {"requestId": REQUEST_ID}
    manager.failures["Resume"] = [errors.FailedPreconditionError("it is not paused")]
    result = spinc("resume", REQUEST_ID)
    assert (result.exit_code, result.stdout, result.stderr) == (3, "", "spinc: it is not paused\n")


def test_find(manager: FakeManager, spinc: Spinc) -> None:
    result = spinc(
        "find", "--type=nap", "--state=fail", "--state=STOPPED", "--user=finch", "--since=2h",
        "--until=2026-11-23T15:47:18Z", "--arg", "host=db1", "--limit=5", "--offset=10",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[1].split()[:3] == [REQUEST_ID, "nap", "COMPLETE"]
    [request] = manager.requests("Find")
    chosen = request.filter
    assert (chosen.type, list(chosen.states), chosen.user) == ("nap", [State.FAIL, State.STOPPED], "finch")
    assert chosen.since.ToSeconds() == pytest.approx(time.time() - 7200, abs=60)
    assert chosen.until.ToJsonString() == "2026-11-23T15:47:18Z"
    assert (list(chosen.args), chosen.limit, chosen.offset) == (["host=db1"], 5, 10)
    assert [found["id"] for found in json.loads(spinc("find", "--json").stdout)] == [REQUEST_ID]


@pytest.mark.parametrize(
    ("output_format", "part"),
    [
        ("tree", "└── bbbb nap (sleep)"),
        ("dot", "digraph"),
        ("mermaid", "flowchart"),
        ("json", '"adjacencyList"'),
    ],
)
def test_plan(manager: FakeManager, spinc: Spinc, output_format: str, part: str) -> None:
    result = spinc("plan", "nap", "ms=5", "hosts:=[1]", "--format", output_format)
    assert result.exit_code == 0
    assert part in result.stdout
    [request] = manager.requests("Plan")
    assert (request.type, request.args["ms"], list(request.args["hosts"])) == ("nap", "5", [1])
    assert not manager.requests("Create")


def test_plan_as_json_is_the_request(spinc: Spinc) -> None:
    assert json.loads(spinc("--json", "plan", "nap").stdout)["type"] == "nap"


def test_svg_without_graphviz_prints_one_sentence(spinc: Spinc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    result = spinc("plan", "nap", "--format=svg")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "Graphviz" in result.stderr


def test_shells_can_complete_commands_and_options(spinc: Spinc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_SPINC_COMPLETE", "bash_complete")
    for words, expected in (
        ("spinc ex", "export"),
        ("spinc log --fa", "--failed"),
        ("spinc log --jo", "--job"),
    ):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
        assert spinc().stdout == f"plain,{expected}\n"


def test_version(spinc: Spinc) -> None:
    assert "server  API 1.0.12" in spinc("version").stdout
    assert json.loads(spinc("version", "--json").stdout)["server"] == "1.0.12"
    assert "spinc" in spinc("--version").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("nosuch",),
        ("start",),
        ("start", "nap", "ms"),
        ("start", "nap", "ms=1", "ms=2"),
        ("start", "nap", "ms:={"),
        ("start", "nap", "--nosuch"),
        ("--addr=localhost", "ps"),
        ("--addr=http://localhost:1/", "ps"),
        ("ps", "--deadline=0"),
        ("ps", "--deadline=nan"),
        ("find", "--state=nosuch"),
        ("find", "--since=yesterday"),
        ("find", "--limit=-1"),
        ("find", "--limit=0", "--offset=3"),
        ("plan", "nap", "--format=png"),
    ],
)
def test_invalid_usage_prints_one_sentence(
    arguments: tuple[str, ...], manager: FakeManager, spinc: Spinc
) -> None:
    result = spinc(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("spinc: ")
    assert len(result.stderr.splitlines()) == 1
    assert not manager.asked


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (errors.InvalidArgumentError("no"), 3),
        (errors.NotFoundError("no"), 3),
        (errors.FailedPreconditionError("no"), 3),
        (errors.PermissionDeniedError("no"), 3),
        (errors.UnauthenticatedError("no"), 3),
        (errors.ResourceExhaustedError("no"), 4),
        (errors.UnavailableError("no"), 4),
        (errors.DeadlineExceededError("no"), 4),
        (errors.InternalError("no"), 5),
        (errors.UnimplementedError("no"), 5),
    ],
)
def test_the_kind_of_an_error_decides_the_exit_status(
    error: errors.SpinCycleError, exit_code: int, manager: FakeManager, spinc: Spinc
) -> None:
    manager.failures["Create"] = [error] * 100
    result = spinc("start", "nap")
    assert (result.exit_code, result.stdout) == (exit_code, "")
    said, advice = (
        result.stderr.removeprefix("spinc: no")[:-1],
        isinstance(error, errors.UnauthenticatedError),
    )
    assert said.startswith(". Use --token-file") if advice else said == ""
    # Only UNAVAILABLE is retried, with the same idempotency key.
    is_retried = isinstance(error, errors.UnavailableError)
    assert (len(manager.requests("Create")) > 1) is is_retried
    assert len({request.idempotency_key for request in manager.requests("Create")}) == 1


def test_a_message_of_the_server_is_printed_on_one_line(manager: FakeManager, spinc: Spinc) -> None:
    manager.failures["Create"] = [errors.InvalidArgumentError(f"two\nlines [bold]{ESCAPE}")]
    result = spinc("start", "nap")
    assert result.stderr == "spinc: two lines [bold]\\x1b[31mred\\x9b2J\\u202e\n"


def test_common_options_may_come_before_and_after_a_command(
    manager: FakeManager, spinc: Spinc, address: str
) -> None:
    for arguments in (("--deadline=3", "ps"), ("ps", "--deadline=3"), ("--deadline=9", "ps", "--deadline=3")):
        assert spinc(*arguments).exit_code == 0
    assert [2 < asked.time_remaining < 4 for asked in manager.asked] == [True] * 6  # Each makes two calls.
    for arguments in (("--addr=127.0.0.1:1", "ps"), ("ps", "--addr=127.0.0.1:1")):
        result = spinc(*arguments)
        assert (result.exit_code, result.stdout) == (4, "")
        assert "127.0.0.1:1:" in result.stderr
    assert spinc("--addr=127.0.0.1:1", "ps", f"--addr={address}").exit_code == 0


def test_a_silent_server_is_a_temporary_failure(manager: FakeManager, spinc: Spinc) -> None:
    manager.hold["Running"] = threading.Event()
    result = spinc("--deadline=0.3", "ps")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "did not answer in time" in result.stderr


def test_text_of_the_server_cannot_control_a_terminal(manager: FakeManager, spinc: Spinc) -> None:
    manager.status = RunningStatus(jobs=[running_job(name=ESCAPE, status="[bold]a\nb[/bold]")])
    manager.log = [entry(1, name=ESCAPE, stdout=f"{ESCAPE}\ttab\r\n", stderr=ESCAPE, error=ESCAPE)]
    manager.specs = [RequestSpec(name=ESCAPE)]
    manager.found = [stage(State.COMPLETE)]
    manager.found[0].user = ESCAPE
    manager.stages = [stage(State.FAIL)]
    manager.stages[0].waiting = ESCAPE
    commands = ((), ("ps",), ("find",), ("status", REQUEST_ID), ("graph", REQUEST_ID), ("export", REQUEST_ID))
    logs = (("log", REQUEST_ID), ("log", REQUEST_ID, JOB_ID), ("log", REQUEST_ID, "--failed"))
    for arguments in (*commands, *logs):
        for form in ((), ("--json",)):
            result = spinc(*arguments, *form)
            assert result.exit_code == 0, result.stderr
            assert result.stdout.replace("\n", "").replace("\t", "").isprintable(), arguments
    assert "[bold]a\\nb[/bold]" in spinc("ps").stdout
    assert json.loads(spinc("ps", "--json").stdout)["jobs"][0]["name"] == ESCAPE


def test_impossible_times_and_states_are_shown(manager: FakeManager, spinc: Spinc) -> None:
    manager.log = [entry(1, started_at=2**62, finished_at=-(2**62), state=99)]
    manager.found = [stage(State.COMPLETE)]
    manager.found[0].created_at.seconds = 2**60
    assert " 99 " in spinc("log", REQUEST_ID).stdout
    assert spinc("find").exit_code == 0


def test_an_unexpected_error_prints_one_sentence(spinc: Spinc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spincycle_grpc.client.Client.version", lambda _: 1 / 0)
    result = spinc("version")
    assert (result.exit_code, result.stdout) == (5, "")
    assert result.stderr.startswith("spinc: unexpected error, please report it: ZeroDivisionError")


def test_spinc_and_the_client_have_the_same_defaults() -> None:
    assert (settings.DEFAULT_ADDRESS, settings.DEFAULT_DEADLINE) == (DEFAULT_ADDRESS, DEFAULT_DEADLINE)


def spawn(address: str, *arguments: str, **options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "spincycle_grpc.cli", *arguments],
        env={**os.environ, "SPINC_ADDR": address, **options},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_broken_pipe_is_silent(address: str) -> None:
    with spawn(address) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(COMMAND) == 141


def test_a_full_disk_prints_one_sentence(address: str) -> None:
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            [sys.executable, "-m", "spincycle_grpc.cli"],
            env={**os.environ, "SPINC_ADDR": address},
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=COMMAND,
            check=False,
        )
    assert result.returncode == 5
    assert result.stderr.decode().splitlines() == ["spinc: cannot write the output: No space left on device"]


def test_text_outside_the_encoding_of_the_terminal_is_escaped(manager: FakeManager, address: str) -> None:
    manager.specs = [RequestSpec(name="näp ł")]
    with spawn(address, PYTHONIOENCODING="latin-1") as process:
        output, complaint = process.communicate(timeout=COMMAND)
    assert (process.returncode, complaint) == (0, b"")
    assert b"n\xe4p \\u0142" in output
    with spawn(address, "start", "nap", "ms=\udcff") as process:
        output, complaint = process.communicate(timeout=COMMAND)
    assert (process.returncode, output) == (2, b"")
    assert len(complaint.splitlines()) == 1
