"""How the interpreter was built, and which one the Makefile takes."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from spincycle_server import python_build

ROOT = Path(__file__).parent.parent
DEBIAN = "'--enable-shared' '--prefix=/usr' '--with-wheel-pkg-dir=/usr/share/python-wheels/'"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("'--prefix=/opt/python' '--enable-optimizations' '--with-lto'", "profile-guided"),
        (DEBIAN, "profile-guided"),
        ("'--prefix=/root/.pyenv/versions/3.11.7' '--enable-shared'", "not profile-guided"),
        ("", "not profile-guided"),
        (None, "not profile-guided"),
    ],
)
def test_the_options_of_the_build_say_whether_profiles_were_used(
    options: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", {"CONFIG_ARGS": options}.get)
    version = ".".join(str(part) for part in sys.version_info[:3])
    assert python_build.python_build() == f"{version}, {expected}"


def _interpreter(folder: Path, *, is_optimized: bool = False, has_venv: bool = True) -> Path:
    """Writes a program that answers the script as an interpreter does."""
    folder.mkdir(parents=True)
    path = folder / "python3.11"
    path.write_text(
        f'#!/bin/sh\ncase "$1" in\n-c) exit {int(not has_venv)};;\n-I) exit {int(not is_optimized)};;\nesac\n'
    )
    path.chmod(0o755)
    return path


def _chosen(programs: Path, *folders: Path) -> str:
    """Returns what the script prints if the PATH has the folders, and no real interpreter."""
    programs.mkdir()
    (programs / "dirname").symlink_to("/usr/bin/dirname")
    done = subprocess.run(
        ["/bin/sh", ROOT / "tools" / "python.sh"],
        env={"PATH": ":".join(map(str, [*folders, programs]))},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_the_first_optimized_interpreter_is_taken(tmp_path: Path) -> None:
    slow = _interpreter(tmp_path / "slow one")
    fast = _interpreter(tmp_path / "fast", is_optimized=True)
    second = _interpreter(tmp_path / "second", is_optimized=True)
    assert _chosen(tmp_path / "programs", slow.parent, fast.parent, second.parent) == str(fast)


def test_an_interpreter_without_virtual_environments_is_not_taken(tmp_path: Path) -> None:
    bare = _interpreter(tmp_path / "bare", is_optimized=True, has_venv=False)
    fast = _interpreter(tmp_path / "fast", is_optimized=True)
    assert _chosen(tmp_path / "programs", tmp_path / "missing", bare.parent, fast.parent) == str(fast)


@pytest.mark.parametrize("names", [("only",), ("first", "second")])
def test_without_an_optimized_interpreter_the_first_one_is_taken(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    found = [_interpreter(tmp_path / name) for name in names]
    assert _chosen(tmp_path / "programs", *(path.parent for path in found)) == str(found[0])


def test_without_any_interpreter_the_name_is_printed(tmp_path: Path) -> None:
    assert _chosen(tmp_path / "programs") == "python3.11"
