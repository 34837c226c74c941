"""The operations of an OpenAPI document: one for each route."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from spincycle_grpc.json_form import json_options
from spincycle_server.gateway.openapi_responses import Responses, operation_id
from spincycle_server.gateway.openapi_schemas import Schema, Schemas
from spincycle_server.gateway.query import enum_names
from spincycle_server.gateway.routes import Route
from spincycle_server.identity import MethodAccess


class Operations:
    """Builds operations.

    Args:
        schemas: Builds the schemas of parameters and bodies.
        responses: Builds the responses.
        comments: The comments of the contracts, by full name.
    """

    def __init__(self, schemas: Schemas, responses: Responses, comments: Mapping[str, str]) -> None:
        self._schemas = schemas
        self._responses = responses
        self._comments = comments

    def of_route(self, route: Route, routes: Iterable[Route]) -> dict[str, Any]:
        """Returns the operation of a route.

        Args:
            route: The route.
            routes: All routes, to which the responses may link.
        """
        descriptor = route.method.descriptor
        comment = self._comments.get(descriptor.full_name, "")
        operation: dict[str, Any] = {
            "operationId": operation_id(route),
            "summary": comment.partition(".")[0].partition("\n")[0],
            "description": comment,
            "tags": [descriptor.containing_service.name],
            "responses": self._responses.of_route(route, routes),
        }
        if route.method.access is MethodAccess.PUBLIC:
            operation["security"] = []
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

    def _path_parameters(self, route: Route) -> Iterable[dict[str, Any]]:
        for name in route.variables:
            field = route.method.descriptor.input_type.fields_by_name[name]
            yield {
                "name": name,
                "in": "path",
                "required": True,
                "description": self._comments.get(field.full_name, ""),
                "schema": {"type": "string", "minLength": 1, "pattern": "^[^\\u0000]+$"},
            }

    def _query_parameters(self, route: Route) -> Iterable[dict[str, Any]]:
        for name, field in route.query.fields.items():
            schema = self._schemas.of_field(field, is_read=False)
            if field.enum_type is not None:
                one: Schema = {"type": "string", "enum": list(enum_names(field.enum_type))}
                schema = {"type": "array", "items": one} if field.is_repeated else one
            parameter = {
                "name": name,
                "in": "query",
                "allowEmptyValue": True,
                "description": self._comments.get(field.full_name, ""),
                "schema": schema,
            }
            if field.GetOptions().deprecated:
                parameter["deprecated"] = True
            yield parameter

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
                "description": self._comments.get(field.full_name, ""),
                "schema": schema,
            }

    def _body_schema(self, route: Route) -> Schema:
        message = route.method.descriptor.input_type
        if route.body != "*":
            return self._schemas.of_field(message.fields_by_name[route.body], is_read=True)
        return self._schemas.of_message(message, is_read=True)
