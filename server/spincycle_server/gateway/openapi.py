"""The OpenAPI 3.1 document of a server, built from its routes and from the comments of the contracts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from importlib import resources
from typing import Any

from spincycle_grpc.errors import Status
from spincycle_grpc.json_form import json_options
from spincycle_grpc.v1.error_pb2 import Error
from spincycle_grpc.v1.json_pb2 import HTTP_BODY_FORM_EMPTY, HTTP_BODY_FORM_NULL, HTTP_BODY_FORM_TEXT
from spincycle_grpc.version import API_VERSION
from spincycle_server.gateway.errors import FRAMEWORK_STATUSES, ErrorFormat
from spincycle_server.gateway.openapi_schemas import Schema, Schemas
from spincycle_server.gateway.query import enum_names
from spincycle_server.gateway.routes import Route

PATH = "/openapi.json"
"""The path of the document."""

_CODES = re.compile(r"(?<![A-Z_])[A-Z]+(?:_[A-Z]+)+(?![A-Z_])|\b(?:INTERNAL|UNAVAILABLE|UNAUTHENTICATED)\b")
_ALWAYS = (Status.RESOURCE_EXHAUSTED, Status.INTERNAL, Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED)
_OF_BODIES = (408, 413, 415)

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
    return _DocumentBuilder(title, error_format).build(routes)


@cache
def _comments() -> Mapping[str, str]:
    text = resources.files("spincycle_grpc.v1").joinpath("comments.json").read_text(encoding="utf-8")
    comments: Mapping[str, str] = json.loads(text)
    return comments


class _DocumentBuilder:
    def __init__(self, title: str, error_format: ErrorFormat) -> None:
        self._title = title
        self._error_format = error_format
        self._schemas = Schemas(_comments())
        self._schemas.components["Message"] = {
            "type": "object",
            "description": "An error that consists of its message alone.",
            "properties": {"message": {"type": "string"}},
            "required": ["message"],
            "additionalProperties": False,
        }

    def build(self, routes: Sequence[Route]) -> dict[str, Any]:
        paths: dict[str, Any] = {}
        for route in routes:
            paths.setdefault(route.template, {})[route.http_method.lower()] = self._operation(route, routes)
        paths[PATH] = {"get": self._own_operation()}
        services = {route.method.descriptor.containing_service for route in routes}
        return {
            "openapi": "3.1.0",
            "info": {
                "title": self._title,
                "version": API_VERSION,
                "description": _DESCRIPTION,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "tags": [
                {"name": service.name, "description": _comments().get(service.full_name, "")}
                for service in sorted(services, key=lambda service: str(service.full_name))
            ],
            "paths": paths,
            "components": {
                "schemas": dict(sorted(self._schemas.components.items())),
                "headers": _HEADERS,
            },
        }

    def _operation(self, route: Route, routes: Iterable[Route]) -> dict[str, Any]:
        descriptor = route.method.descriptor
        comment = _comments().get(descriptor.full_name, "")
        operation: dict[str, Any] = {
            "operationId": _operation_id(route),
            "summary": comment.partition(".")[0].partition("\n")[0],
            "description": comment,
            "tags": [descriptor.containing_service.name],
            "responses": {str(route.status): self._success(route, routes), **self._errors(route, comment)},
        }
        parameters = [
            *self._path_parameters(route),
            *self._query_parameters(route),
            *self._header_parameters(route),
        ]
        if parameters:
            operation["parameters"] = parameters
        if route.body:
            schema = self._body_schema(route)
            # A request without a body has no Content-Type either, and gets 415.
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        return operation

    def _own_operation(self) -> dict[str, Any]:
        content = {"application/json": {"schema": {"type": "object"}}}
        return {
            "operationId": "OpenApi",
            "summary": "Returns this document",
            "responses": {"200": _response("OK", content)},
        }

    def _path_parameters(self, route: Route) -> Iterable[dict[str, Any]]:
        for name in route.variables:
            field = route.method.descriptor.input_type.fields_by_name[name]
            yield {
                "name": name,
                "in": "path",
                "required": True,
                "description": _comments().get(field.full_name, ""),
                "schema": {"type": "string", "minLength": 1, "pattern": "^[^\\u0000]+$"},
            }

    def _query_parameters(self, route: Route) -> Iterable[dict[str, Any]]:
        for name, field in route.query.fields.items():
            schema = self._schemas.of_field(field, is_read=False)
            if field.enum_type is not None:
                one: Schema = {"type": "string", "enum": list(enum_names(field.enum_type))}
                schema = {"type": "array", "items": one} if field.is_repeated else one
            yield {
                "name": name,
                "in": "query",
                "allowEmptyValue": True,
                "description": _comments().get(field.full_name, ""),
                "schema": schema,
            }

    def _header_parameters(self, route: Route) -> Iterable[dict[str, Any]]:
        for field in route.method.descriptor.input_type.fields:
            options = json_options(field)
            if not options.http_header:
                continue
            schema: Schema = {"type": "string"}
            if options.http_header_pattern:
                schema["pattern"] = options.http_header_pattern
                schema["minLength"] = int(re.search(options.http_header_pattern, "") is None)
            if options.http_header_max_length:
                schema["maxLength"] = options.http_header_max_length
            yield {
                "name": options.http_header,
                "in": "header",
                "description": _comments().get(field.full_name, ""),
                "schema": schema,
            }

    def _body_schema(self, route: Route) -> Schema:
        message = route.method.descriptor.input_type
        if route.body != "*":
            return self._schemas.of_field(message.fields_by_name[route.body], is_read=True)
        return self._schemas.of_message(message, is_read=True)

    def _success(self, route: Route, routes: Iterable[Route]) -> dict[str, Any]:
        content: dict[str, Any] | None = {"application/json": {"schema": {"type": "null"}}}
        if route.form == HTTP_BODY_FORM_EMPTY:
            content = None
        elif route.form == HTTP_BODY_FORM_TEXT:
            content = {"text/plain": {"schema": {"type": "string"}}}
        elif route.form != HTTP_BODY_FORM_NULL:
            content = {"application/json": {"schema": self._answer_schema(route)}}
        headers = {"Location": _reference("Location")} if route.location is not None else {}
        response = _response(HTTPStatus(route.status).phrase, content, headers)
        if links := _links(route, routes):
            response["links"] = links
        return response

    def _answer_schema(self, route: Route) -> Schema:
        message = route.method.descriptor.output_type
        if route.response_body:
            return self._schemas.of_field(message.fields_by_name[route.response_body], is_read=False)
        return self._schemas.of_message(message, is_read=False)

    def _errors(self, route: Route, comment: str) -> dict[str, Any]:
        """Returns the errors that comments name, that all methods have, and that reading a body may cause."""
        service = _comments().get(route.method.descriptor.containing_service.full_name, "")
        names = {name for text in (comment, service) for name in _CODES.findall(text)}
        statuses = {status.http_status for status in Status if status.name in names}
        statuses |= {status.http_status for status in _ALWAYS}
        if route.body or route.variables or route.query.fields:
            statuses.add(400)
        statuses |= set(_OF_BODIES) if route.body else set()
        return {str(status): self._error(status) for status in sorted(statuses)}

    def _error(self, status: int) -> dict[str, Any]:
        schema: Schema = {"$ref": "#/components/schemas/Message"}
        if self._error_format is ErrorFormat.FULL and status not in FRAMEWORK_STATUSES:
            error = self._schemas.of_message(Error.DESCRIPTOR, is_read=False)
            schema = {"anyOf": [error, schema]} if status == HTTPStatus.BAD_REQUEST else error
        headers = {"Retry-After": _reference("Retry-After")} if status in _LATER else {}
        return _response(HTTPStatus(status).phrase, {"application/json": {"schema": schema}}, headers)


_LATER = (429, 503)
_HEADERS: dict[str, Any] = {
    "X-Spincycle-Version": {
        "description": "The version of the API.",
        "required": True,
        "schema": {"type": "string", "const": API_VERSION},
    },
    "Location": {
        "description": "URL of the created resource.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Retry-After": {
        "description": "Seconds after which the call may be retried.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    },
}


def _reference(header: str) -> Schema:
    return {"$ref": f"#/components/headers/{header}"}


def _response(
    description: str, content: dict[str, Any] | None, headers: Mapping[str, Schema] | None = None
) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": description,
        "headers": {"X-Spincycle-Version": _reference("X-Spincycle-Version"), **(headers or {})},
    }
    return response if content is None else {**response, "content": content}


def _operation_id(route: Route) -> str:
    return f"{route.method.descriptor.containing_service.name}_{route.method.descriptor.name}"


def _links(route: Route, routes: Iterable[Route]) -> dict[str, Any]:
    """Returns links from a created resource to the operations that have its id in their path."""
    if route.status != HTTPStatus.CREATED or route.location is None:
        return {}
    return {
        other.method.descriptor.name: {
            "operationId": _operation_id(other),
            "parameters": {"request_id": "$response.body#/id"},
        }
        for other in routes
        if other.variables == ("request_id",)
    }
