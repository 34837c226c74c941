"""The idempotency level of each RPC, which tells every client whether a retry is safe."""

from __future__ import annotations

import importlib
import pkgutil

from google.protobuf.descriptor_pb2 import MethodOptions

from spincycle_grpc import v1

READS = MethodOptions.NO_SIDE_EFFECTS
IDEMPOTENT = MethodOptions.IDEMPOTENT
UNSAFE = MethodOptions.IDEMPOTENCY_UNKNOWN

LEVELS = {
    "RequestManager.Create": UNSAFE,  # unless the call has an idempotency key
    "RequestManager.Plan": READS,
    "RequestManager.Find": READS,
    "RequestManager.Get": READS,
    "RequestManager.Retry": UNSAFE,  # unless the call has an idempotency key
    "RequestManager.Start": UNSAFE,  # A retry fails, because the request is no longer PENDING.
    "RequestManager.Stop": UNSAFE,  # A second stop skips finally nodes.
    "RequestManager.Pause": IDEMPOTENT,
    "RequestManager.Resume": UNSAFE,  # A retry fails, because the request is no longer paused.
    "RequestManager.GetJobChain": READS,
    "RequestManager.GetLog": READS,
    "RequestManager.GetJobLog": READS,
    "RequestManager.RequestList": READS,
    "RequestManager.Running": READS,
    "RequestManager.FollowOutput": READS,
    "RequestManager.Watch": READS,
    "RequestManager.ListAuditEvents": READS,
    "RequestManager.ListDeliveries": READS,
    "RequestManager.Redeliver": UNSAFE,  # A retry fails, because the delivery has not ended.
    "RequestManager.SendTestNotification": UNSAFE,  # A retry sends another test.
    "RequestManager.CountRequests": READS,
    "RequestManager.ListRunners": READS,
    "RequestManager.ListLimits": READS,
    "RequestManager.GetConfiguration": READS,
    "RequestManager.GetCaller": READS,
    "RequestManager.Version": READS,
    "RunnerReports.Report": IDEMPOTENT,
    "RunnerReports.Finish": IDEMPOTENT,
    "RunnerReports.Suspend": UNSAFE,  # A retry would suspend a request that was resumed meanwhile.
    "RunnerReports.Progress": IDEMPOTENT,
    "RunnerReports.RecordLog": IDEMPOTENT,
    "JobRunner.NewJobChain": IDEMPOTENT,
    "JobRunner.ResumeJobChain": IDEMPOTENT,
    "JobRunner.StartJobChains": IDEMPOTENT,
    "JobRunner.StopJobChain": IDEMPOTENT,
    "JobRunner.PauseJobChain": IDEMPOTENT,
    "JobRunner.UnpauseJobChain": IDEMPOTENT,
    "JobRunner.EndApproval": IDEMPOTENT,
    "JobRunner.EndLimitWait": IDEMPOTENT,
    "RequestManager.Approve": IDEMPOTENT,
    "RequestManager.Reject": IDEMPOTENT,
    "RequestManager.ListApprovals": READS,
    "JobRunner.RunningJobs": READS,
    "JobRunner.FollowOutput": READS,
    "JobRunner.WatchCapacity": READS,
    "JobRunner.Version": READS,
}


def test_each_rpc_has_its_idempotency_level() -> None:
    modules = [
        importlib.import_module(f"{v1.__name__}.{found.name}") for found in pkgutil.iter_modules(v1.__path__)
    ]
    declared = {
        f"{service.name}.{method.name}": method.GetOptions().idempotency_level
        for module in modules
        if module.__name__.endswith("_pb2")
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert declared == LEVELS
