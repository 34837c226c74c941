"""The public names of Spin Cycle, for client programs, jobs and plugins.

`Client` and `AsyncClient` create and follow requests. `Job`, `Return` and `JobTypes` are for job
writers, `Caller` is for authentication plugins. All errors derive from `SpinCycleError`.

Each name is loaded on first use, so `import spincycle_grpc` does not load gRPC.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spincycle_grpc.async_client import AsyncClient
    from spincycle_grpc.auth import Authenticator, Authorizer, Caller, PeerCertificate
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
    from spincycle_grpc.jobs import (
        Job,
        JobFactory,
        JobFactoryError,
        JobId,
        JobTypes,
        Return,
        UnknownJobTypeError,
    )
    from spincycle_grpc.state import State
    from spincycle_grpc.tls import tls_credentials
    from spincycle_grpc.trace_context import TraceContext
    from spincycle_grpc.version import API_VERSION, package_version

__all__ = [
    "API_VERSION",
    "AsyncClient",
    "Authenticator",
    "Authorizer",
    "CallCancelledError",
    "Caller",
    "Client",
    "ConflictError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "InternalError",
    "InvalidArgumentError",
    "Job",
    "JobFactory",
    "JobFactoryError",
    "JobId",
    "JobTypes",
    "NotFoundError",
    "PeerCertificate",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "Return",
    "SpinCycleError",
    "State",
    "Status",
    "TraceContext",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "UnknownError",
    "UnknownJobTypeError",
    "package_version",
    "tls_credentials",
]

_MODULES = {
    "API_VERSION": "version",
    "AsyncClient": "async_client",
    "Authenticator": "auth",
    "Authorizer": "auth",
    "Caller": "auth",
    "Client": "client",
    "Job": "jobs",
    "JobFactory": "jobs",
    "JobFactoryError": "jobs",
    "JobId": "jobs",
    "JobTypes": "jobs",
    "PeerCertificate": "auth",
    "Return": "jobs",
    "State": "state",
    "TraceContext": "trace_context",
    "UnknownJobTypeError": "jobs",
    "package_version": "version",
    "tls_credentials": "tls",
}
"""The modules of the public names that are not in `errors`."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
