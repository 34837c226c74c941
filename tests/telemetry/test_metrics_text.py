"""The text of a scrape: what Prometheus reads is what was counted."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from spincycle_server.telemetry import catalogue, metrics_text
from spincycle_server.telemetry.catalogue import CATALOGUE
from spincycle_server.telemetry.instruments import Counters, Histograms, Kind
from spincycle_server.telemetry.limits import CHAINS, LimitUse
from spincycle_server.telemetry.metrics import ServerMetrics, ServerTelemetry
from spincycle_server.telemetry.metrics_text import Exposition


def series_of(text: bytes) -> dict[str, float]:
    """Returns each series of a text with its value."""
    return {
        f"{sample.name}{dict(sorted(sample.labels.items()))}": sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


@pytest.fixture
async def metrics() -> ServerMetrics:
    return ServerMetrics("job-runner")


@pytest.fixture
async def exposition(metrics: ServerMetrics) -> AsyncIterator[Exposition]:
    exposition = Exposition([metrics])
    yield exposition
    exposition.close()


async def test_all_kinds_of_numbers_are_read_as_they_were_counted(
    metrics: ServerMetrics, exposition: Exposition
) -> None:
    tries, reports = Counters(catalogue.TRIES), Histograms(catalogue.REPORT_SECONDS)
    tries.of("sleep", "FAIL").value += 3
    for seconds in (0.0005, 0.02, 100.0):
        reports.of().observe(seconds)
    metrics.add([tries, reports])
    metrics.read_one(catalogue.LEASE_LEFT_SECONDS, lambda: 7.5)
    metrics.add_limits(lambda: [LimitUse(CHAINS, 10, 4)])
    series = series_of(await exposition.text())
    server = {"server": "job-runner"}
    assert series[f"spincycle_tries_total{dict(outcome='FAIL', **server, type='sleep')}"] == 3
    assert series[f"spincycle_lease_left_seconds{server}"] == 7.5
    assert series[f"spincycle_limit{dict(limit='chains', **server)}"] == 10
    assert series[f"spincycle_limit_used{dict(limit='chains', **server)}"] == 4
    assert series[f"spincycle_report_seconds_count{server}"] == 3
    assert series[f"spincycle_report_seconds_sum{server}"] == pytest.approx(100.0205)
    for bound, reached in (("0.001", 1), ("0.01", 1), ("0.025", 2), ("5", 2), ("+Inf", 3)):
        assert series[f"spincycle_report_seconds_bucket{dict(le=bound, **server)}"] == reached


async def test_every_metric_of_the_catalogue_has_its_name_and_kind_in_the_text(
    exposition: Exposition,
) -> None:
    text = (await exposition.text()).decode()
    for family in CATALOGUE:
        assert f"# TYPE {family.name} {family.kind.value}\n" in text
    assert "process_open_fds" in text


async def test_a_server_that_starts_is_not_ready() -> None:
    telemetry = ServerTelemetry("request-manager", "1.2.3")
    exposition = Exposition([telemetry.metrics])
    series = series_of(await exposition.text())
    assert series["spincycle_ready{'server': 'request-manager'}"] == 0
    assert series["spincycle_build_info{'server': 'request-manager', 'version': '1.2.3'}"] == 1
    exposition.close()


async def test_gauges_are_read_on_the_event_loop_and_the_text_is_built_elsewhere(
    metrics: ServerMetrics, exposition: Exposition
) -> None:
    readers: list[threading.Thread] = []
    writers: list[threading.Thread] = []

    class Watched(Counters):
        def samples(self) -> list[object]:  # type: ignore[override]
            writers.append(threading.current_thread())
            return []

    def read() -> float:
        readers.append(threading.current_thread())
        return 0.0

    metrics.read_one(catalogue.RUNNING_TRIES, read)
    metrics.add([Watched(catalogue.TRIES)])
    await exposition.text()
    assert readers == [threading.current_thread()]
    assert [thread.name for thread in writers] == ["metrics_0"]


async def test_scrapes_at_the_same_time_share_one_text(
    metrics: ServerMetrics, exposition: Exposition, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = itertools.count()
    metrics.read_one(catalogue.RUNNING_TRIES, lambda: float(next(reads)))
    texts = await asyncio.gather(*(exposition.text() for _ in range(20)))
    assert len(set(texts)) == 1
    monkeypatch.setattr(metrics_text, "KEPT", -1.0)
    server = {"server": "job-runner"}
    assert series_of(await exposition.text())[f"spincycle_running_tries{server}"] == 1


async def test_a_scraper_that_is_gone_does_not_end_the_text_of_the_others(exposition: Exposition) -> None:
    gone, stays = asyncio.ensure_future(exposition.text()), asyncio.ensure_future(exposition.text())
    await asyncio.sleep(0)
    gone.cancel()
    assert b"spincycle_" in await stays


def test_only_kinds_that_prometheus_knows_are_declared() -> None:
    assert {family.kind for family in CATALOGUE} == set(Kind)
