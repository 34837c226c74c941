"""Times and durations, as people read them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, timedelta, timezone

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from spincycle_grpc.cli.times import age_text, span_text, time_text
from tests.cli.conftest import Spinc
from tests.fake_manager import REQUEST_ID

SECOND = 1_000_000_000


@pytest.fixture
def paris(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Paris")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_time_has_its_zone(paris: None) -> None:
    winter, summer = 1_800_000_000 * SECOND, 1_815_000_000 * SECOND
    assert time_text(winter) == "2027-01-15 09:00:00 +01:00"
    assert time_text(summer) == "2027-07-08 00:40:00 +02:00"
    assert time_text(winter, UTC) == "2027-01-15 08:00:00 UTC"
    assert time_text(winter, timezone(timedelta(hours=5, minutes=30))) == "2027-01-15 13:30:00 +05:30"
    assert time_text(Timestamp(seconds=1_800_000_000), UTC) == "2027-01-15 08:00:00 UTC"


def test_no_time_is_empty_and_an_impossible_one_a_question_mark() -> None:
    assert (time_text(0), time_text(Timestamp())) == ("", "")
    assert time_text(Timestamp(seconds=2**60)) == "?"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0s"),
        (59, "59s"),
        (60, "1m0s"),
        (7_500, "2h5m"),
        (86_400, "1d0h"),
        (8_000_000, "92d14h"),
        (-5, "0s"),
    ],
)
def test_an_age_has_two_units(seconds: int, expected: str) -> None:
    assert age_text(2_000 * SECOND, (2_000 + seconds) * SECOND) == expected
    assert age_text(0, 5) == ""


def test_a_span_has_few_digits() -> None:
    spans = [0, 1_500, 35_000_000, 1_523_000_000, 130 * SECOND + 7]
    assert [span_text(span) for span in spans] == ["0s", "1µs", "35ms", "1.5s", "2m10s"]


def test_utc_is_an_option_of_every_command(
    paris: None, spinc: Spinc, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (("status", REQUEST_ID, "--utc"), ("--utc", "find")):
        assert "2027-01-15 08:00:00 UTC" in spinc(*arguments).stdout
