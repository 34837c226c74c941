"""Signatures are those of Standard Webhooks."""

from __future__ import annotations

import pytest

from spincycle_server.notifications.signing import key_of, signed_headers

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_a_signature_is_that_of_the_published_example() -> None:
    """The values are those in the tests of the libraries of Standard Webhooks."""
    body = b'{"test": 2432232314}'
    headers = signed_headers([key_of(SECRET)], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_each_key_has_a_signature() -> None:
    one, other = key_of(SECRET), b"k" * 24
    first, second = (signed_headers([key], "e", 1, b"x")["webhook-signature"] for key in (one, other))
    assert signed_headers([one, other], "e", 1, b"x")["webhook-signature"] == f"{first} {second}"


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_c2hvcnQ=", SECRET[6:], "whsec_!!!!", "whsec_" + "A" * 100]
)
def test_other_texts_are_no_secrets_and_are_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="must be whsec_ and 24 to 64 bytes as base64") as refused:
        key_of(secret)
    assert not secret.removeprefix("whsec_") or secret not in str(refused.value)
