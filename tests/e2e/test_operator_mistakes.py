"""What an operator sees of odd errors in a narrow terminal, and after a mistake, with real servers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from spincycle_grpc import Client
from spincycle_grpc.cli.cutting import cell_width
from tests.e2e.processes import running
from tests.e2e.terminal import Terminal, open_terminal
from tests.host_jobs import HOSTS

SPECS = """
sequences:
  restart:
    request: true
    args: {required: [{name: hosts}]}
    nodes:
      host: {category: sequence, type: one-host, each: ["hosts:host"]}
  one-host:
    args: {required: [{name: host}]}
    nodes:
      drain: {category: job, type: drain, args: [{expected: host, given: host}]}
      restart: {category: job, type: restart, args: [{expected: host, given: host}], deps: [drain]}
"""

NAMES = [f"web{number}.dc1.example.com" for number in range(1, 201)]
BAD = NAMES[136]

ODD = {
    "\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b[2J": "red \\x1b]0;title\\x07\\x1b[2J",
    "\u202eevil\u202c שלום 日本語": "\\u202eevil\\u202c שלום 日本語",
    "x" * 5000: "x" * 100,
    "first\r\nlast\n": "last",
}
"""Errors that a job may have, and what is shown of them."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("operator")
    (made / "specs").mkdir()
    (made / "specs" / "restart.yaml").write_text(SPECS)
    (made / "hosts.json").write_text(json.dumps(NAMES))
    return made


@pytest.fixture(scope="module")
def address(directory: Path) -> Iterator[str]:
    environment = {HOSTS: str(directory), "SPINCYCLE_JOBS": "tests.host_jobs:factory"}
    with running(
        "server", "--http=127.0.0.1:0", f"--specs={directory / 'specs'}", "--db=sqlite:///requests.db",
        directory=directory, environment=environment,
    ) as server:  # fmt: skip
        server.wait_for("reporting")
        yield server.address("request-manager", "grpc")


@pytest.fixture
def terminal(directory: Path, address: str) -> Iterator[Terminal]:
    with open_terminal(directory, SPINC_ADDR=address) as opened:
        yield opened


@pytest.fixture(scope="module")
def failed(directory: Path, address: str) -> str:
    """The id of a request over 200 hosts. One host has failed."""
    (directory / f"{BAD}.bad").touch()
    with Client(address) as client:
        created = client.create("restart", {"hosts": NAMES})
        client.wait(created.id)
    return created.id


@pytest.mark.parametrize("columns", [60, 80])
def test_tables_name_the_host_however_narrow_they_are(columns: int, failed: str, terminal: Terminal) -> None:
    terminal.type(f"stty columns {columns}")
    rows = terminal.type(f"spinc log {failed}").splitlines()
    assert max(map(cell_width, rows)) <= columns
    jobs = [row[: rows[0].index("ID ")].strip() for row in rows[1:]]
    assert len(set(jobs)) == len(jobs) == 2 * len(NAMES) - 1
    assert len([job for job in jobs if re.search(r"\bweb137\b.*drain", job)]) == 1


def test_the_beginning_of_a_job_id_is_enough_wherever_a_job_is_named(
    failed: str, address: str, terminal: Terminal
) -> None:
    (job_id,) = re.findall(r"--job (\w{4})", terminal.type(f"spinc status {failed}"))
    with Client(address) as client:
        ids = list(client.job_chain(failed).jobs)
    having = {length: [one for one in ids if one.startswith(job_id[:length])] for length in (2, 3, 4)}
    beginning = next(job_id[:length] for length, found in having.items() if found == [job_id])
    whole = terminal.type(f"spinc log {failed} --job {job_id}")
    assert f"host {BAD} / drain (job {job_id}" in whole
    assert terminal.type(f"spinc log {failed} --job {beginning}") == whole
    assert "the disk is full" in terminal.type(f"spinc log -f {failed} --job {beginning}")
    made = terminal.type(f"spinc retry {failed} --from {beginning} --wait")
    assert f"1 failed job:\n  restart / host {BAD} / drain (job {job_id})" in made


