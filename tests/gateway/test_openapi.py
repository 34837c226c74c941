"""The OpenAPI documents are valid and complete, and they describe the JSON that is sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from google.api import annotations_pb2
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator

from spincycle_grpc.v1 import job_runner_pb2, request_manager_pb2, runner_reports_pb2
from spincycle_grpc.v1.state_pb2 import State
from spincycle_grpc.version import API_VERSION
from tests.e2e.processes import running
from tests.gateway.wire import JSON, Connection, request

METHODS = {"get", "put", "post", "delete", "patch"}
DOCUMENTS = ("GET /openapi.json", "GET /openapi-3.0.json", "GET /protos.zip", "GET /descriptors.binpb")


@pytest.fixture(scope="module")
def all_documents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    found = {}
    with running("server", "--http=127.0.0.1:0", directory=tmp_path_factory.mktemp("documents")) as server:
        for name in ("request-manager", "job-runner"):
            with Connection(server.address(name, "http")) as connection:
                for path, key in (("/openapi.json", name), ("/openapi-3.0.json", f"{name} 3.0")):
                    connection.send(request("GET", path))
                    answer = connection.answer()
                    assert (answer.status, answer.headers["content-type"]) == (
                        200,
                        "application/json; charset=UTF-8",
                    )
                    found[key] = json.loads(answer.body)
        yield found


@pytest.fixture(scope="module")
def documents(all_documents: dict[str, Any]) -> dict[str, Any]:
    """The 3.1 documents by server."""
    return {name: document for name, document in all_documents.items() if " " not in name}


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the operations by method and path."""
    return {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


@pytest.mark.parametrize("name", ["request-manager", "job-runner"])
def test_a_document_is_valid(documents: dict[str, Any], name: str) -> None:
    document = documents[name]
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["version"] == API_VERSION
    ids = [operation["operationId"] for operation in operations(document).values()]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", ["request-manager", "job-runner"])
def test_openapi_3_0_describes_the_same(all_documents: dict[str, Any], name: str) -> None:
    document, newer = all_documents[f"{name} 3.0"], all_documents[name]
    OpenAPIV30SpecValidator(document).validate()
    assert document["openapi"] == "3.0.3"
    assert set(operations(document)) == set(operations(newer))
    assert set(document["components"]["schemas"]) == set(newer["components"]["schemas"])
    assert document["components"]["securitySchemes"].keys() == {"token"}
    assert document["security"] == [{}, {"token": []}]
    for schema in parts_of(document):
        assert schema.get("type") != "null"
        assert not isinstance(schema.get("type"), list)
        assert not {"const", "contentEncoding"} & set(schema)
        assert "$ref" not in schema or len(schema) == 1


def test_what_may_be_null_is_nullable_in_openapi_3_0(all_documents: dict[str, Any]) -> None:
    schemas = all_documents["request-manager 3.0"]["components"]["schemas"]
    started = schemas["Request"]["properties"]["startedAt"]
    assert (started["type"], started["nullable"], started["format"]) == ("string", True, "date-time")
    state = schemas["FinishRequest"]["properties"]["state"]
    assert (state["allOf"], state["nullable"]) == ([{"$ref": "#/components/schemas/State"}], True)
    assert schemas["Job"]["properties"]["bytes"]["format"] == "byte"


def parts_of(value: Any) -> Iterator[dict[str, Any]]:
    """Yields all objects of a document."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from parts_of(part)


def test_answers_may_get_further_fields_and_are_never_only_null(documents: dict[str, Any]) -> None:
    for document in documents.values():
        for part in parts_of(document):
            assert part.get("additionalProperties") is not False
            assert part.get("schema") != {"type": "null"}


def test_fields_that_a_call_needs_are_required(documents: dict[str, Any]) -> None:
    schemas = documents["request-manager"]["components"]["schemas"]
    for name in ("CreateRequest", "PlanRequest"):
        assert schemas[name]["required"] == ["Type"]
        assert schemas[name]["properties"]["Type"]["type"] == "string"
        assert schemas[name]["properties"]["Type"]["minLength"] == 1


def test_all_operations_except_public_ones_name_how_callers_authenticate(documents: dict[str, Any]) -> None:
    for document in documents.values():
        assert document["security"] == [{}, {"token": []}, {"certificate": []}]
        assert set(document["components"]["securitySchemes"]) == {"token", "certificate"}
        for path, operation in operations(document).items():
            assert ("security" in operation) == (path in (*DOCUMENTS, "GET /version")), path
            assert operation.get("security", []) == []


def test_each_server_has_its_own_routes(documents: dict[str, Any]) -> None:
    assert set(operations(documents["request-manager"])) == {
        "GET /api/v1/approvals",
        "GET /api/v1/audit",
        "GET /api/v1/caller",
        "GET /api/v1/configuration",
        "GET /api/v1/limits",
        "GET /api/v1/notifications",
        "GET /api/v1/request-counts",
        "GET /api/v1/runners",
        "GET /api/v1/request-list",
        "GET /api/v1/requests",
        "GET /api/v1/requests/{request_id}",
        "GET /api/v1/requests/{request_id}/job-chain",
        "GET /api/v1/requests/{request_id}/log",
        "GET /api/v1/requests/{request_id}/log/{job_id}",
        "GET /api/v1/requests/{request_id}/log/{job_id}/output",
        "GET /api/v1/requests/{request_id}/watch",
        "GET /api/v1/status/running",
        "GET /api/v1/watch",
        "GET /descriptors.binpb",
        "GET /openapi-3.0.json",
        "GET /openapi.json",
        "GET /protos.zip",
        "GET /version",
        "POST /api/v1/requests",
        "POST /api/v1/requests/plan",
        "POST /api/v1/requests/{request_id}/log",
        "POST /api/v1/requests/{request_id}/retry",
        "POST /api/v1/notifications/targets/{target}/test",
        "PUT /api/v1/notifications/{event_id}/{target}/redeliver",
        "PUT /api/v1/requests/{request_id}/approve",
        "PUT /api/v1/requests/{request_id}/finish",
        "PUT /api/v1/requests/{request_id}/pause",
        "PUT /api/v1/requests/{request_id}/progress",
        "PUT /api/v1/requests/{request_id}/reject",
        "PUT /api/v1/requests/{request_id}/resume",
        "PUT /api/v1/requests/{request_id}/start",
        "PUT /api/v1/requests/{request_id}/stop",
        "PUT /api/v1/requests/{request_id}/suspend",
    }
    assert set(operations(documents["job-runner"])) == {
        "GET /api/v1/status/running",
        "GET /descriptors.binpb",
        "GET /openapi-3.0.json",
        "GET /openapi.json",
        "GET /protos.zip",
        "GET /version",
        "POST /api/v1/job-chains",
        "POST /api/v1/job-chains/resume",
        "PUT /api/v1/job-chains/{request_id}/stop",
    }


def test_the_document_has_every_method_with_a_route(documents: dict[str, Any]) -> None:
    described = {
        operation["operationId"]
        for document in documents.values()
        for operation in operations(document).values()
    }
    methods = {
        f"{service.name}_{method.name}"
        for file in (request_manager_pb2, runner_reports_pb2, job_runner_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if method.GetOptions().HasExtension(annotations_pb2.http)
    }
    assert described == methods | {"RequestManager_Watch2"} | {
        "Descriptors",
        "OpenApi",
        "OpenApi30",
        "Protos",
    }


def test_a_stream_is_described_as_events(documents: dict[str, Any]) -> None:
    paths = documents["request-manager"]["paths"]
    for path in ("/api/v1/requests/{request_id}/watch", "/api/v1/watch"):
        watch = paths[path]["get"]
        assert watch["responses"]["200"]["content"] == {
            "text/event-stream": {"schema": {"$ref": "#/components/schemas/WatchResponse"}}
        }
        assert "content" not in watch["responses"]["204"]
        assert "406" in watch["responses"]
        assert "Last-Event-ID" in [parameter["name"] for parameter in watch["parameters"]]
    of_one = operations(documents["request-manager"])["GET /api/v1/requests/{request_id}/watch"]["parameters"]
    assert [parameter["name"] for parameter in of_one] == ["request_id", "cursor", "Last-Event-ID"]


def test_everything_has_a_description(documents: dict[str, Any]) -> None:
    for document in documents.values():
        for name, schema in document["components"]["schemas"].items():
            assert schema["description"], name
            for key, part in schema.get("properties", {}).items():
                assert part.get("description") or name == "Message", f"{name}.{key}"
        for operation in operations(document).values():
            assert operation["summary"]
            for parameter in operation.get("parameters", ()):
                assert parameter["description"]


def test_schemas_describe_the_json_that_is_sent(documents: dict[str, Any]) -> None:
    schemas = documents["request-manager"]["components"]["schemas"]
    made = schemas["Request"]["properties"]
    assert schemas["State"]["enum"] == list(State.values())
    assert made["state"]["$ref"] == "#/components/schemas/State"
    assert made["startedAt"]["type"] == ["string", "null"]
    assert made["createdAt"]["format"] == "date-time"
    assert {"JobChain", "jrURL"} <= set(made)
    assert not {"args", "JobChain", "jrURL"} & set(schemas["Request"]["required"])
    assert {"startedAt", "finishedAt", "totalJobs"} <= set(schemas["Request"]["required"])
    assert made["totalJobs"]["maximum"] == 2**64 - 1
    assert set(schemas["RequestArg"]["properties"]) == {
        "Pos", "Name", "Desc", "Type", "Given", "Default", "Value",
    }  # fmt: skip
    assert schemas["ArgType"]["enum"] == ["", "required", "optional", "static"]
    assert schemas["Job"]["properties"]["bytes"]["contentEncoding"] == "base64"
    assert set(schemas["Error"]["properties"]) == {"message", "requestId", "httpStatus"}
    assert schemas["JobChain"]["properties"]["adjacencyList"]["additionalProperties"] == {
        "type": "array",
        "items": {"type": "string"},
    }
    assert set(schemas["CreateRequest"]["properties"]) == {"Type", "Args", "User", "StrictArgs"}
    assert "required" not in schemas["JobLogInput"]
    assert "null" in schemas["JobLogInput"]["properties"]["stdout"]["type"]


def test_answers_have_headers_and_errors(documents: dict[str, Any]) -> None:
    for name, document in documents.items():
        for path, operation in operations(document).items():
            for status, response in operation["responses"].items():
                assert "X-Spincycle-Version" in response["headers"], path
                assert ("Retry-After" in response["headers"]) == (status in ("429", "503"))
                assert ("WWW-Authenticate" in response["headers"]) == (status == "401")
            if path not in DOCUMENTS:
                assert {"429", "500", "503", "504"} <= set(operation["responses"])
            if "requestBody" in operation:
                assert {"400", "408", "413", "415"} <= set(operation["responses"])
            is_public = path in (*DOCUMENTS, "GET /version", "GET /api/v1/version")
            assert ("401" in operation["responses"]) != is_public, f"{name}: {path}"
    manager, runner = (operations(documents[name]) for name in ("request-manager", "job-runner"))
    created = manager["POST /api/v1/requests"]["responses"]["201"]
    assert "Location" in created["headers"]
    assert created["links"]["Stop"]["operationId"] == "RequestManager_Stop"
    assert "409" in manager["PUT /api/v1/requests/{request_id}/stop"]["responses"]
    assert "404" in manager["GET /api/v1/requests/{request_id}/log"]["responses"]
    assert "404" not in manager["GET /api/v1/requests"]["responses"]
    assert "409" in runner["POST /api/v1/job-chains"]["responses"]
    assert "403" in manager["POST /api/v1/requests/plan"]["responses"]
    assert "403" not in manager["POST /api/v1/requests"]["responses"]
    assert not any("403" in operation["responses"] for operation in runner.values())
    assert runner["PUT /api/v1/job-chains/{request_id}/stop"]["responses"]["404"]["content"] == {
        "application/json": {"schema": {"$ref": "#/components/schemas/Message"}}
    }
    assert "content" not in manager["PUT /api/v1/requests/{request_id}/stop"]["responses"]["200"]


def test_query_parameters(documents: dict[str, Any]) -> None:
    found = operations(documents["request-manager"])["GET /api/v1/requests"]["parameters"]
    schemas = {parameter["name"]: parameter["schema"] for parameter in found}
    assert list(schemas) == [
        *("type", "state", "user", "since", "until", "limit", "offset", "arg"),
        *("pageSize", "pageToken"),
    ]
    assert schemas["state"]["items"]["enum"][1:4] == ["PENDING", "RUNNING", "COMPLETE"]
    assert schemas["since"] == {"type": "string", "format": "date-time"}
    assert schemas["arg"] == {"type": "array", "items": {"type": "string"}}
    assert schemas["limit"]["minimum"] == 0
    of_get = operations(documents["request-manager"])["GET /api/v1/requests/{request_id}"]["parameters"]
    by_name = {parameter["name"]: parameter for parameter in of_get}
    assert by_name["view"]["schema"]["enum"] == ["UNKNOWN", "BASIC", "FULL"]
    assert [name for name, one in by_name.items() if one.get("deprecated")] == ["omitJobChain"]


def test_responses_in_pages_have_the_token_of_the_next_page(documents: dict[str, Any]) -> None:
    by_path = operations(documents["request-manager"])
    paged = {
        path
        for path, operation in by_path.items()
        if "X-Spincycle-Next-Page-Token" in operation["responses"].get("200", {}).get("headers", {})
    }
    requests = "GET /api/v1/requests"
    of_one = {f"{requests}/{{request_id}}/job-chain", f"{requests}/{{request_id}}/log"}
    assert paged == {requests, *of_one, "GET /api/v1/limits", "GET /api/v1/runners"}


@pytest.mark.parametrize(
    "key",
    ["k", "~", "a b", "a  ", "!" + " " * 254, "k" * 255, "", "k" * 256, "\xe9", "a\tb", "a\x7f"],
    ids=lambda key: f"{len(key)} {key[:3]!r}",
)
def test_the_server_accepts_the_idempotency_keys_that_the_document_allows(
    documents: dict[str, Any], manager: str, key: str
) -> None:
    parameters = operations(documents["request-manager"])["POST /api/v1/requests"]["parameters"]
    (schema,) = [one["schema"] for one in parameters if one["name"] == "Idempotency-Key"]
    assert set(schema) == {"type", "minLength", "maxLength", "pattern"}
    is_described = (
        schema["minLength"] <= len(key) <= schema["maxLength"]
        and re.search(schema["pattern"], key) is not None
    )
    with Connection(manager) as connection:
        body = b'{"type": "diamond"}'
        connection.send(request("POST", "/api/v1/requests", JSON, f"Idempotency-Key: {key}", body=body))
        assert connection.answer().status == (201 if is_described else 400)


def test_bodies_are_required(documents: dict[str, Any]) -> None:
    with_body = [
        operation
        for document in documents.values()
        for operation in operations(document).values()
        if "requestBody" in operation
    ]
    assert len(with_body) == 11
    assert all(operation["requestBody"]["required"] is True for operation in with_body)


def test_a_call_without_its_body_is_refused(documents: dict[str, Any], manager: str) -> None:
    for path, operation in operations(documents["request-manager"]).items():
        if "requestBody" not in operation:
            continue
        method, template = path.split()
        # An empty body is a message without fields, and these need none. Nobody can approve, because the
        # server does not authenticate users.
        empty = {"retry": 404, "approve": 409, "reject": 409}.get(template.rpartition("/")[2], 400)
        with Connection(manager) as connection:
            for headers, status in (((), 415), ((JSON, "Content-Length: 0"), empty)):
                connection.send(request(method, template.format(request_id="nosuch"), *headers))
                assert connection.answer().status == status, path
