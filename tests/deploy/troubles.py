"""What each alert of deploy/prometheus is about: series of a healthy installation, and of one in trouble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.instruments import Family, Kind


@dataclass(frozen=True)
class Symptom:
    """A series that shows a trouble.

    Attributes:
        name: The metric. A histogram gets observations that are larger than all its buckets.
        labels: Its labels, without `server`.
        bad: The value of a gauge in trouble; how much a counter or a histogram grows from scrape to scrape.
        good: The value of a gauge without trouble. A counter and a histogram do not grow then.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    bad: float = 1000.0
    good: float = 0.0

    @property
    def family(self) -> Family | None:
        """The metric in the catalogue; None for one of Prometheus or of its Python client."""
        return next((family for family in catalogue.CATALOGUE if family.name == self.name), None)

    def series(self, *, is_bad: bool) -> list[tuple[str, str]]:
        """Returns the series for promtool: names with labels, and values at each scrape."""
        family = self.family
        if family is None or family.kind is Kind.GAUGE:
            return [(self._series(self.name), f"{self.bad if is_bad else self.good}+0x400")]
        values = f"5+{self.bad if is_bad else 0}x400"
        if family.kind is Kind.COUNTER:
            return [(self._series(self.name), values)]
        bounds = [f"{bound:g}" for bound in family.buckets]
        return [
            *((self._series(f"{self.name}_bucket", le=bound), "5+0x400") for bound in bounds),
            (self._series(f"{self.name}_bucket", le="+Inf"), values),
            (self._series(f"{self.name}_count"), values),
        ]

    def _series(self, name: str, **more: str) -> str:
        labels = {"job": "spincycle", "instance": "server:1", **self.labels, **more}
        texts = [f'{key}="{value}"' for key, value in labels.items()]
        return f"{name}{{{', '.join(texts)}}}"


TROUBLES: Mapping[str, Sequence[Symptom]] = {
    "SpinCycleServerDown": [Symptom("up", bad=0, good=1)],
    "SpinCycleServerNotReady": [Symptom("spincycle_ready", bad=0, good=1)],
    "SpinCycleDatabaseDown": [Symptom("spincycle_database_up", bad=0, good=1)],
    "SpinCycleNoJobRunner": [
        Symptom("spincycle_runners", {"state": "ready"}, bad=0, good=1),
        Symptom("spincycle_runners", {"state": "full"}, bad=0, good=0),
    ],
    "SpinCycleJobRunnerRefuses": [
        Symptom("spincycle_runners", {"state": "refusing"}, bad=2),
        Symptom("spincycle_runners", {"state": "ready"}, bad=1, good=1),
    ],
    "SpinCycleServerErrors": [
        Symptom(
            "spincycle_calls_total",
            {"method": "RequestManager.Create", "transport": "grpc", "code": "INTERNAL"},
        )
    ],
    "SpinCycleCallsRefused": [Symptom("spincycle_refusals_total", {"reason": "TOO_MANY_CALLS"}, bad=100_000)],
    "SpinCycleCallsSlow": [Symptom("spincycle_call_seconds", {"method": "RequestManager.Get"})],
    "SpinCycleLimitNear": [
        Symptom("spincycle_limit_used", {"limit": "concurrent_calls"}, bad=450, good=100),
        Symptom("spincycle_limit", {"limit": "concurrent_calls"}, bad=500, good=500),
    ],
    "SpinCycleRequestsWait": [Symptom("spincycle_oldest_waiting_seconds", bad=3600)],
    "SpinCycleNotificationsGivenUp": [
        Symptom("spincycle_notification_attempts_total", {"target": "ops", "outcome": "given_up"})
    ],
    "SpinCycleNotificationsLate": [Symptom("spincycle_oldest_notification_seconds", bad=3600)],
    "SpinCycleRequestsBlocked": [
        Symptom("spincycle_limit_used", {"limit": "blocked_requests"}, bad=3),
        Symptom("spincycle_limit", {"limit": "blocked_requests"}, bad=10_000, good=10_000),
    ],
    "SpinCycleRequestsFail": [
        Symptom("spincycle_requests_ended_total", {"type": "stop-host", "outcome": "FAIL"}),
        Symptom("spincycle_requests_ended_total", {"type": "stop-host", "outcome": "COMPLETE"}, bad=10),
    ],
    "SpinCycleRequestsTakenOver": [Symptom("spincycle_takeovers_total", {"reason": "lease_expired"})],
    "SpinCycleLeaseExpired": [Symptom("spincycle_lease_expirations_total")],
    "SpinCycleCommitsSlow": [Symptom("spincycle_commit_seconds", {"writer": "changes"})],
    "SpinCycleCommitsFail": [
        Symptom("spincycle_commit_failures_total", {"writer": "changes", "trouble": "AWAY"})
    ],
    "SpinCycleEventLoopSlow": [Symptom("spincycle_event_loop_delay_seconds")],
    "SpinCycleLogLinesLost": [Symptom("spincycle_lost_log_lines_total")],
    "SpinCycleCertificateExpires": [
        Symptom("spincycle_certificate_expiry_seconds", {"option": "server.tls"}, bad=86_400, good=1e9)
    ],
    "SpinCycleFileDescriptors": [
        Symptom("process_open_fds", bad=95, good=20),
        Symptom("process_max_fds", bad=100, good=100),
    ],
}
"""The symptoms that make each alert fire."""
