"""The names that the package exports, and what importing them loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

import spincycle_grpc
from spincycle_grpc import errors


def modules_after(program: str) -> set[str]:
    """Returns the names of the modules that a new interpreter has loaded after a program."""
    listing = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(listing.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import spincycle_grpc",
        "from spincycle_grpc import Caller, Job, JobTypes, NotFoundError, Return, State",
        "import spincycle_grpc.cli",
        "import spincycle_grpc.errors",
        "import spincycle_grpc.jobs",
        "import spincycle_grpc.state",
        "import spincycle_grpc.wire",
    ],
)
def test_only_the_clients_load_grpc(statement: str) -> None:
    assert "grpc" not in modules_after(statement)


def test_every_public_name_can_be_imported() -> None:
    for name in spincycle_grpc.__all__:
        assert getattr(spincycle_grpc, name) is not None
        assert name in dir(spincycle_grpc)


def test_every_error_is_public() -> None:
    names = {error.__name__ for error in errors.ERROR_CLASSES.values()}
    assert names | {"SpinCycleError"} <= set(spincycle_grpc.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = spincycle_grpc.Nothing
