"""`spinc log`: shows the finished tries of a request's jobs, or what its jobs write while they run."""

from __future__ import annotations

from collections.abc import Sequence

import click

from spincycle_grpc.cli.arguments import JOB, REQUEST_ID
from spincycle_grpc.cli.failure_text import failure_lines
from spincycle_grpc.cli.failures import INTERRUPTED, Failure
from spincycle_grpc.cli.job_lookup import find_jobs
from spincycle_grpc.cli.live_log import FollowedRequest, follow_job
from spincycle_grpc.cli.log_entries import show_entries, show_entry
from spincycle_grpc.cli.log_reading import Choice, read_entries, read_failed
from spincycle_grpc.cli.output import show, show_json
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.cli.whole_ids import whole_id
from spincycle_grpc.client import Client
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.request_manager_pb2 import GetLogResponse
from spincycle_grpc.wire import encode

_LAST_LINES = 10


@click.command("log")
@click.argument("request_id", type=REQUEST_ID, metavar="ID")
@click.argument("job_id", type=JOB, metavar="[JOB_ID]", required=False)
@click.option("--job", type=JOB, metavar="JOB", help="Only this job: its id, or a part of its path.")
@click.option("--failed", "is_failed", is_flag=True, help="Only failed jobs, each with all its tries.")
@click.option("--tail", type=click.IntRange(1), metavar="NUMBER", help="Only the newest NUMBER of them.")
@click.option("--all", "has_noops", is_flag=True, help="Also the noops that only connect other jobs.")
@click.option(
    "--lines", type=click.IntRange(1), metavar="NUMBER", help="Show the last lines of output. Default: 10."
)
@click.option("--full", is_flag=True, help="Show the complete output of the jobs.")
@click.option("-f", "--follow", "is_live", is_flag=True, help="Show output as the jobs write it.")
@client_options
@pass_settings
def command(
    settings: Settings,
    *,
    request_id: str,
    job_id: str | None,
    job: str | None,
    is_failed: bool,
    tail: int | None,
    has_noops: bool,
    lines: int | None,
    full: bool,
    is_live: bool,
) -> None:
    """Show the finished tries of a request's jobs, oldest first.

    JOB is the id of a job, its beginning, or a part of its path, such as "host web7 / drain". A sequence,
    such as "host web7", stands for all its jobs. With one job, show its newest try with the last lines of its
    output.

    With --follow, show the complete output of all jobs, or of the newest try and the next tries of one job,
    until the request has ended. Lines have the path of their job while several jobs run.
    """
    if job_id is not None and job is not None:
        raise click.UsageError("give a JOB_ID or --job, not both")
    if full and lines is not None:
        raise click.UsageError("--full shows all lines: give --full or --lines, not both")
    if is_live:
        if is_failed or tail is not None or has_noops or lines is not None:
            raise click.UsageError("--follow shows all output: it has no --failed, --tail, --all or --lines")
        _follow(settings, request_id, job or job_id)
        return
    most_lines = None if full else lines or _LAST_LINES
    with settings.client() as client:
        request_id = whole_id(client, request_id)
        named = job or job_id
        jobs = frozenset(find_jobs(client, request_id, named)) if named else None
        choice = Choice(request_id, jobs, tail, has_noops)
        if is_failed:
            _show_failed(client, choice, settings, most_lines)
            return
        shows_output = full or lines is not None or choice.is_one_job
        entries = read_entries(client, choice, has_output=shows_output or settings.as_json)
    if not settings.as_json:
        _show(entries, settings, most_lines, is_table=not shows_output)
    elif job_id is not None and choice.is_one_job and tail is None:
        show_json(encode(entries[-1]))
    else:
        show_json(encode(GetLogResponse(entries=entries), "entries"))


def _show(entries: Sequence[JobLog], settings: Settings, most_lines: int | None, *, is_table: bool) -> None:
    if is_table:
        show_entries(entries, settings.zone)
        return
    for number, entry in enumerate(entries):
        if number:
            show()
        show_entry(entry, settings.zone, most_lines)


def _show_failed(client: Client, choice: Choice, settings: Settings, most_lines: int | None) -> None:
    """Shows failed jobs with all their tries, each as soon as it was read."""
    failed = read_failed(client, choice, has_all_tries=settings.as_json or most_lines is not None)
    if settings.as_json:
        entries = [entry for job in failed for entry in job.tries]
        show_json(encode(GetLogResponse(entries=entries), "entries"))
        return
    number = 0
    for number, job in enumerate(failed, 1):
        if number > 1:
            show()
        if most_lines is None:
            show_entry(client.job_log(choice.request_id, job.job_id), settings.zone, None)
            continue
        for line in failure_lines(job, settings.zone, most_lines=most_lines):
            show(line)
    if not number:
        show("no job has failed" if choice.jobs is None else "none of these jobs has failed")


def _follow(settings: Settings, request_id: str, named: str | None) -> None:
    if settings.as_json and named is None:
        raise click.UsageError("--json with --follow shows the output of one job: add --job")
    try:
        with settings.client() as client:
            request_id = whole_id(client, request_id)
            jobs = find_jobs(client, request_id, named) if named else None
            if jobs is not None and len(jobs) == 1:
                follow_job(client, request_id, jobs[0], as_json=settings.as_json)
            elif settings.as_json:
                raise click.UsageError(f"--json with --follow shows one job, and {named!r} is several")
            else:
                FollowedRequest(client, request_id, None if jobs is None else frozenset(jobs)).show()
    except KeyboardInterrupt as error:
        raise Failure("", INTERRUPTED) from error
