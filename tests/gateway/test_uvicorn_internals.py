"""The server starts only with a uvicorn that it knows, and only one module depends on uvicorn's internals."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import tomllib
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from spincycle_grpc.errors import UnavailableError
from spincycle_server.gateway import uvicorn_internals
from spincycle_server.gateway.http_limits import HttpLimits
from spincycle_server.gateway.http_server import HttpServer
from spincycle_server.gateway.refusals import EarlyRefusals, UsersCalls
from spincycle_server.gateway.uvicorn_internals import SHARED_ATTRIBUTES, UvicornConnection
from spincycle_server.listening import Address

REPOSITORY = Path(__file__).parents[2]
GATEWAY = Path(uvicorn_internals.__file__).parent
SERIES = uvicorn_internals.KNOWN_VERSION.rpartition(".")[0]
PARSER_CALLBACKS = {name for name in dir(HttpToolsProtocol) if name.startswith("on_")} - {
    "on_response_complete"
}


async def start_and_stop() -> None:
    refusals = EarlyRefusals(lambda: False, UsersCalls((), (), ()), b"", lambda: None)
    server = HttpServer(None, Address("127.0.0.1", 0), None, HttpLimits(), refusals)
    try:
        await server.start()
    finally:
        await server.stop(1)


def test_the_lock_file_names_the_known_version() -> None:
    """Before you lock a new version, read how it defines the names that `uvicorn_internals` uses."""
    lock = (REPOSITORY / "requirements.lock").read_text()
    assert f"\nuvicorn=={uvicorn_internals.KNOWN_VERSION} " in lock


def test_an_installation_gets_a_known_version() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"].get("server", ())]
    minor = int(SERIES.rpartition(".")[2])
    assert f"uvicorn>={SERIES},<0.{minor + 1}" in requirements


@pytest.mark.parametrize("version", [f"{SERIES}.0", f"{SERIES}.99"])
async def test_the_server_starts_with_patch_releases_of_the_known_version(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn, "__version__", version)
    await start_and_stop()


@pytest.mark.parametrize("version", ["0.53.0", "0.55.0", "1.54.0"])
async def test_the_server_refuses_to_start_with_another_version(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn, "__version__", version)
    with pytest.raises(UnavailableError) as caught:
        await start_and_stop()
    assert caught.value.reason == "UNKNOWN_UVICORN"
    assert caught.value.message == (
        f"the installed uvicorn {version} is not supported, because it is not a release of {SERIES}: "
        f"run pip install uvicorn=={uvicorn_internals.KNOWN_VERSION}"
    )


async def test_the_server_refuses_to_start_if_a_private_name_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(httptools_impl.HttpToolsProtocol, "timeout_keep_alive_handler")
    with pytest.raises(
        UnavailableError, match=r"lacks HttpToolsProtocol.timeout_keep_alive_handler"
    ) as caught:
        await start_and_stop()
    assert caught.value.reason == "UNKNOWN_UVICORN"


def import_anew() -> None:
    """Executes the module that uses uvicorn's internals again, under another name."""
    spec = importlib.util.spec_from_file_location("uvicorn_internals_again", uvicorn_internals.__file__)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_another_version_is_refused_before_its_internals_are_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uvicorn, "__version__", "0.99.0")
    monkeypatch.delattr(httptools_impl, "STATUS_LINE")
    with pytest.raises(UnavailableError, match="is not a release of") as caught:
        import_anew()
    assert caught.value.reason == "UNKNOWN_UVICORN"


def test_a_missing_name_of_a_module_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(httptools_impl, "STATUS_LINE")
    with pytest.raises(UnavailableError, match="STATUS_LINE") as caught:
        import_anew()
    assert caught.value.reason == "UNKNOWN_UVICORN"


def test_only_one_module_imports_the_internals_of_uvicorn() -> None:
    importing = {
        path.name
        for path in GATEWAY.parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "uvicorn"
    }
    assert importing == {"uvicorn_internals.py"}


async def test_no_other_module_uses_private_attributes_of_uvicorn() -> None:
    config = uvicorn.Config(app=None)  # type: ignore[arg-type]
    parameters: Any = dict.fromkeys(RequestResponseCycle.__init__.__code__.co_varnames[1:13])
    protocol = HttpToolsProtocol(config, ServerState(), {}, asyncio.get_running_loop())
    private = {*dir(protocol), *dir(RequestResponseCycle(**parameters))}
    private -= {*dir(asyncio.Protocol), *vars(UvicornConnection), *SHARED_ATTRIBUTES, *PARSER_CALLBACKS}
    assert {"cycle", "flow", "pipeline", "response_complete", "server_state"} <= private
    used = {
        node.attr
        for node in ast.walk(ast.parse((GATEWAY / "http_protocol.py").read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert "parser" in used
    assert not used & private - vars(asyncio.Transport).keys()
