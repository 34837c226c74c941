"""A command that runs in a process group of its own, with its output kept as it is written."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

from spincycle_grpc.output import OutputBuffer

_KILL_WAIT = 1.0
_DRAIN_WAIT = 1.0
_SHORTEST_POLL, _LONGEST_POLL = 0.005, 0.1


class _Output(asyncio.SubprocessProtocol):
    """What the event loop tells of a process: its output, its end, and the end of its pipes."""

    def __init__(self, max_output: int) -> None:
        self.buffers = {1: OutputBuffer(max_output), 2: OutputBuffer(max_output)}
        self.exited = asyncio.Event()
        self.closed = asyncio.Event()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.buffers[fd].write(data)

    def process_exited(self) -> None:
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


class Process:
    """A running command. Whoever starts one calls `close` in the end, whatever happens."""

    def __init__(self, transport: asyncio.SubprocessTransport, output: _Output) -> None:
        self._transport = transport
        self._output = output
        self._group = transport.get_pid()  # the leader of a new session leads a group of its own

    @classmethod
    async def start(cls, arguments: Sequence[str], max_output: int) -> Process:
        """Starts a command, without a shell, in a session of its own and with nothing to read.

        Args:
            arguments: The program, looked for in PATH, and its arguments.
            max_output: How many bytes of stdout, and of stderr, are kept.

        Raises:
            OSError: It cannot be started.
        """
        transport, output = await asyncio.get_running_loop().subprocess_exec(
            lambda: _Output(max_output),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        return cls(transport, output)

    @property
    def exit_status(self) -> int | None:
        """The exit code, the negative number of the signal that ended it, or None while it runs."""
        return self._transport.get_returncode()

    async def ends_before(self, event: asyncio.Event) -> bool:
        """Waits until the command ends or the event is set; says whether the command has ended."""
        waits = [asyncio.ensure_future(one.wait()) for one in (self._output.exited, event)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self._output.exited.is_set()

    async def terminate(self, grace: float) -> None:
        """Asks all processes of the group to end, and kills those that have not after `grace` seconds.

        It returns a second after the kill even where the kernel cannot end the command (a hung disk).
        """
        self._send(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._group_is_gone()
        self._send(signal.SIGKILL)
        await _set_within(self._output.exited, _KILL_WAIT)

    async def output(self) -> tuple[str, str]:
        """Returns stdout and stderr of a command that has ended.

        Processes that it left behind may hold the pipes open for ever, so the wait for their end is short.
        """
        await _set_within(self._output.closed, _DRAIN_WAIT)
        return self._output.buffers[1].text(), self._output.buffers[2].text()

    async def close(self) -> None:
        """Kills the group if the command still runs, waits a moment for its end, and closes the pipes."""
        try:
            if not self._output.exited.is_set():
                self._send(signal.SIGKILL)
                await _set_within(self._output.exited, _KILL_WAIT)
        finally:
            self._transport.close()

    async def _group_is_gone(self) -> None:
        """Waits until no process of the group is left; the kernel offers nothing better than to ask."""
        poll = _SHORTEST_POLL
        while self._send(0):
            await asyncio.sleep(poll)
            poll = min(2 * poll, _LONGEST_POLL)

    def _send(self, signal_number: int) -> bool:
        """Sends a signal to the group; says whether there is a group still."""
        try:
            os.killpg(self._group, signal_number)
        except ProcessLookupError:
            return False
        except PermissionError:  # all that is left runs as another user
            return True
        return True


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
