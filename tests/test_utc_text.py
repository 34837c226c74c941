"""Times as text."""

from __future__ import annotations

from spincycle_server.utc_text import utc_text


def test_a_time_is_shown_in_utc_without_fractions_of_seconds() -> None:
    assert utc_text(1_800_000_000_999_999) == "2027-01-15T08:00:00Z"
    assert utc_text(0) == "1970-01-01T00:00:00Z"
