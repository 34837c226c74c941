"""Programs in Go that tests need. `go install` builds these versions of them into `.build/interop/bin`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.databases import find_binary
from tests.interop.clients import environment
from tests.interop.trees import TREES
from tests.limits import COMMAND

MODULES = {
    "ghz": "github.com/bojand/ghz/cmd/ghz@v0.121.0",
    "grpc-health-probe": "github.com/grpc-ecosystem/grpc-health-probe@v0.4.62",
    "grpcurl": "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4",
    "oapi-codegen": "github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2",
}


def go_tool(name: str) -> Path:
    """Returns the path of a program. Go's build cache makes this quick after the first time."""
    find_binary("go")
    directory = TREES / "bin"
    directory.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["go", "install", MODULES[name]],
        cwd=directory,
        env={**environment(), "GOBIN": str(directory), "GOFLAGS": os.environ.get("GOFLAGS", "")},
        capture_output=True,
        text=True,
        timeout=COMMAND,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory / name
