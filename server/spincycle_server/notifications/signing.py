"""Signs bodies as the specification Standard Webhooks 1.0 describes, so that its libraries verify them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"
"""The beginning of a secret as text. The rest is the key as base64."""

SHORTEST_KEY, LONGEST_KEY = 24, 64
"""The length of a key, in bytes."""


def key_of(secret: str) -> bytes:
    """Returns the key of a secret such as "whsec_" and base64.

    Raises:
        ValueError: The text has another form. The message does not show it.
    """
    text = secret.removeprefix(PREFIX)
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if text == secret or not SHORTEST_KEY <= len(key) <= LONGEST_KEY:
        raise ValueError(f"must be {PREFIX} and {SHORTEST_KEY} to {LONGEST_KEY} bytes as base64")
    return key


def signed_headers(keys: Sequence[bytes], event_id: str, at: int, body: bytes) -> dict[str, str]:
    """Returns the headers with which a receiver recognizes the sender.

    Args:
        keys: The keys. The receiver needs one of them, so that they can be replaced one after the other.
        event_id: The id of the event.
        at: The time of the attempt, in seconds since the Unix epoch.
        body: The body.
    """
    content = f"{event_id}.{at}.".encode() + body
    signatures = (base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
