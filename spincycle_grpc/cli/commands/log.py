"""`spinc log`: shows the finished tries of a request's jobs, or what its jobs write while they run."""

from __future__ import annotations

import click

from spincycle_grpc.cli.counts import try_of
from spincycle_grpc.cli.failures import INTERRUPTED, Failure
from spincycle_grpc.cli.live_log import FollowedRequest, follow_job
from spincycle_grpc.cli.output import (
    printable_lines,
    show,
    show_fields,
    show_json,
    show_table,
    span_text,
    state_name,
    time_text,
)
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.request_manager_pb2 import GetLogResponse
from spincycle_grpc.wire import encode

_HEADINGS = ("JOB", "NAME", "TYPE", "TRY", "STATE", "EXIT", "STARTED", "TOOK", "ERROR")
_LAST_LINES = 10
_LONGEST_ERROR = 80


@click.command("log")
@click.argument("request_id", metavar="ID")
@click.argument("job_id", metavar="[JOB_ID]", required=False)
@click.option("--full", is_flag=True, help="Show the complete output of the jobs.")
@click.option("-f", "--follow", "is_live", is_flag=True, help="Show output as the jobs write it.")
@client_options
@pass_settings
def command(settings: Settings, request_id: str, job_id: str | None, *, full: bool, is_live: bool) -> None:
    """Show the finished tries of a request's jobs, oldest first.

    With JOB_ID, show the newest try of that job with the last lines of its output.

    With --follow, show the complete output of all jobs, or of the newest try and the next tries of one job,
    until the request has ended. Lines have the name of their job while several jobs run.
    """
    if is_live:
        _follow(settings, request_id, job_id)
        return
    with settings.client() as client:
        if job_id is not None:
            entry = client.job_log(request_id, job_id)
            if settings.as_json:
                show_json(encode(entry))
                return
            _show_entry(entry, full)
            return
        entries = client.log(request_id)
    if settings.as_json:
        show_json(encode(GetLogResponse(entries=entries), "entries"))
        return
    entries.sort(key=lambda entry: (entry.finished_at, entry.job_id))
    if not full:
        show_table(_HEADINGS, [_row(entry) for entry in entries])
        return
    for number, entry in enumerate(entries):
        if number:
            show()
        _show_entry(entry, full)


def _follow(settings: Settings, request_id: str, job_id: str | None) -> None:
    if settings.as_json and job_id is None:
        raise click.UsageError("--json with --follow shows the output of one job: give a JOB_ID")
    try:
        with settings.client() as client:
            if job_id is None:
                FollowedRequest(client, request_id).show()
            else:
                follow_job(client, request_id, job_id, as_json=settings.as_json)
    except KeyboardInterrupt as error:
        raise Failure("", INTERRUPTED) from error


def _row(entry: JobLog) -> tuple[str, ...]:
    error = entry.error if len(entry.error) <= _LONGEST_ERROR else f"{entry.error[:_LONGEST_ERROR]}..."
    return (
        entry.job_id,
        entry.name,
        entry.type,
        str(try_of(entry)),
        state_name(entry.state),
        str(entry.exit),
        time_text(entry.started_at),
        _took(entry),
        error,
    )


def _show_entry(entry: JobLog, full: bool) -> None:
    fields = [
        ("job", f"{entry.job_id} {entry.name} ({entry.type})"),
        ("try", str(try_of(entry))),
        ("state", state_name(entry.state)),
        ("exit", str(entry.exit)),
        ("started", time_text(entry.started_at)),
        ("took", _took(entry)),
    ]
    show_fields(fields)
    for name, text in (("error", entry.error), ("stdout", entry.stdout), ("stderr", entry.stderr)):
        _show_text(name, text, full)


def _show_text(name: str, text: str, full: bool) -> None:
    lines = printable_lines(text)
    if not lines:
        return
    cut = 0 if full else max(0, len(lines) - _LAST_LINES)
    show(f"{name}:" if not cut else f"{name}: (last {_LAST_LINES} of {len(lines)} lines, --full shows all)")
    for line in lines[cut:]:
        show(f"  {line}")


def _took(entry: JobLog) -> str:
    return span_text(entry.finished_at - entry.started_at) if entry.started_at else ""
