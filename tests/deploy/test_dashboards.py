"""Dashboards and alert rules use only metrics, labels and values that servers have."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from spincycle_grpc.errors import Status
from spincycle_grpc.state import FINAL_STATES, State
from spincycle_server.notifications.notifier import OUTCOMES
from spincycle_server.telemetry.catalogue import CATALOGUE
from spincycle_server.telemetry.instruments import Kind
from spincycle_server.telemetry.limits import LIMITS
from tests.limits import COMMAND

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))

OF_PROMETHEUS = {"up", "ALERTS"}
OF_PROCESS = {
    "process_cpu_seconds_total", "process_max_fds", "process_open_fds", "process_resident_memory_bytes",
}  # fmt: skip
"""Metrics of prometheus_client. tests/telemetry reads one of them."""

ADDED_BY_PROMETHEUS = {"job", "instance", "le", "server", "alertname", "alertstate"}
VALUES = {
    "limit": {limit.name for limit in LIMITS},
    "code": {status.name for status in Status} | {"OK"},
    "outcome": {State(state).name for state in FINAL_STATES} | set(OUTCOMES),
    "trouble": {"CONFLICT", "DUPLICATE", "AWAY", "UNUSABLE", "TOO_LARGE", "FAULT"},
    "state": {"ready", "full", "draining", "refusing"},
}
"""The values of labels that have few of them."""

_NAME = re.compile(r"\b(spincycle_[a-z_]+|process_[a-z_]+|up|ALERTS)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')


def exported_names() -> dict[str, set[str]]:
    """Returns the names that servers export, each with its labels."""
    names: dict[str, set[str]] = {}
    for family in CATALOGUE:
        suffixes = ("_bucket", "_count", "_sum") if family.kind is Kind.HISTOGRAM else ("",)
        names |= {f"{family.name}{suffix}": set(family.labels) for suffix in suffixes}
    return names | {name: set() for name in OF_PROCESS | OF_PROMETHEUS}


def expressions_of_rules() -> Iterator[str]:
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def expressions_of(dashboard: dict[str, Any]) -> Iterator[str]:
    """Yields all expressions of a dashboard, with those of its variables and annotations."""
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]
    yield from (annotation["expr"] for annotation in dashboard["annotations"]["list"])


def expressions() -> list[str]:
    boards = [json.loads(path.read_text()) for path in DASHBOARDS]
    return [*expressions_of_rules(), *(expr for board in boards for expr in expressions_of(board))]


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_uses_what_servers_export(expression: str) -> None:
    exported = exported_names()
    used = _NAME.findall(expression)
    assert used
    for name, matchers in used:
        assert name in exported
        for label, value in _MATCHER.findall(matchers):
            assert label in exported[name] | ADDED_BY_PROMETHEUS
            if label in VALUES:
                assert set(value.split("|")) <= VALUES[label]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_well_formed(path: Path) -> None:
    board = json.loads(path.read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert len({panel["title"] for panel in panels}) == len(panels)
    places = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(places)) == len(places)
    assert all(x < 24 for x, _ in places)
    for panel in panels:
        assert panel["description"].endswith(".")
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_dashboards_have_identities_of_their_own() -> None:
    boards = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert (
        len({board["uid"] for board in boards})
        == len({board["title"] for board in boards})
        == len(boards)
        == 2
    )


def test_every_metric_is_on_a_dashboard() -> None:
    text = "".join(path.read_text() for path in DASHBOARDS)
    assert [family.name for family in CATALOGUE if family.name not in text] == []


@pytest.mark.skipif(
    shutil.which("promtool") is None and not os.environ.get("CI"), reason="Prometheus is not installed"
)
def test_prometheus_can_parse_the_expressions_of_dashboards(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(expressions())
        if not expression.startswith("label_values(")
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(file)],
        capture_output=True,
        text=True,
        timeout=COMMAND,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
