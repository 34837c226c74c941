"""`spinc retry`: does the rest of a request that has failed or was stopped."""

from __future__ import annotations

from datetime import datetime

import click

from spincycle_grpc.cli.arguments import JOB, REQUEST_ID
from spincycle_grpc.cli.bulk import Selection, confirm, do_each
from spincycle_grpc.cli.created import show_created
from spincycle_grpc.cli.filters import filter_options_without_states
from spincycle_grpc.cli.output import printable, show, show_json
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.client import Client
from spincycle_grpc.errors import PermissionDeniedError
from spincycle_grpc.state import State
from spincycle_grpc.v1.request_manager_pb2 import FindResponse
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.wire import encode

_STATES = (State.FAIL, State.STOPPED)


@click.command("retry")
@click.argument("request_id", type=REQUEST_ID, metavar="[ID]", required=False)
@click.option(
    "--from",
    "from_job",
    type=JOB,
    metavar="JOB",
    help="Run this job and all jobs after it again, even COMPLETE ones: its id, or the end of its path.",
)
@click.option(
    "--wait", is_flag=True, help="Follow the new request until it ends. Ctrl-C does not stop the request."
)
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="Create only one retry, even if you repeat the command with this KEY within a day.",
)
@click.option(
    "--again",
    is_flag=True,
    help="Retry a request that was retried before. Jobs that the earlier retry has done run again.",
)
@filter_options_without_states
@click.option("--yes", is_flag=True, help="Retry all requests that match the filters, without a question.")
@client_options
@pass_settings
def command(
    settings: Settings,
    *,
    request_id: str | None,
    from_job: str | None,
    wait: bool,
    idempotency_key: str | None,
    again: bool,
    request_type: str,
    user: str,
    since: datetime | None,
    until: datetime | None,
    words: tuple[str, ...],
    yes: bool,
) -> None:
    """Create a request that does the rest of one that is FAIL or STOPPED, and print its id.

    Jobs that are COMPLETE do not run again. Instead of an ID, filters choose the requests, for example
    --type restart --since 2h. spinc shows those that were not retried yet, and asks before it retries them.
    """
    selection = Selection(request_type, user, since, until, words)
    selection.check(request_id)
    if request_id is None and (from_job or wait or idempotency_key or again):
        raise click.UsageError("--from, --wait, --idempotency-key and --again need an ID")
    with settings.client() as client:
        if request_id is None:
            _retry_all(client, selection, settings, yes=yes)
        else:
            if not again and idempotency_key is None:  # A repeated call with a key returns the first retry.
                _check_not_retried(client, request_id)
            created = client.retry(request_id, from_job=from_job or "", idempotency_key=idempotency_key)
            show_created(client, created, settings, wait=wait)


def _check_not_retried(client: Client, request_id: str) -> None:
    """Keeps a user from running jobs again that a retry has done.

    Raises:
        click.UsageError: The request was retried before.
    """
    try:
        first = client.get(request_id, with_job_chain=False)
    except PermissionDeniedError:  # Who may retry a request may be denied to see it.
        return
    if first.retried_by:
        raise click.UsageError(
            f"request {first.id} was retried by {first.retried_by}, which may have done more: "
            f"retry that one, or add --again to retry {first.id}"
        )


def _retry_all(client: Client, selection: Selection, settings: Settings, *, yes: bool) -> None:
    found = [
        one
        for one in selection.find(client, _STATES)
        if not client.get(one.id, with_job_chain=False).retried_by
    ]
    confirm(found, "retry", settings, yes=yes)
    created: list[Request] = []

    def retry(one: Request) -> None:
        made = client.retry(one.id)
        created.append(made)
        if not settings.as_json:
            show(f"{printable(one.id)} is retried by {printable(made.id)}")

    failure = do_each(found, "retry", retry)
    if settings.as_json:
        show_json(encode(FindResponse(requests=created), "requests"))
    if failure is not None:
        raise failure
