"""The table of requests that `spinc find`, `retry` and `stop` show."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import tzinfo

from spincycle_grpc.cli.output import state_name
from spincycle_grpc.cli.progress import progress_of
from spincycle_grpc.cli.short_ids import shortened
from spincycle_grpc.cli.tables import Column, show_table
from spincycle_grpc.cli.times import age_text, time_text
from spincycle_grpc.v1.request_pb2 import Request

_NARROW_FIRST = ("FINISHED", "CREATED", "REQUEST")


def show_requests(requests: Sequence[Request], zone: tzinfo | None) -> None:
    """Prints a row for each request. A narrow terminal shows ages instead of times, and prefixes of ids."""
    now = time.time_ns()
    ids = [one.id for one in requests]
    show_table(
        (
            Column("REQUEST", ids, narrow=Column("REQUEST", shortened(ids))),
            Column("TYPE", [one.type for one in requests], least=8),
            Column("STATE", [state_name(one.state) for one in requests]),
            Column("USER", [one.user for one in requests], least=6),
            Column(
                "CREATED",
                [time_text(one.created_at, zone) for one in requests],
                narrow=Column("AGE", [age_text(one.created_at, now) for one in requests]),
            ),
            Column("FINISHED", [time_text(one.finished_at, zone) for one in requests], may_drop=True),
            Column("JOBS", [progress_of(one).fraction for one in requests]),
        ),
        _NARROW_FIRST,
    )
