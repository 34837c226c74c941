"""Metrics and health of real servers: what they count, who may ask, and when they are ready."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from spincycle_grpc.state import State
from spincycle_server.telemetry.catalogue import CATALOGUE
from spincycle_server.telemetry.limits import LIMITS
from tests.commands.in_process import spincycle
from tests.e2e.processes import running
from tests.e2e.waiting import eventually, wait_state
from tests.limits import ANSWER, STEP

ONLY_IN_TROUBLE = {
    "spincycle_refusals_total",
    "spincycle_commit_retries_total",
    "spincycle_commit_failures_total",
}
"""Metrics that have no series while all is well."""

ONLY_WITH_TARGETS = {
    "spincycle_notification_attempts_total",
    "spincycle_oldest_notification_seconds",
    "spincycle_waiting_notifications",
}
ONLY_WITH_WORKERS = {"spincycle_replaced_workers_total", "spincycle_workers"}
ONLY_WITH_TLS = {"spincycle_certificate_expiry_seconds"}
ONLY_WITH_AUTHENTICATION = {"unknown_tokens", "oidc_waits", "plugin_calls"}
ONLY_WITHOUT_SQLITE = {"waiting_creations"}


class Servers(NamedTuple):
    """A Request Manager and a Job Runner over HTTP."""

    manager: httpx.Client
    runner: httpx.Client


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with running("server", "--http=127.0.0.1:0", directory=tmp_path_factory.mktemp("metrics")) as server:
        urls = [f"http://{server.address(name, 'http')}" for name in ("request-manager", "job-runner")]
        manager, runner = (httpx.Client(base_url=url, timeout=ANSWER) for url in urls)
        with closing(manager), closing(runner):
            eventually(lambda: runner.get("/readyz").status_code == 200)
            yield Servers(manager, runner)


def series_of(http: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Returns the series of a server, by name and labels without `server`."""
    return {
        (sample.name, frozenset(sample.labels.items() - {("server", sample.labels.get("server"))})): (
            sample.value
        )
        for family in text_string_to_metric_families(http.get("/metrics").text)
        for sample in family.samples
    }


def wait_for(http: httpx.Client, name: str, labels: Mapping[str, str], value: float) -> None:
    """Waits until a series has a value."""
    key = (name, frozenset(labels.items()))
    seen: float | None = None

    def is_there() -> bool:
        nonlocal seen
        seen = series_of(http).get(key)
        return seen == value

    try:
        eventually(is_there, STEP)
    except AssertionError:
        raise AssertionError(f"{name} {labels} is {seen}, not {value}") from None


def run(http: httpx.Client, request_type: str, state: State, **args: str) -> str:
    """Runs a request to its end, and returns its id."""
    created = http.post("/api/v1/requests", json={"type": request_type, "args": args})
    request_id: str = wait_state(http, created.json()["id"], state)["id"]
    return request_id


def test_requests_jobs_and_tries_are_counted_by_type_and_outcome(servers: Servers) -> None:
    ended = {
        ("nap", "COMPLETE"): run(servers.manager, "nap", State.COMPLETE, ms="1"),
        ("panics", "FAIL"): run(servers.manager, "panics", State.FAIL),
    }
    tries: Counter[tuple[str, str]] = Counter()
    for (request_type, outcome), request_id in ended.items():
        kind = {"type": request_type}
        wait_for(servers.manager, "spincycle_requests_ended_total", {**kind, "outcome": outcome}, 1)
        wait_for(servers.manager, "spincycle_request_seconds_count", {**kind, "outcome": outcome}, 1)
        wait_for(servers.manager, "spincycle_requests_created_total", kind, 1)
        wait_for(servers.manager, "spincycle_request_wait_seconds_count", kind, 1)
        log = servers.manager.get(f"/api/v1/requests/{request_id}/log").json()
        tries.update((entry["type"], State(entry["state"]).name) for entry in log)
    assert {("sleep", "COMPLETE"), ("panic", "FAIL"), ("noop", "COMPLETE")} <= set(tries)
    for (job_type, outcome), count in tries.items():  # No job of these requests is tried twice.
        kind = {"type": job_type, "outcome": outcome}
        wait_for(servers.runner, "spincycle_tries_total", kind, count)
        wait_for(servers.runner, "spincycle_jobs_ended_total", kind, count)
    wait_for(servers.runner, "spincycle_try_seconds_count", {"type": "sleep"}, 1)
    wait_for(servers.runner, "spincycle_running_tries", {}, 0)
    wait_for(servers.manager, "spincycle_runners", {"state": "ready"}, 1)


def test_calls_are_counted_by_method_transport_and_code(servers: Servers) -> None:
    create = {"method": "RequestManager.Create", "transport": "http"}
    before = series_of(servers.manager).get(
        ("spincycle_calls_total", frozenset({**create, "code": "INVALID_ARGUMENT"}.items())), 0.0
    )
    assert servers.manager.post("/api/v1/requests", json={"type": "unheard-of"}).status_code == 400
    assert servers.manager.post("/api/v1/requests", json={"type": "nap", "args": 1}).status_code == 400
    assert servers.manager.post("/api/v1/requests", content=b"text").status_code == 415
    wait_for(servers.manager, "spincycle_calls_total", {**create, "code": "INVALID_ARGUMENT"}, before + 3)
    assert servers.manager.get("/api/v1/requests/none").status_code == 404
    get = {"method": "RequestManager.Get", "transport": "http", "code": "NOT_FOUND"}
    wait_for(servers.manager, "spincycle_calls_total", get, 1)


