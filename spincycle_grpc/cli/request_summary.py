"""Shows a request for people: its fields, its running jobs, its failed jobs, and what to type next."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import tzinfo

from spincycle_grpc.cli.approval_table import show_approvals
from spincycle_grpc.cli.counts import try_of
from spincycle_grpc.cli.cutting import cut_text
from spincycle_grpc.cli.failure_text import MOST_JOBS, failure_lines
from spincycle_grpc.cli.job_paths import path_of
from spincycle_grpc.cli.next_steps import next_steps, show_next_steps
from spincycle_grpc.cli.output import printable, show, state_name, value_text
from spincycle_grpc.cli.progress import progress_of
from spincycle_grpc.cli.request_record import RequestRecord
from spincycle_grpc.cli.tables import Column, show_fields, show_table
from spincycle_grpc.cli.times import nanoseconds_of, span_text, time_text
from spincycle_grpc.structs import from_value
from spincycle_grpc.v1.request_pb2 import Request, RequestArg
from spincycle_grpc.v1.status_pb2 import JobStatus
from spincycle_grpc.waiting import is_final

_MOST_RUNNING = 10
_MOST_VALUES = 3
_LONGEST_VALUE = 120
_MAY_FAIL = ("job that has failed and may be tried again", "jobs that have failed and may be tried again")


def show_summary(record: RequestRecord, zone: tzinfo | None, *, full: bool) -> None:
    """Prints everything about a request that an operator needs first.

    Args:
        record: The request and its jobs.
        zone: The zone of times. None: the local one.
        full: Whether to show all args, running jobs and failed jobs.
    """
    request = record.request
    show_fields([*_fields(request, zone), *_arg_fields(request, full=full)])
    show_approvals(request.approvals, zone)
    _show_running(request, record.running, full=full)
    show_problems(record, zone, full=full)


def show_problems(record: RequestRecord, zone: tzinfo | None, *, full: bool = False) -> None:
    """Prints the failed jobs of a request and the commands to type next. Prints nothing if all is well.

    Args:
        record: The request and its jobs.
        zone: The zone of times. None: the local one.
        full: Whether to show all failed jobs instead of the first ones.
    """
    if record.is_log_denied:
        show()
        show("failed jobs are not shown: you may not read the job log of this type of request")
    _show_failures(record, zone, full=full)
    steps = next_steps(record)
    if steps:
        show()
        show_next_steps(steps)


def _show_failures(record: RequestRecord, zone: tzinfo | None, *, full: bool) -> None:
    request, failed = record.request, record.failed
    if not failed:
        return
    show()
    at_least = "at least " if record.has_more_failed else ""
    words = ("failed job", "failed jobs") if is_final(request) else _MAY_FAIL
    show(f"{at_least}{_number(len(failed), *words)}:")
    shown = failed if full else failed[:MOST_JOBS]
    for job in shown:
        for line in failure_lines(job, zone):
            show(f"  {line}")
    if len(failed) > len(shown):
        show(f"  and {at_least}{len(failed) - len(shown)} more: spinc log {printable(request.id)} --failed")


def _fields(request: Request, zone: tzinfo | None) -> list[tuple[str, str]]:
    started, finished = nanoseconds_of(request.started_at), nanoseconds_of(request.finished_at)
    took = span_text((finished or time.time_ns()) - started) if started else ""
    progress = progress_of(request)
    fields = [
        ("request", request.id),
        ("type", request.type),
        ("state", state_name(request.state)),
        ("waiting", request.waiting),
        ("stop reason", request.stop_reason),
        ("retry of", request.retry_of),
        ("retried by", request.retried_by),
        ("trace", request.trace_id),
        ("user", request.user),
        ("jobs", f"{progress.finished} of {progress.total} done"),
        ("created", time_text(request.created_at, zone)),
        ("started", time_text(request.started_at, zone)),
        ("finished", time_text(request.finished_at, zone)),
        ("took" if finished else "so far", took),
        ("job runner", request.job_runner_url),
    ]
    return [(name, value) for name, value in fields if value]


def _arg_fields(request: Request, *, full: bool) -> list[tuple[str, str]]:
    if full:
        return [(f"arg {arg.name}", value_text(arg.value)) for arg in request.args]
    given = [arg for arg in request.args if arg.given]
    fields = [(f"arg {arg.name}", short_value(arg)) for arg in given]
    others = len(request.args) - len(given)
    if others:
        fields.append(("other args", f"{others} not given: --full shows them"))
    return fields


def short_value(arg: RequestArg) -> str:
    """Returns the value of an arg, with at most a few of the values of a list."""
    value = from_value(arg.value)
    if isinstance(value, list) and len(value) > _MOST_VALUES:
        first = ", ".join(value_text(one) for one in value[:_MOST_VALUES])
        return f"{len(value)} values: {cut_text(printable(first), _LONGEST_VALUE)}, ..."
    return cut_text(printable(value_text(value)), _LONGEST_VALUE)


def _show_running(request: Request, running: Sequence[JobStatus], *, full: bool) -> None:
    if not running:
        return
    show()
    show(f"{_number(len(running), 'running job', 'running jobs')}:")
    now = time.time_ns()
    shown = running if full else running[:_MOST_RUNNING]
    show_table(
        (
            Column("  JOB", [f"  {path_of(job)}" for job in shown], least=34, has_paths=True),
            Column("TRY", [str(try_of(job)) for job in shown]),
            Column("FOR", [span_text(now - job.started_at) for job in shown]),
            Column("STATUS", [job.status for job in shown], least=8),
        )
    )
    if len(running) > len(shown):
        show(f"  and {len(running) - len(shown)} more: spinc ps {printable(request.id)}")


def _number(count: int, one: str, many: str) -> str:
    return f"1 {one}" if count == 1 else f"{count} {many}"
