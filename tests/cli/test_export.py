"""`spinc export`: what a report has, and that text of jobs stays text in it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from spincycle_grpc import State
from spincycle_grpc.cli.markdown import code, fenced
from spincycle_grpc.cli.output import printable
from spincycle_grpc.cli.secret_args import without_secrets
from spincycle_grpc.errors import FailedPreconditionError
from spincycle_grpc.structs import to_value
from spincycle_grpc.v1.request_pb2 import RequestArg
from tests.cli.conftest import Spinc
from tests.cli.test_status import failed
from tests.fake_manager import REQUEST_ID, RETRY_ID, FakeManager, entry, event, stage

EVIL = "```\n# [click](http://evil.example) <img src=x> @everyone\x1b[2J\n~~~~"
LAST_LINES = "\n".join(f"line {number}" for number in range(10, 30))
REPORT = f"""\
# `nap` `{REQUEST_ID}`: FAIL

- User: `ann`
- Progress: 3 of 5 jobs
- Created: 2027-01-15 08:00:00 UTC
- Started: 2027-01-15 08:00:01 UTC
- Finished: 2027-01-15 08:00:02 UTC
- Took: 1.5s
- Job runner: `http://runner1:32307`
- Retried by: `{RETRY_ID}`

## Args

- `hosts`: `["web1", "web2"]` (2 values)
- `password`: `(hidden)`

## Failed jobs (1)

### `rolling-restart / host web7 / drain`

Job `aB3x` of type `sleep`.

- Try 1: 2027-01-15 08:01:00 UTC, 2s, FAIL, exit 7
- Try 2: 2027-01-15 08:02:00 UTC, 2s, FAIL, exit 7

Error:

```text
exit status 7
```

Stderr, the last 20 lines:

```text
{LAST_LINES}
```

## Who did what

- 2027-01-15 08:00:00 UTC, `finch` called `RequestManager.Create`: `OK`
- 2027-01-15 08:00:00 UTC, `wren` called `RequestManager.Stop`: `ACCESS_DENIED`, 3 times
"""


@pytest.fixture
def manager() -> FakeManager:
    manager = FakeManager()
    request = stage(State.FAIL, 3)
    request.user, request.retried_by, request.job_runner_url = "ann", RETRY_ID, "http://runner1:32307"
    request.args.add(name="hosts", given=True, value=to_value(["web1", "web2"], ""))
    request.args.add(name="password", given=True, value=to_value("hunter2", ""))
    manager.stages = [request]
    stderr = "".join(f"line {number}\n" for number in range(30))
    manager.log = failed("aB3x", tries=2, error="exit status 7", stderr=stderr)
    stopped = event(operation="RequestManager.Stop", user="wren", outcome="ACCESS_DENIED", count=3)
    manager.events = [stopped, event()]
    return manager


def test_a_report_is_complete_and_the_same_each_time(
    manager: FakeManager, spinc: Spinc, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = spinc("export", REQUEST_ID)
    assert (first.exit_code, first.stdout) == (0, REPORT)
    assert spinc("export", REQUEST_ID, "--format", "markdown").stdout == REPORT


def test_without_an_audit_log_or_failed_jobs_these_parts_are_left_out(
    manager: FakeManager, spinc: Spinc
) -> None:
    manager.stages = [stage(State.COMPLETE, 5)]
    manager.failures["ListAuditEvents"] = [FailedPreconditionError("no audit log", reason="AUDIT_OFF")]
    shown = spinc("export", REQUEST_ID).stdout
    assert "##" not in shown
    assert shown.endswith("- Took: 1.5s\n")


def test_json_has_the_same_information_and_no_secrets(manager: FakeManager, spinc: Spinc) -> None:
    shown = spinc("export", REQUEST_ID, "--format=json").stdout
    report = json.loads(shown)
    assert "hunter2" not in shown
    assert report["id"] == REQUEST_ID
    assert [one["exit"] for one in report["failedJobs"][0]["tries"]] == [7, 7]
    assert [one["user"] for one in report["events"]] == ["finch", "wren"]
    assert spinc("export", REQUEST_ID, "--json").stdout == shown


def test_of_many_failed_jobs_the_last_ones_have_only_their_path(manager: FakeManager, spinc: Spinc) -> None:
    manager.log = [one for number in range(25) for one in failed(f"j{number:03}")]
    shown = spinc("export", REQUEST_ID).stdout
    assert shown.count("\n### ") == 20
    assert "And 5 more:\n\n- `rolling-restart / host web7 / drain` (job `j020`)" in shown


def test_running_jobs_are_listed(manager: FakeManager, spinc: Spinc) -> None:
    manager.stages[0].state = State.RUNNING.value
    assert "- `nap`: try 1 since 2027-01-15 08:00:01 UTC, `sleeping`" in spinc("export", REQUEST_ID).stdout


def test_text_of_users_and_jobs_is_always_code(manager: FakeManager, spinc: Spinc) -> None:
    request = manager.stages[0]
    request.type = request.user = request.waiting = EVIL
    request.args.append(RequestArg(name=EVIL, given=True, value=to_value(EVIL, "")))
    manager.log = [entry(1, path=[EVIL, EVIL], type=EVIL, job_id=EVIL, error=EVIL, stderr=EVIL)]
    manager.events = [event(user=EVIL)]
    shown = spinc("export", REQUEST_ID).stdout
    assert shown.replace("\n", "").isprintable()
    others = [
        token
        for block in MarkdownIt("gfm-like", {"linkify": False}).parse(shown)
        for token in (block.children or [block])
        if token.type not in ("code_inline", "fence")
    ]
    assert {token.type for token in others} == {
        *("heading_open", "heading_close", "paragraph_open", "paragraph_close", "text"),
        *("bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close"),
    }
    assert not any("evil" in token.content or "everyone" in token.content for token in others)


@given(st.text("ab` \n*[\\|é\x1b", max_size=30))
def test_a_code_span_is_the_text(text: str) -> None:
    [paragraph] = [one for one in MarkdownIt().parse(f"- x: {code(text)}!") if one.type == "inline"]
    spans = [child.content for child in paragraph.children or [] if child.type == "code_inline"]
    if text.strip(" "):  # A code span of spaces alone is shown as spaces.
        assert [span.strip(" ") for span in spans] == [printable(text).strip(" ")]


@given(st.lists(st.text("a`~ \t>#-", max_size=12), max_size=6))
def test_nothing_ends_a_code_block(lines: list[str]) -> None:
    [block] = MarkdownIt().parse("\n".join(fenced(lines)))
    assert block.type == "fence"
    assert block.content.splitlines() == [printable(line) for line in lines]


def test_only_names_of_secrets_hide_values() -> None:
    nested = {"user": "ann", "db": {"Password": "x"}, "keys": [{"api_key": "x"}, 1], "monkey": "m"}
    assert without_secrets("conf", nested) == {
        "user": "ann", "db": {"Password": "(hidden)"}, "keys": [{"api_key": "(hidden)"}, 1], "monkey": "m",
    }  # fmt: skip
    assert without_secrets("SECRET_TOKEN", [1]) == "(hidden)"
