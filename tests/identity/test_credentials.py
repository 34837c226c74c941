"""What a caller presents."""

from __future__ import annotations

import pytest

from spincycle_grpc.errors import UnauthenticatedError
from spincycle_server.identity import Credentials


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("Bearer s3cret", "s3cret"),
        ("bearer s3cret", "s3cret"),
        ("BEARER   s3cret  ", "s3cret"),
        ("Bearer a b", "a b"),
        ("Bearer \xa0s3cret\x85", "\xa0s3cret\x85"),
        ("Bearer", ""),
        ("Bearer ", ""),
        ("Bearers3cret", ""),
        ("Basic s3cret", ""),
        ("s3cret", ""),
        (" Bearer s3cret", ""),
        ("", ""),
    ],
)
def test_the_bearer_token_is_read_from_the_authorization_header(value: str, token: str) -> None:
    assert Credentials({"authorization": value}).bearer_token == token


def test_a_call_without_the_header_has_no_token() -> None:
    assert Credentials().bearer_token == ""
    assert Credentials({"x-authorization": "Bearer s3cret"}).bearer_token == ""


def test_a_repeated_header_is_refused_without_its_values() -> None:
    repeated = Credentials(
        {"authorization": "Bearer s3cret, Bearer 0ther"}, repeated=frozenset({"authorization"})
    )
    with pytest.raises(UnauthenticatedError) as caught:
        repeated.header("authorization")
    assert caught.value.reason == "REPEATED_CREDENTIALS"
    assert caught.value.message == "the header authorization was sent more than once: send it once"
    with pytest.raises(UnauthenticatedError):
        _ = repeated.bearer_token


def test_another_repeated_header_does_no_harm() -> None:
    credentials = Credentials(
        {"authorization": "Bearer s3cret", "accept": "a, b"}, repeated=frozenset({"accept"})
    )
    assert credentials.bearer_token == "s3cret"


def test_credentials_cannot_be_changed() -> None:
    credentials = Credentials({"authorization": "Bearer s3cret"})
    with pytest.raises(AttributeError):
        credentials.peer = "elsewhere"  # type: ignore[misc]
