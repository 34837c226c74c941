"""`spinc locks`: lists the keys of limits, with the requests and sequences that hold or want them."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from spincycle_grpc.cli.arguments import REQUEST_ID
from spincycle_grpc.cli.output import note, show_json, state_name
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.cli.short_ids import shortened
from spincycle_grpc.cli.tables import Column, show_table
from spincycle_grpc.cli.times import age_text
from spincycle_grpc.job_paths import path_text
from spincycle_grpc.v1.limit_pb2 import HeldLimit, LimitClaim
from spincycle_grpc.v1.request_manager_pb2 import ListLimitsResponse
from spincycle_grpc.wire import encode

_NARROW_FIRST = ("TYPE", "USER", "STATE")


@click.command("locks")
@click.argument("limit_key", metavar="[KEY]", required=False, default="")
@click.option(
    "--request",
    "request_id",
    type=REQUEST_ID,
    metavar="ID",
    help="Only keys that this request or its sequences hold or wait for.",
)
@client_options
@pass_settings
def command(settings: Settings, limit_key: str, request_id: str | None) -> None:
    """List the keys of limits, or one of them, with the requests and sequences that hold it or wait for it.

    LIMIT shows how many hold the key, and how many may. CLAIM is "holds", or the place among those that wait.
    SEQUENCE is the path of the sequence that holds or waits; empty, it is the whole request. FOR shows since
    when. The first 100 claims of each key are listed; with --request, also up to 100 of that request behind
    them.
    """
    with settings.client() as client:
        limits = sorted(
            client.list_limits(limit_key, request_id=request_id or ""), key=lambda limit: limit.key
        )
    if settings.as_json:
        show_json(encode(ListLimitsResponse(limits=limits), "limits"))
        return
    if not limits:
        note(_nothing(limit_key, request_id))
        return
    _show(limits)


def _nothing(limit_key: str, request_id: str | None) -> str:
    if request_id is None:
        return f"no request that you may view holds or waits for {limit_key or 'a limit'}"
    does = f"does not hold {limit_key} or wait for it" if limit_key else "holds no key and waits for none"
    return f"request {request_id} {does}, or you may not view it"


def _show(limits: Sequence[HeldLimit]) -> None:
    now = time.time_ns()
    rows = [(limit, claim) for limit in limits for claim in limit.claims]
    ids = [claim.request_id for _, claim in rows]
    show_table(
        (
            Column("KEY", [limit.key for limit, _ in rows], least=12),
            Column("LIMIT", [f"{limit.holding}/{limit.max}" for limit, _ in rows]),
            Column("CLAIM", [place for limit in limits for place in _places(limit)]),
            Column("REQUEST", ids, narrow=Column("REQUEST", shortened(ids))),
            *_sequences([claim for _, claim in rows]),
            Column("TYPE", [claim.request_type for _, claim in rows], least=8, may_drop=True),
            Column("USER", [claim.user for _, claim in rows], least=4, may_drop=True),
            Column("STATE", [state_name(claim.state) for _, claim in rows], may_drop=True),
            Column("FOR", [age_text(claim.since, now) for _, claim in rows]),
        ),
        _NARROW_FIRST,
    )


def _sequences(claims: Sequence[LimitClaim]) -> Sequence[Column]:
    """Returns the column of sequences, if there are any. Their paths begin with the type of the request."""
    if not any(claim.sequence_id for claim in claims):
        return ()
    paths = [path_text(claim.sequence_path[1:]) or claim.sequence_id for claim in claims]
    return (Column("SEQUENCE", paths, least=8),)


def _places(limit: HeldLimit) -> Sequence[str]:
    """Returns the place of each claim of a key, also behind those that are not in the list."""
    unlisted = max(0, limit.holding - sum(claim.holds for claim in limit.claims))
    texts: list[str] = []
    holders = 0
    for index, claim in enumerate(limit.claims):
        holders += claim.holds
        # An older server does not say the place. Then only the claims in the list count.
        place = claim.place - unlisted if claim.place else index + 1
        texts.append("holds" if claim.holds else f"waits {max(1, place - holders)}")
    return texts
