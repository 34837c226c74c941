"""`spinc`, the command line for users.

Each command has its own module in `commands`, and calls the server only through `Client`.
"""

from __future__ import annotations

from spincycle_grpc.cli.interrupts import exit_on_interrupt

__all__ = ["main"]


def main() -> None:
    """Runs `spinc` with the arguments of the process. `spinc --help` explains the exit status."""
    exit_on_interrupt()  # The imports below take most of the time of the start.
    from spincycle_grpc.cli.app import main as run

    run()
