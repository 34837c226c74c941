"""The tables. Those of the original keep names and columns; added columns are nullable or have defaults."""

from __future__ import annotations

import re

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    false,
    text,
)
from sqlalchemy.dialects import mysql

from spincycle_grpc.trace_context import MAX_STATE
from spincycle_server.capabilities import ID_LENGTH
from spincycle_server.database.types import Ascii, BoundedText, Microseconds, StateNumber, blob

MAX_TRY = 32_767
"""The largest try number that fits the column on every database."""

MAX_TYPE = 75
"""The longest type of a request or job, in bytes."""

JOB_ID = re.compile("[0-9A-Za-z]{4}")
"""The form of a job ID, for a full match."""

MAX_TEXT = 100
"""The longest user, job name and arg name in characters; longer ones are truncated."""

MAX_ARG_VALUE = 200
"""The longest arg value that a find compares, in characters. Archives keep whole values."""

MAX_AUDIT_NAME = 255
"""The longest user and host in the audit log, in characters; longer ones are truncated."""

MAX_AUDIT_DETAIL = 1000
"""The longest detail of an audit event, in characters; a longer one is truncated."""

MAX_LIMIT_ERROR = 1000
"""The longest error of a sequence that does not get its keys, in characters."""

MAX_TOKEN_NAME = 100
"""The longest name of an API token, in characters."""

ORIGINAL = "original"
"""The `runner_id` of a request that the statements of an original Spin Cycle inserted or may resume.

It is the default of the column, which those statements do not name. All statements of this project name it,
also those of its earlier versions. So it tells the requests of an original from those of this project.
"""

INDEXED_BY_REQUIREMENT = "requests.state IN (1, 7)"
"""The requests in the index of requirements on PostgreSQL and SQLite: PENDING and SUSPENDED ones.

So no other change of state touches the index. MySQL has no partial indexes.
"""

INDEXED_BY_FAILURE = "job_log.state <> 3"
"""The tries in the index of failures on PostgreSQL and SQLite: those that are not COMPLETE.

So an index over few rows finds the failed jobs of a request, and other tries cost nothing. MySQL has no
partial indexes, and reads all tries of the request.
"""

MAX_TRACE = 55 + 1 + MAX_STATE
"""The longest trace context of a request, in characters."""

MAX_STARTED = 2000
"""The longest list of a suspect's started tries, in characters; further ones are not listed."""

MAX_CRASHED = 210
"""The longest list of crashed runners, in characters; the newest ten are kept."""

MAX_TARGET = 40
"""The longest name of a target of notifications, in characters."""

MAX_DELIVERY_ERROR = 300
"""The longest reason why a notification was not delivered, in characters; a longer one is truncated."""

MAX_SEQUENCE_TRIES = 64
"""The longest text of the tries of the sequences around an approval, in characters."""

MAX_COMMENT = 800
"""The longest comment of a decision, in characters. An audit event holds it, with the job before it."""

MAX_STOP_REASON = 400
"""The longest reason why a request was stopped, in characters: it has the key of a limit."""

MAX_LIMIT_KEY = 255
"""The longest key of a limit, in characters. Specs allow fewer."""

_HASH = LargeBinary(32).with_variant(mysql.BINARY(32), "mysql")

metadata = MetaData()

