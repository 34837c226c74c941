"""The job from which a chain runs again: by id, by name, or by the end of its path."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.job_paths import SEPARATOR, connects, path_of, sequence_path_of
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_server.chain import job_called
from spincycle_server.graph import ChainBuilder
from tests.chain.test_retrying import a_chain
from tests.graph.generated import Written, written_requests
from tests.graph.job_types import factory
from tests.graph.models import node, sequence, specs

MOST_JOBS = 60


def refusal(chain: JobChain, name: str) -> InvalidArgumentError:
    with pytest.raises(InvalidArgumentError) as refused:
        job_called(chain, name)
    return refused.value


def over_hosts(*hosts: str) -> JobChain:
    restart = node("restart-hosts", "sequence", "restart-host", each=["hosts:host"])
    ping = node("ping", each=["hosts:target"])
    built = ChainBuilder(
        specs(
            sequence("restart", restart, ping, request=True, required=["hosts"]),
            sequence("restart-host", node("drain"), node("check", deps=["drain"]), required=["host"]),
        ),
        factory,
    ).build("restart", {"hosts": list(hosts)}, "r")
    return built.job_chain


def path_called(chain: JobChain, name: str) -> tuple[str, ...]:
    """Returns the path of what has a name."""
    job_id = job_called(chain, name)
    return path_of(chain, job_id) or sequence_path_of(chain, job_id)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("host web7", ("restart", "host web7")),
        ("restart / host web7", ("restart", "host web7")),
        ("host web7 / drain", ("restart", "host web7", "drain")),
        ("restart / host web1 / check", ("restart", "host web1", "check")),
        ("target web7", ("restart", "target web7", "ping")),
        ("target web1 / ping", ("restart", "target web1", "ping")),
        ("restart", ("restart",)),
    ],
)
def test_a_job_or_a_sequence_is_found_by_the_end_of_its_path(name: str, path: tuple[str, ...]) -> None:
    assert path_called(over_hosts("web1", "web7"), name) == path


@pytest.mark.parametrize(
    "name", ["host web", "eb7", "web7", "host web7 / ", "/ drain", "noop", "host web7 / noop"]
)
def test_a_part_of_a_name_is_not_enough(name: str) -> None:
    assert refusal(over_hosts("web1", "web7"), name).reason == "NO_SUCH_JOB"


def test_an_ambiguous_name_is_refused_with_some_paths_and_ids() -> None:
    chain = over_hosts(*(f"web{number}" for number in range(10, 30)))
    error = refusal(chain, "drain")
    assert error.reason == "AMBIGUOUS_JOB"
    assert error.message.startswith("20 jobs or sequences have the name 'drain'")
    assert "'restart / host web14 / drain' (id " in error.message
    assert "web15" not in error.message
    named = error.message.split("'restart / host web10 / drain' (id ")[1][:4]
    assert path_of(chain, job_called(chain, named)) == ("restart", "host web10", "drain")


def test_errors_are_short_and_have_no_control_characters() -> None:
    chain = over_hosts("\n" * 90, "\x1b" * 90)
    error = refusal(chain, "check")
    assert len(error.message) < 2000
    assert error.message.isprintable()
    assert len(refusal(chain, "x" * 10_000).message) < 500


def test_a_job_of_a_plain_chain_is_named_by_its_id_or_by_a_name_of_its_own() -> None:
    assert job_called(a_chain(), "cccc") == "cccc"
    assert job_called(a_chain(), "check") == "cccc"
    assert refusal(a_chain(), "restart").reason == "NO_SUCH_JOB"


def test_the_beginning_of_an_id_is_enough_if_no_path_ends_so_and_no_other_id_begins_so() -> None:
    chain = a_chain()
    assert job_called(chain, "cc") == "cccc"
    assert refusal(chain, "c").reason == "NO_SUCH_JOB"
    chain.jobs["ccdd"].CopyFrom(chain.jobs["cccc"])
    chain.jobs["ccdd"].id = "ccdd"
    error = refusal(chain, "cc")
    assert error.reason == "AMBIGUOUS_JOB"
    assert "an id that begins with 'cc'" in error.message
    assert "(id cccc)" in error.message
    chain.jobs["bbbb"].name = "cc"
    assert job_called(chain, "cc") == "bbbb"


def test_a_name_that_several_jobs_of_a_plain_chain_have_is_refused_with_their_ids() -> None:
    chain = a_chain()
    chain.jobs["bbbb"].name = "check"
    error = refusal(chain, "check")
    assert error.reason == "AMBIGUOUS_JOB"
    assert "'check' (id bbbb), 'check' (id cccc)" in error.message


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50)
@given(written_requests())
def test_every_end_of_every_path_names_what_it_belongs_to(written: Written) -> None:
    chain = ChainBuilder(written.specs, factory).build("request", written.given, "r").job_chain
    if len(chain.jobs) > MOST_JOBS:
        return
    paths: list[tuple[str, tuple[str, ...]]] = []
    for job_id, job in chain.jobs.items():
        if not connects(job):
            paths.append((job_id, path_of(chain, job_id) or (job.name,)))
        if job_id in chain.path_labels:
            paths.append((job_id, sequence_path_of(chain, job_id)))
    for _, path in paths:
        for start in range(len(path)):
            name = SEPARATOR.join(path[start:])
            having = {job_id for job_id, other in paths if other[-len(path[start:]) :] == path[start:]}
            if len(having) == 1:
                assert job_called(chain, name) in having
            else:
                assert refusal(chain, name).reason == "AMBIGUOUS_JOB"
