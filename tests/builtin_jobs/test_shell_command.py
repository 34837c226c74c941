from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop

from spincycle_grpc.jobs import Return
from spincycle_grpc.state import State
from spincycle_server.builtin_jobs import ShellCommand
from tests.limits import STEP

RunAll = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run_all(request: pytest.FixtureRequest) -> Iterator[RunAll]:
    """Runs a coroutine to its end on a loop of its own, of either kind."""
    make_loop = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=make_loop) as runner:
        yield lambda coroutine: runner.run(asyncio.wait_for(coroutine, STEP))


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., ShellCommand]:
    """Makes the job that runs a shell script in a directory of its own."""

    def make(text: str, **options: Any) -> ShellCommand:
        file = tmp_path / "script"
        file.write_text(f"cd {tmp_path}\n{text}\n")
        return new_command("sh", str(file), **options)

    return make


def new_command(cmd: str, args: str = "", **options: Any) -> ShellCommand:
    """Returns a command as a runner gets it: created, serialized and deserialized."""
    created, run = ShellCommand(**options), ShellCommand(**options)
    created.create({"cmd": cmd, "args": args})
    run.deserialize(created.serialize())
    return run


async def until(condition: Callable[[], bool]) -> None:
    """Waits until a condition holds."""
    async with asyncio.timeout(STEP):
        while not condition():  # noqa: ASYNC110 - what is waited for is in other processes
            await asyncio.sleep(0.01)


