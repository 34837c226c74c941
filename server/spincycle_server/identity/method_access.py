"""The table of who may call which method. A method without an entry cannot be served."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class MethodAccess(Enum):
    """Who may call a method.

    Attributes:
        PUBLIC: Everybody, also without credentials.
        READ: Users whom the server knows, and other servers of the installation.
        REQUEST: Users whom the server knows. The method itself checks the access list of the request's type.
        ADMIN: Users with one of the roles of `auth.admin_roles`.
        SERVER: Other servers of the installation.
    """

    PUBLIC = "public"
    READ = "read"
    REQUEST = "request"
    ADMIN = "admin"
    SERVER = "server"


METHOD_ACCESS: Mapping[str, MethodAccess] = MappingProxyType(
    {
        f"spincycle.v1.{name}": access
        for access, names in (
            (MethodAccess.PUBLIC, ("RequestManager.Version", "JobRunner.Version")),
            (
                MethodAccess.READ,
                (
                    "RequestManager.Find",
                    "RequestManager.Get",
                    "RequestManager.GetJobChain",
                    "RequestManager.GetJobLog",
                    "RequestManager.GetLog",
                    "RequestManager.RequestList",
                    "RequestManager.Running",
                    "JobRunner.RunningJobs",
                ),
            ),
            (
                MethodAccess.REQUEST,
                (
                    "RequestManager.Create",
                    "RequestManager.Plan",
                    "RequestManager.Start",
                    "RequestManager.Stop",
                ),
            ),
            (
                MethodAccess.SERVER,
                (
                    "RunnerReports.Report",
                    "RunnerReports.Finish",
                    "RunnerReports.Suspend",
                    "RunnerReports.Progress",
                    "RunnerReports.RecordLog",
                    "JobRunner.NewJobChain",
                    "JobRunner.ResumeJobChain",
                    "JobRunner.StartJobChains",
                    "JobRunner.StopJobChain",
                ),
            ),
        )
        for name in names
    }
)
"""Who may call each method, by its full name."""
