"""The parts that `spinc approve` and `spinc reject` share: options, the job that is meant, and the output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from spincycle_grpc.cli.arguments import REQUEST_ID
from spincycle_grpc.cli.output import printable, show, show_json
from spincycle_grpc.cli.settings import Settings
from spincycle_grpc.client import Client
from spincycle_grpc.errors import FailedPreconditionError, InvalidArgumentError
from spincycle_grpc.job_paths import path_text
from spincycle_grpc.v1.approval_pb2 import (
    APPROVAL_RESULT_APPROVED,
    APPROVAL_RESULT_REJECTED,
    PendingApproval,
)
from spincycle_grpc.wire import encode

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.argument("request_id", type=REQUEST_ID, metavar="ID"),
    click.option(
        "--job", default="", metavar="JOB", help="The job that waits: its id, or a part of its path."
    ),
    click.option("--comment", default="", metavar="TEXT", help="Why. It is shown in the job log."),
)


def decision_options(command: _Command) -> _Command:
    """Adds the request, the job and the comment of a decision to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def decide(
    settings: Settings,
    request_id: str,
    job: str,
    call: Callable[[Client, str, int], PendingApproval],
) -> None:
    """Makes a decision and prints the approval after it.

    Args:
        settings: The settings of `spinc`.
        request_id: The request.
        job: The id of the job that waits, or a part of its path; "" for the only one.
        call: Decides with a client about a job, by its id and its try. Without a job, "" and 0.
    """
    with settings.client() as client:
        job_id, number = _meant(client, request_id, job) if job else ("", 0)
        decided = call(client, job_id, number)
    if settings.as_json:
        show_json(encode(decided))
        return
    show(_outcome_of(decided))


def _meant(client: Client, request_id: str, job: str) -> tuple[str, int]:
    waiting = client.get(request_id, with_job_chain=False).approvals
    found = [one for one in waiting if one.job_id == job] or [
        one for one in waiting if job in path_text(one.path)
    ]
    if len(found) == 1:
        return found[0].job_id, getattr(found[0], "try")
    shown = ", ".join(f"{one.job_id} ({path_text(one.path)})" for one in (found or waiting)[:10])
    if found:
        raise InvalidArgumentError(
            f"{job!r} names several jobs that wait: {shown}", reason="AMBIGUOUS_APPROVAL"
        )
    why = f"it waits for {shown}" if shown else "it waits for no approval"
    raise FailedPreconditionError(f"no job {job!r} waits for an approval: {why}", reason="APPROVAL_NOT_OPEN")


def _outcome_of(decided: PendingApproval) -> str:
    about = f"{printable(path_text(decided.path))} of request {printable(decided.request_id)}"
    if decided.result == APPROVAL_RESULT_APPROVED:
        return f"approved: {about} goes on"
    if decided.result == APPROVAL_RESULT_REJECTED:
        return f"rejected: {about} fails"
    return f"approved: {about} waits for {missing_text(decided)}"


def missing_text(one: PendingApproval) -> str:
    """Returns how many further people must approve: "1 more of 2 approvals"."""
    needed = one.approval.approvals
    left = needed - sum(made.approved for made in one.decisions)
    return f"{left} more of {needed} approvals" if needed > 1 else "1 approval"
