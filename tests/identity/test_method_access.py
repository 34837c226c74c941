"""The table of who may call which method."""

from __future__ import annotations

from google.protobuf.descriptor import ServiceDescriptor

from spincycle_grpc.v1 import job_runner_pb2, request_manager_pb2, runner_reports_pb2
from spincycle_server.identity import METHOD_ACCESS, READ_BY_SERVERS, MethodAccess

SERVICES: list[ServiceDescriptor] = [
    service
    for file in (request_manager_pb2, runner_reports_pb2, job_runner_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
]
METHODS = {method.full_name: method for service in SERVICES for method in service.methods}


def test_the_table_has_every_method_and_no_other() -> None:
    assert set(METHOD_ACCESS) == set(METHODS)


def test_only_the_versions_are_public() -> None:
    public = {name for name, access in METHOD_ACCESS.items() if access is MethodAccess.PUBLIC}
    assert public == {name for name in METHODS if name.endswith(".Version")}


def test_users_may_call_no_method_of_runner_reports() -> None:
    reports = {name for name in METHODS if ".RunnerReports." in name}
    assert {METHOD_ACCESS[name] for name in reports} == {MethodAccess.SERVER}


def test_users_may_only_read_from_a_job_runner() -> None:
    runner = {name: METHOD_ACCESS[name] for name in METHODS if ".JobRunner." in name}
    open_to_users = {name for name, access in runner.items() if access is not MethodAccess.SERVER}
    assert open_to_users == {"spincycle.v1.JobRunner.Version", "spincycle.v1.JobRunner.RunningJobs"}
    assert runner["spincycle.v1.JobRunner.RunningJobs"] is MethodAccess.READ


def test_a_method_that_only_reads_has_no_side_effects() -> None:
    no_side_effects = 1
    for name, access in METHOD_ACCESS.items():
        if access is MethodAccess.READ:
            assert METHODS[name].GetOptions().idempotency_level == no_side_effects, name


def test_servers_read_only_methods_that_count_as_reading() -> None:
    assert {METHOD_ACCESS[name] for name in READ_BY_SERVERS} == {MethodAccess.READ}


def test_the_table_cannot_be_changed() -> None:
    assert not hasattr(METHOD_ACCESS, "__setitem__")
