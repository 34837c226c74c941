"""Routes: which HTTP method and path call which method, by the `google.api.http` options of the contracts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message

from spincycle_grpc.errors import InvalidArgumentError, Status
from spincycle_grpc.v1 import json_pb2
from spincycle_server.gateway.query import QueryReader
from spincycle_server.rpc import Method, MethodTable

_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Route:
    """How HTTP calls one method.

    Attributes:
        method: The method.
        binding: Which of the method's rules this is. 0: the main one.
        http_method: GET, POST or PUT.
        template: The path, with variables in braces.
        segments: The path, split at slashes; None stands for a variable.
        variables: The fields that the variables set, in order.
        body: The field that the body sets; "*" for the whole request, "" if there is no body.
        response_body: The field of the response that becomes the body; "" for the whole response.
        status: The HTTP status of a successful call.
        denied_status: The HTTP status of a call that the caller may not make.
        location: Returns the Location header for a response; None if there is none.
        form: The form of the response's body, an HttpBodyForm.
        query: Reads the query string into the request.
        headers: The headers that set fields: pairs of a name in lower case and a field.
        response_headers: The headers that fields of the response become: pairs of a name and a field.
    """

    method: Method
    binding: int
    http_method: str
    template: str
    segments: tuple[str | None, ...]
    variables: tuple[str, ...]
    body: str
    response_body: str
    status: int
    denied_status: int
    location: Callable[[Message], str] | None
    form: int
    query: QueryReader
    headers: tuple[tuple[str, str], ...]
    response_headers: tuple[tuple[str, str], ...]


def routes_of(table: MethodTable) -> list[Route]:
    """Returns the routes of all methods of a table that have an HTTP rule, and of its additional bindings.

    Raises:
        ValueError: A method that streams has another rule than GET.
    """
    routes: list[Route] = []
    for method in table.methods.values():
        options = method.descriptor.GetOptions()
        if options.HasExtension(annotations_pb2.http):
            main: http_pb2.HttpRule = options.Extensions[annotations_pb2.http]
            rules = (main, *main.additional_bindings)
            routes += (_route(method, options, binding, rule) for binding, rule in enumerate(rules))
    for route in routes:
        if route.method.descriptor.server_streaming and route.http_method != "GET":
            raise ValueError(f"{route.method.descriptor.full_name}: a stream needs a rule with GET")
    return routes


def _route(method: Method, options: MethodOptions, binding: int, rule: http_pb2.HttpRule) -> Route:
    answer = options.Extensions[json_pb2.http_answer]
    http_method = rule.WhichOneof("pattern") or ""
    template: str = getattr(rule, http_method)
    segments: list[str | None] = []
    variables: list[str] = []
    for segment in template.strip("/").split("/"):
        if segment.startswith("{"):
            variables.append(segment[1:-1])
            segments.append(None)
        else:
            segments.append(segment)
    return Route(
        method=method,
        binding=binding,
        http_method=http_method.upper(),
        template=template,
        segments=tuple(segments),
        variables=tuple(variables),
        body=rule.body,
        response_body=rule.response_body,
        status=answer.status or HTTPStatus.OK,
        denied_status=answer.denied_status or Status.PERMISSION_DENIED.http_status,
        location=_location(answer.location) if answer.location else None,
        form=answer.body,
        query=QueryReader(method.descriptor.input_type, excluded={*variables, rule.body} - {""}),
        headers=tuple((header.lower(), name) for header, name in _headers(method.descriptor.input_type)),
        response_headers=_headers(method.descriptor.output_type),
    )


def _headers(message_type: Descriptor) -> tuple[tuple[str, str], ...]:
    named = (
        (field.GetOptions().Extensions[json_pb2.json_field].http_header, field.name)
        for field in message_type.fields
    )
    return tuple((header, name) for header, name in named if header)


def _location(template: str) -> Callable[[Message], str]:
    """Returns a function that replaces each {field.path} in a template with the value from a response."""
    parts = template.replace("}", "{").split("{")
    paths = [part.split(".") for part in parts[1::2]]

    def fill(response: Message) -> str:
        filled = list(parts)
        for index, path in enumerate(paths):
            value: Any = response
            for name in path:
                value = getattr(value, name)
            filled[2 * index + 1] = str(value)
        return "".join(filled)

    return fill


@dataclass(slots=True)
class _Node:
    children: dict[str, _Node] = field(default_factory=dict)
    variable: _Node | None = None
    routes: dict[str, Route] = field(default_factory=dict)


class Router:
    """Finds routes by path: a tree with one level per segment."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        for route in routes:
            node = self._root
            for segment in route.segments:
                if segment is None:
                    node.variable = node.variable or _Node()
                    node = node.variable
                else:
                    node = node.children.setdefault(segment, _Node())
            node.routes[route.http_method] = route

    def find(self, path: str) -> tuple[Mapping[str, Route], Sequence[str]]:
        """Returns the routes of a path by HTTP method, and the values of its variables.

        Args:
            path: The path as the client sent it: an escaped slash is part of a value. A trailing slash is
                ignored.

        Returns:
            Routes and values; no routes for an unknown path.

        Raises:
            InvalidArgumentError: A value has an invalid escape. Reason: BAD_PATH.
        """
        node: _Node | None = self._root
        values: list[str] = []
        for segment in path.strip("/").split("/"):
            assert node is not None  # noqa: S101 (the loop returns if there is no child)
            child = node.children.get(segment)
            if child is None:
                child = node.variable
                if not segment:
                    return {}, ()
                if child is not None:
                    values.append(_unescaped(segment) if "%" in segment else segment)
            if child is None:
                return {}, ()
            node = child
        return (node.routes, values) if node is not None else ({}, ())


def _unescaped(segment: str) -> str:
    try:
        text = "" if _BAD_ESCAPE.search(segment) else unquote(segment, errors="strict")
    except UnicodeDecodeError:
        text = ""
    if not text or "\0" in text:
        raise InvalidArgumentError(
            "Bad Request: the path must be UTF-8 without %00, and each % must begin an escape such as %2F",
            reason="BAD_PATH",
        )
    return text
