"""One attempt to deliver an event: sends the body and judges the answer."""

from __future__ import annotations

import time
from typing import NamedTuple

from spincycle_grpc.version import package_version
from spincycle_server.notifications.retry_pauses import seconds_of_retry_after
from spincycle_server.notifications.signing import signed_headers
from spincycle_server.notifications.targets import Target, Targets
from spincycle_server.plain_http import NoAnswerError, NotReachedError, checked_url, post

LIMIT = 10.0
"""Seconds for one attempt."""

_GONE = 410


class Outcome(NamedTuple):
    """How an attempt ended.

    Attributes:
        error: Why it failed; "" if it succeeded. It has no URL.
        retry_after: Seconds that the receiver asks to wait.
        is_final: Whether the receiver says that it wants no further attempt.
    """

    error: str = ""
    retry_after: float = 0.0
    is_final: bool = False


async def attempt(targets: Targets, target: Target, event_id: str, body: bytes, limit: float) -> Outcome:
    """Sends a body to a target.

    Args:
        targets: Says to which hosts anything may be sent.
        target: The target.
        event_id: The id of the event.
        body: The body.
        limit: Seconds that the attempt may take.
    """
    try:
        host = checked_url(target.url).hostname or ""
        if host != target.host or not targets.allows(host):
            return Outcome(f"the host {host} is not in notifications.allowed_hosts")
        headers = {"Content-Type": "application/json", "User-Agent": f"spincycle/{package_version()}"}
        if target.keys:
            headers |= signed_headers(target.keys, event_id, int(time.time()), body)
        head = await post(target.url, body, headers, tls=target.tls, limit=limit)
    except (NotReachedError, NoAnswerError) as error:
        return Outcome(str(error))
    if 200 <= head.status < 300:
        return Outcome()
    if 300 <= head.status < 400:
        return Outcome(f"status {head.status}: redirects are not followed")
    return Outcome(
        f"status {head.status}",
        seconds_of_retry_after(head.headers.get("Retry-After")),
        is_final=head.status == _GONE,
    )
