"""Changed requests match a filter as finds do."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.request_pb2 import Request, RequestFilter
from spincycle_server.store.schema import MAX_ARG_VALUE
from spincycle_server.watch.filters import MAX_LIMIT, Matching

RUNNING = Request(id="1", type="nap", user="ann", created_at=Timestamp(seconds=100))
ENDED = Request(
    id="2", type="nap", user="ann", created_at=Timestamp(seconds=100), finished_at=Timestamp(seconds=200)
)


@pytest.mark.parametrize(
    ("wanted", "request_", "matches"),
    [
        (RequestFilter(), RUNNING, True),
        (RequestFilter(type="nap", user="ann"), RUNNING, True),
        (RequestFilter(type="other"), RUNNING, False),
        (RequestFilter(user="bob"), RUNNING, False),
        (RequestFilter(states=[state_pb2.STATE_FAIL], limit=5), RUNNING, True),
        (RequestFilter(until=Timestamp(seconds=101)), RUNNING, True),
        (RequestFilter(until=Timestamp(seconds=100)), RUNNING, False),
        (RequestFilter(since=Timestamp(seconds=300)), RUNNING, True),
        (RequestFilter(since=Timestamp(seconds=199)), ENDED, True),
        (RequestFilter(since=Timestamp(seconds=200)), ENDED, False),
    ],
)
def test_the_fields_of_a_filter(wanted: RequestFilter, request_: Request, matches: bool) -> None:
    assert Matching(wanted).matches(request_, {}) is matches


def test_all_args_must_match_as_the_database_stores_them() -> None:
    long = "x" * (MAX_ARG_VALUE + 10)
    matching = Matching(RequestFilter(args=["host=db1", f"text={long}"]))
    assert matching.args == {"host": "db1", "text": long[:MAX_ARG_VALUE]}
    assert matching.matches(RUNNING, {"host": "db1", "text": long[:MAX_ARG_VALUE]})
    assert not matching.matches(RUNNING, {"host": "db1"})
    assert not matching.matches(RUNNING, {})


def test_no_request_has_two_values_of_an_arg() -> None:
    matching = Matching(RequestFilter(args=["host=db1", "host=db2"]))
    assert not matching.matches(RUNNING, {"host": "db1"})
    assert not matching.matches(RUNNING, {"host": "db2"})


def test_a_deleted_request_may_have_matched_by_type_and_user() -> None:
    matching = Matching(RequestFilter(type="nap", user="ann", args=["host=db1"]))
    assert matching.may_match("nap", "ann")
    assert not matching.may_match("other", "ann")
    assert not matching.may_match("nap", "bob")


@pytest.mark.parametrize(
    "wanted",
    [
        RequestFilter(offset=1, limit=1),
        RequestFilter(limit=MAX_LIMIT + 1),
        RequestFilter(args=["=x"]),
        RequestFilter(since=Timestamp(seconds=2**40)),
    ],
)
def test_a_malformed_filter_is_refused(wanted: RequestFilter) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Matching(wanted)
    assert caught.value.reason == "BAD_FILTER"
