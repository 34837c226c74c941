"""Shows a request that `spinc` has created, and can follow it."""

from __future__ import annotations

import sys

import click

from spincycle_grpc.cli.failures import INTERRUPTED, Failure, failure_of
from spincycle_grpc.cli.following import follow, show_end
from spincycle_grpc.cli.output import printable, show, show_json
from spincycle_grpc.cli.settings import Settings
from spincycle_grpc.client import Client
from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.v1.state_pb2 import STATE_COMPLETE
from spincycle_grpc.wire import encode


def show_created(client: Client, created: Request, settings: Settings, *, wait: bool) -> None:
    """Shows a new request, or follows it until it ends.

    Raises:
        click.exceptions.Exit: The request was followed, and ended as FAIL or STOPPED.
        Failure: The user pressed Ctrl-C.
    """
    if wait:
        _wait(client, created, settings)
    elif settings.as_json:
        show_json(encode(created))
    elif sys.stdout.isatty():
        request_id = printable(created.id)
        show(f"created request {request_id}, see its state with: spinc status {request_id}")
    else:
        show(printable(created.id))


def _wait(client: Client, created: Request, settings: Settings) -> None:
    """Follows a request until it ends.

    Raises:
        click.exceptions.Exit: The request ended as FAIL or STOPPED.
        Failure: The user pressed Ctrl-C, or a call failed: the message has the id, which was not shown yet.
    """
    try:
        ended = follow(client, created, quiet=settings.as_json)
        if settings.as_json:
            show_json(encode(ended))
        else:
            show_end(client, ended, settings.zone)
    except KeyboardInterrupt as error:
        raise Failure(
            f"interrupted: request {created.id} still runs, stop it with: spinc stop {created.id}",
            INTERRUPTED,
        ) from error
    except SpinCycleError as error:
        failure = failure_of(error, sends_token=settings.sends_token)
        raise Failure(
            f"{failure.message.rstrip('.')}. Request {created.id} was created: "
            f"follow it with: spinc watch {created.id}",
            failure.status,
        ) from error
    if ended.state != STATE_COMPLETE:
        raise click.exceptions.Exit(1)
