"""The commands that help next with a request, by its state."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from spincycle_grpc.cli.cutting import cell_width
from spincycle_grpc.cli.output import printable, show
from spincycle_grpc.cli.request_record import RequestRecord
from spincycle_grpc.v1.state_pb2 import STATE_FAIL, STATE_RUNNING, STATE_STOPPED

_PAUSED = "paused"
"""How the reason of a paused request to wait begins."""

_MOST_APPROVALS = 3
"""The most approvals for which the commands are shown."""

Step = tuple[str, str]
"""A command, and what it does."""


def next_steps(record: RequestRecord) -> list[Step]:
    """Returns the commands to type next, most useful first. A COMPLETE request needs none."""
    request = record.request
    request_id = _word(request.id)
    steps: list[Step] = []
    for one in request.approvals[:_MOST_APPROVALS]:
        if one.may_decide:
            which = f" --job {_word(one.job_id)}" if len(request.approvals) > 1 else ""
            steps.append((f"spinc approve {request_id}{which}", "let it go on"))
            steps.append((f"spinc reject {request_id}{which}", "let it fail"))
    if request.waiting.startswith(_PAUSED):
        steps.append((f"spinc resume {request_id}", "continue"))
    elif request.state == STATE_RUNNING:
        steps.append((f"spinc watch {request_id}", "follow it"))
    if record.failed:
        job_id = _word(record.failed[0].job_id)
        steps.append((f"spinc log {request_id} --job {job_id}", "its output"))
    if request.retried_by:
        steps.append((f"spinc status {_word(request.retried_by)}", "the retry"))
    elif request.state in (STATE_FAIL, STATE_STOPPED):
        steps.append((f"spinc retry {request_id}", "do the rest"))
    return steps


def _word(request_or_job_id: str) -> str:
    """Returns an id that a shell takes as one word, whatever a server has sent."""
    return shlex.quote(printable(request_or_job_id))


def show_next_steps(steps: Sequence[Step]) -> None:
    """Prints commands with what they do, so that each can be copied."""
    show("next:")
    width = max(cell_width(command) for command, _ in steps)
    for command, purpose in steps:
        show(f"  {command}{' ' * (width - cell_width(command))}  # {purpose}")