def test_text_of_strangers_never_becomes_a_label(servers: Servers) -> None:
    for text in ("stranger-0", "stranger-1", 'stranger-2"} 1'):
        servers.manager.post("/api/v1/requests", json={"type": text, "args": {text: text}})
        servers.manager.get(f"/api/v1/requests/{text}", headers={"X-Stranger": text})
        servers.manager.request("STRANGER", f"/{text}", params={text: text})
        chain = {"requestId": text, "jobs": {"aaaa": {"id": "aaaa", "type": text, "name": text}}}
        servers.runner.post("/api/v1/job-chains", json=chain)
    for http in servers:
        assert "stranger" not in http.get("/metrics").text


def test_every_metric_and_every_limit_is_shown(servers: Servers) -> None:
    run(servers.manager, "nap", State.COMPLETE, ms="1")
    # The runner counts a try just after the Request Manager has its report.
    counted = ("spincycle_try_seconds_count", frozenset({("type", "sleep")}))
    eventually(lambda: counted in series_of(servers.runner))
    found = series_of(servers.manager) | series_of(servers.runner)
    names = {name.removesuffix("_count") for name, _ in found}
    assert {
        family.name for family in CATALOGUE
    } - ONLY_IN_TROUBLE - ONLY_WITH_TLS - ONLY_WITH_TARGETS - ONLY_WITH_WORKERS <= names
    limits = {dict(labels)["limit"] for name, labels in found if name == "spincycle_limit_used"}
    assert limits == {limit.name for limit in LIMITS} - ONLY_WITH_AUTHENTICATION - ONLY_WITHOUT_SQLITE


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed")
def test_prometheus_finds_no_fault_in_the_text(servers: Servers) -> None:
    for http in servers:
        done = subprocess.run(
            ["promtool", "check", "metrics"],
            input=http.get("/metrics").content,
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_the_pages_have_only_get(servers: Servers) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/healthz/"):
        for http in servers:
            answer = http.get(path)
            assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
            assert http.head(path).content == b""
            refused = http.post(path)
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert servers.manager.get("/metrics/more").status_code == 404


def test_metrics_need_a_role_if_callers_are_authenticated(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "auth: {methods: [token], admin_roles: [admin], metrics_roles: [metrics]}\ncluster: {open: true}\n"
    )
    roles = {"metrics": 200, "admin": 200, "dba": 403}
    with (
        running("request-manager", "config.yaml", "--http=127.0.0.1:0", directory=tmp_path) as server,
        httpx.Client(base_url=f"http://{server.address('request-manager', 'http')}", timeout=ANSWER) as http,
    ):
        for role, status in roles.items():
            created = spincycle(tmp_path, "token", "create", role, "config.yaml", "--role", role)
            http.headers["Authorization"] = f"Bearer {created.stdout.strip()}"
            eventually(lambda: http.get("/metrics").status_code != 401)
            answer = http.get("/metrics")
            assert answer.status_code == status
        assert answer.headers["x-spincycle-reason"] == "ACCESS_DENIED"
        del http.headers["Authorization"]
        stranger = http.get("/metrics")
        assert (stranger.status_code, stranger.headers["x-spincycle-reason"]) == (401, "NO_CREDENTIALS")
        assert [http.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
        eventually(lambda: "/metrics" in spincycle(tmp_path, "audit", "config.yaml").stdout)


def test_a_runner_is_ready_only_with_a_request_manager_and_its_metrics_can_have_a_port_of_their_own(
    tmp_path: Path,
) -> None:
    environment = {"SPINCYCLE_SERVER_METRICS": "127.0.0.1:0"}
    arguments = ("job-runner", "--http=127.0.0.1:0", "--rm=127.0.0.1:1")
    with running(*arguments, directory=tmp_path, environment=environment) as server:
        address = server.wait_for("listening for metrics")["http"]
        with httpx.Client(base_url=f"http://{address}", timeout=ANSWER) as pages:
            server.wait_for("reporting interrupted")
            answer = pages.get("/readyz")
            assert (answer.status_code, answer.headers["x-spincycle-reason"]) == (503, "NOT_READY")
            assert answer.json() == {"message": "no Request Manager has acknowledged this Job Runner"}
            assert pages.get("/healthz").status_code == 200
            assert pages.get("/").status_code == 404
            assert series_of(pages)["spincycle_ready", frozenset()] == 0
            assert series_of(pages)["spincycle_report_interruptions_total", frozenset()] >= 1
        url = f"http://{server.address('job-runner', 'http')}"
        with httpx.Client(base_url=url, timeout=ANSWER) as http:
            statuses = [http.get(path).status_code for path in ("/metrics", "/healthz", "/readyz")]
        assert statuses == [404, 200, 503]
        assert server.terminate() == 0
