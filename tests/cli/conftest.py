"""A fake Request Manager, and `spinc` to call it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from spincycle_grpc.cli.app import cli
from tests.fake_manager import FakeManager, serving

Spinc = Callable[..., Result]


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
