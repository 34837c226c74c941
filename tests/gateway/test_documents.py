"""The documents that both servers serve: the contracts as a zip and as a descriptor set."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from spincycle_grpc import contracts
from tests.e2e.processes import running
from tests.gateway.wire import Answer, Connection, request

PATHS = ["/protos.zip", "/descriptors.binpb", "/openapi.json", "/openapi-3.0.json"]


@pytest.fixture(scope="module", params=["request-manager", "job-runner"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("documents")
    with running("server", "--http=127.0.0.1:0", directory=directory) as server:
        yield server.address(request.param, "http")


def answer_of(address: str, method: str, path: str, *headers: str) -> Answer:
    with Connection(address) as connection:
        connection.send(request(method, path, *headers))
        return connection.answer(method)


def test_the_contracts_are_served(address: str) -> None:
    for path, media_type, content in (
        ("/protos.zip", "application/zip", contracts.protos_zip()),
        ("/descriptors.binpb", "application/octet-stream", contracts.descriptor_set()),
    ):
        answer = answer_of(address, "GET", path)
        assert (answer.status, answer.headers["content-type"], answer.body) == (200, media_type, content)


def test_a_client_that_has_a_document_gets_304(address: str) -> None:
    for path in PATHS:
        first = answer_of(address, "GET", path)
        tag = first.headers["etag"]
        for tags in (tag, f'"other", {tag}', tag.removeprefix("W/"), "*"):
            for method in ("GET", "HEAD"):
                answer = answer_of(address, method, path, f"If-None-Match: {tags}")
                assert (answer.status, answer.headers["etag"], answer.body) == (304, tag, b"")
                assert "content-length" not in answer.headers
        again = answer_of(address, "GET", path, 'If-None-Match: "other"')
        assert (again.status, again.body, again.headers["etag"]) == (200, first.body, tag)


def test_documents_have_only_get(address: str) -> None:
    for path in PATHS:
        answer = answer_of(address, "POST", path)
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert answer_of(address, "OPTIONS", path).status == 204
