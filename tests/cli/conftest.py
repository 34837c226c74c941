"""A fake Request Manager, and `spinc` to call it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
from click.testing import CliRunner, Result

from spincycle_grpc.cli.app import cli
from tests.fake_manager import FakeManager, serving
from tests.limits import COMMAND

Spinc = Callable[..., Result]
Terminal = Callable[..., Any]


@pytest.fixture(autouse=True)
def no_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the developer's own profiles and variables out of the tests."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in [name for name in os.environ if name.startswith("SPINC_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def manager() -> FakeManager:
    return FakeManager()


@pytest.fixture
def address(manager: FakeManager) -> Iterator[str]:
    with serving(manager) as served:
        yield served


@pytest.fixture
def spinc(address: str) -> Spinc:
    """Runs `spinc` in this process, without a terminal."""

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(
            cli, arguments, env={"SPINC_ADDR": address, "TZ": "UTC"}, prog_name="spinc"
        )
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return run


@pytest.fixture
def terminal(address: str) -> Terminal:
    """Runs `spinc` on a terminal."""

    def run(*arguments: str, kind: str = "xterm", columns: int = 120, zone: str = "UTC") -> Any:
        environment = {**os.environ, "SPINC_ADDR": address, "TERM": kind, "TZ": zone}
        environment.pop("COLUMNS", None)
        environment.pop("NO_COLOR", None)
        return pexpect.spawn(
            sys.executable,
            ["-m", "spincycle_grpc.cli", *arguments],
            env=environment,
            encoding="utf-8",
            timeout=COMMAND,
            dimensions=(24, columns),
        )

    return run


def end(child: Any) -> tuple[int, str]:
    """Waits for a program on a terminal to end. Returns its exit status and its last output."""
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus, child.before
