"""Readiness: a server is ready when nothing is missing, and says what is missing first."""

from __future__ import annotations

from spincycle_server.telemetry.health import Readiness, first_problem


def test_a_server_is_starting_until_it_names_its_checks() -> None:
    readiness = Readiness()
    assert readiness.problem == "the server is starting"
    readiness.start()
    assert not readiness.problem


def test_the_first_thing_that_is_missing_is_the_reason() -> None:
    missing = {"database": "", "runners": ""}
    readiness = Readiness()
    readiness.start(lambda: missing["database"], lambda: missing["runners"])
    assert not readiness.problem
    missing["runners"] = "no runner"
    problems = [readiness.problem]
    missing["database"] = "no database"
    problems.append(readiness.problem)
    assert problems == ["no runner", "no database"]


def test_a_process_is_ready_if_all_its_servers_are() -> None:
    ready, starting = Readiness(), Readiness()
    ready.start()
    assert not first_problem([ready])
    assert first_problem([ready, starting]) == "the server is starting"
