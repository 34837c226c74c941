"""Who is blamed if a job cannot be created: the caller for wrong args, otherwise the job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from spincycle_grpc.errors import InternalError, InvalidArgumentError
from spincycle_grpc.jobs import Job, Return
from spincycle_server.graph import ChainBuilder
from tests.graph.models import node, sequence, specs

SPECS = specs(sequence("request", node("a", args=["value"]), request=True, required=("value",)))


@dataclass
class Typed(Job):
    value: int

    def run(self, job_data: dict[str, Any]) -> Return:
        return Return()


@dataclass
class Listed(Typed):
    value: list[bool]  # type: ignore[assignment]


class Refusing(Typed):
    def __post_init__(self) -> None:
        if self.value > 9:
            raise InvalidArgumentError("value must be at most 9", reason="TOO_HIGH")


class Faulty(Typed):
    def __post_init__(self) -> None:
        raise ValueError("no such table")


def build(job: type[Job], value: object) -> None:
    ChainBuilder(SPECS, lambda _: job.__new__(job)).build("request", {"value": value}, "")


@pytest.mark.parametrize(
    ("job", "value", "reason", "message"),
    [
        (Typed, "many", "WRONG_TYPE", 'job arg value must be a whole number, not "many"'),
        (Typed, [1], "WRONG_TYPE", "job arg value must be a whole number"),
        (Typed, 1.5, "WRONG_TYPE", "job arg value must be a whole number"),
        (Listed, "x", "WRONG_TYPE", "job arg value must be a list"),
        (Listed, [True, "x"], "WRONG_TYPE", "must be true or false"),
        (Refusing, 10, "TOO_HIGH", "value must be at most 9"),
    ],
)
def test_a_wrong_arg_is_the_fault_of_the_caller(
    job: type[Job], value: object, reason: str, message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match="in seq sequence_request, node a") as caught:
        build(job, value)
    assert caught.value.reason == reason
    assert message in str(caught.value)


def test_another_error_is_the_fault_of_the_job() -> None:
    with pytest.raises(InternalError, match="ValueError: no such table") as caught:
        build(Faulty, 1)
    assert caught.value.reason == "JOB_NOT_CREATED"


def test_a_right_arg_makes_the_job() -> None:
    build(Typed, "3")
    build(Listed, [True, "no"])
    build(Refusing, 9)
