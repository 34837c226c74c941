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
        REQUEST: Users whom the server knows. The method itself checks the access list of the request's type,
            or whether the caller is an administrator.
        METRICS: Everybody if users are not authenticated. Otherwise users with one of the roles of
            `auth.metrics_roles` or `auth.admin_roles`.
        ADMIN: Users with one of the roles of `auth.admin_roles`.
        SERVER: Other servers of the installation.
    """

    PUBLIC = "public"
    READ = "read"
    REQUEST = "request"
    METRICS = "metrics"
    ADMIN = "admin"
    SERVER = "server"


METHOD_ACCESS: Mapping[str, MethodAccess] = MappingProxyType(
    {
        "spincycle.v1.RequestManager.Version": MethodAccess.PUBLIC,
        "spincycle.v1.RequestManager.CountRequests": MethodAccess.READ,
        "spincycle.v1.RequestManager.Find": MethodAccess.READ,
        "spincycle.v1.RequestManager.FollowOutput": MethodAccess.READ,
        "spincycle.v1.RequestManager.Get": MethodAccess.READ,
        "spincycle.v1.RequestManager.GetJobChain": MethodAccess.READ,
        "spincycle.v1.RequestManager.GetJobLog": MethodAccess.READ,
        "spincycle.v1.RequestManager.GetLog": MethodAccess.READ,
        "spincycle.v1.RequestManager.ListLimits": MethodAccess.READ,
        "spincycle.v1.RequestManager.ListRunners": MethodAccess.READ,
        "spincycle.v1.RequestManager.RequestList": MethodAccess.READ,
        "spincycle.v1.RequestManager.Running": MethodAccess.READ,
        "spincycle.v1.RequestManager.Watch": MethodAccess.READ,
        "spincycle.v1.RequestManager.Approve": MethodAccess.REQUEST,
        "spincycle.v1.RequestManager.Create": MethodAccess.REQUEST,
        "spincycle.v1.RequestManager.GetCaller": MethodAccess.REQUEST,
        "spincycle.v1.RequestManager.GetConfiguration": MethodAccess.ADMIN,
        "spincycle.v1.RequestManager.ListDeliveries": MethodAccess.ADMIN,
        "spincycle.v1.RequestManager.Redeliver": MethodAccess.ADMIN,
        "spincycle.v1.RequestManager.SendTestNotification": MethodAccess.ADMIN,
        "spincycle.v1.RequestManager.ListAuditEvents": MethodAccess.REQUEST,
        "spincycle.v1.RequestManager.Pause": MethodAccess.REQUEST,
        "spincycle.v1.RequestManager.ListApprovals": MethodAccess.REQUEST,
        "spincycle.v1.RequestManager.Plan": MethodAccess.REQUEST,
        "spincycle.v1.RequestManager.Reject": MethodAccess.REQUEST,
        "spincycle.v1.RequestManager.Resume": MethodAccess.REQUEST,
        "spincycle.v1.RequestManager.Retry": MethodAccess.REQUEST,
        "spincycle.v1.RequestManager.Start": MethodAccess.REQUEST,
        "spincycle.v1.RequestManager.Stop": MethodAccess.REQUEST,
        "spincycle.v1.RunnerReports.Report": MethodAccess.SERVER,
        "spincycle.v1.RunnerReports.Finish": MethodAccess.SERVER,
        "spincycle.v1.RunnerReports.Suspend": MethodAccess.SERVER,
        "spincycle.v1.RunnerReports.Progress": MethodAccess.SERVER,
        "spincycle.v1.RunnerReports.RecordLog": MethodAccess.SERVER,
        "spincycle.v1.JobRunner.Version": MethodAccess.PUBLIC,
        "spincycle.v1.JobRunner.RunningJobs": MethodAccess.READ,
        "spincycle.v1.JobRunner.FollowOutput": MethodAccess.SERVER,
        "spincycle.v1.JobRunner.NewJobChain": MethodAccess.SERVER,
        "spincycle.v1.JobRunner.ResumeJobChain": MethodAccess.SERVER,
        "spincycle.v1.JobRunner.StartJobChains": MethodAccess.SERVER,
        "spincycle.v1.JobRunner.StopJobChain": MethodAccess.SERVER,
        "spincycle.v1.JobRunner.PauseJobChain": MethodAccess.SERVER,
        "spincycle.v1.JobRunner.UnpauseJobChain": MethodAccess.SERVER,
        "spincycle.v1.JobRunner.EndApproval": MethodAccess.SERVER,
        "spincycle.v1.JobRunner.WatchCapacity": MethodAccess.SERVER,
        "spincycle.v1.JobRunner.EndLimitWait": MethodAccess.SERVER,
    }
)
"""Who may call each method, by its full name."""

PATH_ACCESS: Mapping[str, MethodAccess] = MappingProxyType(
    {
        "/healthz": MethodAccess.PUBLIC,
        "/readyz": MethodAccess.PUBLIC,
        "/metrics": MethodAccess.METRICS,
    }
)
"""Who may read the pages about a server, by path. They are not methods, and only HTTP has them."""

READ_BY_SERVERS = frozenset({"spincycle.v1.JobRunner.RunningJobs"})
"""The methods for users that other servers also call."""
