"""`spinc log --follow`: shows what jobs write while they run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import click

from spincycle_grpc.cli.counts import try_name, try_of
from spincycle_grpc.cli.cutting import cut_text
from spincycle_grpc.cli.failure_text import LONGEST_LINE
from spincycle_grpc.cli.live_text import LiveText, prefixed
from spincycle_grpc.cli.output import plain_line, printable, show_json, state_name
from spincycle_grpc.client import Client
from spincycle_grpc.errors import CallCancelledError, NotFoundError
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.output_pb2 import (
    OUTPUT_GAP_REASON_LOST,
    OUTPUT_STREAM_STDERR,
    OUTPUT_STREAM_STDOUT,
    OutputEnd,
    OutputGap,
)
from spincycle_grpc.v1.request_manager_pb2 import FollowOutputResponse
from spincycle_grpc.v1.state_pb2 import STATE_COMPLETE
from spincycle_grpc.v1.status_pb2 import JobStatus
from spincycle_grpc.wire import encode

MAX_OPEN = 50
"""The maximum number of tries that are followed at the same time. Others are shown when one has ended."""

_WITHOUT_OUTPUT = "noop"
"""A type of jobs that write nothing."""

_NAMES = {OUTPUT_STREAM_STDOUT: "stdout", OUTPUT_STREAM_STDERR: "stderr"}


class Screen:
    """Writes the text of several tries. Threads may share it.

    Args:
        in_lines: Whether lines of several tries are mixed. They have the name of their job while several are
            open.
    """

    def __init__(self, *, in_lines: bool) -> None:
        self.in_lines = in_lines
        self._lock = threading.Lock()
        self._open = 0

    def add_open(self, count: int) -> None:
        """Changes the number of open tries."""
        with self._lock:
            self._open += count

    def write(self, name: str, text: str, *, is_stderr: bool) -> None:
        """Writes text of a job: whole lines, if lines are mixed."""
        if text:
            with self._lock:
                is_mixed = self.in_lines and self._open > 1
                click.echo(prefixed(text, f"{name} | ") if is_mixed else text, nl=False, err=is_stderr)


class ShownTry:
    """Shows one try.

    Args:
        screen: Where to write.
        name: The name of the job.
    """

    def __init__(self, screen: Screen, name: str) -> None:
        self._screen = screen
        self._name = name
        self._texts = {
            stream: LiveText(is_stderr=stream == OUTPUT_STREAM_STDERR, in_lines=screen.in_lines)
            for stream in _NAMES
        }
        self._is_lost = False

    def show(self, message: FollowOutputResponse) -> None:
        """Shows one message."""
        match message.WhichOneof("event"):
            case "text":
                self._is_lost = False
                self._write(message.text.stream, self._texts[message.text.stream].add(message.text.text))
            case "gap":
                self._show_gap(message.gap)
            case "end":
                self.end()
                if message.end.state != STATE_COMPLETE:
                    self._note(_end_text(message.end))

    def end(self) -> None:
        """Shows text that was kept back."""
        for stream, text in self._texts.items():
            self._write(stream, text.end())

    def _show_gap(self, gap: OutputGap) -> None:
        if gap.reason != OUTPUT_GAP_REASON_LOST:
            count = gap.to - getattr(gap, "from")
            self._note(f"{count} bytes of {_NAMES.get(gap.stream, 'output')} are missing")
        elif not self._is_lost:  # Each stream has a gap.
            self._is_lost = True
            self.end()
            self._note("the job runner was lost, so the try runs again")

    def _write(self, stream: int, text: str) -> None:
        self._screen.write(self._name, text, is_stderr=stream == OUTPUT_STREAM_STDERR)

    def _note(self, text: str) -> None:
        click.echo(f"spinc: {self._name}: {text}", err=True)


def follow_job(client: Client, request_id: str, job_id: str, *, as_json: bool) -> None:
    """Shows the newest try of a job, and its next tries, until one is COMPLETE or the request has ended.

    Raises:
        SpinCycleError: A call failed.
    """
    number, is_first = 0, True
    while True:
        try:
            end = _show_try(client, request_id, job_id, number, as_json=as_json)
        except NotFoundError:
            if is_first:
                raise
            return  # The request has ended without another try.
        if end is None or end.state == STATE_COMPLETE:
            return
        number, is_first = getattr(end, "try") + 1, False


def _show_try(
    client: Client, request_id: str, job_id: str, number: int, *, as_json: bool
) -> OutputEnd | None:
    shown = ShownTry(Screen(in_lines=False), printable(job_id))
    for message in client.follow_output(request_id, job_id, try_number=number):
        if not as_json:
            shown.show(message)
        elif message.WhichOneof("event"):
            show_json(encode(message))
        if message.HasField("end"):
            return message.end
    return None


class FollowedRequest:
    """Shows what the jobs of a request write, until the request has ended.

    Args:
        client: Calls the server. `show` closes it.
        request_id: The request.
        jobs: The ids of the jobs to show. None: all jobs.
    """

    def __init__(self, client: Client, request_id: str, jobs: frozenset[str] | None = None) -> None:
        self._client = client
        self._request_id = request_id
        self._jobs = jobs
        self._screen = Screen(in_lines=True)
        self._pool = ThreadPoolExecutor(MAX_OPEN, thread_name_prefix="follow")
        self._seen: set[tuple[str, int]] = set()
        self._following: list[Future[None]] = []
        self._error: BaseException | None = None

    def show(self) -> None:
        """Shows all output.

        Raises:
            SpinCycleError: A call failed.
        """
        try:
            for tries in self._tries():
                for job in tries:
                    self._start(job)
            wait(self._following)
        except CallCancelledError:
            if self._error is None:
                raise
        finally:
            self._client.close()  # ends the streams that are left after an error or Ctrl-C
            self._pool.shutdown(cancel_futures=True)
        if self._error is not None:
            raise self._error

    def _tries(self) -> Iterator[list[JobLog | JobStatus]]:
        for message in self._client.watch(self._request_id):
            finished = [entry for entry in message.tries if entry.type != _WITHOUT_OUTPUT]
            tries: list[JobLog | JobStatus] = [*finished]
            tries += [job for snapshot in message.running for job in snapshot.jobs]
            yield [one for one in tries if self._jobs is None or one.job_id in self._jobs]

    def _start(self, job: JobLog | JobStatus) -> None:
        key = (job.job_id, try_of(job))
        if key not in self._seen:
            self._seen.add(key)
            self._screen.add_open(1)
            self._following.append(self._pool.submit(self._follow, *key, try_name(job)))

    def _follow(self, job_id: str, number: int, name: str) -> None:
        shown = ShownTry(self._screen, name)
        try:
            for message in self._client.follow_output(self._request_id, job_id, try_number=number):
                shown.show(message)
        except NotFoundError:
            pass  # The try was lost with its runner before it wrote anything, and the request has ended.
        except BaseException as error:
            self._error = self._error or error
            self._client.close()  # ends the watch
        finally:
            self._screen.add_open(-1)


def _end_text(end: OutputEnd) -> str:
    code = f", exit {end.exit}" if end.exit else ""
    reason = cut_text(plain_line(end.error), LONGEST_LINE)
    return f"{state_name(end.state)}{code}{f': {reason}' if reason else ''}"
