"""The bodies of webhooks have the shapes that their receivers document, whatever texts they contain."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spincycle_grpc.v1.notification_pb2 import Notification, NotifiedApproval, NotifiedJob
from spincycle_server.notifications.bodies import body_of
from spincycle_server.notifications.targets import Target, Targets

KEY = "0123456789abcdef0123456789ABCDEF"


def a_target(form: str = "json", **fields: Any) -> Target:
    return Target(
        **{"name": "ops", "url": "https://h/s3cr3t", "host": "h", "format": form,
           "events": frozenset({"failed"}), "routing_key": KEY if form == "pagerduty" else "", **fields}
    )  # fmt: skip


def a_notification(event: str = "failed", **fields: Any) -> Notification:
    notification = Notification(
        **{"id": "e" * 20, "event": event, "target": "ops", "request_id": "r1", "request_type": "upgrade",
           "request_state": "FAIL", "user": "finch", "request_url": "https://spin/requests/r1", **fields}
    )  # fmt: skip
    notification.time.FromSeconds(1_800_000_000)
    return notification


def written(notification: Notification, form: str) -> Any:
    return json.loads(body_of(notification, a_target(form)))


def test_json_has_only_the_fields_that_have_a_value() -> None:
    failed = NotifiedJob(job_id="aaaa", path="upgrade / host", error="boom")
    assert written(a_notification(failed_jobs=[failed], args={"host": "db1"}), "json") == {
        "id": "e" * 20,
        "event": "failed",
        "time": "2027-01-15T08:00:00Z",
        "target": "ops",
        "requestId": "r1",
        "requestType": "upgrade",
        "requestState": "FAIL",
        "user": "finch",
        "requestUrl": "https://spin/requests/r1",
        "args": {"host": "db1"},
        "failedJobs": [{"jobId": "aaaa", "path": "upgrade / host", "error": "boom"}],
    }
    test = Notification(id="e" * 20, event="test", target="ops")
    test.time.FromSeconds(1_800_000_000)
    assert written(test, "json").keys() == {"id", "event", "time", "target"}


def test_slack_gets_a_title_with_a_link_and_a_line_for_each_failed_job() -> None:
    jobs = [NotifiedJob(path="a / <!channel>", error="x & y"), NotifiedJob(path="b")]
    message = written(a_notification(failed_jobs=jobs, more_failed_jobs=True), "slack")
    (block,) = message["blocks"]
    assert block["type"] == "section"
    assert block["text"] == {
        "type": "mrkdwn",
        "text": "*<https://spin/requests/r1|Request r1 (upgrade of finch) failed>*\n"
        "• a / &lt;!channel&gt; failed: x &amp; y\n• b failed\n• There are more failed jobs.",
    }
    assert message["text"] == "Request r1 (upgrade of finch) failed"


def test_pagerduty_gets_an_event_with_its_fields() -> None:
    event = written(a_notification(), "pagerduty")
    assert event.keys() == {
        "routing_key", "event_action", "dedup_key", "client", "client_url", "links", "payload",
    }  # fmt: skip
    assert (event["routing_key"], event["event_action"]) == (KEY, "trigger")
    assert event["dedup_key"] == f"spincycle/{'e' * 20}"
    assert event["links"] == [{"href": "https://spin/requests/r1", "text": "Request"}]
    payload = event["payload"]
    assert payload["custom_details"]["requestId"] == "r1"
    del payload["custom_details"]
    assert payload == {
        "summary": "Request r1 (upgrade of finch) failed",
        "source": "spincycle/upgrade",
        "severity": "error",
        "timestamp": "2027-01-15T08:00:00Z",
        "component": "upgrade",
        "class": "failed",
    }


@pytest.mark.parametrize(
    ("event", "severity", "summary"),
    [
        ("completed", "info", "Request r1 (upgrade of finch) is complete"),
        ("stopped", "info", "Request r1 (upgrade of finch) was stopped"),
        ("approval-wanted", "warning", "Request r1 (upgrade of finch) waits for an approval: east?"),
        ("test", "info", "This is a test event of Spin Cycle"),
    ],
)
def test_each_event_has_a_summary_and_a_severity(event: str, severity: str, summary: str) -> None:
    approval = NotifiedApproval(path="upgrade / ask", message="east?") if "approval" in event else None
    notification = a_notification(event, approval=approval)
    payload = written(notification, "pagerduty")["payload"]
    assert (payload["severity"], payload["summary"]) == (severity, summary)
    assert written(notification, "slack")["text"] == summary


@pytest.mark.parametrize("character", ["&", "<", ">"])
@pytest.mark.parametrize("shift", range(5))
def test_a_long_text_is_cut_before_an_escape_and_keeps_the_link(character: str, shift: int) -> None:
    jobs = [NotifiedJob(path="x" * shift + character * 300) for _ in range(10)]
    message = written(a_notification(user=character * 4000, failed_jobs=jobs), "slack")
    text = message["blocks"][0]["text"]["text"]
    title, *lines = text.split("\n")
    assert title.startswith("*<https://spin/requests/r1|Request r1 (upgrade of &")
    assert title.endswith(";>*")
    assert lines
    assert len(text) <= 3000
    for part in (message["text"], *lines):
        assert "&" not in re.sub("&(amp|lt|gt);", "", part)


@given(st.text(max_size=4000), st.text(max_size=4000), st.lists(st.text(max_size=400), max_size=12))
def test_any_text_fits_and_controls_nothing(user: str, message: str, paths: list[str]) -> None:
    notification = a_notification(
        "approval-wanted",
        user=_stored(user),
        approval=NotifiedApproval(message=_stored(message)),
        failed_jobs=[NotifiedJob(path=_stored(path)) for path in paths],
    )
    text = written(notification, "slack")["blocks"][0]["text"]["text"]
    assert len(text) <= 3000
    # Only the link of the title has control characters.
    assert text.count("<") <= 1
    assert text.partition("|")[2].replace("&lt;", "").count("<") == 0
    assert len(written(notification, "pagerduty")["payload"]["summary"]) <= 1024


def _stored(text: str) -> str:
    """Returns a text as a database returns it: without lone surrogates."""
    return text.encode(errors="replace").decode()


def test_a_target_shows_no_secret() -> None:
    target = a_target("pagerduty", keys=(b"k" * 24,))
    for secret in ("s3cr3t", KEY, "kkkk"):
        assert secret not in repr(target)


def test_targets_say_who_wants_what_and_where_it_may_go() -> None:
    every, some = a_target(name="every"), a_target(name="some", types=frozenset({"upgrade"}))
    targets = Targets([every, some], ["h", "*.example.com"])
    assert targets.names == ["every", "some"]
    assert targets.wanted_by("failed", "upgrade") == ["every", "some"]
    assert targets.wanted_by("failed", "other") == ["every"]
    assert targets.wanted_by("completed", "upgrade") == []
    assert targets.allows("h")
    assert targets.allows("a.example.com")
    assert not any(targets.allows(host) for host in ("example.com", "a.b.example.com", "x", ""))