def lives(pid: int) -> bool:
    """Tells whether a process is there and more than a zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def pids(file: Path) -> list[int]:
    """Returns the process ids that a script wrote, once it wrote whole lines."""
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


async def stopped_at(job: ShellCommand, condition: Callable[[], bool]) -> Return:
    """Runs a job, stops it when a condition holds, and returns what it returned."""
    run = asyncio.ensure_future(job.run({}))
    await until(condition)
    await job.stop()
    return await run


class TestArgs:
    @pytest.mark.parametrize(
        ("job_args", "data"),
        [
            ({"cmd": "ls"}, b'{"cmd":"ls"}'),
            ({"cmd": "ls", "args": ""}, b'{"cmd":"ls"}'),
            ({"cmd": "ls", "args": None}, b'{"cmd":"ls"}'),
            ({"cmd": "ls", "args": " -l\t/tmp \n"}, b'{"cmd":"ls","args":["-l","/tmp"]}'),
            ({"cmd": "a b", "args": '"c d"'}, rb'{"cmd":"a b","args":["\"c","d\""]}'),
            ({"cmd": "é", "args": "<&>"}, '{"cmd":"é","args":["\\u003c\\u0026\\u003e"]}'.encode()),
        ],
    )
    def test_bytes_are_those_of_the_original(self, job_args: dict[str, Any], data: bytes) -> None:
        job, again = ShellCommand(), ShellCommand()
        job.create(job_args)
        assert job.serialize() == data
        again.deserialize(data)
        assert (again.cmd, again.args) == (job.cmd, job.args)

    @pytest.mark.parametrize(
        ("job_args", "message"),
        [
            ({}, "job arg cmd is missing or empty: give the program to run"),
            ({"cmd": ""}, "job arg cmd is missing or empty: give the program to run"),
            ({"cmd": 5}, "job arg cmd must be text without NUL, not 5"),
            ({"cmd": "a\0b"}, r"job arg cmd must be text without NUL, not 'a\\x00b'"),
            ({"cmd": "ls", "args": ["-l"]}, r"job arg args must be text without NUL, not \['-l'\]"),
        ],
    )
    def test_errors_name_the_arg(self, job_args: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=f"^{message}$"):
            ShellCommand().create(job_args)

    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"cmd":5}', b'{"cmd":"ls","args":[1]}'])
    def test_bytes_of_something_else_are_refused(self, data: bytes) -> None:
        with pytest.raises(ValueError, match="the bytes of the job are not"):
            ShellCommand().deserialize(data)

    def test_bytes_with_null_for_args_are_read(self) -> None:
        job = ShellCommand()
        job.deserialize(b'{"cmd":"ls","args":null}')
        assert job.args == []


class TestRun:
    def test_output_is_kept(self, run_all: RunAll, script: Callable[..., ShellCommand]) -> None:
        job = script("echo out; echo err >&2")
        assert job.status() == "running sh"
        assert run_all(job.run({})) == Return(stdout="out\n", stderr="err\n")

    def test_args_reach_the_program_as_they_are(self, run_all: RunAll) -> None:
        assert run_all(new_command("echo", "$HOME   * ;ls").run({})) == Return(stdout="$HOME * ;ls\n")

    @pytest.mark.parametrize("code", [1, 7, 255])
    def test_the_exit_code_is_the_real_one(
        self, run_all: RunAll, script: Callable[..., ShellCommand], code: int
    ) -> None:
        expected = Return(State.FAIL, code, f"exit status {code}", "out\n")
        assert run_all(script(f"echo out; exit {code}").run({})) == expected

    def test_a_signal_counts_as_in_shells(self, run_all: RunAll, script: Callable[..., ShellCommand]) -> None:
        assert run_all(script("kill -9 $$").run({})) == Return(State.FAIL, 137, "ended by signal 9 (Killed)")

    @pytest.mark.parametrize(
        ("cmd", "code", "reason"),
        [
            ("no-such-program", 127, "No such file or directory"),
            ("/no/such/program", 127, "No such file or directory"),
            ("/etc/passwd", 126, "Permission denied"),
            ("/", 126, "Permission denied"),
        ],
    )
    def test_a_command_that_cannot_be_run_fails(
        self, run_all: RunAll, cmd: str, code: int, reason: str
    ) -> None:
        assert run_all(new_command(cmd).run({})) == Return(State.FAIL, code, f"cannot run {cmd}: {reason}")

    def test_it_reads_nothing(self, run_all: RunAll) -> None:
        assert run_all(new_command("cat").run({})) == Return()

    def test_much_output_is_cut(self, run_all: RunAll, script: Callable[..., ShellCommand]) -> None:
        job = script("echo BEGIN; head -c 20000000 /dev/zero | tr '\\0' x; echo END", max_output=10_000)
        before = psutil.Process().memory_info().rss
        stdout = run_all(job.run({})).stdout
        assert psutil.Process().memory_info().rss - before < 10_000_000
        assert stdout.startswith("BEGIN\nxxx")
        assert stdout.endswith("xxxEND\n")
        assert "bytes cut out" in stdout
        assert len(stdout) <= 10_000

    def test_processes_that_it_leaves_behind_are_not_waited_for(
        self, run_all: RunAll, script: Callable[..., ShellCommand], tmp_path: Path
    ) -> None:
        job = script("sleep 600 &\necho $! > left; echo out")
        try:
            assert run_all(job.run({})) == Return(stdout="out\n")
            assert lives(*pids(tmp_path / "left"))
        finally:
            psutil.Process(*pids(tmp_path / "left")).kill()


class TestStop:
    def test_stop_ends_the_command(self, run_all: RunAll) -> None:
        async def stop_at_once() -> Return:
            job = new_command("sleep", "600")
            run = asyncio.ensure_future(job.run({}))
            await asyncio.sleep(0)  # so that it is being started
            await job.stop()
            return await run

        assert run_all(stop_at_once()) == Return(State.STOPPED, 143, "ended by signal 15 (Terminated)")

    def test_stop_lets_the_command_clean_up(
        self, run_all: RunAll, script: Callable[..., ShellCommand], tmp_path: Path
    ) -> None:
        job = script("trap 'echo bye; exit 3' TERM; touch ready; while :; do sleep 0.05; done")
        ended = run_all(stopped_at(job, (tmp_path / "ready").exists))
        assert (ended.state, ended.exit, ended.stdout) == (State.STOPPED, 3, "bye\n")

    def test_stop_kills_the_whole_group_even_if_it_ignores_sigterm(
        self, run_all: RunAll, script: Callable[..., ShellCommand], tmp_path: Path
    ) -> None:
        job = script(
            "trap '' TERM\n(while :; do sleep 0.2; done) &\necho $! >> pids; echo $$ >> pids\nwait",
            stop_grace=0.3,
        )
        ended = run_all(stopped_at(job, lambda: len(pids(tmp_path / "pids")) == 2))
        assert (ended.state, ended.exit) == (State.STOPPED, 137)
        run_all(until(lambda: not any(lives(pid) for pid in pids(tmp_path / "pids"))))

    def test_stop_kills_processes_that_outlive_the_command(
        self, run_all: RunAll, script: Callable[..., ShellCommand], tmp_path: Path
    ) -> None:
        job = script(
            "(trap '' TERM; while :; do sleep 0.2; done) &\necho $! > pids; touch ready; wait",
            stop_grace=0.3,
        )
        assert run_all(stopped_at(job, (tmp_path / "ready").exists)).state is State.STOPPED
        run_all(until(lambda: not lives(*pids(tmp_path / "pids"))))

    def test_stop_waits_no_longer_than_it_must(
        self, run_all: RunAll, script: Callable[..., ShellCommand], tmp_path: Path
    ) -> None:
        job = script("touch ready; exec sleep 600", stop_grace=STEP)
        start = time.monotonic()
        run_all(stopped_at(job, (tmp_path / "ready").exists))
        assert time.monotonic() - start < STEP / 2

    def test_stop_before_the_start_starts_nothing(
        self, run_all: RunAll, script: Callable[..., ShellCommand], tmp_path: Path
    ) -> None:
        async def stop_first() -> Return:
            job = script("touch ran")
            await job.stop()
            return await job.run({})

        assert run_all(stop_first()) == Return(State.STOPPED)
        assert not (tmp_path / "ran").exists()

    def test_stop_after_the_end_changes_nothing(self, run_all: RunAll) -> None:
        async def stop_late() -> Return:
            job = new_command("true")
            ended = await job.run({})
            await job.stop()
            return ended

        assert run_all(stop_late()) == Return()

    def test_a_cancelled_run_leaves_no_process(
        self, run_all: RunAll, script: Callable[..., ShellCommand], tmp_path: Path
    ) -> None:
        async def give_up() -> None:
            run = asyncio.ensure_future(script("sleep 600 &\necho $! > pids; touch ready; wait").run({}))
            await until((tmp_path / "ready").exists)
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
            await until(lambda: not lives(*pids(tmp_path / "pids")))

        run_all(give_up())

    def test_a_run_that_is_cancelled_while_it_starts_leaves_no_process(
        self, run_all: RunAll, script: Callable[..., ShellCommand], tmp_path: Path
    ) -> None:
        async def cancel_the_start() -> None:
            before = psutil.Process().children()  # the guard of other tests' commands
            run = asyncio.ensure_future(script("sleep 600 &\necho $! > pids; touch ready; wait").run({}))
            while psutil.Process().children() == before:  # noqa: ASYNC110 (the start of a process sets no event)
                await asyncio.sleep(0)
            deadline = time.monotonic() + STEP
            while not (tmp_path / "ready").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)  # noqa: ASYNC251 (the loop must not learn that the command has started)
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
            await until(lambda: not lives(*pids(tmp_path / "pids")))

        run_all(cancel_the_start())
