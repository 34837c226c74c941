"""gRPC gets the settings of a server, and the environment stays as it was."""

from __future__ import annotations

import os

import pytest

from spincycle_server import grpc_settings

OWN = "-event_engine_dns"


def seen_by_grpc(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Returns the environment in which gRPC is started."""
    seen: dict[str, str] = {}
    monkeypatch.setattr("grpc.aio.init_grpc_aio", lambda: seen.update(os.environ))
    grpc_settings.load_grpc()
    return seen


@pytest.mark.parametrize("before", [None, OWN])
def test_the_engine_of_grpc_can_be_chosen_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.setenv("GRPC_VERBOSITY", "DEBUG")
    monkeypatch.delenv("GRPC_ENABLE_FORK_SUPPORT", raising=False)
    if before is None:
        monkeypatch.delenv("GRPC_EXPERIMENTS", raising=False)
    else:
        monkeypatch.setenv("GRPC_EXPERIMENTS", before)
    environment = dict(os.environ)
    seen = seen_by_grpc(monkeypatch)
    assert seen["GRPC_VERBOSITY"] == "NONE"
    assert seen["GRPC_ENABLE_FORK_SUPPORT"] == "0"
    assert seen["GRPC_EXPERIMENTS"] == (before or "-event_engine_client,-event_engine_listener")
    assert dict(os.environ) == environment
