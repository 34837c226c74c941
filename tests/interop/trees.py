"""Copies of the example clients beside contracts, as in a clone. Their builds stay for the next run."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path

from tests.e2e.processes import REPOSITORY

TREES = REPOSITORY / ".build" / "interop"
CLIENTS = REPOSITORY / "examples" / "clients"

_OUTPUTS = shutil.ignore_patterns("gen", "dist", "node_modules", "target", "__pycache__")


def copy_clone() -> Path:
    """Returns a tree with the contracts of the clone."""
    tree = _tree("clone")
    shutil.copytree(REPOSITORY / "protos", tree / "protos")
    return tree


def unpack_zip(content: bytes) -> Path:
    """Returns a tree with the contracts of a zip."""
    tree = _tree("zip")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(tree / "protos")
    return tree


def _tree(name: str) -> Path:
    tree = TREES / name
    shutil.rmtree(tree / "protos", ignore_errors=True)
    shutil.copytree(CLIENTS, tree / "examples" / "clients", ignore=_OUTPUTS, dirs_exist_ok=True)
    return tree
