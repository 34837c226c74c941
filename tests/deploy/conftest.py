"""The image, built once."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.deploy.images import Image, built_image


@pytest.fixture(scope="package")
def image() -> Iterator[Image]:
    """The image of the container file."""
    if os.getuid():
        message = "only root can make file systems and namespaces"
        if os.environ.get("CI"):
            raise AssertionError(message)
        pytest.skip(message)
    with built_image() as image:
        yield image
