"""Pins all dependencies: writes the lock files from pyproject.toml.

requirements.lock has the project with the extra `server`. requirements-otel.lock adds the extra `otel`, for
deploy/. requirements-dev.lock adds `otel` and `dev`. requirements-page.lock has what builds the web page, and
requirements-peers.lock the systems that `make bench-peers` compares. A lock file has the version and the file
hashes of each package. It names no registry, so that an installation uses the registry that its machine is
set up for.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = [
    "--quiet", "--universal", "--python-version=3.11", "--generate-hashes",
    "--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links",
]  # fmt: skip

_SERVERS = ("--extra=server", "--extra=build")
_DEVELOPMENT = (*_SERVERS, "--extra=otel", "--extra=dev")


def _pin(output: str, *sources: str) -> int:
    uv = Path(sys.executable).parent / "uv"
    command = [str(uv), "pip", "compile", *OPTIONS, *sources, "-o", output]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(
        _pin("requirements.lock", "pyproject.toml", *_SERVERS)
        or _pin("requirements-otel.lock", "pyproject.toml", *_SERVERS, "--extra=otel")
        or _pin("requirements-dev.lock", "pyproject.toml", *_DEVELOPMENT)
        or _pin("requirements-page.lock", "--group=pyproject.toml:page")
        or _pin("requirements-peers.lock", "--group=pyproject.toml:peers")
    )
