"""Runs `spinc` as `python -m spincycle_grpc.cli`."""

from __future__ import annotations

from spincycle_grpc.cli import main

if __name__ == "__main__":
    main()
