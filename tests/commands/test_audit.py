"""`spincycle audit` prints the audit log, and `spincycle prune` removes old entries and is recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from spincycle_server.store.audit import record_event
from tests.commands.in_process import outcome, spincycle
from tests.commands.test_migrate import OUTDATED
from tests.databases import SharedServers, engine_of, migrated_sqlite
from tests.limits import COMMAND
from tests.maintenance.test_audit import fill
from tests.store.test_audit import an_event
from tests.store.test_audit_listing import at

ID = "9vb2d3q0c7k5r1n8m4tg"
SINCE_BEFORE_THE_EVENTS = "2027-01-01"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return migrated_sqlite(tmp_path / "spincycle.db")


def store_two(url: str) -> None:
    engine = engine_of(url)
    with engine.begin() as connection:
        record_event(connection, an_event(occurred_at=at(0), request_id=ID, request_type="nap"))
        record_event(
            connection,
            an_event(
                "RequestManager.Stop",
                occurred_at=at(5_000_000),
                user="wren\x1b[31m",
                outcome="ACCESS_DENIED",
                count=37,
                detail="no\nroles",
            ),
        )
    engine.dispose()


def test_json_has_one_event_per_line(url: str, tmp_path: Path) -> None:
    store_two(url)
    done = spincycle(tmp_path, "audit", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    first, second = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(first.pop("id")) == 20
    assert first == {
        "occurredAt": "2027-01-15T08:00:00Z",
        "user": "finch",
        "authMethod": "token",
        "peer": "10.0.0.9",
        "transport": "grpc",
        "operation": "RequestManager.Create",
        "requestId": ID,
        "requestType": "nap",
        "outcome": "OK",
        "count": 1,
    }
    assert (second["user"], second["count"], second["detail"]) == ("wren\x1b[31m", 37, "no\nroles")


def test_a_table_has_one_printable_line_per_event(url: str, tmp_path: Path) -> None:
    store_two(url)
    done = spincycle(tmp_path, "audit", f"--db={url}")
    heading, first, second = done.stdout.splitlines()
    assert heading.split() == ["TIME", "USER", "OPERATION", "REQUEST", "OUTCOME", "COUNT", "FROM", "DETAIL"]
    assert first.split()[3:] == ["finch", "RequestManager.Create", ID, "OK", "1", "10.0.0.9"]
    assert "\x1b" not in second
    assert second.endswith("no\\nroles")
    assert heading.index("OPERATION") == first.index("RequestManager.Create")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--since", "2027-01-15T08:00:05Z"], ["RequestManager.Stop"]),
        (["--until", "2027-01-15T08:00:05Z"], ["RequestManager.Create"]),
        (["--since", SINCE_BEFORE_THE_EVENTS], ["RequestManager.Create", "RequestManager.Stop"]),
        (["--user", "finch"], ["RequestManager.Create"]),
        (["--request", ID], ["RequestManager.Create"]),
        (["--operation", "RequestManager.Stop"], ["RequestManager.Stop"]),
        (["--outcome", "ACCESS_DENIED"], ["RequestManager.Stop"]),
        (["--user", "finch", "--outcome", "ACCESS_DENIED"], []),
    ],
)
def test_filters(options: list[str], found: list[str], url: str, tmp_path: Path) -> None:
    store_two(url)
    done = spincycle(tmp_path, "audit", "--json", *options)
    assert [json.loads(line)["operation"] for line in done.stdout.splitlines()] == found


def test_wrong_usage_exits_with_2(tmp_path: Path) -> None:
    for arguments in (
        ("--since", "yesterday"),
        ("--since", "1d", "--until", "2d"),
        ("--db", "oracle://x/y"),
    ):
        done = spincycle(tmp_path, "audit", *arguments)
        assert (done.returncode, done.stdout) == (2, "")


def test_an_outdated_database_is_refused(database_servers: SharedServers, tmp_path: Path) -> None:
    url = database_servers.url("postgresql", tmp_path)
    assert outcome(spincycle(tmp_path, "audit", f"--db={url}")) == (1, "", OUTDATED)


def test_a_reader_that_closes_the_pipe_ends_the_command_quietly(url: str, tmp_path: Path) -> None:
    fill(url, 5000)
    process = subprocess.Popen(
        [sys.executable, "-m", "spincycle_server", "audit", "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(COMMAND) == 141


def operations(directory: Path) -> list[tuple[str, str]]:
    done = spincycle(directory, "audit", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return [(event["operation"], event.get("detail", "")) for event in events]


def test_prune_removes_old_events_and_is_recorded(url: str, tmp_path: Path) -> None:
    fill(url, 5)
    engine = engine_of(url)
    with engine.begin() as connection:
        old = an_event("RequestManager.Stop")
        old.occurred_at.FromSeconds(1_600_000_000)
        record_event(connection, old)
        record_event(connection, old)
    engine.dispose()
    counted = spincycle(tmp_path, "prune", "--audit-older-than", "900d", "--dry-run")
    assert counted.stdout.startswith("would delete 2 audit events from before 20")
    assert len(operations(tmp_path)) == 7
    deleted = spincycle(tmp_path, "prune", "--audit-older-than", "900d")
    assert outcome(deleted) == (0, "deleted 2 audit events", "")
    [prune] = [one for one in operations(tmp_path) if one[0] == "spincycle prune"]
    assert prune[1].startswith("delete 2 audit events from before 20")
    assert len(operations(tmp_path)) == 6
    again = spincycle(tmp_path, "prune", "--audit-older-than", "900d", "--older-than", "900d")
    assert again.stdout.startswith("no request ended before 20")
    assert "no audit event is older than 20" in again.stdout
    assert len(operations(tmp_path)) == 6


def test_prune_without_an_audit_log_records_nothing(url: str, tmp_path: Path) -> None:
    assert spincycle(tmp_path, "prune", "--audit-older-than", "1s").returncode == 0
    assert operations(tmp_path) == []
