"""The OpenAPI 3.1 document of a server, built from its routes and from the comments of the contracts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from spincycle_grpc.version import API_VERSION
from spincycle_server.gateway.errors import ErrorFormat
from spincycle_server.gateway.openapi_operations import Operations
from spincycle_server.gateway.openapi_responses import HEADERS, Responses, response
from spincycle_server.gateway.openapi_schemas import Schemas
from spincycle_server.gateway.routes import Route

PATH = "/openapi.json"
"""The path of the document."""

_DESCRIPTION = """Keys of JSON objects are case-insensitive. Unknown keys are ignored, and `null` means the
same as a missing key. Every path with GET also answers HEAD. Every path answers OPTIONS with `Allow`, and
other methods with 405 and `Allow`. Malformed HTTP gets 400, a head over 64 KiB gets 431, and a head that
takes too long gets 408. Large answers are compressed for clients that accept gzip, and requests
may be sent with `Content-Encoding: gzip`."""


def document(routes: Sequence[Route], title: str, error_format: ErrorFormat) -> dict[str, Any]:
    """Returns the document.

    Args:
        routes: The routes of the server.
        title: The title of the document.
        error_format: The format of methods' errors.
    """
    comments = _comments()
    schemas = Schemas(comments)
    operations = Operations(schemas, Responses(schemas, comments, error_format), comments)
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.template, {})[route.http_method.lower()] = operations.of_route(route, routes)
    paths[PATH] = {"get": _own_operation()}
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
        "tags": [
            {"name": service.name, "description": comments.get(service.full_name, "")}
            for service in sorted(services, key=lambda service: str(service.full_name))
        ],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.components.items())),
            "headers": HEADERS,
        },
    }


def _own_operation() -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        "operationId": "OpenApi",
        "summary": "Returns this document",
        "responses": {"200": response("OK", content)},
    }


@cache
def _comments() -> Mapping[str, str]:
    text = resources.files("spincycle_grpc.v1").joinpath("comments.json").read_text(encoding="utf-8")
    comments: Mapping[str, str] = json.loads(text)
    return comments