requests = Table(
    "requests",
    metadata,
    Column("request_id", Ascii(20, fixed=True), primary_key=True),
    Column("type", Ascii(MAX_TYPE), nullable=False),
    Column("state", StateNumber, nullable=False),
    Column("user", BoundedText(MAX_TEXT), nullable=True),
    Column("created_at", Microseconds, nullable=False),
    Column("started_at", Microseconds, nullable=True),
    Column("finished_at", Microseconds, nullable=True),
    Column("total_jobs", Integer, nullable=False, server_default="0"),
    Column("finished_jobs", Integer, nullable=False, server_default="0"),
    # Without the noops that only connect other jobs; null if nobody has counted them.
    Column("total_tasks", Integer, nullable=True),
    Column("finished_tasks", Integer, nullable=True),
    Column("jr_url", String(2000), nullable=True),
    # The number of times that the request was assigned to a runner.
    Column("epoch", BigInteger, nullable=False, server_default="0"),
    # The runner of the newest assignment; null without one; or ORIGINAL, see there.
    Column("runner_id", Ascii(20), nullable=True, server_default=ORIGINAL),
    # Whether a user asked to stop the request. Its runner may not know yet.
    Column("stop_requested", Boolean, nullable=False, server_default=false()),
    # The id of what the request needs of a runner; "" if nobody has derived it yet.
    Column("requirement", Ascii(ID_LENGTH), nullable=False, server_default=""),
    # Whether its runner died, and the tries that may have killed it have not ended since. Null: no.
    Column("is_suspect", Boolean, nullable=True),
    # When and by whom the request was paused, and whether its running jobs must stop. Null: it is not paused.
    Column("paused_at", BigInteger, nullable=True),
    Column("paused_by", BoundedText(MAX_TEXT), nullable=True),
    Column("pause_now", Boolean, nullable=True),
    # The transaction that last changed the row, see `change_stamps`; null if it was an original's.
    Column("change_stamp", BigInteger, nullable=True),
    # The request of which this one is a retry; null if it is none.
    Column("retry_of", Ascii(20), nullable=True),
    # Whether the request holds or waits for keys of limits. Null: no.
    Column("has_limits", Boolean, nullable=True),
    # Whether its chain has `finally` parts; the state in which it ends after these, once that is known; and
    # whether a second stop lets them be skipped. Null: no.
    Column("has_finally", Boolean, nullable=True),
    Column("ending", SmallInteger, nullable=True),
    Column("skip_finally", Boolean, nullable=True),
    # The traceparent and, after a space, the tracestate; null if the request belongs to no trace.
    Column("trace_context", Ascii(MAX_TRACE), nullable=True),
    # Why a stop was requested; null if a user requested it, or nobody did.
    Column("stop_reason", BoundedText(MAX_STOP_REASON), nullable=True),
    Index("created_at", "created_at"),
    Index("finished_at", "finished_at"),
    Index("state", "state", "created_at"),
    # On PostgreSQL, these two index `created_at AT TIME ZONE 'UTC'` instead of `created_at`.
    Index("requests_type", "type", "state", "created_at"),
    Index("requests_user", "user", "state", "created_at"),
    Index(
        "requests_requirement",
        "state",
        "requirement",
        "created_at",
        postgresql_where=text("state IN (1, 7)"),
        sqlite_where=text("state IN (1, 7)"),
    ),
    Index("requests_change_stamp", "change_stamp"),
    Index(
        "requests_retry_of",
        "retry_of",
        postgresql_where=text("retry_of IS NOT NULL"),
        sqlite_where=text("retry_of IS NOT NULL"),
    ),
)

requirements = Table(
    "requirements",
    metadata,
    Column("requirement_id", Ascii(ID_LENGTH), primary_key=True),
    Column("body", blob(), nullable=False),
)
"""What requests need of a runner, as JSON: one row for each set of job types and labels, never deleted."""

request_archives = Table(
    "request_archives",
    metadata,
    Column("request_id", Ascii(20, fixed=True), primary_key=True),
    Column("create_request", blob(), nullable=False),
    Column("args", blob(), nullable=True),
    # Empty if the chain is in `job_chain_pages`.
    Column("job_chain", blob(), nullable=False),
)