@pytest.mark.parametrize(("error", "shown"), ODD.items(), ids=["controls", "unicode", "long", "lines"])
def test_an_odd_error_is_shown_on_lines_of_its_own(
    error: str, shown: str, directory: Path, address: str, terminal: Terminal
) -> None:
    (directory / "odd.bad").write_bytes(error.encode())
    terminal.type("stty columns 60")
    with Client(address) as client:
        request_id = client.create("restart", {"hosts": ["odd"]}).id
        client.wait(request_id)
    for command in ("status", "log --failed", "log --follow", "watch", "export"):
        output = terminal.type(f"spinc {command} {request_id}")
        assert shown in output, command
        # The bar of `watch` returns to the beginning of its line.
        assert [c for c in output if not c.isprintable() and c not in "\r\n"] == [], command
        assert max(map(len, output.splitlines())) < 600, command
    table = terminal.type(f"spinc log {request_id}").splitlines()
    assert len(table) == 2
    assert max(map(cell_width, table)) <= 60


@pytest.mark.parametrize("command", ["status", "log", "graph", "export", "pause", "resume", "rerun"])
def test_an_id_that_is_empty_or_unknown_is_refused(command: str, terminal: Terminal) -> None:
    assert "it is empty" in terminal.type(f'spinc {command} "$UNSET"')
    assert terminal.status() == 2
    assert "at least 4 characters" in terminal.type(f"spinc {command} abc")
    assert terminal.status() == 2
    assert "request nosuch not found" in terminal.type(f"spinc {command} nosuch")
    assert terminal.status() == 3


def test_an_empty_id_never_means_all_requests(failed: str, terminal: Terminal) -> None:
    for command in ("ps", "watch", "stop", "retry"):
        assert "it is empty" in terminal.type(f'spinc {command} "$UNSET"')
        assert terminal.status() == 2
    for command in (f"log {failed} --job", f"log {failed}", f"retry {failed} --from"):
        assert "it is empty" in terminal.type(f'spinc {command} "$UNSET"')
        assert terminal.status() == 2


def test_commands_say_that_there_is_nothing_to_show_or_to_do(failed: str, terminal: Terminal) -> None:
    assert "request nosuch not found" in terminal.type("spinc ps nosuch")
    assert terminal.status() == 3
    assert f"{failed} is FAIL: no job is running" in terminal.type(f"spinc ps {failed}")
    assert "cannot be stopped: it has ended with the state FAIL" in terminal.type(f"spinc stop {failed}")
    assert terminal.status() == 3
    assert "no request to stop matches" in terminal.type("spinc stop --type nosuch")
    assert terminal.status() == 0
    assert "none of these jobs has failed" in terminal.type(f"spinc log {failed} --failed --job {NAMES[0]}")


def test_who_waits_learns_the_id_of_the_request_if_the_server_goes_away(
    directory: Path, tmp_path: Path
) -> None:
    environment = {HOSTS: str(tmp_path), "SPINCYCLE_JOBS": "tests.host_jobs:factory"}
    (tmp_path / "drain-web1.gate").touch()
    with running(
        "server", "--http=127.0.0.1:0", f"--specs={directory / 'specs'}", "--db=sqlite:///requests.db",
        directory=tmp_path, environment=environment,
    ) as server:  # fmt: skip
        server.wait_for("reporting")
        address = server.address("request-manager", "grpc")
        with open_terminal(tmp_path, SPINC_ADDR=address) as terminal:
            kill = (
                f"(until grep -q drain done; do sleep 0.1; done; kill -9 {server.process.pid}) 2>/dev/null &"
            )
            terminal.type(kill)
            shown = terminal.type("spinc --deadline 2 start restart 'hosts:=[\"web1\"]' --wait")
            assert "cannot reach" in shown
            assert re.search(r"Request (\w{20}) was created: follow it with: spinc watch \1\n", shown)
            assert terminal.status() == 4
