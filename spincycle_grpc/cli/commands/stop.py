"""`spinc stop`: stops requests."""

from __future__ import annotations

from datetime import datetime

import click

from spincycle_grpc.cli.arguments import REQUEST_ID
from spincycle_grpc.cli.bulk import Selection, confirm, do_each
from spincycle_grpc.cli.filters import filter_options_without_states
from spincycle_grpc.cli.output import printable, show, show_json, state_name
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.client import Client
from spincycle_grpc.errors import FailedPreconditionError, PermissionDeniedError
from spincycle_grpc.state import State
from spincycle_grpc.v1.request_manager_pb2 import FindResponse, StopRequest
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.wire import encode

_STATES = (State.PENDING, State.RUNNING, State.SUSPENDED)


@click.command("stop")
@click.argument("request_id", type=REQUEST_ID, metavar="[ID]", required=False)
@filter_options_without_states
@click.option("--yes", is_flag=True, help="Stop all requests that match the filters, without a question.")
@client_options
@pass_settings
def command(
    settings: Settings,
    *,
    request_id: str | None,
    request_type: str,
    user: str,
    since: datetime | None,
    until: datetime | None,
    words: tuple[str, ...],
    yes: bool,
) -> None:
    """Stop a request: no further job starts, and running jobs are told to stop.

    If it has finally nodes, these run first. Stop it a second time to skip them.

    Instead of an ID, filters choose the requests, for example --type restart. spinc shows those that have not
    ended, and asks before it stops them.
    """
    selection = Selection(request_type, user, since, until, words)
    selection.check(request_id)
    with settings.client() as client:
        if request_id is None:
            _stop_all(client, selection, settings, yes=yes)
            return
        _stop(client, request_id)
    if settings.as_json:
        show_json(encode(StopRequest(request_id=request_id)))
        return
    show(f"stopping request {printable(request_id)}")


def _stop(client: Client, request_id: str) -> None:
    """Stops a request.

    Raises:
        FailedPreconditionError: It has ended. The server's own message is that of the original.
        SpinCycleError: The call failed.
    """
    try:
        client.stop(request_id)
    except FailedPreconditionError as error:
        if error.reason != "WRONG_STATE":
            raise
        try:
            found = client.get(request_id, with_job_chain=False)
        except PermissionDeniedError:  # Who may stop a request may be denied to see it.
            raise error from None
        raise FailedPreconditionError(
            f"request {found.id} cannot be stopped: it has ended with the state {state_name(found.state)}",
            reason=error.reason,
            request_id=found.id,
        ) from error


def _stop_all(client: Client, selection: Selection, settings: Settings, *, yes: bool) -> None:
    # A second stop would skip finally nodes, which nobody wants for many requests at once.
    found = [one for one in selection.find(client, _STATES) if not one.ending]
    confirm(found, "stop", settings, yes=yes)
    stopped: list[Request] = []

    def stop(one: Request) -> None:
        _stop(client, one.id)
        stopped.append(one)
        if not settings.as_json:
            show(f"stopping request {printable(one.id)}")

    failure = do_each(found, "stop", stop)
    if settings.as_json:
        show_json(encode(FindResponse(requests=stopped), "requests"))
    if failure is not None:
        raise failure
