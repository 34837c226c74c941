"""The OpenAPI 3.1 document of a server, built from its routes and from the comments of the contracts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spincycle_grpc import contracts
from spincycle_grpc.version import API_VERSION
from spincycle_server.gateway.errors import ErrorFormat
from spincycle_server.gateway.openapi_operations import Operations
from spincycle_server.gateway.openapi_responses import HEADERS, Responses, response
from spincycle_server.gateway.openapi_schemas import Schema, Schemas
from spincycle_server.gateway.routes import Route

PATH = "/openapi.json"
"""The path of the document."""

PATH_3_0 = "/openapi-3.0.json"
"""The path of the same document as OpenAPI 3.0."""

PROTOS_PATH = "/protos.zip"
"""The path of the .proto files."""

DESCRIPTORS_PATH = "/descriptors.binpb"
"""The path of the descriptor set of the .proto files."""

_DESCRIPTION = """Keys of JSON objects are case-insensitive. Unknown keys are ignored, and `null` means the
same as a missing key. Every path with GET also answers HEAD. Every path answers OPTIONS with `Allow`, and
other methods with 405 and `Allow`. Malformed HTTP gets 400, a head over 64 KiB gets 431, and a head that
takes too long gets 408. Large answers are compressed for clients that accept gzip, and requests
may be sent with `Content-Encoding: gzip`.

Whole numbers can have 64 bits: JavaScript must read them as BigInt. The times `startedAt` and `finishedAt` of
job logs and running jobs are such numbers, in nanoseconds since the Unix epoch."""

SECURITY_SCHEMES = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of a user or, for methods of servers, the key of the installation.",
    },
    "certificate": {"type": "mutualTLS", "description": "A client certificate of a user or a server."},
}
"""How callers can authenticate. Which schemes a server accepts depends on its configuration."""


def document(routes: Sequence[Route], title: str, error_format: ErrorFormat) -> dict[str, Any]:
    """Returns the document.

    Args:
        routes: The routes of the server.
        title: The title of the document.
        error_format: The format of methods' errors.
    """
    comments = contracts.comments()
    schemas = Schemas(comments)
    operations = Operations(schemas, Responses(schemas, comments, error_format), comments)
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.template, {})[route.http_method.lower()] = operations.of_route(route, routes)
    paths |= _DOCUMENTS
    services = {route.method.descriptor.containing_service for route in routes}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": API_VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, *({name: []} for name in SECURITY_SCHEMES)],
        "tags": [
            {"name": service.name, "description": comments.get(service.full_name, "")}
            for service in sorted(services, key=lambda service: str(service.full_name))
        ],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.components.items())),
            "headers": HEADERS,
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


def _operation(name: str, summary: str, media_type: str, schema: Schema) -> dict[str, Any]:
    responses = {"200": response("OK", {media_type: {"schema": schema}})}
    return {"get": {"operationId": name, "summary": summary, "responses": responses, "security": []}}


_BYTES = {"type": "string", "format": "binary"}
_DOCUMENTS = {
    PATH: _operation("OpenApi", "Returns this document", "application/json", {"type": "object"}),
    PATH_3_0: _operation(
        "OpenApi30", "Returns this document as OpenAPI 3.0", "application/json", {"type": "object"}
    ),
    PROTOS_PATH: _operation(
        "Protos", "Returns the .proto files, and those that they import", "application/zip", _BYTES
    ),
    DESCRIPTORS_PATH: _operation(
        "Descriptors",
        "Returns a google.protobuf.FileDescriptorSet of the .proto files, with imports and comments",
        "application/octet-stream",
        _BYTES,
    ),
}
"""The paths of documents."""
