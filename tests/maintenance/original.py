"""A MySQL database as an original Spin Cycle made and filled it, and the original's own statements.

Rows hold what is on the wire: JSON with the original's keys, and null where a list is empty.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import NullPool

from spincycle_server.database.engine import parse_url

# Old servers, and new ones with this setting, give the first TIMESTAMP of a table
# ON UPDATE CURRENT_TIMESTAMP, and the others a default of zero.
_OLD_SERVER = "SET SESSION explicit_defaults_for_timestamp = OFF, sql_mode = ''"

TABLES = (
    """CREATE TABLE requests (
      request_id BINARY(20) NOT NULL, type VARBINARY(75) NOT NULL, state TINYINT UNSIGNED NOT NULL DEFAULT 0,
      user VARCHAR(100) NULL, created_at TIMESTAMP(6) NOT NULL, started_at TIMESTAMP(6) NULL,
      finished_at TIMESTAMP(6) NULL, total_jobs INT UNSIGNED NOT NULL DEFAULT 0,
      finished_jobs INT UNSIGNED NOT NULL DEFAULT 0, jr_url VARCHAR(2000) NULL, PRIMARY KEY (request_id),
      INDEX created_at (created_at), INDEX finished_at (finished_at), INDEX state (state, created_at)
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8""",
    """CREATE TABLE request_archives (
      request_id BINARY(20) NOT NULL, create_request BLOB NOT NULL, args BLOB NOT NULL,
      job_chain LONGBLOB NOT NULL, PRIMARY KEY (request_id)
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8""",
    """CREATE TABLE job_log (
      request_id BINARY(20) NOT NULL, job_id BINARY(4) NOT NULL, name VARBINARY(100) NOT NULL,
      try SMALLINT NOT NULL DEFAULT 0, type VARBINARY(75) NOT NULL, state TINYINT UNSIGNED NOT NULL DEFAULT 0,
      started_at BIGINT UNSIGNED NOT NULL DEFAULT 0, finished_at BIGINT UNSIGNED NOT NULL DEFAULT 0,
      error TEXT NULL, `exit` {exit} NULL, stdout LONGBLOB NULL, stderr LONGBLOB NULL,
      PRIMARY KEY (request_id, job_id, try)
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8""",
    """CREATE TABLE suspended_job_chains (
      request_id BINARY(20) NOT NULL, suspended_job_chain LONGBLOB NOT NULL, rm_host VARCHAR(64) NULL,
      updated_at TIMESTAMP(6) NOT NULL, suspended_at TIMESTAMP(6) NOT NULL, PRIMARY KEY (request_id)
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8""",
)
EXITS = {"v1": "TINYINT UNSIGNED", "2.0.8": "BIGINT"}

INSERT_REQUEST = text(
    "INSERT INTO requests (request_id, type, state, user, created_at, total_jobs)"
    " VALUES (:id, :type, :state, :user, :created_at, :total_jobs)"
)
INSERT_ARCHIVE = text(
    "INSERT INTO request_archives (request_id, create_request, args, job_chain)"
    " VALUES (:id, :create_request, :args, :job_chain)"
)
INSERT_LOG = text(
    "INSERT INTO job_log (request_id, job_id, name, try, type, state, started_at, finished_at, error, `exit`,"
    " stdout, stderr) VALUES (:id, :job_id, :name, :try, :type, :state, :started_at, :finished_at, :error,"
    " :exit, :stdout, :stderr)"
)
INSERT_SUSPENDED = text(
    "INSERT INTO suspended_job_chains (request_id, suspended_job_chain, updated_at, suspended_at)"
    " VALUES (:id, :chain, :now, :now)"
)
START = text(
    "UPDATE requests SET state = 2, started_at = :at, jr_url = :url, created_at = created_at"
    " WHERE request_id = :id AND state = :before"
)
FINISH = text(
    "UPDATE requests SET state = :state, finished_at = :at, finished_jobs = :jobs, jr_url = NULL,"
    " created_at = created_at WHERE request_id = :id AND state = 2"
)
SUSPEND = text(
    "UPDATE requests SET state = 7, jr_url = NULL, created_at = created_at"
    " WHERE request_id = :id AND state = 2"
)
CLAIM = text(
    "UPDATE suspended_job_chains SET rm_host = :host, updated_at = :at"
    " WHERE request_id = :id AND rm_host IS NULL"
)
DROP_SUSPENDED = text("DELETE FROM suspended_job_chains WHERE request_id = :id AND rm_host = :host")
SELECT_REQUEST = text(
    "SELECT r.request_id, r.type, r.state, r.user, r.created_at, r.started_at, r.finished_at, r.total_jobs,"
    " r.finished_jobs, r.jr_url, a.args, a.job_chain FROM requests r JOIN request_archives a"
    " ON a.request_id = r.request_id WHERE r.request_id = :id"
)

COLUMNS = {
    "requests": "request_id, type, state, user, created_at, started_at, finished_at, total_jobs,"
    " finished_jobs, jr_url",
    "request_archives": "request_id, create_request, args, job_chain",
    "job_log": "request_id, job_id, name, try, type, state, started_at, finished_at, error, `exit`, stdout,"
    " stderr",
    "suspended_job_chains": "request_id, suspended_job_chain, rm_host, updated_at, suspended_at",
}
"""The original's tables with the original's columns."""

JOBS = {"aaaa": "noop", "bbbb": "sleep", "cccc": "echo", "dddd": "noop"}
BYTES = {"bbbb": "eyJkdXJhdGlvbiI6MTAwMDAwMH0=", "cccc": "eyJlcnIiOiJ3YXJuIiwib3V0IjoiaGVsbG8ifQ=="}
"""A sleep of a millisecond, and an echo of hello and warn."""


@dataclass(frozen=True)
class OriginalRequest:
    """A request of an original: its row, and what is in the other tables."""

    id: str
    state: int
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None
    user: str | None = "finch"
    args: list[dict[str, Any]] | None = None
    log: list[dict[str, Any]] = field(default_factory=list)
    finished_jobs: int = 0
    jr_url: str | None = None

    def chain(self, states: dict[str, int] | None = None) -> dict[str, Any]:
        """Returns its chain of four jobs in a row, as it is on the wire."""
        states = states or {}
        jobs = {
            job_id: {
                "id": job_id, "name": f"{kind}-{job_id}", "type": kind, "state": states.get(job_id, 1),
                **({"bytes": BYTES[job_id]} if job_id in BYTES else {}),
                "retry": 0, "sequenceId": "aaaa", "sequenceRetry": 0,
            }
            for job_id, kind in JOBS.items()
        }  # fmt: skip
        ids = list(JOBS)
        return {
            "requestId": self.id, "jobs": jobs, "state": 7 if states else 1,
            "adjacencyList": {before: [after] for before, after in itertools.pairwise(ids)},
            "finishedJobs": sum(state == 3 for state in states.values()),
        }  # fmt: skip


def an_arg(name: str, value: Any) -> dict[str, Any]:
    return {
        "Pos": 0, "Name": name, "Desc": "", "Type": "required", "Given": True, "Default": None, "Value": value
    }  # fmt: skip


def an_entry(job_id: str, state: int, number: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "job_id": job_id, "name": f"{JOBS[job_id]}-{job_id}", "try": number, "type": JOBS[job_id],
        "state": state, "started_at": 1_795_450_211_083_581_917, "finished_at": 1_795_450_211_083_582_246,
        "error": "", "exit": 0, "stdout": b"", "stderr": b"", **fields,
    }  # fmt: skip


_COMPLETE_LOG = [
    an_entry("aaaa", 3), an_entry("bbbb", 3),
    an_entry("cccc", 4, error="exit status 200", exit=200, stdout="grüß".encode(), stderr=b"\xff\x00boom"),
    an_entry("cccc", 3, 2, stdout=b"hello", stderr=b"warn"), an_entry("dddd", 3),
]  # fmt: skip

PENDING = OriginalRequest("dc26aor8di16sqictj10", 1, "2026-11-20 08:00:00.000001", user=None)
RUNNING = OriginalRequest(
    "dc26aor8di16sqictj20", 2, "2026-11-20 08:00:00.1", "2026-11-20 08:00:00.2", finished_jobs=1,
    args=[an_arg("host", "db1")], log=[an_entry("aaaa", 3)], jr_url="http://10.0.0.9:32307",
)  # fmt: skip
COMPLETE = OriginalRequest(
    "dc26aor8di16sqictj30", 3, "2026-11-20 16:10:11.07777", "2026-11-20 16:10:11.083925",
    "2026-11-20 16:10:11.089557", finished_jobs=4, log=_COMPLETE_LOG,
    args=[an_arg("host", "db1"), an_arg("tags", ["a", {"größe": 42}])],
)  # fmt: skip
FAIL = OriginalRequest(
    "dc26aor8di16sqictj40", 4, "2026-11-20 17:00:00", "2026-11-20 17:00:01", "2026-11-20 17:00:02",
    finished_jobs=1, args=[an_arg("host", "db2")],
    log=[an_entry("aaaa", 3), an_entry("bbbb", 4, error="panic from job.Run: x", exit=1)],
)  # fmt: skip
STOPPED = OriginalRequest(
    "dc26aor8di16sqictj50", 6, "2026-11-20 18:00:00", "2026-11-20 18:00:01", "2026-11-20 18:00:02",
    finished_jobs=1, args=[an_arg("host", "db3")], log=[an_entry("aaaa", 3), an_entry("bbbb", 6)],
)  # fmt: skip
SUSPENDED = OriginalRequest(
    "dc26aor8di16sqictj60", 7, "2026-11-20 19:00:00.5", "2026-11-20 19:00:01", finished_jobs=1,
    args=[an_arg("host", "db1")], log=[an_entry("aaaa", 3), an_entry("bbbb", 6)],
)  # fmt: skip
ALL = (PENDING, RUNNING, COMPLETE, FAIL, STOPPED, SUSPENDED)


def suspended_chain(request: OriginalRequest) -> dict[str, Any]:
    """Returns a chain that a runner of the original suspended while its second job ran."""
    return {
        "requestId": request.id,
        "jobChain": request.chain({"aaaa": 3, "bbbb": 6, "cccc": 1, "dddd": 1}),
        "totalJobTries": {"aaaa": 1, "bbbb": 1},
        "latestRunJobTries": {"aaaa": 1, "bbbb": 1},
        "sequenceTries": {"aaaa": 1},
    }


def engine_of(url: str) -> Engine:
    """Returns an engine without any setting of this project's."""
    return create_engine(parse_url(url), poolclass=NullPool)


def make_tables(url: str, version: str) -> None:
    """Makes the empty tables of a version of the original."""
    with engine_of(url).begin() as connection:
        connection.execute(text(_OLD_SERVER))
        for table in TABLES:
            connection.execute(text(table.format(exit=EXITS[version])))


def insert(connection: Connection, request: OriginalRequest) -> None:
    """Writes a request by the statements of the original."""
    connection.execute(text("SET time_zone = '+00:00'"))
    connection.execute(
        INSERT_REQUEST,
        {"id": request.id, "type": "stop-host", "state": 1, "user": request.user,
         "created_at": request.created_at, "total_jobs": len(JOBS)},
    )  # fmt: skip
    given = {arg["Name"]: arg["Value"] for arg in request.args or []}
    connection.execute(
        INSERT_ARCHIVE,
        {"id": request.id, "args": json.dumps(request.args), "job_chain": json.dumps(request.chain()),
         "create_request": json.dumps({"Type": "stop-host", "Args": given or None, "User": "finch"})},
    )  # fmt: skip
    if request.started_at is not None:
        at = {"id": request.id, "at": request.started_at}
        connection.execute(START, {**at, "url": "http://10.0.0.9:32307", "before": 1})
        connection.execute(
            text("UPDATE requests SET finished_jobs = :jobs, created_at = created_at WHERE request_id = :id"),
            {"id": request.id, "jobs": request.finished_jobs},
        )
    for entry in request.log:
        connection.execute(INSERT_LOG, {"id": request.id, **entry})
    if request.finished_at is not None:
        ended = {"state": request.state, "at": request.finished_at, "jobs": request.finished_jobs}
        assert connection.execute(FINISH, {"id": request.id, **ended}).rowcount == 1
    if request.state == 7:
        connection.execute(SUSPEND, {"id": request.id})
        chain = json.dumps(suspended_chain(request))
        now = connection.scalar(text("SELECT NOW(6)"))
        connection.execute(INSERT_SUSPENDED, {"id": request.id, "chain": chain, "now": now})


def make_original(url: str, version: str = "v1") -> None:
    """Makes a database of an original with requests in all states."""
    make_tables(url, version)
    with engine_of(url).begin() as connection:
        for request in ALL:
            insert(connection, request)


def rows_of(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Returns all that the original's columns hold."""
    with engine_of(url).connect() as connection:
        return {
            table: [
                tuple(row)
                for row in connection.execute(text(f"SELECT {columns} FROM {table} ORDER BY 1, 2, 3"))
            ]
            for table, columns in COLUMNS.items()
        }
