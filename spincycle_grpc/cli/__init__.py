"""`spinc`, the command line for those who make requests.

Each command has a module of its own in `commands`, and calls the server through `Client` alone.
"""

from __future__ import annotations

from spincycle_grpc.cli.app import main

__all__ = ["main"]
