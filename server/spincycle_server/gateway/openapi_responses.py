"""The responses of operations in an OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from spincycle_grpc.errors import Status
from spincycle_grpc.v1.error_pb2 import Error
from spincycle_grpc.v1.json_pb2 import HTTP_BODY_FORM_EMPTY, HTTP_BODY_FORM_NULL, HTTP_BODY_FORM_TEXT
from spincycle_grpc.version import API_VERSION
from spincycle_server.gateway.errors import FRAMEWORK_STATUSES, ErrorFormat
from spincycle_server.gateway.event_text import MEDIA_TYPE
from spincycle_server.gateway.openapi_schemas import Schema, Schemas
from spincycle_server.gateway.routes import Route
from spincycle_server.identity import MethodAccess

_CODES = re.compile(r"(?<![A-Z_])[A-Z]+(?:_[A-Z]+)+(?![A-Z_])|\b(?:INTERNAL|UNAVAILABLE|UNAUTHENTICATED)\b")
"""Names of statuses in a comment."""

_ALWAYS = (Status.RESOURCE_EXHAUSTED, Status.INTERNAL, Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED)
"""Errors that every method may have."""

_OF_BODIES = (408, 413, 415)
"""HTTP statuses of methods whose requests have a body."""

_HEADERS_OF = {"Retry-After": (429, 503), "WWW-Authenticate": (401,)}
"""The headers of errors, with the HTTP statuses of the errors that have them."""

_EVENTS = """Server-sent events. The data of each event is the JSON of one message, for which the schema is.
The id of an event is the cursor of its message. Lines that begin with a colon are comments. A stream that is
complete ends with an event of the type `end`. After a failure, the last event has the type `error`, and its
data has `message`, `requestId`, `httpStatus` and `reason`."""
"""The description of a stream of events."""

HEADERS: dict[str, Any] = {
    "X-Spincycle-Version": {
        "description": "The version of the API.",
        "required": True,
        "schema": {"type": "string", "const": API_VERSION},
    },
    "X-Spincycle-Reason": {
        "description": "Why the call failed: a name of spincycle.v1.ErrorReason, without its prefix.",
        "schema": {"type": "string", "pattern": "^[A-Z][A-Z0-9_]*$"},
    },
    "X-Spincycle-Next-Page-Token": {
        "description": "The token to get the next page, if the query asks for pages and there are more.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
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
    "WWW-Authenticate": {
        "description": "How to authenticate. `error` is `insufficient_scope` if the caller is known, but may "
        "not make the call.",
        "required": True,
        "schema": {"type": "string", "pattern": "^Bearer realm="},
    },
}
"""The headers of responses, for the `components` of a document."""


class Responses:
    """Builds the responses of operations.

    Args:
        schemas: Builds the schemas of bodies.
        comments: The comments of the contracts, by full name.
        error_format: The format of methods' errors.
    """

    def __init__(self, schemas: Schemas, comments: Mapping[str, str], error_format: ErrorFormat) -> None:
        self._schemas = schemas
        self._comments = comments
        self._error_format = error_format
        self._schemas.components["Message"] = {
            "type": "object",
            "description": "An error that consists of its message alone.",
            "properties": {"message": {"type": "string"}},
            "required": ["message"],
        }

    def of_route(self, route: Route, routes: Iterable[Route]) -> dict[str, Any]:
        """Returns the responses of a route, by status.

        Args:
            route: The route.
            routes: All routes, to which the response may link.
        """
        if route.method.is_server_stream:
            return {**self._events(route), **self._errors(route)}
        return {str(route.status): self._success(route, routes), **self._errors(route)}

    def _events(self, route: Route) -> dict[str, Any]:
        schema = self._schemas.of_message(route.method.descriptor.output_type, is_read=False)
        return {
            "200": response(_EVENTS, {MEDIA_TYPE: {"schema": schema}}),
            "204": response("The stream has ended without a message, so that browsers stop.", None),
        }

    def _success(self, route: Route, routes: Iterable[Route]) -> dict[str, Any]:
        # Generators of clients cannot read a schema that allows only null.
        content: dict[str, Any] | None = {"application/json": {"schema": {"description": "Always null."}}}
        if route.form == HTTP_BODY_FORM_EMPTY:
            content = None
        elif route.form == HTTP_BODY_FORM_TEXT:
            content = {"text/plain": {"schema": {"type": "string"}}}
        elif route.form != HTTP_BODY_FORM_NULL:
            content = {"application/json": {"schema": self._answer_schema(route)}}
        headers = {"Location": _reference("Location")} if route.location is not None else {}
        headers |= {header: _reference(header) for header, _ in route.response_headers}
        success = response(HTTPStatus(route.status).phrase, content, headers)
        if links := _links(route, routes):
            success["links"] = links
        return success

    def _answer_schema(self, route: Route) -> Schema:
        message = route.method.descriptor.output_type
        if route.response_body:
            return self._schemas.of_field(message.fields_by_name[route.response_body], is_read=False)
        return self._schemas.of_message(message, is_read=False)

    def _errors(self, route: Route) -> dict[str, Any]:
        """Returns the errors that comments name, that all methods have, and that reading a body may cause."""
        descriptor = route.method.descriptor
        full_names = (descriptor.full_name, descriptor.containing_service.full_name)
        names = {
            name for full_name in full_names for name in _CODES.findall(self._comments.get(full_name, ""))
        }
        statuses = {status.http_status for status in Status if status.name in names}
        statuses |= {status.http_status for status in _ALWAYS}
        statuses -= {HTTPStatus.UNAUTHORIZED}  # The comments of the service name it for all methods.
        if route.method.access is not MethodAccess.PUBLIC:
            statuses |= {HTTPStatus.UNAUTHORIZED, route.denied_status}
        if route.body or route.variables or route.query.fields:
            statuses.add(400)
        statuses |= set(_OF_BODIES) if route.body else set()
        statuses |= {HTTPStatus.NOT_ACCEPTABLE} if route.method.is_server_stream else set()
        return {str(int(status)): self._error(status) for status in sorted(statuses)}

    def _error(self, status: int) -> dict[str, Any]:
        schema: Schema = {"$ref": "#/components/schemas/Message"}
        if self._error_format is ErrorFormat.FULL and status not in FRAMEWORK_STATUSES:
            error = self._schemas.of_message(Error.DESCRIPTOR, is_read=False)
            schema = {"anyOf": [error, schema]} if status == HTTPStatus.BAD_REQUEST else error
        names = ["X-Spincycle-Reason", *(name for name, of in _HEADERS_OF.items() if status in of)]
        headers = {name: _reference(name) for name in names}
        return response(HTTPStatus(status).phrase, {"application/json": {"schema": schema}}, headers)


def _reference(header: str) -> Schema:
    return {"$ref": f"#/components/headers/{header}"}


def response(
    description: str, content: dict[str, Any] | None, headers: Mapping[str, Schema] | None = None
) -> dict[str, Any]:
    """Returns a response with the header that all responses have."""
    found: dict[str, Any] = {
        "description": description,
        "headers": {"X-Spincycle-Version": _reference("X-Spincycle-Version"), **(headers or {})},
    }
    return found if content is None else {**found, "content": content}


def operation_id(route: Route) -> str:
    """Returns the id of an operation, which links refer to."""
    name = f"{route.method.descriptor.containing_service.name}_{route.method.descriptor.name}"
    return f"{name}{route.binding + 1}" if route.binding else name


def _links(route: Route, routes: Iterable[Route]) -> dict[str, Any]:
    """Returns links from a created resource to the operations that have its id in their path."""
    if route.status != HTTPStatus.CREATED or route.location is None:
        return {}
    return {
        other.method.descriptor.name: {
            "operationId": operation_id(other),
            "parameters": {"request_id": "$response.body#/id"},
        }
        for other in routes
        if other.variables == ("request_id",)
    }
