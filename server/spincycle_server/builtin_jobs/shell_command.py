"""The job that runs a program on the machine of the Job Runner."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import dataclass, field
from typing import Any

from spincycle_grpc.jobs import Job, Return, output_of
from spincycle_grpc.output import STDERR, STDOUT, KeptOutput
from spincycle_grpc.state import State
from spincycle_grpc.trace_context import TraceContext
from spincycle_server.builtin_jobs.process import Process

_STOP_GRACE = 5.0
_EXIT_NOT_FOUND, _EXIT_NOT_RUN, _EXIT_SIGNAL = 127, 126, 128
_ESCAPES = str.maketrans({sign: f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"})


@dataclass
class ShellCommand(Job):
    """Runs a command without a shell. It is COMPLETE if the command exits with 0, otherwise FAIL.

    The job args are `cmd`, a program, and optionally `args`, which is split on white space. The exit code is
    that of the command. As in shells, it is 128 + n if signal n ended the command, 127 if the program does
    not exist, and 126 if it cannot be run.

    Attributes:
        cmd: The program: a path, or a name that is searched in PATH.
        args: The arguments of the program.
        max_output: The maximum number of bytes to keep of stdout, and of stderr, if no Job Runner keeps them.
        stop_grace: Seconds between SIGTERM and SIGKILL when the command is stopped.
    """

    cmd: str = ""
    args: list[str] = field(default_factory=list)
    max_output: int = 1 << 20
    stop_grace: float = _STOP_GRACE
    _stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False, repr=False, compare=False)

    def create(self, job_args: dict[str, Any]) -> None:
        """Reads `cmd` and `args`.

        Raises:
            ValueError: `cmd` is missing or empty, or one of the two is not text, or contains NUL.
        """
        self.cmd = _text(job_args, "cmd")
        if not self.cmd:
            raise ValueError("job arg cmd is missing or empty: give the program to run")
        self.args = _text(job_args, "args").split()

    def serialize(self) -> bytes:
        """Returns `{"cmd":…,"args":[…]}` as the original escapes it, without `args` if it is empty."""
        fields = {"cmd": self.cmd, "args": self.args} if self.args else {"cmd": self.cmd}
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
        return text.translate(_ESCAPES).encode()

    def deserialize(self, data: bytes) -> None:
        """Reads the bytes that `serialize` returned.

        Raises:
            ValueError: The bytes are not those of a shell-command.
        """
        try:
            fields = json.loads(data)
        except ValueError as error:
            raise ValueError(f"the bytes of the job are not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise ValueError("the bytes of the job are not a JSON object")
        cmd, args = fields.get("cmd"), fields.get("args") or []
        if (
            not isinstance(cmd, str)
            or not isinstance(args, list)
            or not all(isinstance(arg, str) for arg in args)
        ):
            raise ValueError("the bytes of the job are not those of a shell-command")
        self.cmd, self.args = cmd, args

    async def run(self, job_data: dict[str, Any]) -> Return:
        """Runs the command until it ends. After `stop`, waits for the end of its whole process group."""
        if self._stopping.is_set():
            return Return(State.STOPPED)
        sink = output_of(self) or KeptOutput(self.max_output)
        try:
            process = await Process.start([self.cmd, *self.args], sink, self._variables())
        except OSError as error:
            return self._not_started(error)
        try:
            stopped = not await process.ends_before(self._stopping)
            if stopped:
                await process.terminate(self.stop_grace)
            await process.read_to_end()
        finally:
            await process.close()
        return _to_return(process.exit_status, stopped, sink.text(STDOUT), sink.text(STDERR))

    async def stop(self) -> None:
        """Makes `run` end the command and all processes of its group: SIGTERM, then SIGKILL."""
        self._stopping.set()

    def status(self) -> str:
        """Returns the program's name."""
        return f"running {self.cmd}"

    def _variables(self) -> dict[str, str]:
        """Returns the variables by which the command, or tools that it starts, continue the trace."""
        job_id = getattr(self, "id", None)  # Nobody sets it in a unit test.
        trace = None if job_id is None else TraceContext.of(job_id)
        return {} if trace is None else trace.variables()

    def _not_started(self, error: OSError) -> Return:
        reason = os.strerror(error.errno) if error.errno else str(error)
        exit_code = _EXIT_NOT_FOUND if isinstance(error, FileNotFoundError) else _EXIT_NOT_RUN
        return Return(State.FAIL, exit_code, f"cannot run {self.cmd}: {reason}")


def _text(job_args: dict[str, Any], name: str) -> str:
    value = job_args.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"job arg {name} must be text without NUL, not {value!r:.60}")
    return value


def _to_return(exit_status: int | None, stopped: bool, stdout: str, stderr: str) -> Return:
    if exit_status is None:
        return Return(State.FAIL, _EXIT_SIGNAL + signal.SIGKILL, "did not end when killed", stdout, stderr)
    if exit_status == 0:
        return Return(State.STOPPED if stopped else State.COMPLETE, 0, "", stdout, stderr)
    if exit_status < 0:
        exit_code = _EXIT_SIGNAL - exit_status
        error = f"ended by signal {-exit_status} ({signal.strsignal(-exit_status)})"
    else:
        exit_code = exit_status
        error = f"exit status {exit_status}"
    return Return(State.STOPPED if stopped else State.FAIL, exit_code, error, stdout, stderr)
