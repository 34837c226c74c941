"""The files of the built page, which are read once and served from memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spincycle_grpc.errors import FailedPreconditionError
from spincycle_server.gateway.answers import Answer
from spincycle_server.gateway.content_coding import weights_of
from spincycle_server.gateway.documents import has_tag
from spincycle_server.gateway.errors import Header
from spincycle_server.web.security_headers import PAGE_HEADERS

DIRECTORY = Path(__file__).parent / "dist"
"""Where a build puts the page. A wheel contains it; a source checkout does not until the page is built."""

MAX_BYTES = 32 * 1024 * 1024
"""The maximum size of all files together in bytes, because they stay in memory."""

ROUTES = frozenset({"requests", "start", "runners", "server", "sign-in", "waiting"})
"""The first segments of the paths that the page itself shows: all of them get its index. No call of the API
and no document of the server has such a path."""

_ASSETS = "/assets/"
_INDEX = "/index.html"
_CODINGS = {".br": "br", ".gz": "gzip"}
_TYPES = {
    ".css": b"text/css; charset=UTF-8",
    ".html": b"text/html; charset=UTF-8",
    ".ico": b"image/x-icon",
    ".js": b"text/javascript; charset=UTF-8",
    ".json": b"application/json; charset=UTF-8",
    ".png": b"image/png",
    ".svg": b"image/svg+xml",
    ".txt": b"text/plain; charset=UTF-8",
    ".webmanifest": b"application/manifest+json",
    ".woff2": b"font/woff2",
}
_UNKNOWN_TYPE = b"application/octet-stream"

_NOT_BUILT = (
    b"This server runs, but it has no web page, because the page was not built.\n"
    b"Build it with `make page` in the source checkout, see docs/web.md, and start the server again.\n"
    b"The API is at /api/v1, its description at /openapi.json.\n"
)


@dataclass(slots=True)
class _File:
    """One file.

    Attributes:
        media_type: Its Content-Type.
        etag: A weak tag, because its codings share it.
        is_immutable: Whether its name changes with its content.
        bodies: Its content by coding; "identity" for the plain one.
    """

    media_type: bytes
    etag: bytes
    is_immutable: bool
    bodies: dict[str, bytes] = field(default_factory=dict)


class PageFiles:
    """Answers requests for the page.

    Args:
        directory: The built page.

    Attributes:
        paths: The paths of the page's files, and "/".

    Raises:
        FailedPreconditionError: The files are too large. Reason: PAGE_TOO_LARGE.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._files = _read(DIRECTORY if directory is None else directory)
        self.paths = frozenset({"/", *self._files})

    @property
    def is_built(self) -> bool:
        """Whether there is a page."""
        return _INDEX in self._files

    def has(self, path: str) -> bool:
        """Whether a path belongs to the page."""
        return path in self.paths or path.startswith(_ASSETS) or path.split("/", 2)[1] in ROUTES

    def answer(self, path: str, request_headers: Mapping[bytes, bytes]) -> Answer:
        """Answers GET for a path of the page."""
        if not self.is_built:
            return 404, [(b"content-type", _TYPES[".txt"]), *PAGE_HEADERS], _NOT_BUILT
        file = self._files.get(path)
        if file is None and path.startswith(_ASSETS):
            # Not the index: a browser with an old index would take it for a script.
            return 404, [(b"content-type", _TYPES[".txt"]), *PAGE_HEADERS], b"Not Found\n"
        return _answer(file or self._files[_INDEX], request_headers)


def _answer(file: _File, request_headers: Mapping[bytes, bytes]) -> Answer:
    caching = b"public, max-age=31536000, immutable" if file.is_immutable else b"no-cache"
    headers: list[Header] = [(b"etag", file.etag), (b"cache-control", caching), *PAGE_HEADERS]
    if len(file.bodies) > 1:
        headers.append((b"vary", b"Accept-Encoding"))
    if has_tag(request_headers.items(), file.etag):
        return 304, headers, b""
    coding = _coding(file, request_headers.get(b"accept-encoding", b"").decode("latin-1"))
    if coding != "identity":
        headers.append((b"content-encoding", coding.encode()))
    return 200, [(b"content-type", file.media_type), *headers], file.bodies[coding]


def _coding(file: _File, accept_encoding: str) -> str:
    """Returns the coding of a file that a client likes best, and of equal ones the smallest."""
    weights = weights_of(accept_encoding)
    accepted = [coding for coding in file.bodies if weights.get(coding, 0.0) > 0 and coding != "identity"]
    best = max(accepted, key=lambda coding: (weights[coding], -len(file.bodies[coding])), default="identity")
    return "identity" if weights.get("identity", 0.0) > weights.get(best, 0.0) else best


def _read(directory: Path) -> dict[str, _File]:
    found = {path: path.stat().st_size for path in sorted(directory.rglob("*")) if path.is_file()}
    if sum(found.values()) > MAX_BYTES:
        raise FailedPreconditionError(
            f"the web page in {directory} has more than {MAX_BYTES} bytes: build it again, or set server.web "
            "to false",
            reason="PAGE_TOO_LARGE",
        )
    files: dict[str, _File] = {}
    coded: list[tuple[str, str, bytes]] = []
    for file in found:
        path = f"/{file.relative_to(directory).as_posix()}"
        body = file.read_bytes()
        if file.suffix in _CODINGS:
            coded.append((path.removesuffix(file.suffix), _CODINGS[file.suffix], body))
            continue
        etag = b'W/"%s"' % hashlib.sha256(body).hexdigest()[:32].encode()
        media_type = _TYPES.get(file.suffix, _UNKNOWN_TYPE)
        files[path] = _File(media_type, etag, path.startswith(_ASSETS), {"identity": body})
    for path, coding, body in coded:
        if path in files:
            files[path].bodies[coding] = body
    return files
