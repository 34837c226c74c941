"""`spinc`, the command line for users.

Each command has its own module in `commands`, and calls the server only through `Client`.
"""

from __future__ import annotations

from spincycle_grpc.cli.app import main

__all__ = ["main"]
