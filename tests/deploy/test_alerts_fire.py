"""Each alert fires in a real Prometheus that scrapes servers.

Two servers are real and in real trouble. What would take a broken database or hours to happen is counted
with the instruments of a server, and served as a server serves them.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import resource
import shutil
import subprocess
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import yaml

from spincycle_server.gateway import EarlyRefusals, HttpLimits, HttpServer, PagesApp, ServerPages, users_calls
from spincycle_server.listening import Address
from spincycle_server.telemetry import catalogue
from spincycle_server.telemetry.instruments import Family, Histograms, Kind
from spincycle_server.telemetry.metrics import Reading, ServerMetrics
from spincycle_server.telemetry.metrics_text import MEDIA_TYPE, Exposition
from tests.deploy.troubles import TROUBLES, Symptom
from tests.e2e.processes import ServerProcess, running
from tests.limits import PROCESS_END, REQUEST_END, STEP
from tests.ports import free_port

PROMETHEUS = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"

OF_LONELY_MANAGER = {"SpinCycleNoJobRunner", "SpinCycleFileDescriptors"}
OF_LONELY_RUNNER = {"SpinCycleServerNotReady", "SpinCycleLogLinesLost"}
OF_KILLED_MANAGER = {"SpinCycleServerDown"}
COUNTED = set(TROUBLES) - OF_LONELY_MANAGER - OF_LONELY_RUNNER - OF_KILLED_MANAGER

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None and not os.environ.get("CI"), reason="Prometheus is not installed"
)


def metrics_in_trouble() -> ServerMetrics:
    """Returns metrics whose counters grow with each scrape, and whose gauges are bad."""
    metrics = ServerMetrics("request-manager")
    readings: defaultdict[Family, dict[tuple[str, ...], Callable[[], float]]] = defaultdict(dict)
    for symptom in itertools.chain.from_iterable(TROUBLES[alert] for alert in sorted(COUNTED)):
        family = symptom.family
        assert family is not None
        if family.kind is Kind.HISTOGRAM:
            readings[catalogue.RUNNING_TRIES][()] = growing_histogram(metrics, family, symptom, readings)
        else:
            labels = tuple(symptom.labels[label] for label in family.labels)
            readings[family][labels] = value_of(family, symptom)
    for family, values in readings.items():
        metrics.read(family, partial(read_all, values))
    return metrics


def read_all(values: Mapping[tuple[str, ...], Callable[[], float]]) -> Reading:
    """Reads all series of a gauge."""
    return {labels: value() for labels, value in values.items()}


def value_of(family: Family, symptom: Symptom) -> Callable[[], float]:
    """Returns a function that returns the next value of a series."""
    if family.kind is Kind.GAUGE:
        return lambda: symptom.bad
    steps = itertools.count(5, int(symptom.bad))
    return lambda: float(next(steps))


def growing_histogram(
    metrics: ServerMetrics,
    family: Family,
    symptom: Symptom,
    readings: defaultdict[Family, dict[tuple[str, ...], Callable[[], float]]],
) -> Callable[[], float]:
    """Adds a histogram, and returns the reading of a gauge that also observes large values."""
    histograms = Histograms(family)
    metrics.add([histograms])
    histogram = histograms.of(*(symptom.labels[label] for label in family.labels))
    before = readings[catalogue.RUNNING_TRIES].get((), lambda: 0.0)

    def read() -> float:
        for _ in range(int(symptom.bad)):
            histogram.observe(1e9)
        return before()

    return read


@asynccontextmanager
async def served(metrics: ServerMetrics) -> AsyncIterator[str]:
    """Serves metrics as a server does, and yields the address."""
    exposition = Exposition([metrics])
    app = PagesApp(ServerPages(lambda: "", exposition, MEDIA_TYPE))
    no_refusals = EarlyRefusals(lambda: False, users_calls((), ()), b"", lambda: None)
    server = HttpServer(app, Address("127.0.0.1", 0), None, HttpLimits(), no_refusals)
    await server.start()
    yield f"127.0.0.1:{server.port}"
    await server.stop(1)
    exposition.close()


@contextmanager
def prometheus(directory: Path, targets: list[str]) -> Iterator[str]:
    """Runs Prometheus with the rules, whose conditions need not hold for long. Yields its URL."""
    rules = re.sub(r"^ +for: .*\n", "", (PROMETHEUS / "alerts.yaml").read_text(), flags=re.MULTILINE)
    (directory / "alerts.yaml").write_text(rules)
    config = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": targets}]
    (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={directory / 'prometheus.yaml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address={address}",
            "--log.level=warn",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(PROCESS_END)


async def wait_for_alerts(url: str, expected: set[tuple[str, str]]) -> None:
    """Waits until each of the alerts has fired, with the instance that it is about."""
    missing = set(expected)
    async with httpx.AsyncClient() as http:
        for _ in range(int(REQUEST_END)):
            try:
                response = await http.get(f"{url}/api/v1/alerts", timeout=STEP)
                answer = response.raise_for_status().json()
            except httpx.HTTPError:  # It has not started yet, or answers 503 while it loads its data.
                answer = {"data": {"alerts": []}}
            for alert in answer["data"]["alerts"]:
                if alert["state"] == "firing":
                    labels = alert["labels"]
                    missing.discard((labels["alertname"], labels.get("instance", "")))
                    missing.discard((labels["alertname"], "any"))
            if not missing:
                return
            await asyncio.sleep(1)
    pytest.fail(f"these alerts did not fire: {sorted(missing)}")


def take_descriptors(server: ServerProcess, address: str) -> None:
    """Leaves a server hardly any free file descriptors."""
    text = httpx.get(f"http://{address}/metrics", timeout=STEP).text
    (used,) = re.findall(r"^process_open_fds (\S+)$", text, re.MULTILINE)
    _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (int(float(used)) + 3, hard))


async def test_each_alert_fires(tmp_path: Path) -> None:
    of_manager, of_runner = tmp_path / "manager", tmp_path / "runner"
    of_manager.mkdir()
    of_runner.mkdir()
    runner_address = f"127.0.0.1:{free_port()}"
    with ExitStack() as stack:
        manager = stack.enter_context(running("request-manager", "--http=127.0.0.1:0", directory=of_manager))
        stack.enter_context(
            running(
                "job-runner",
                "--http=127.0.0.1:0",
                "--rm=127.0.0.1:1",
                directory=of_runner,
                environment={"SPINCYCLE_SERVER_METRICS": runner_address},
                full_log=True,
            )
        )
        manager_address = manager.address("request-manager", "http")
        take_descriptors(manager, manager_address)
        async with served(metrics_in_trouble()) as counted:
            url = stack.enter_context(prometheus(tmp_path, [counted, manager_address, runner_address]))
            expected = {(alert, manager_address) for alert in OF_LONELY_MANAGER}
            expected |= {(alert, runner_address) for alert in OF_LONELY_RUNNER}
            expected |= {(alert, "any") for alert in COUNTED}
            await wait_for_alerts(url, expected)
            manager.kill()
            await wait_for_alerts(url, {(alert, manager_address) for alert in OF_KILLED_MANAGER})
