"""`spinc ps`: lists the running jobs."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from spincycle_grpc.cli.counts import try_of
from spincycle_grpc.cli.output import show_json, show_table, span_text
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.state import State
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.v1.status_pb2 import RunningStatus
from spincycle_grpc.wire import encode

_HEADINGS = ("REQUEST", "TYPE", "JOBS", "JOB", "NAME", "TRY", "FOR", "STATUS")

_MAX_WAITING = 1000


@click.command("ps")
@click.argument("request_id", metavar="[ID]", required=False)
@client_options
@pass_settings
def command(settings: Settings, request_id: str | None) -> None:
    """List the running jobs of all requests or of one, oldest first.

    JOBS shows how many of the request's jobs are COMPLETE, and how many it has. FOR shows how long the
    current try has run. A request whose jobs are not known, because a Job Runner of the original runs it and
    does not answer, has a row without a job. So has a request that no Job Runner can run, of the newest 1,000
    that wait.
    """
    with settings.client() as client:
        status = client.running(request_id or "")
        if settings.as_json:
            show_json(encode(status))
            return
        waiting = client.find(states=(State.PENDING, State.SUSPENDED), limit=_MAX_WAITING)
    show_table(_HEADINGS, _rows(status) + _waiting_rows(waiting, request_id))


def _waiting_rows(found: Sequence[Request], request_id: str | None) -> list[tuple[str, ...]]:
    """Returns the rows of requests that no Job Runner can run, oldest first."""
    return [
        (
            request.id,
            request.type,
            f"{request.finished_jobs}/{request.total_jobs}",
            "",
            "",
            "",
            "",
            f"(waits: {request.waiting})",
        )
        for request in reversed(found)
        if request.waiting and request_id in (None, request.id)
    ]


def _rows(status: RunningStatus) -> list[tuple[str, ...]]:
    now = time.time_ns()
    rows: list[tuple[str, ...]] = []
    for job in status.jobs:
        request = status.requests.get(job.request_id)
        rows.append(
            (
                job.request_id,
                request.type if request else "",
                f"{request.finished_jobs}/{request.total_jobs}" if request else "",
                job.job_id,
                job.name,
                str(try_of(job)),
                span_text(now - job.started_at),
                job.status,
            )
        )
    listed = {job.request_id for job in status.jobs}
    for request_id, request in sorted(status.requests.items()):
        if request_id not in listed:
            counts = f"{request.finished_jobs}/{request.total_jobs}"
            rows.append((request_id, request.type, counts, "", "", "", "", "(its jobs are not known)"))
    return rows
