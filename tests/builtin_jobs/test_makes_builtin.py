"""Which job types are built-in: the factory is asked, but only about their names."""

from __future__ import annotations

from spincycle_grpc.jobs import Job, JobId, JobTypes, Return
from spincycle_server.builtin_jobs import BUILTIN_TYPES, builtin_factory, makes_builtin


class Own(Job):
    def run(self, job_data: dict[str, object]) -> Return:
        return Return()


def test_the_builtin_factory_makes_all_builtin_types() -> None:
    assert BUILTIN_TYPES
    assert all(makes_builtin(builtin_factory, one) for one in BUILTIN_TYPES)


def test_a_job_of_a_user_with_the_name_of_a_builtin_type_is_not_builtin() -> None:
    assert not makes_builtin(JobTypes({"noop": Own}), "noop")


def test_a_factory_is_not_asked_about_other_types() -> None:
    asked = []

    def factory(job_id: JobId) -> Job:
        asked.append(job_id.type)
        return builtin_factory(job_id)

    assert not makes_builtin(factory, "drain")
    assert makes_builtin(factory, "sleep")
    assert asked == ["sleep"]
