"""An operator in a terminal finds the one bad host of 200, mends it, and does the rest, whatever dies."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.installations import HostsInstallation
from tests.e2e.terminal import Terminal, open_terminal
from tests.e2e.waiting import eventually
from tests.host_jobs import what_was_done

NAMES = [f"web{number}" for number in range(1, 201)]
BAD = "web137"

SPECS = """
sequences:
  rolling-restart:
    request: true
    args: {required: [{name: hosts}]}
    nodes:
      host: {category: sequence, type: one-host, each: ["hosts:host"]}
      verify: {category: job, type: verify, deps: [host]}
  one-host:
    args: {required: [{name: host}]}
    nodes:
      drain: {category: job, type: drain, args: [{expected: host, given: host}]}
      restart: {category: job, type: restart, args: [{expected: host, given: host}], deps: [drain]}
"""


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[HostsInstallation]:
    with contextlib.ExitStack() as stack:
        (tmp_path / "hosts.json").write_text(json.dumps(NAMES))
        yield HostsInstallation(tmp_path, stack, SPECS)


@pytest.fixture
def terminal(installation: HostsInstallation) -> Iterator[Terminal]:
    with open_terminal(installation.directory, SPINC_ADDR=installation.grpc()) as opened:
        yield opened


def id_in(shown: str) -> str:
    """Returns the id of the request that a command has shown."""
    found = re.search(r"\b[0-9a-v]{20}\b", shown)
    assert found is not None, shown
    return found[0]


def test_an_operator_finds_a_bad_host_mends_it_and_pauses_the_retry_over_a_restart_of_everything(
    installation: HostsInstallation, terminal: Terminal
) -> None:
    directory = installation.directory
    terminal.type(f"touch {BAD}.bad")
    shown = terminal.type('spinc start rolling-restart "hosts:=$(cat hosts.json)" --wait')
    assert terminal.status() == 1
    first = id_in(shown)
    assert f"rolling-restart {first}: FAIL" in shown

    status = terminal.type(f"spinc status {first}")
    assert re.search(r"state +FAIL", status)
    for text in (status, shown):
        assert f"\n1 failed job:\n  rolling-restart / host {BAD} / drain (job " in text
        assert f"\n    stderr: {BAD}: the disk is full\n" in text
        assert re.search(f"  spinc retry {first} +# do the rest\n", text)
    assert terminal.type(f"spinc status {first[:8]}") == status
    assert terminal.type(re.findall("spinc log .*", status)[0]).endswith(f"  {BAD}: the disk is full\n")
    report = terminal.type(f"spinc export {first}")
    assert f"### `rolling-restart / host {BAD} / drain`\n" in report
    assert f"\n```text\n{BAD}: the disk is full\n```\n" in report
    terminal.type("stty columns 60")
    for command in ("status", "log --tail 5", "log --failed", "find", "ps"):
        lines = terminal.type(f"spinc {command} {first if command != 'find' else ''}").splitlines()
        assert lines, command
        assert max(map(len, lines)) <= 60, command
    terminal.type("stty columns 160")

    terminal.type(f"rm {BAD}.bad && touch restart-{BAD}.gate")
    second = id_in(terminal.type(f"spinc retry {first}"))
    assert second != first
    eventually(lambda: what_was_done(directory)[f"start restart {BAD}"])
    terminal.type(f"spinc pause {second}")
    assert terminal.status() == 0
    terminal.type(f"kill -9 {installation.manager.process.pid} {installation.runner.process.pid}")
    for server in (installation.manager, installation.runner):
        server.process.wait()
    installation.start_all()
    terminal.type(f"until spinc status {second} | grep SUSPENDED; do sleep 1; done")
    status = terminal.type(f"spinc status {second}")
    assert re.search(r"waiting +paused at 20", status)
    assert f"spinc resume {second}" in status
    before = what_was_done(directory)
    assert before[f"start restart {BAD}"] == 1

    terminal.type(f"rm restart-{BAD}.gate")
    terminal.type(f"spinc resume {second}")
    assert terminal.status() == 0
    assert f"rolling-restart {second}: COMPLETE" in terminal.type(f"spinc watch {second}")
    assert terminal.status() == 0
    assert re.search(rf"retried by +{second}", terminal.type(f"spinc status {first}"))

    done = what_was_done(directory)
    ends = {event: times for event, times in done.items() if event.startswith("end ")}
    steps = [f"end {step} {name}" for name in NAMES for step in ("drain", "restart")]
    assert ends == dict.fromkeys([*steps, "end verify"], 1)
    assert {event for event, times in done.items() if times > 1} == {
        f"start drain {BAD}",  # It failed, and was retried.
        f"start restart {BAD}",  # It ran when its runner was killed.
    }
