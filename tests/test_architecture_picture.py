"""The picture of the architecture belongs to its source, and shows the packages that exist."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tools.picture import PICTURE, SOURCE, labels, render, source_hash

SERVER = Path(__file__).resolve().parents[1] / "server" / "spincycle_server"
NOT_SHOWN = {"app", "commands", "config", "workers"}
"""Packages that only put the others together or start processes, and the options, which are read once."""


def test_the_picture_is_made_from_the_committed_source() -> None:
    assert source_hash(SOURCE.read_text()) in PICTURE.read_text(), "run: make picture"


def test_rendering_the_source_gives_the_texts_of_the_picture() -> None:
    if shutil.which("dot") is None:
        if os.environ.get("CI"):
            pytest.fail("Graphviz is not installed")
        pytest.skip("Graphviz is not installed")
    assert labels(render(SOURCE.read_text())) == labels(PICTURE.read_text())


def test_the_picture_shows_every_package_of_the_server() -> None:
    words = {word.strip(",:") for label in labels(PICTURE.read_text()) for word in label.split()}
    packages = {path.parent.name for path in SERVER.glob("*/__init__.py")} - NOT_SHOWN
    assert packages <= words
