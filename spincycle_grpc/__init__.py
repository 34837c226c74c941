"""Spin Cycle for those who import it: the client, the states, the errors, the job SDK and the JSON codec.

`Client` and `AsyncClient` make requests and follow them; `spincycle_grpc.jobs` is for those who
write jobs. The names here are loaded when they are first used, so that importing one module of
this package does not load gRPC for those who do without.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spincycle_grpc.async_client import AsyncClient
    from spincycle_grpc.client import Client
    from spincycle_grpc.errors import (
        CallCancelledError,
        ConflictError,
        DeadlineExceededError,
        FailedPreconditionError,
        InternalError,
        InvalidArgumentError,
        NotFoundError,
        PermissionDeniedError,
        ResourceExhaustedError,
        SpinCycleError,
        Status,
        UnauthenticatedError,
        UnavailableError,
        UnimplementedError,
        UnknownError,
    )
    from spincycle_grpc.state import State

__all__ = [
    "AsyncClient",
    "CallCancelledError",
    "Client",
    "ConflictError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "InternalError",
    "InvalidArgumentError",
    "NotFoundError",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "SpinCycleError",
    "State",
    "Status",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "UnknownError",
]

_MODULES = {"AsyncClient": "async_client", "Client": "client", "State": "state"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
