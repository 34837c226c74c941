"""`spinc status`: shows one request."""

from __future__ import annotations

import time

import click

from spincycle_grpc.cli.output import show_fields, show_json, span_text, state_name, time_text, value_text
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.wire import encode


@click.command("status")
@click.argument("request_id", metavar="ID")
@client_options
@pass_settings
def command(settings: Settings, request_id: str) -> None:
    """Show the state, the progress and the args of a request. --json includes its job chain."""
    with settings.client() as client:
        request = client.get(request_id, with_job_chain=settings.as_json)
    if settings.as_json:
        show_json(encode(request))
        return
    show_fields(_fields(request))


def _fields(request: Request) -> list[tuple[str, str]]:
    fields = [
        ("request", request.id),
        ("type", request.type),
        ("state", state_name(request.state)),
        *([("waiting", request.waiting)] if request.waiting else []),
        *([("retry of", request.retry_of)] if request.retry_of else []),
        *([("retried by", request.retried_by)] if request.retried_by else []),
        ("jobs", f"{request.finished_jobs} of {request.total_jobs} done"),
        ("created", time_text(request.created_at)),
    ]
    if request.HasField("started_at"):
        fields.append(("started", time_text(request.started_at)))
    if request.HasField("finished_at"):
        fields.append(("finished", time_text(request.finished_at)))
    if request.HasField("started_at"):
        end = request.finished_at.ToNanoseconds() if request.HasField("finished_at") else time.time_ns()
        fields.append(
            (
                "took" if request.HasField("finished_at") else "so far",
                span_text(end - request.started_at.ToNanoseconds()),
            )
        )
    if request.user:
        fields.append(("user", request.user))
    if request.job_runner_url:
        fields.append(("job runner", request.job_runner_url))
    fields.extend((f"arg {arg.name}", value_text(arg.value)) for arg in request.args)
    return fields
