"""A report of a request for a ticket, as Markdown or JSON. The same record gives the same report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from spincycle_grpc.cli.counts import try_of
from spincycle_grpc.cli.cutting import cut_text
from spincycle_grpc.cli.failed_jobs import FailedJob
from spincycle_grpc.cli.failure_text import last_lines
from spincycle_grpc.cli.job_paths import path_of
from spincycle_grpc.cli.markdown import code, fenced
from spincycle_grpc.cli.output import state_name, value_text
from spincycle_grpc.cli.progress import progress_of
from spincycle_grpc.cli.request_record import RequestRecord
from spincycle_grpc.cli.secret_args import without_secrets
from spincycle_grpc.cli.times import nanoseconds_of, span_text, time_text
from spincycle_grpc.structs import from_value
from spincycle_grpc.v1.audit_pb2 import AuditEvent
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.v1.status_pb2 import JobStatus
from spincycle_grpc.wire import encode

MOST_JOBS = 20
"""The maximum number of failed jobs in a report with all details. Tickets have a limit of size."""

_MOST_TRIES = 20
_LONGEST_VALUE = 300
_LAST_LINES = 20


@dataclass(frozen=True)
class RequestReport:
    """What a ticket says about a request.

    Attributes:
        record: The request and its jobs.
        retry: The newest retry of the request. None: there is none, or it is unknown.
        events: Who did what with the request, oldest first. Empty: the server has no audit log.
    """

    record: RequestRecord
    retry: Request | None
    events: Sequence[AuditEvent]

    def fields(self) -> dict[str, Any]:
        """Returns the report as a JSON object."""
        fields = self.record.fields()
        for arg in fields.get("args", ()):
            arg.update(
                (key, without_secrets(arg["Name"], arg[key])) for key in ("Default", "Value") if key in arg
            )
        fields["retry"] = None if self.retry is None else json.loads(encode(self.retry))
        fields["events"] = [json.loads(encode(event)) for event in self.events]
        return fields

    def as_markdown(self) -> Iterator[str]:
        """Yields the lines of the report as Markdown. Text of users and jobs is in code spans and blocks."""
        request = self.record.request
        yield f"# {code(request.type)} {code(request.id)}: {state_name(request.state)}"
        yield ""
        yield from _field_lines(request, self.retry)
        yield from _section("Args", _arg_lines(request))
        yield from _section("Running jobs", [_running_line(job) for job in self.record.running])
        if self.record.is_log_denied:
            yield from ("", "Failed jobs are left out: the author may not read the job log.")
        yield from _failed_lines(self.record)
        yield from _section("Who did what", [_event_line(event) for event in self.events])


def _field_lines(request: Request, retry: Request | None) -> Iterator[str]:
    started, finished = nanoseconds_of(request.started_at), nanoseconds_of(request.finished_at)
    state = f" ({state_name(retry.state)})" if retry is not None else ""
    fields = (
        ("User", code(request.user)),
        ("Waiting", code(request.waiting)),
        ("Stop reason", code(request.stop_reason)),
        ("Progress", progress_of(request).sentence),
        ("Created", time_text(request.created_at, UTC)),
        ("Started", time_text(request.started_at, UTC)),
        ("Finished", time_text(request.finished_at, UTC)),
        ("Took", span_text(finished - started) if started and finished else ""),
        ("Job runner", code(request.job_runner_url)),
        ("Retry of", code(request.retry_of)),
        ("Retried by", f"{code(request.retried_by)}{state}" if request.retried_by else ""),
    )
    yield from (f"- {name}: {value}" for name, value in fields if value)


def _arg_lines(request: Request) -> Iterator[str]:
    for arg in request.args:
        value = without_secrets(arg.name, from_value(arg.value))
        number = f" ({len(value)} values)" if isinstance(value, list) and len(value) > 1 else ""
        yield f"- {code(arg.name)}: {code(cut_text(value_text(value), _LONGEST_VALUE))}{number}"


def _running_line(job: JobStatus) -> str:
    status = f", {code(job.status)}" if job.status else ""
    return f"- {code(path_of(job))}: try {try_of(job)} since {time_text(job.started_at, UTC)}{status}"


def _failed_lines(record: RequestRecord) -> Iterator[str]:
    failed = record.failed
    if not failed:
        return
    yield ""
    yield f"## Failed jobs ({'at least ' if record.has_more_failed else ''}{len(failed)})"
    for job in failed[:MOST_JOBS]:
        yield from _job_lines(job)
    if len(failed) > MOST_JOBS:
        yield ""
        yield f"And {len(failed) - MOST_JOBS} more:"
        yield ""
        yield from (f"- {code(job.path)} (job {code(job.job_id)})" for job in failed[MOST_JOBS:])


def _job_lines(job: FailedJob) -> Iterator[str]:
    yield ""
    yield f"### {code(job.path)}"
    yield ""
    yield f"Job {code(job.job_id)} of type {code(job.newest.type)}."
    yield ""
    yield from (_try_line(entry) for entry in job.tries[-_MOST_TRIES:])
    for name, text in (("Error", job.newest.error), ("Stderr", job.newest.stderr)):
        lines, is_cut = last_lines(text, _LAST_LINES)
        if lines:
            yield ""
            yield f"{name}, the last {len(lines)} lines:" if is_cut else f"{name}:"
            yield ""
            yield from fenced(lines)


def _try_line(entry: JobLog) -> str:
    words = [time_text(entry.started_at or entry.finished_at, UTC), state_name(entry.state)]
    if entry.started_at:
        words.insert(1, span_text(entry.finished_at - entry.started_at))
    if entry.exit:
        words.append(f"exit {entry.exit}")
    return f"- Try {try_of(entry)}: {', '.join(words)}"


def _event_line(event: AuditEvent) -> str:
    times = f", {event.count} times" if event.count > 1 else ""
    what = f"{code(event.user)} called {code(event.operation)}: {code(event.outcome)}"
    return f"- {time_text(event.occurred_at, UTC)}, {what}{times}"


def _section(title: str, lines: Iterator[str] | Sequence[str]) -> Iterator[str]:
    shown = list(lines)
    if shown:
        yield from ("", f"## {title}", "", *shown)
