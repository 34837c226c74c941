"""The alert rules, with the tools of Prometheus: each fires in its trouble, after its time, not otherwise."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.troubles import TROUBLES
from tests.limits import COMMAND

PROMETHEUS = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for rule in yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"][0]["rules"]
}
INTERVAL = 15
"""Seconds between two scrapes of promtool."""

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None and not os.environ.get("CI"), reason="Prometheus is not installed"
)


def promtool(*arguments: str | Path) -> None:
    """Runs promtool, which must succeed."""
    done = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=COMMAND, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def seconds_of(rule: dict[str, Any]) -> int:
    """Returns for how long the condition of a rule must hold."""
    duration = re.fullmatch(r"(\d+)([mh])", rule.get("for", "0m"))
    assert duration is not None
    return int(duration[1]) * {"m": 60, "h": 3600}[duration[2]]


def firing(alert: str, at: int, count: int) -> dict[str, Any]:
    """Returns a check of promtool: how many alerts fire at a time."""
    return {
        "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)',
        "eval_time": f"{at}s",
        "exp_samples": [{"labels": "{}", "value": count}],
    }


def trial(alert: str, *, is_bad: bool) -> dict[str, Any]:
    """Returns a test of promtool: an alert among the series of its trouble, or of a healthy installation."""
    wait = seconds_of(RULES[alert])
    series = [one for symptom in TROUBLES[alert] for one in symptom.series(is_bad=is_bad)]
    checks = [firing(alert, wait + 240, int(is_bad))]
    if is_bad and wait:
        checks.append(firing(alert, wait - INTERVAL, 0))
    return {
        "interval": f"{INTERVAL}s",
        "input_series": [{"series": name, "values": values} for name, values in series],
        "promql_expr_test": checks,
    }


def test_every_rule_has_a_trouble_and_says_what_to_do() -> None:
    assert set(RULES) == set(TROUBLES)
    for rule in RULES.values():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_the_page_lists_the_rules() -> None:
    page = (PROMETHEUS.parents[1] / "docs" / "metrics.md").read_text()
    section = page.partition("\n## Alerts\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| [^|]+ \| (.+) \|$", section, re.MULTILINE)
    assert rows == [
        (alert, rule["labels"]["severity"], rule.get("for", "at once")) for alert, rule in RULES.items()
    ]


def test_the_files_are_valid() -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yaml")
    promtool("check", "rules", PROMETHEUS / "alerts.yaml")


def test_each_alert_fires_in_its_trouble_after_its_time_and_not_otherwise(tmp_path: Path) -> None:
    tests = [trial(alert, is_bad=is_bad) for alert in RULES for is_bad in (True, False)]
    file = tmp_path / "tests.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(PROMETHEUS / "alerts.yaml")],
                "evaluation_interval": f"{INTERVAL}s",
                "tests": tests,
            }
        )
    )
    promtool("test", "rules", file)
