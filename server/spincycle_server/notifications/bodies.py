"""Writes the bodies of webhooks: as JSON of this project, for Slack and for PagerDuty.

Slack takes messages with blocks (docs.slack.dev, "Sending messages using incoming webhooks"). PagerDuty takes
events of its Events API v2 (developer.pagerduty.com, "Send an alert event").
"""

from __future__ import annotations

from typing import Any

import orjson

from spincycle_grpc.v1.notification_pb2 import Notification
from spincycle_grpc.wire import encode
from spincycle_server.notifications.targets import Target
from spincycle_server.store.deliveries import APPROVAL_WANTED, COMPLETED, FAILED, STOPPED, TEST

_LONGEST_SECTION = 2900
"""Characters of a section of Slack, which takes 3,000."""

_LONGEST_TITLE = 1000
"""Characters of the first line of a message of Slack, without its link."""

_LONGEST_SUMMARY = 1000
"""Characters of a summary of PagerDuty, which takes 1,024."""

_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
"""How Slack wants its control characters in a text."""

_SEVERITIES = {FAILED: "error", APPROVAL_WANTED: "warning"}
"""The severities of PagerDuty. Other events are "info"."""


def body_of(notification: Notification, target: Target) -> bytes:
    """Returns the body for a target, in its format."""
    if target.format == "slack":
        return orjson.dumps(_slack_message(notification))
    if target.format == "pagerduty":
        return orjson.dumps(_pagerduty_event(notification, target.routing_key))
    return encode(notification)


def summary_of(notification: Notification) -> str:
    """Returns one sentence about an event."""
    by = f" of {notification.user}" if notification.user else ""
    request = f"Request {notification.request_id} ({notification.request_type}{by})"
    message = notification.approval.message
    return {
        FAILED: f"{request} failed",
        COMPLETED: f"{request} is complete",
        STOPPED: f"{request} was stopped",
        APPROVAL_WANTED: f"{request} waits for an approval{f': {message}' if message else ''}",
        TEST: "This is a test event of Spin Cycle",
    }.get(notification.event, f"{request}: {notification.event}")


def _lines_of(notification: Notification) -> list[str]:
    lines = [f"{name}: {value}" for name, value in sorted(notification.args.items())]
    if notification.HasField("approval"):
        lines.append(f"{notification.approval.path} waits")
    for job in notification.failed_jobs:
        lines.append(f"{job.path} failed{f': {job.error}' if job.error else ''}")
    if notification.more_failed_jobs:
        lines.append("There are more failed jobs.")
    return lines


def _slack_message(notification: Notification) -> dict[str, Any]:
    summary = _escaped(" ".join(summary_of(notification).splitlines()), _LONGEST_TITLE)
    url = notification.request_url
    text = f"*<{url}|{summary.replace('|', '/')}>*" if url else f"*{summary}*"
    for line in _lines_of(notification):
        text += _escaped(f"\n• {line}", _LONGEST_SECTION - len(text))
    section = {"type": "section", "text": {"type": "mrkdwn", "text": text}}
    return {"text": summary, "blocks": [section]}


def _escaped(text: str, longest: int) -> str:
    """Escapes the three control characters of Slack, so that no text can mention a channel or a user.

    Args:
        text: The text.
        longest: Characters of the result. What does not fit is cut off, but never a part of an escape.
    """
    escaped: list[str] = []
    for character in text:
        piece = _ESCAPES.get(character, character)
        longest -= len(piece)
        if longest < 0:
            break
        escaped.append(piece)
    return "".join(escaped)


def _pagerduty_event(notification: Notification, routing_key: str) -> dict[str, Any]:
    url = notification.request_url
    return {
        "routing_key": routing_key,
        "event_action": "trigger",
        # All attempts, and a redelivery, are one alert.
        "dedup_key": f"spincycle/{notification.id}",
        "client": "Spin Cycle",
        **({"client_url": url, "links": [{"href": url, "text": "Request"}]} if url else {}),
        "payload": {
            "summary": summary_of(notification)[:_LONGEST_SUMMARY],
            "source": f"spincycle/{notification.request_type or TEST}",
            "severity": _SEVERITIES.get(notification.event, "info"),
            "timestamp": notification.time.ToJsonString(),
            "component": notification.request_type or TEST,
            "class": notification.event,
            "custom_details": orjson.loads(encode(notification)),
        },
    }
