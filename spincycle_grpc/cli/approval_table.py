"""Shows approvals that requests wait for: as a table of all, and as a part of one request."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import tzinfo

from spincycle_grpc.cli.deciding import missing_text
from spincycle_grpc.cli.output import note, printable, show, show_object
from spincycle_grpc.cli.settings import Settings
from spincycle_grpc.cli.short_ids import shortened
from spincycle_grpc.cli.tables import Column, show_table
from spincycle_grpc.cli.times import nanoseconds_of, span_text, time_text
from spincycle_grpc.job_paths import path_text
from spincycle_grpc.v1.approval_pb2 import PendingApproval
from spincycle_grpc.wire import encode

_NARROW_FIRST = ("REQUEST", "ID", "USER")


def show_waiting(settings: Settings, beginning: str) -> None:
    """Prints the approvals that requests wait for, the oldest first.

    Args:
        settings: The settings of `spinc`.
        beginning: How the ids of the requests begin; "" for all.
    """
    with settings.client() as client:
        answer = client.list_approvals()
    found = [one for one in answer.approvals if one.request_id.startswith(beginning)]
    if settings.as_json:
        show_object({"approvals": [json.loads(encode(one)) for one in found], "more": answer.more})
        return
    if not found:
        note("no request waits for an approval")
        return
    _show_table(found)
    if answer.more:
        note("there are more: the server lists the oldest 1,000")


def _show_table(found: Sequence[PendingApproval]) -> None:
    now = time.time_ns()
    ids = [one.request_id for one in found]
    show_table(
        (
            Column("REQUEST", ids, narrow=Column("REQUEST", shortened(ids))),
            Column("USER", [one.requester for one in found], least=4, may_drop=True),
            Column("JOB", [path_text(one.path) for one in found], least=20, has_paths=True),
            Column("ID", [one.job_id for one in found], may_drop=True),
            Column("FOR", [span_text(now - nanoseconds_of(one.opened_at)) for one in found]),
            Column("MISSING", [missing_text(one) for one in found]),
            Column("ROLES", [", ".join(one.approval.roles) for one in found], least=5),
            Column("YOU", ["decide" if one.may_decide else "" for one in found]),
            Column("MESSAGE", [one.approval.message for one in found], least=10),
        ),
        _NARROW_FIRST,
    )


def show_approvals(waiting: Sequence[PendingApproval], zone: tzinfo | None) -> None:
    """Prints what one request waits for, as a part of its status."""
    if not waiting:
        return
    show()
    show("waits for an approval:" if len(waiting) == 1 else f"waits for {len(waiting)} approvals:")
    for one in waiting:
        show(f"  {printable(' / '.join(one.path))} (job {printable(one.job_id)})")
        for name, value in _fields(one, zone):
            show(f"    {name}: {printable(value)}")


def _fields(one: PendingApproval, zone: tzinfo | None) -> list[tuple[str, str]]:
    fields = [
        ("message", one.approval.message),
        ("since", time_text(one.opened_at, zone)),
        ("until", f"{time_text(one.deadline, zone)}, {_then(one)}"),
        ("needs", f"{missing_text(one)} by {', '.join(one.approval.roles)}"),
    ]
    for made in one.decisions:
        reason = f": {made.comment}" if made.comment else ""
        fields.append(("approved by" if made.approved else "rejected by", f"{made.user}{reason}"))
    return [(name, value) for name, value in fields if value]


def _then(one: PendingApproval) -> str:
    return "then it goes on" if one.approval.continue_on_timeout else "then it fails"
