"""The limits whose use the metrics show: one name for each, and where docs/operating.md describes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit that the work of a server shares.

    Attributes:
        name: The value of the label `limit`.
        set_by: The option or the constant that sets it, as docs/operating.md names it.
        unit: What is counted.
        is_shared: Whether all workers of a server count the same things, which are in the database.
    """

    name: str
    set_by: str
    unit: str
    is_shared: bool = False


class LimitUse(NamedTuple):
    """How much a limit allows, and how much of it is in use."""

    limit: Limit
    allowed: float
    used: float


CONCURRENT_CALLS = Limit("concurrent_calls", "server.max_requests", "calls")
HTTP_CONNECTIONS = Limit("http_connections", "server.max_connections", "connections")
REQUEST_BODIES = Limit("request_bodies", "server.max_bodies", "bytes")
LARGE_MESSAGES = Limit("large_messages", "MAX_WAITING, large_work.py", "messages, running and waiting")
WAITING_REQUESTS = Limit(
    "waiting_requests", "server.max_waiting", "PENDING requests that a runner can run", is_shared=True
)
BLOCKED_REQUESTS = Limit(
    "blocked_requests", "server.max_blocked", "PENDING requests that no runner can run", is_shared=True
)
WATCHERS = Limit("watchers", "server.max_watchers", "streams")
FOLLOWERS = Limit("followers", "server.max_followers", "streams")
BUILDS = Limit("builds", "THREADS, request_manager/build_pool.py", "builds, running and waiting")
DELIVERIES = Limit("deliveries", "MAX_IN_FLIGHT, request_manager/delivery.py", "chains")
DELIVERED_JOBS = Limit("delivered_jobs", "MAX_IN_FLIGHT_JOBS", "jobs")
REPORT_STREAMS = Limit("report_streams", "MAX_STREAMS, request_manager/report_streams.py", "streams")
WAITING_CHANGES = Limit("waiting_changes", "MAX_WAITING, store/group_commit.py", "changes")
WAITING_CREATIONS = Limit("waiting_creations", "MAX_WAITING, store/group_commit.py", "creations")
DATABASE_READS = Limit("database_reads", "database.connections", "reads, running and waiting")
UNKNOWN_TOKENS = Limit("unknown_tokens", "MAX_WAITING, identity/tokens.py", "calls that wait")
OIDC_WAITS = Limit("oidc_waits", "MAX_WAITING, identity/oidc_keys.py", "calls that wait")
PLUGIN_CALLS = Limit("plugin_calls", "MAX_CALLS, identity/plugin_calls.py", "calls")
REFLECTION_STREAMS = Limit("reflection_streams", "MAX_STREAMS, rpc/reflection.py", "streams")
HEALTH_STREAMS = Limit("health_streams", "MAX_WATCHES, rpc/health.py", "streams")
HANGING_CREATES = Limit("hanging_creates", "MAX_HANGING, request_manager/build_pool.py", "calls that hang")
PAGED_CHAINS = Limit("paged_chains", "MAX_CHAINS, request_manager/paged_chains.py", "chains")
DENIALS = Limit("denials", "MAX_GROUPS", "groups of denials that wait to be stored")
CHAINS = Limit("chains", "job_runner.max_chains", "chains")
JOBS = Limit("jobs", "job_runner.max_jobs", "jobs")
JOB_THREADS = Limit("job_threads", "job_runner.max_threads", "jobs, running and waiting")
CALL_THREADS = Limit("call_threads", "CALL_THREADS, app/job_runner.py", "calls, running and waiting")
STATUS_THREADS = Limit("status_threads", "CALL_THREADS, app/job_runner.py", "calls, running and waiting")
WAITING_TRIES = Limit("waiting_tries", "100,000 tries", "tries that are not acknowledged")
WAITING_REPORTS = Limit("waiting_reports", "256 MiB", "bytes that are not acknowledged")
HELD_OUTPUT = Limit("held_output", "MAX_HELD, job_runner/try_output.py", "bytes")
OUTPUT_STREAMS = Limit("output_streams", "MAX_FOLLOWERS, job_runner/service.py", "streams")
CAPACITY_STREAMS = Limit("capacity_streams", "MAX_STREAMS, job_runner/capacity_streams.py", "streams")

LIMITS: tuple[Limit, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Limit))
"""All limits whose use the metrics show."""

SHARED_LIMITS = frozenset(limit.name for limit in LIMITS if limit.is_shared)
"""The names of the limits whose use all workers of a server count in the database."""
