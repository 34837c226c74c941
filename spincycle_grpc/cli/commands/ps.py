"""`spinc ps`: lists the running jobs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import click

from spincycle_grpc.cli.approval_table import show_waiting
from spincycle_grpc.cli.arguments import REQUEST_ID
from spincycle_grpc.cli.counts import try_of
from spincycle_grpc.cli.job_paths import path_of
from spincycle_grpc.cli.output import note, show_object, state_name
from spincycle_grpc.cli.progress import progress_of
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.cli.short_ids import shortened
from spincycle_grpc.cli.tables import Column, show_table
from spincycle_grpc.cli.times import span_text
from spincycle_grpc.cli.whole_ids import whole_id
from spincycle_grpc.job_paths import path_text
from spincycle_grpc.state import State
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.v1.status_pb2 import JobStatus, RunningStatus
from spincycle_grpc.wire import encode

_MAX_WAITING = 1000
_NARROW_FIRST = ("REQUEST", "DONE", "ID", "TRY", "HOST")


@dataclass(frozen=True)
class _Row:
    """A running job, or a request of which no running job is known.

    Attributes:
        request: The request. It is empty if the server does not know it.
        job: The job. None: none is known.
        status: What the job says about itself, or why the request has no job.
    """

    request: Request
    job: JobStatus | None
    status: str

    @property
    def path(self) -> str:
        """The path of the job. It begins with the type of the request."""
        if self.job is None or not self.job.path:
            return path_text(part for part in (self.request.type, self.job.name if self.job else "") if part)
        return path_of(self.job)

    @property
    def short_host(self) -> str:
        """The first part of the name of the host, or its whole IP address."""
        name = urlsplit(self.request.job_runner_url).hostname or ""
        return name if name.replace(".", "").isdigit() else name.split(".")[0]

    @property
    def host(self) -> str:
        """The host and the port of the Job Runner."""
        return urlsplit(self.request.job_runner_url).netloc or self.request.job_runner_url


@click.command("ps")
@click.argument("request_id", type=REQUEST_ID, metavar="[ID]", required=False)
@click.option("--waiting", is_flag=True, help="List what requests wait for people to approve instead.")
@client_options
@pass_settings
def command(settings: Settings, request_id: str | None, waiting: bool) -> None:
    """List the running jobs of all requests or of one, oldest first.

    HOST is the Job Runner that runs the job, and USER the user of the request. DONE shows how many of the
    request's jobs are COMPLETE, and how many it has. FOR shows how long the current try has run. A request
    whose jobs are not known, because a Job Runner of the original runs it and does not answer, has a row
    without a job. So has a request that no Job Runner can run, of the newest 1,000 that wait.

    With --waiting, the rows are approvals that requests wait for. YOU says which you may decide, with
    `spinc approve ID` and `spinc reject ID`.
    """
    if waiting:
        show_waiting(settings, request_id or "")
        return
    _show_running(settings, request_id)


def _show_running(settings: Settings, request_id: str | None) -> None:
    with settings.client() as client:
        chosen = whole_id(client, request_id) if request_id else ""
        status = client.running(chosen)
        found = client.find(states=(State.PENDING, State.SUSPENDED), limit=_MAX_WAITING)
        waiting = [one for one in reversed(found) if one.waiting and one.id.startswith(chosen)]
        has_rows = bool(status.requests or status.jobs or waiting)
        state = client.get(chosen, with_job_chain=False).state if chosen and not has_rows else None
    if settings.as_json:
        fields = json.loads(encode(status))
        fields["waiting"] = [json.loads(encode(one)) for one in waiting]
        show_object(fields)
        return
    _show_rows([*_rows(status), *(_Row(one, None, f"(waits: {one.waiting})") for one in waiting)])
    if not has_rows:
        about = f"{chosen} is {state_name(state)}: " if state is not None else ""
        note(f"{about}no job is running")


def _rows(status: RunningStatus) -> list[_Row]:
    rows = []
    for job in status.jobs:
        request = status.requests.get(job.request_id) or Request(id=job.request_id)
        rows.append(_Row(request, job, job.status))
    listed = {job.request_id for job in status.jobs}
    for request_id, request in sorted(status.requests.items()):
        if request_id not in listed:
            rows.append(_Row(request, None, "(its jobs are not known)"))
    return rows


def _show_rows(rows: Sequence[_Row]) -> None:
    now = time.time_ns()
    ids = [row.request.id for row in rows]
    jobs = [row.job for row in rows]
    hosts = Column("HOST", [row.short_host for row in rows], least=5)
    show_table(
        (
            Column("REQUEST", ids, narrow=Column("REQUEST", shortened(ids))),
            Column("USER", [row.request.user for row in rows], least=4),
            Column("HOST", [row.host for row in rows], narrow=hosts),
            Column("DONE", [progress_of(row.request).fraction for row in rows], may_drop=True),
            Column("JOB", [row.path for row in rows], least=20, has_paths=True),
            Column("ID", [job.job_id if job else "" for job in jobs], may_drop=True),
            Column("TRY", [str(try_of(job)) if job else "" for job in jobs], may_drop=True),
            Column("FOR", [span_text(now - job.started_at) if job else "" for job in jobs]),
            Column("STATUS", [row.status for row in rows], least=7),
        ),
        _NARROW_FIRST,
    )
