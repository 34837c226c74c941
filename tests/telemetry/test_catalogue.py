"""docs/metrics.md shows the catalogue as it is, and the catalogue keeps the rules of Prometheus."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spincycle_server.telemetry.catalogue import CATALOGUE
from spincycle_server.telemetry.instruments import Family, Kind
from spincycle_server.telemetry.limits import LIMITS

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "metrics.md").read_text()
OPERATING = (REPOSITORY / "docs" / "operating.md").read_text()


def rows_below(heading: str) -> list[str]:
    """Returns the rows of the table below a heading of docs/metrics.md."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `.*$", section, re.MULTILINE)


def documented(family: Family) -> str:
    labels = family.labels if family.of_process else ("server", *family.labels)
    shown = ", ".join(f"`{label}`" for label in labels)
    return f"| `{family.name}` | {family.kind.value} | {shown} | {family.meaning} |"


def test_the_page_has_all_metrics() -> None:
    assert rows_below("Metrics") == [documented(family) for family in CATALOGUE]


def test_the_page_has_all_limits() -> None:
    assert rows_below("Limits") == [
        f"| `{limit.name}` | {limit.unit} | {shown_setting(limit.set_by)} |" for limit in LIMITS
    ]


def shown_setting(setting: str) -> str:
    name, _, place = setting.partition(", ")
    return f"`{name}`{', ' + place if place else ''}" if re.fullmatch(r"[\w.]+", name) else setting


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_operating_describes_the_limit(limit: object) -> None:
    setting = str(getattr(limit, "set_by", ""))
    assert shown_setting(setting) in OPERATING


def test_names_are_unique_and_end_in_what_they_count() -> None:
    names = [family.name for family in CATALOGUE]
    assert len(set(names)) == len(names)
    for family in CATALOGUE:
        assert re.fullmatch(r"spincycle_[a-z_]+", family.name)
        assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
        assert bool(family.buckets) == (family.kind is Kind.HISTOGRAM)
        assert list(family.buckets) == sorted(set(family.buckets))


def test_no_label_could_have_a_value_of_its_own_for_each_request_or_user() -> None:
    labels = {label for family in CATALOGUE for label in family.labels}
    assert labels == {
        "code", "limit", "method", "option", "outcome", "pool", "reason", "state", "target", "transport",
        "trouble", "type", "version", "writer",
    }  # fmt: skip
