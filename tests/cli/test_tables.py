"""Tables: they fit a terminal, and nothing is cut in a file."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spincycle_grpc import State
from spincycle_grpc.cli.cutting import cell_width, cut_path, cut_text
from spincycle_grpc.cli.short_ids import SHORTEST, short_ids
from spincycle_grpc.cli.tables import Column, show_fields, show_table
from spincycle_grpc.job_paths import SEPARATOR
from tests.cli.conftest import Spinc, Terminal, end
from tests.cli.test_status import PATH, failed
from tests.fake_manager import REQUEST_ID, FakeManager, event, stage

LONG = "no route to host web7 because the switch is off"
Printed = Callable[[int | None], list[str]]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Printed:
    """Prints a table on a terminal of some width, or into a file. Returns its lines."""

    def lines(width: int | None) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: width is not None)
        ages = Column("AGE", ["2h5m", ""], may_drop=True)
        show_table(
            (
                Column("ID", ["a" * 20, "b"], narrow=Column("ID", ["aaaa", "b"])),
                Column("PATH", ["rolling-restart / host web7 / drain", "b"], least=10, keeps_end=True),
                Column("TIME", ["2026-11-29 13:15:12 UTC", ""], narrow=ages),
                Column("ERROR", [LONG, "b"], least=10),
            ),
            ("TIME", "ID", "AGE"),
        )
        return capsys.readouterr().out.splitlines()

    return lines


def test_nothing_is_cut_in_a_file_or_if_the_terminal_is_wide(printed: Printed) -> None:
    whole = printed(None)
    assert whole[1].endswith(LONG)
    assert printed(len(whole[1])) == whole


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (125, f"{'a' * 20}  rolling-restart / host web7 / drain  2h5m  {LONG}"),
        (100, f"aaaa  rolling-restart / host web7 / drain  2h5m  {LONG}"),
        (95, f"aaaa  rolling-restart / host web7 / drain  {LONG}"),
        (60, "aaaa  …start / host web7 / drain  no route to host web7 bec…"),
        (20, "aaaa  …7 / drain  no route …"),
    ],
)
def test_a_narrow_terminal_gets_narrow_columns_then_fewer_then_cut_ones(
    width: int, expected: str, printed: Printed
) -> None:
    assert printed(width)[1] == expected


def test_long_fields_continue_below_their_beginning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show_fields([("waiting", "no job runner knows the job type drain"), ("id", "1")])
    assert capsys.readouterr().out.splitlines() == [
        "waiting  no job runner knows the job",
        "         type drain",
        "id       1",
    ]


@given(st.text(max_size=30).filter(str.isprintable), st.integers(1, 20), st.booleans())
def test_cut_text_fits_and_keeps_one_end(text: str, width: int, keeps_end: bool) -> None:
    cut = cut_text(text, width, keeps_end=keeps_end)
    assert cell_width(cut) <= width
    if cut != text:
        kept = cut.removeprefix("…") if keeps_end else cut.removesuffix("…")
        assert text.endswith(kept) if keeps_end else text.startswith(kept)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (50, "rolling-restart / host web7.example.com / drain"),
        (40, "… / host web7.example.com / drain"),
        (32, "host web7.example.com / drain"),
        (28, "web7.example.com / drain"),
        (20, "web7.exam…om / drain"),
        (11, "…om / drain"),
    ],
)
def test_a_narrow_path_still_has_the_host_and_the_job(width: int, expected: str) -> None:
    assert cut_path("rolling-restart / host web7.example.com / drain", width) == expected


@given(st.integers(20, 60), st.integers(0, 199), st.integers(0, 199))
def test_paths_of_different_hosts_stay_different_on_a_narrow_terminal(
    width: int, one: int, other: int
) -> None:
    cut = {
        cut_path(f"  fleet / rack 4 / host web{number}.example.com / restart", width)
        for number in (one, other)
    }
    assert len(cut) == len({one, other})


@given(st.lists(st.text(max_size=20).filter(str.isprintable), min_size=1, max_size=5), st.integers(2, 40))
def test_cut_paths_fit(parts: list[str], width: int) -> None:
    assert cell_width(cut_path(SEPARATOR.join(parts), width)) <= width


@given(st.sets(st.text("01ab", min_size=20, max_size=20), max_size=20))
def test_short_ids_are_unique_prefixes(ids: set[str]) -> None:
    short = short_ids(ids)
    assert set(short) == ids
    for one, prefix in short.items():
        assert len(prefix) >= SHORTEST
        assert [other for other in ids if other.startswith(prefix)] == [one]
        is_longer_than_needed = len(prefix) > SHORTEST
        assert not is_longer_than_needed or any(
            other.startswith(prefix[:-1]) for other in ids if other != one
        )


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", REQUEST_ID),
        ("ps",),
        ("find",),
        ("log", REQUEST_ID),
        ("history", REQUEST_ID),
        (),
        ("runners",),
        ("locks",),
        ("server", "--options"),
        ("whoami",),
        ("count",),
        ("help", "nap"),
    ],
)
def test_every_command_fits_a_terminal_of_60_columns(
    arguments: tuple[str, ...], manager: FakeManager, spinc: Spinc, terminal: Terminal
) -> None:
    manager.stages = [stage(State.RUNNING, 1000, 1200)]
    manager.stages[0].waiting = LONG
    manager.log = failed("zzzz", tries=3, error="exit status 7", stderr="no route to host web7\n")
    manager.found = [stage(State.SUSPENDED, 1000, 1200)] * 2
    for request in (*manager.found, manager.status.requests[REQUEST_ID]):
        request.type, request.user, request.waiting = "rolling-restart", "ann.example", LONG
        request.job_runner_url = "http://runner1.example.com:32307"
    manager.status.jobs[0].path[:] = PATH
    manager.events = [event(detail=LONG)]
    code, output = end(terminal(*arguments, columns=60, kind="dumb", zone="Asia/Kolkata"))
    assert code == 0
    lines = output.replace("\r\n", "\n").splitlines()
    assert len(lines) > 1
    assert [line for line in lines if cell_width(line) > 60] == []
    assert "…" not in spinc(*arguments).stdout
