"""The documents that a server serves besides its methods: OpenAPI and the contracts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import orjson

from spincycle_grpc import contracts
from spincycle_server.gateway import openapi
from spincycle_server.gateway.answers import Answer, not_allowed, options_answer
from spincycle_server.gateway.errors import ErrorFormat, Header
from spincycle_server.gateway.openapi_3_0 import as_openapi_3_0
from spincycle_server.gateway.routes import Route


@dataclass(frozen=True, slots=True)
class _Document:
    media_type: bytes
    body: bytes
    etag: bytes


class Documents:
    """Answers requests for documents, which everybody may read. Each is built when it is first requested.

    Args:
        routes: The routes of the server.
        title: The title of the OpenAPI document.
        error_format: The format of methods' errors.

    Attributes:
        paths: The paths of the documents.
    """

    def __init__(self, routes: Sequence[Route], title: str, error_format: ErrorFormat) -> None:
        self._sources: Mapping[str, tuple[bytes, Callable[[], bytes]]] = {
            openapi.PATH: (
                b"application/json; charset=UTF-8",
                lambda: orjson.dumps(openapi.document(routes, title, error_format)) + b"\n",
            ),
            openapi.PATH_3_0: (
                b"application/json; charset=UTF-8",
                lambda: orjson.dumps(as_openapi_3_0(openapi.document(routes, title, error_format))) + b"\n",
            ),
            openapi.PROTOS_PATH: (b"application/zip", contracts.protos_zip),
            openapi.DESCRIPTORS_PATH: (b"application/octet-stream", contracts.descriptor_set),
        }
        self._built: dict[str, _Document] = {}
        self.paths = frozenset(self._sources)

    def answer(self, path: str, http_method: str, request_headers: Iterable[Header]) -> Answer:
        """Answers a request for one of the paths.

        Raises:
            HttpError: Documents do not have the HTTP method.
        """
        if http_method == "OPTIONS":
            return options_answer(["GET"])
        if http_method not in ("GET", "HEAD"):
            raise not_allowed(["GET"])
        document = self._document(path)
        # The tag is weak because the body may be compressed on the way.
        headers: list[Header] = [(b"etag", document.etag), (b"cache-control", b"no-cache")]
        if has_tag(request_headers, document.etag):
            return 304, headers, b""
        return 200, [(b"content-type", document.media_type), *headers], document.body

    def _document(self, path: str) -> _Document:
        document = self._built.get(path)
        if document is None:
            media_type, build = self._sources[path]
            body = build()
            etag = b'W/"%s"' % hashlib.sha256(body).hexdigest()[:32].encode()
            document = self._built[path] = _Document(media_type, body, etag)
        return document


def has_tag(request_headers: Iterable[Header], etag: bytes) -> bool:
    """Whether the client already has the document with a tag, by its If-None-Match headers."""
    tags = {
        tag.strip().removeprefix(b"W/")
        for name, value in request_headers
        if name == b"if-none-match"
        for tag in value.split(b",")
    }
    return etag.removeprefix(b"W/") in tags or b"*" in tags
