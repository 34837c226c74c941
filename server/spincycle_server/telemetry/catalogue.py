"""The catalogue of all metrics: rooms count, and this module names. docs/metrics.md shows it.

Labels have few values: names of methods, specs, job types and limits, never ids, users or free text.
"""

from __future__ import annotations

from spincycle_server.telemetry.instruments import Family, Kind, Merge

_CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_SHORT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_LONG_BUCKETS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)


def _counter(name: str, meaning: str, *labels: str, of_process: bool = False) -> Family:
    return Family(name, Kind.COUNTER, meaning, labels, of_process=of_process)


def _gauge(
    name: str, meaning: str, *labels: str, of_process: bool = False, merge: Merge = Merge.SUM
) -> Family:
    return Family(name, Kind.GAUGE, meaning, labels, of_process=of_process, merge=merge)


def _histogram(
    name: str, meaning: str, *labels: str, buckets: tuple[float, ...], of_process: bool = False
) -> Family:
    return Family(name, Kind.HISTOGRAM, meaning, labels, buckets, of_process)


BUILD_INFO = _gauge(
    "spincycle_build_info", "Always 1. The label says which version runs.", "version", merge=Merge.MAX
)
READY = _gauge("spincycle_ready", "Whether the server can take work, as /readyz says.", merge=Merge.MIN)

CALLS = _counter(
    "spincycle_calls_total",
    "Calls that have ended, by method, transport and code.",
    "method",
    "transport",
    "code",
)
CALL_SECONDS = _histogram(
    "spincycle_call_seconds", "Time that calls took, without streams.", "method", buckets=_CALL_BUCKETS
)
REFUSALS = _counter("spincycle_refusals_total", "Calls refused because a limit was reached.", "reason")

LIMIT = _gauge("spincycle_limit", "How much a limit allows.", "limit", merge=Merge.BY_LIMIT)
LIMIT_USED = _gauge(
    "spincycle_limit_used", "How much of the limit is in use or waits.", "limit", merge=Merge.BY_LIMIT
)

REQUESTS_CREATED = _counter("spincycle_requests_created_total", "Requests created.", "type")
REQUESTS_ENDED = _counter("spincycle_requests_ended_total", "Requests that have ended.", "type", "outcome")
REQUEST_SECONDS = _histogram(
    "spincycle_request_seconds",
    "Time from the creation of a request to its end.",
    "type",
    "outcome",
    buckets=_LONG_BUCKETS,
)
REQUEST_WAIT_SECONDS = _histogram(
    "spincycle_request_wait_seconds",
    "Time from the creation of a request until a runner was chosen.",
    "type",
    buckets=(0.01, *_LONG_BUCKETS[:-1]),
)
OLDEST_WAITING_SECONDS = _gauge(
    "spincycle_oldest_waiting_seconds",
    "Age of the oldest request that waits although a runner can run it.",
    merge=Merge.MAX,
)

RUNNERS = _gauge("spincycle_runners", "Job Runners with a current lease, by state.", "state", merge=Merge.OWN)
LEASE_RENEWALS = _counter("spincycle_lease_renewals_total", "Messages of runners that renewed a lease.")
TAKEOVERS = _counter("spincycle_takeovers_total", "Requests taken over from a runner.", "reason")

NOTIFICATION_ATTEMPTS = _counter(
    "spincycle_notification_attempts_total",
    "Attempts to deliver a notification, by target and outcome.",
    "target",
    "outcome",
)
WAITING_NOTIFICATIONS = _gauge(
    "spincycle_waiting_notifications",
    "Notifications in the database that are not delivered yet.",
    merge=Merge.MAX,
)
OLDEST_NOTIFICATION_SECONDS = _gauge(
    "spincycle_oldest_notification_seconds",
    "Age of the oldest notification that is not delivered yet.",
    merge=Merge.MAX,
)

COMMIT_CHANGES = _histogram(
    "spincycle_commit_changes",
    "Changes that one transaction committed together.",
    "writer",
    buckets=(1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0),
)
COMMIT_SECONDS = _histogram(
    "spincycle_commit_seconds",
    "Time that a transaction took, with its retries.",
    "writer",
    buckets=_SHORT_BUCKETS,
)
COMMIT_RETRIES = _counter(
    "spincycle_commit_retries_total", "Transactions that were tried again.", "writer", "trouble"
)
COMMIT_FAILURES = _counter(
    "spincycle_commit_failures_total", "Transactions that were given up.", "writer", "trouble"
)
READ_SECONDS = _histogram(
    "spincycle_read_seconds",
    "Time that reads of the database took, with the wait for a connection. "
    "A read that calls share counts once.",
    buckets=_SHORT_BUCKETS,
)
DATABASE_UP = _gauge("spincycle_database_up", "Whether the database answered the last ping.", merge=Merge.MIN)
DATABASE_PING_SECONDS = _gauge(
    "spincycle_database_ping_seconds", "Time that the last ping took.", merge=Merge.MAX
)
DATABASE_CONNECTIONS = _gauge(
    "spincycle_database_connections", "Open connections to the database.", "pool", "state"
)

TRIES = _counter("spincycle_tries_total", "Tries of jobs that have ended.", "type", "outcome")
TRY_SECONDS = _histogram(
    "spincycle_try_seconds",
    "Time that tries of jobs took.",
    "type",
    buckets=(0.01, *_LONG_BUCKETS[:-1]),
)
JOBS_ENDED = _counter(
    "spincycle_jobs_ended_total", "Jobs that have ended, after all their tries.", "type", "outcome"
)
RUNNING_TRIES = _gauge("spincycle_running_tries", "Tries that run, or wait for a thread.")
REPORT_SECONDS = _histogram(
    "spincycle_report_seconds",
    "Time until a Request Manager acknowledged a message of the runner.",
    buckets=_SHORT_BUCKETS,
)
REPORT_INTERRUPTIONS = _counter(
    "spincycle_report_interruptions_total", "Streams of reports that broke or found no Request Manager."
)
LEASE_LEFT_SECONDS = _gauge("spincycle_lease_left_seconds", "Time until the lease of the runner expires.")
LEASE_EXPIRATIONS = _counter("spincycle_lease_expirations_total", "Leases of the runner that expired.")

EVENT_LOOP_DELAY_SECONDS = _histogram(
    "spincycle_event_loop_delay_seconds",
    "How much later than planned the event loop ran a timer.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
    of_process=True,
)
CERTIFICATE_EXPIRY_SECONDS = _gauge(
    "spincycle_certificate_expiry_seconds",
    "When the certificate expires, in seconds since 1970.",
    "option",
    of_process=True,
    merge=Merge.MIN,
)
LOST_LOG_LINES = _counter(
    "spincycle_lost_log_lines_total", "Lines of the log that could not be written.", of_process=True
)

WORKERS = _gauge(
    "spincycle_workers",
    "Worker processes, by whether they have answered this scrape.",
    "state",
    of_process=True,
    merge=Merge.OWN,
)
REPLACED_WORKERS = _counter(
    "spincycle_replaced_workers_total", "Worker processes that have ended and were replaced.", of_process=True
)

CATALOGUE: tuple[Family, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Family)
)
"""All metrics of servers, in the order of this file."""