job_chain_pages = Table(
    "job_chain_pages",
    metadata,
    Column("request_id", Ascii(20, fixed=True), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("page", blob(), nullable=False),
)
"""The JSON of chains that are too long for one value, in pages that are joined in their order."""

job_log = Table(
    "job_log",
    metadata,
    Column("request_id", Ascii(20, fixed=True), primary_key=True),
    Column("job_id", Ascii(4, fixed=True), primary_key=True),
    Column("try", SmallInteger().with_variant(Integer(), "sqlite", "postgresql"), primary_key=True),
    Column("name", BoundedText(MAX_TEXT), nullable=False),
    Column("type", Ascii(MAX_TYPE), nullable=False),
    Column("state", StateNumber, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger, nullable=True),
    Column("error", BoundedText, nullable=True),
    Column("exit", BigInteger, nullable=True),
    Column("stdout", blob(), nullable=True),
    Column("stderr", blob(), nullable=True),
    # Further fields of the TryReport with the entry; null if the entry came from elsewhere.
    Column("job_data", blob(), nullable=True),
    Column("sequence_try", Integer, nullable=True),
    Column("epoch", BigInteger, nullable=True),
    Column("ordinal", BigInteger, nullable=True),
    Column("is_last", Boolean, nullable=True),
    # The parts of the job's path, as a JSON list; null if it has none.
    Column("path", BoundedText, nullable=True),
    # The transaction that inserted the row.
    Column("change_stamp", BigInteger, nullable=True),
    Index("job_log_change_stamp", "change_stamp"),
    # The order of reports, for streams and for the newest tries.
    Index("job_log_reports", "request_id", "epoch", "ordinal"),
    # On PostgreSQL and SQLite only.
    Index(
        "job_log_failures",
        "request_id",
        "job_id",
        "try",
        postgresql_where=text("state <> 3"),
        sqlite_where=text("state <> 3"),
    ),
)

suspended_job_chains = Table(
    "suspended_job_chains",
    metadata,
    Column("request_id", Ascii(20, fixed=True), primary_key=True),
    # Empty if the chain was too long to store. The request then continues from its record.
    Column("suspended_job_chain", blob(), nullable=False),
    Column("rm_host", String(64), nullable=True),
    Column("updated_at", Microseconds, nullable=False),
    Column("suspended_at", Microseconds, nullable=False),
    # The epoch that was suspended; null if an original Spin Cycle suspended the chain.
    Column("epoch", BigInteger, nullable=True),
    # Whether the chain is dropped when it is resumed. A chain that an original suspended is kept until the
    # request ends, because the job log lacks the fields from which its earlier tries could be replayed.
    Column("is_dropped", Boolean, nullable=True),
)

approvals = Table(
    "approvals",
    metadata,
    Column("request_id", Ascii(20, fixed=True), primary_key=True),
    Column("job_id", Ascii(4, fixed=True), primary_key=True),
    Column("try", Integer, primary_key=True, autoincrement=False),
    # The tries of the sequences around the job, or their hash. If they change, the job asks anew.
    Column("sequence_tries", Ascii(MAX_SEQUENCE_TRIES), nullable=False),
    # The OpenedApproval as JSON.
    Column("body", blob(), nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("deadline", BigInteger, nullable=False),
    # An ApprovalResult; 0 while the job waits.
    Column("result", SmallInteger, nullable=False),
    Index("approvals_result", "result", "opened_at"),
)
"""The approvals that jobs wait or waited for. Times are in microseconds by the database's clock."""

approval_decisions = Table(
    "approval_decisions",
    metadata,
    Column("request_id", Ascii(20, fixed=True), primary_key=True),
    Column("job_id", Ascii(4, fixed=True), primary_key=True),
    Column("try", Integer, primary_key=True, autoincrement=False),
    Column("user", BoundedText(MAX_TEXT), primary_key=True),
    Column("approved", Boolean, nullable=False),
    # Wider than MAX_COMMENT: earlier releases allowed longer comments.
    Column("comment", BoundedText(1000), nullable=False),
    Column("decided_at", BigInteger, nullable=False),
)
"""The decisions about approvals: one for each person."""

runners = Table(
    "runners",
    metadata,
    Column("runner_id", Ascii(20), primary_key=True),
    Column("url", String(2000), nullable=False),
    Column("grpc_address", String(300), nullable=False),
    Column("draining", Boolean, nullable=False),
    Column("lease_expires_at", BigInteger, nullable=False),
    # What the runner has, as JSON, and its id; null if the runner does not say.
    Column("capabilities_id", Ascii(ID_LENGTH), nullable=True),
    Column("capabilities", blob(), nullable=True),
    Index("runners_lease_expires_at", "lease_expires_at"),
)
"""The Job Runners. `lease_expires_at` is in microseconds by the database's clock."""

suspects = Table(
    "suspects",
    metadata,
    Column("request_id", Ascii(20, fixed=True), primary_key=True),
    # The runner that has recorded tries of the newest assignment, and these tries.
    Column("runner_id", Ascii(20), nullable=False),
    Column("started", BoundedText(MAX_STARTED), nullable=False),
    # Whether tries of other suspects ran on that runner at the same time.
    Column("is_shared", Boolean, nullable=False),
    # Whether the next tries must run alone.
    Column("is_alone", Boolean, nullable=False),
    # The runners that died while a try was recorded, and the job of the newest of these tries.
    Column("crashed_runners", BoundedText(MAX_CRASHED), nullable=False),
    Column("crashed_job", Ascii(4), nullable=False),
)
"""The RUNNING requests with `is_suspect`. Tries and runners are separated by spaces, the oldest first."""

request_args = Table(
    "request_args",
    metadata,
    Column("request_id", Ascii(20, fixed=True), primary_key=True),
    Column("name", BoundedText(MAX_TEXT), primary_key=True),
    Column("value", BoundedText(MAX_ARG_VALUE), nullable=False),
    # When the request was created, in microseconds since the Unix epoch, for the index.
    Column("created_at", BigInteger, nullable=False, server_default="0"),
    Index("request_args_newest", "name", "value", "created_at", "request_id"),
)
"""The args of requests as text, to find requests by. Long values are truncated; archives keep them whole."""

writers = Table(
    "writers",
    metadata,
    Column("writer_id", Ascii(20), primary_key=True),
    Column("batch", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    # The writer in stamps. Never reused; null in rows of earlier versions.
    Column("number", BigInteger, nullable=True),
)
"""The newest batch of each writer: whether a commit whose answer was lost happened, and up to which stamp
changes are committed."""

counters = Table(
    "counters",
    metadata,
    Column("name", Ascii(20), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""Numbers that are never reused, such as those of writers, with the last one that was used."""

deleted_requests = Table(
    "deleted_requests",
    metadata,
    Column("request_id", Ascii(20, fixed=True), primary_key=True),
    Column("type", Ascii(MAX_TYPE), nullable=False),
    Column("user", BoundedText(MAX_TEXT), nullable=True),
    Column("change_stamp", BigInteger, nullable=False),
    Column("deleted_at", BigInteger, nullable=False),
    Index("deleted_requests_change_stamp", "change_stamp"),
    Index("deleted_requests_deleted_at", "deleted_at"),
)
"""The requests that were deleted lately, for those who watch requests. Times are in microseconds."""

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key_hash", _HASH, primary_key=True),
    Column("body_hash", _HASH, nullable=False),
    Column("request_id", Ascii(20, fixed=True), nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("idempotency_keys_expires_at", "expires_at"),
)
"""The request that was created with each key, and a hash of its body. Keys expire by the database's clock."""

audit_events = Table(
    "audit_events",
    metadata,
    # In microseconds since the Unix epoch, by the clock of the server or command that recorded the event.
    Column("occurred_at", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", Ascii(20, fixed=True), primary_key=True),
    Column("user", BoundedText(MAX_AUDIT_NAME), nullable=False),
    Column("auth_method", BoundedText(20), nullable=False),
    Column("peer", BoundedText(MAX_AUDIT_NAME), nullable=False),
    Column("transport", BoundedText(20), nullable=False),
    Column("operation", BoundedText(100), nullable=False),
    Column("request_id", Ascii(20, fixed=True), nullable=True),
    Column("request_type", BoundedText(MAX_TYPE), nullable=False),
    Column("outcome", BoundedText(64), nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("detail", BoundedText(MAX_AUDIT_DETAIL), nullable=False),
    Index("audit_events_request", "request_id", "occurred_at", "event_id"),
    Index("audit_events_user", "user", "occurred_at", "event_id"),
)
"""The audit log. Rows are only added, and deleted by age."""

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("token_id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("name", Ascii(MAX_TOKEN_NAME), nullable=False),
    # The name while the token is active; null once it is revoked or another token took over its name.
    Column("active_name", Ascii(MAX_TOKEN_NAME), nullable=True),
    # The SHA-256 of the token.
    Column("token_hash", _HASH, nullable=False),
    # A JSON list.
    Column("roles", BoundedText, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # Null if the token never expires.
    Column("expires_at", BigInteger, nullable=True),
    Column("revoked_at", BigInteger, nullable=True),
    Index("api_tokens_active_name", "active_name", unique=True),
    Index("api_tokens_hash", "token_hash", unique=True),
    sqlite_autoincrement=True,
)
"""The API tokens of users. Times are in microseconds by the database's clock. Ids are never reused."""

limits = Table(
    "limits",
    metadata,
    # The `content_id` of the key: databases compare and limit texts in different ways.
    Column("limit_id", Ascii(ID_LENGTH), primary_key=True),
    Column("key", BoundedText(MAX_LIMIT_KEY), nullable=False),
    # By the newest request that named the key.
    Column("max", Integer, nullable=False),
    Column("last_ticket", BigInteger, nullable=False),
    # The number of its rows in `limit_claims`.
    Column("claims", Integer, nullable=False),
)
"""The keys of limits that requests hold or wait for. Whoever changes a claim of a key locks its row."""

limit_claims = Table(
    "limit_claims",
    metadata,
    Column("limit_id", Ascii(ID_LENGTH), primary_key=True),
    # The place in the order of the key.
    Column("ticket", BigInteger, primary_key=True, autoincrement=False),
    Column("request_id", Ascii(20, fixed=True), nullable=False),
    # The sequence of the request that holds the key or waits for it; "" for the whole request.
    Column("sequence_id", Ascii(4), nullable=False, server_default=""),
    Column("claimed_at", BigInteger, nullable=False),
    # Since when it holds the key; null while it waits.
    Column("held_at", BigInteger, nullable=True),
    # What the request needs of a runner, once it holds all its keys.
    Column("requirement", Ascii(ID_LENGTH), nullable=False),
    Index("limit_claims_sequence", "request_id", "sequence_id"),
)
"""Who holds a key or waits for it. Times are in microseconds, by the clock of the Request Manager."""

sequence_claims = Table(
    "sequence_claims",
    metadata,
    # A row with two empty ids means nothing. Those who begin to wait lock it, see `limit_deadlocks`.
    Column("request_id", Ascii(20), primary_key=True),
    # "" for the newest change of the request's assignment.
    Column("sequence_id", Ascii(4), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    # The number of the newest change that was stored, among those of the assignment.
    Column("number", BigInteger, nullable=False),
    # The SequenceLimitChange as JSON.
    Column("body", blob(), nullable=False),
    # Why the sequence does not get its keys; "" if it holds them or waits.
    Column("reason", Ascii(40), nullable=False),
    Column("error", BoundedText(MAX_LIMIT_ERROR), nullable=False),
)
"""What sequences of requests have asked of the keys of limits. Their claims are in `limit_claims`."""

session_keys = Table(
    "session_keys",
    metadata,
    Column("key_id", LargeBinary(8).with_variant(mysql.BINARY(8), "mysql"), primary_key=True),
    Column("key", _HASH, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
"""The keys that seal the sessions of browsers. Times are in microseconds by the database's clock."""

deliveries = Table(
    "deliveries",
    metadata,
    Column("event_id", Ascii(20, fixed=True), primary_key=True),
    Column("target", Ascii(MAX_TARGET), primary_key=True),
    # What happened: "failed", "approval-wanted".
    Column("event", Ascii(20), nullable=False),
    # Null if the event is a test.
    Column("request_id", Ascii(20, fixed=True), nullable=True),
    Column("request_type", Ascii(MAX_TYPE), nullable=False),
    # The state of the request at that time; 0 if the event is a test.
    Column("request_state", StateNumber, nullable=False),
    # What the request's own rows do not say, as JSON; null if there is nothing.
    Column("detail", blob(), nullable=True),
    # By the clock of the server that ended the request, as that request's end.
    Column("occurred_at", BigInteger, nullable=False),
    # The number of a DeliveryState.
    Column("delivery_state", StateNumber, nullable=False),
    # Attempts that have begun. The one that is under way is known by this number.
    Column("attempts", Integer, nullable=False),
    # When the next attempt is due, by the database's clock; at first, when it happened. While an attempt is
    # made: when its claim ends.
    Column("next_attempt_at", BigInteger, nullable=False),
    # When it was delivered or given up, by the database's clock; null if it was not.
    Column("ended_at", BigInteger, nullable=True),
    Column("last_error", BoundedText(MAX_DELIVERY_ERROR), nullable=False),
    # When somebody last let it be sent again, by the database's clock; null if nobody did.
    Column("redelivered_at", BigInteger, nullable=True),
    Index("deliveries_due", "target", "delivery_state", "next_attempt_at"),
    Index("deliveries_newest", "occurred_at", "event_id", "target"),
    Index("deliveries_request", "request_id", "occurred_at", "event_id", "target"),
    Index("deliveries_ended_at", "ended_at"),
)
"""The notifications of each event: one row for each target that wants it. Times are in microseconds."""
