"""Servers whose requests work on hosts, which are files in a directory (see tests/host_jobs.py)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.e2e.processes import ServerProcess, running
from tests.host_jobs import HOSTS


def _job(job_type: str, *deps: str) -> dict[str, Any]:
    given = [{"expected": "host", "given": "host"}]
    return {"category": "job", "type": job_type, "args": given, "deps": list(deps)}


SPECS = {
    "sequences": {
        "rolling": {
            "request": True,
            "args": {"required": [{"name": "hosts", "desc": "The hosts, as a list of names"}]},
            "nodes": {"host": {"category": "sequence", "type": "one-host", "each": ["hosts:host"]}},
        },
        "one-host": {
            "args": {"required": [{"name": "host"}]},
            "nodes": {
                "drain": _job("drain"),
                "restart": _job("restart", "drain"),
                "verify": _job("verify", "restart"),
            },
        },
        "fleet": {
            "request": True,
            "args": {"required": [{"name": "hosts"}]},
            "nodes": {"host": {"category": "sequence", "type": "quiet-host", "each": ["hosts:host"]}},
        },
        "quiet-host": {
            "args": {"required": [{"name": "host"}]},
            "nodes": {"first": _job("noop"), "second": _job("noop", "first")},
        },
    }
}
"""`rolling` restarts hosts. `fleet` does nothing on them, so that a test can have 10,000 of them."""


def prepare(directory: Path, specs: Mapping[str, Any] = SPECS) -> None:
    """Writes request specs, and makes the directory of the hosts."""
    (directory / "specs").mkdir()
    (directory / "specs" / "fleet.yaml").write_text(json.dumps(specs))
    (directory / "hosts").mkdir()


@contextlib.contextmanager
def serving_hosts(
    directory: Path, options: Sequence[str] = ("--http=127.0.0.1:0",)
) -> Iterator[ServerProcess]:
    """Runs a server in a prepared directory."""
    environment = {HOSTS: str(directory / "hosts")}
    with running(
        "server", "--specs=specs", "--jobs=tests.host_jobs:factory", *options,
        directory=directory, environment=environment,
    ) as server:  # fmt: skip
        yield server
