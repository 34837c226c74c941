"""The recipes of docs/security.md work as they are written, on other ports."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.databases import find_binary
from tests.e2e.processes import REPOSITORY, SPECS, running
from tests.identity.oidc_providers import log_in, real_provider
from tests.limits import COMMAND
from tests.ports import free_port

PAGE = (REPOSITORY / "docs" / "security.md").read_text()
RECIPES = dict(re.findall(r"^## Recipe: (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
PORTS = ("32307", "32308", "32317", "32318")


_MUST_FAIL = r"if \1; then echo 'this was not refused: \1'; exit 1; fi"
"""Bash does not exit because of a command after `!`, even with `set -e`."""


@pytest.fixture(autouse=True)
def programs() -> None:
    """Skips the tests without the programs that the recipes use. In CI, the tests fail instead."""
    for program in ("bash", "curl", "openssl"):
        find_binary(program)


class Recipe:
    """Follows one recipe: runs its commands, and keeps the servers running that it starts.

    Args:
        directory: The directory in which a user follows the recipe.
        stack: Ends the servers.
        replaced: Texts to use instead of texts of the page.
    """

    def __init__(self, directory: Path, stack: contextlib.ExitStack, **replaced: str) -> None:
        self._directory = directory
        self._stack = stack
        ports = _other_ports()
        self._replaced = {**ports, **replaced}
        # For a recipe that relies on the default addresses. A recipe's own addresses come first.
        self._manager = {"SPINCYCLE_SERVER_ADDR": f"127.0.0.1:{ports['32308']}"}
        self._spinc = {"SPINC_ADDR": f"127.0.0.1:{ports['32318']}"}
        (directory / "specs").symlink_to(SPECS)

    def follow(self, recipe: str) -> None:
        """Runs all commands of a recipe, in order."""
        for text, instead in self._replaced.items():
            recipe = recipe.replace(text, instead)
        blocks = re.findall(r"^```sh\n(.*?)^```$", recipe, re.DOTALL | re.MULTILINE)
        assert blocks
        for block in blocks:
            if re.fullmatch(r"spincycle (server|request-manager|job-runner) .*\n", block):
                self._serve(block.split()[1:])
            else:
                self._run(re.sub(r"^! (.*)$", _MUST_FAIL, block, flags=re.MULTILINE))

    def _serve(self, arguments: list[str]) -> None:
        has_address = "addr:" in (self._directory / arguments[1]).read_text()
        environment = {"SPINCYCLE_SPECS_DIR": "", **({} if has_address else self._manager)}
        server = self._stack.enter_context(
            running(*arguments, directory=self._directory, environment=environment)
        )
        server.wait_for("listening")
        if arguments[0] != "request-manager":
            server.wait_for("reporting")

    def _run(self, block: str) -> None:
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=self._directory,
            env={"PATH": path, "HOME": str(self._directory), **self._spinc},
            capture_output=True,
            text=True,
            timeout=COMMAND,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"


def _other_ports() -> dict[str, str]:
    """Returns free ports for the default ports. The gRPC port of a server is its HTTP port plus 10."""
    runner, manager = free_port(), free_port()
    return dict(zip(PORTS, map(str, (runner, manager, runner + 10, manager + 10)), strict=True))


def test_the_page_has_the_recipes() -> None:
    assert set(RECIPES) == {"one machine", "a company with OIDC", "mutual TLS everywhere"}


@pytest.mark.parametrize("name", ["one machine", "mutual TLS everywhere"])
def test_a_recipe_works_as_it_is_written(name: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        Recipe(tmp_path, stack).follow(RECIPES[name])


def test_the_recipe_with_oidc_works_with_a_real_provider(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        issuer = stack.enter_context(real_provider())
        (tmp_path / "ada.jwt").write_text(log_in(issuer, "ada", "spincycle", groups=["platform-team"]))
        (tmp_path / "ada.jwt").chmod(0o600)
        recipe = Recipe(tmp_path, stack, **{"https://login.example.com": issuer})
        recipe.follow(RECIPES["a company with OIDC"])
