"""Runs a command in its own process group."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from spincycle_grpc.backoff import Backoff
from spincycle_grpc.jobs import OutputSink
from spincycle_server import forked_children
from spincycle_server.builtin_jobs.group_guard import GroupGuard

_KILL_WAIT = 1.0
_DRAIN_WAIT = 1.0
_SHORTEST_POLL, _LONGEST_POLL = 0.005, 0.1

_guard = GroupGuard()


class _Output(asyncio.SubprocessProtocol):
    """Receives the output of a process, its end, and the end of its pipes from the event loop."""

    def __init__(self, sink: OutputSink) -> None:
        self._sink = sink
        self.exited = asyncio.Event()
        self.closed = asyncio.Event()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._sink.write(fd, data)

    def process_exited(self) -> None:
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


class Process:
    """A running command. The caller of `start` must call `close` in every case."""

    def __init__(self, transport: asyncio.SubprocessTransport, output: _Output) -> None:
        self._transport = transport
        self._output = output
        self._group = transport.get_pid()  # the leader of a new session leads its own group
        _guard.add(self._group)

    @classmethod
    async def start(
        cls, arguments: Sequence[str], sink: OutputSink, variables: Mapping[str, str] = MappingProxyType({})
    ) -> Process:
        """Starts a command without a shell, in its own session and with an empty stdin.

        Args:
            arguments: The program, searched in PATH, and its arguments.
            sink: Gets the output of the command as it comes.
            variables: Environment variables that the command gets besides those of the server.

        Raises:
            OSError: The command cannot be started.
        """
        starting = asyncio.ensure_future(_execute(arguments, sink, variables))
        try:
            return cls(*await asyncio.shield(starting))
        except asyncio.CancelledError:
            # The command may already run. asyncio would kill it, but not the processes that it has started.
            with contextlib.suppress(OSError):
                await cls(*await starting).close()
            raise

    @property
    def exit_status(self) -> int | None:
        """The exit code, the negated signal number if a signal ended the command, or None while it runs."""
        return self._transport.get_returncode()

    async def ends_before(self, event: asyncio.Event) -> bool:
        """Waits until the command ends or the event is set. Returns whether the command has ended."""
        waits = [asyncio.ensure_future(one.wait()) for one in (self._output.exited, event)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self._output.exited.is_set()

    async def terminate(self, grace: float) -> None:
        """Sends SIGTERM to the process group, and SIGKILL after `grace` seconds if any process is left.

        Returns one second after SIGKILL even if the kernel cannot end the command (a hung disk).
        """
        self._send(signal.SIGTERM)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._group_is_gone()
        finally:
            self._send(signal.SIGKILL)
        await _set_within(self._output.exited, _KILL_WAIT)

    async def read_to_end(self) -> None:
        """Waits until the output of a command that has ended is read.

        Processes that the command left behind may keep the pipes open, so the wait for their end is short.
        """
        await _set_within(self._output.closed, _DRAIN_WAIT)

    async def close(self) -> None:
        """Kills the group if the command still runs, waits briefly for its end, and closes the pipes."""
        try:
            if not self._output.exited.is_set():
                self._send(signal.SIGKILL)
                await _set_within(self._output.exited, _KILL_WAIT)
        finally:
            _guard.remove(self._group)
            self._transport.close()

    async def _group_is_gone(self) -> None:
        """Polls until no process of the group is left."""
        backoff = Backoff(_SHORTEST_POLL, _LONGEST_POLL, jitter=0)
        while self._send(0):  # noqa: ASYNC110 (the kernel has no event for the end of a group)
            await asyncio.sleep(backoff.next())

    def _send(self, signal_number: int) -> bool:
        """Sends a signal to the group. Returns whether the group still exists."""
        try:
            os.killpg(self._group, signal_number)
        except ProcessLookupError:
            return False
        except PermissionError:  # all remaining processes run as another user
            return True
        return True


async def _execute(
    arguments: Sequence[str], sink: OutputSink, variables: Mapping[str, str]
) -> tuple[asyncio.SubprocessTransport, _Output]:
    """Starts a command, as a task of its own."""
    forked_children.announce_exec()
    return await asyncio.get_running_loop().subprocess_exec(
        lambda: _Output(sink),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, **variables} if variables else None,
    )


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
