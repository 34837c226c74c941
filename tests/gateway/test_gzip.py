"""gzip: compressed answers for clients that accept them, and compressed requests, within limits."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from spincycle_server.gateway.content_coding import prefers_gzip
from tests.gateway.conftest import MAX_BODY
from tests.gateway.wire import JSON, Connection, request

LARGE = "/api/v1/request-list"
SMALL = "/version"


@pytest.mark.parametrize(
    ("accept_encoding", "is_preferred"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("br, gzip;q=0.5", True),
        ("gzip;q=1.0, identity; q=0.5, *;q=0", True),
        ("*", True),
        ("*;q=0.1", True),
        ("deflate , gzip ; q=0.001", True),
        ("identity;q=0, gzip", True),
        ("", False),
        ("identity", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("*;q=0", False),
        ("gzip;q=0.5, identity;q=0.9", False),
        ("gzip;q=much", False),
        ("gzipped", False),
        (",;,q=1", False),
    ],
)
def test_which_headers_prefer_gzip(accept_encoding: str, is_preferred: bool) -> None:
    assert prefers_gzip(accept_encoding) == is_preferred


def test_large_answers_are_compressed_if_the_client_prefers_gzip(manager: str) -> None:
    with Connection(manager) as connection:
        connection.send(request("GET", LARGE))
        plain = connection.answer()
        connection.send(request("GET", LARGE, "Accept-Encoding: gzip"))
        compressed = connection.answer()
        connection.send(request("GET", LARGE, "Accept-Encoding: br;q=1", "Accept-Encoding: gzip;q=0.2"))
        twice = connection.answer()
    assert "content-encoding" not in plain.headers
    assert compressed.headers["content-encoding"] == twice.headers["content-encoding"] == "gzip"
    assert {answer.headers["vary"] for answer in (plain, compressed, twice)} == {"Accept-Encoding"}
    assert gzip.decompress(compressed.body) == gzip.decompress(twice.body) == plain.body
    assert len(compressed.body) * 2 < len(plain.body)


def test_other_answers_are_not_compressed(manager: str) -> None:
    with Connection(manager) as connection:
        for path, accepted in ((SMALL, "gzip"), (LARGE, "gzip;q=0"), (LARGE, "br")):
            connection.send(request("GET", path, f"Accept-Encoding: {accepted}"))
            answer = connection.answer()
            assert answer.status == 200
            assert "content-encoding" not in answer.headers


def test_a_very_large_answer_is_compressed_too(manager: str) -> None:
    create = json.dumps({"type": "one-job", "args": {"out": "x" * 900_000}}).encode()
    with Connection(manager) as connection:
        connection.send(request("POST", "/api/v1/requests", JSON, body=create))
        path = connection.answer().headers["location"]
        connection.send(request("GET", path) + request("GET", path, "Accept-Encoding: gzip"))
        plain, compressed = connection.answer(), connection.answer()
    assert len(plain.body) > 900_000 > 20 * len(compressed.body)
    assert gzip.decompress(compressed.body) == plain.body


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", " gzip "])
def test_a_compressed_request_is_accepted(manager: str, coding: str) -> None:
    body = gzip.compress(b'{"type":"nosuch"}')
    with Connection(manager) as connection:
        connection.send(request("POST", "/api/v1/requests", JSON, f"Content-Encoding: {coding}", body=body))
        answer = connection.answer()
        assert "nosuch" in json.loads(answer.body)["message"]


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, gzip", "zstd"])
def test_other_codings_get_415_with_the_supported_coding(manager: str, coding: str) -> None:
    with Connection(manager) as connection:
        connection.send(request("POST", "/api/v1/requests", JSON, f"Content-Encoding: {coding}", body=b"{}"))
        answer = connection.answer()
        assert (answer.status, answer.headers["accept-encoding"]) == (415, "gzip")


@pytest.mark.parametrize(
    "body",
    [b"{}", gzip.compress(b"{}")[:-1], gzip.compress(b"{}")[:12], zlib.compress(b"{}"), b"\x1f\x8b"],
    # gzip writes the time into its header, so names made from the bodies would differ between processes.
    ids=["plain", "last byte missing", "cut short", "zlib", "only a head"],
)
def test_invalid_gzip_gets_400(manager: str, body: bytes) -> None:
    with Connection(manager) as connection:
        connection.send(request("POST", "/api/v1/requests", JSON, "Content-Encoding: gzip", body=body))
        answer = connection.answer()
        assert answer.status == 400
        assert "gzip" in json.loads(answer.body)["message"]


def test_a_request_that_decompresses_beyond_the_limit_gets_413_and_the_connection_stays_open(
    manager: str,
) -> None:
    bomb = gzip.compress(b" " * 100_000_000, compresslevel=9)
    assert len(bomb) < MAX_BODY
    with Connection(manager) as connection:
        for body, status in ((bomb, 413), (gzip.compress(b"{}" + b" " * (MAX_BODY - 2)), 400)):
            connection.send(request("POST", "/api/v1/requests", JSON, "Content-Encoding: gzip", body=body))
            assert connection.answer().status == status
