"""Reads the JSON documents of an OIDC provider over HTTPS."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from spincycle_grpc.loopback import is_loopback_host

TIMEOUT = 5.0
"""Seconds for one document to arrive."""

MAX_DOCUMENT = 1024 * 1024
"""The largest document in bytes."""

_CHUNK = 65_536


class DocumentError(Exception):
    """A document cannot be read. The message says why."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, because they could lead to another host, or to plain text."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def is_trustworthy(url: str) -> bool:
    """Whether a URL is one of HTTPS, or of HTTP on this machine. Such a URL has no password."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.password is not None or not url.isprintable():
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback_host(host))


def tls_context(ca_file: str) -> ssl.SSLContext:
    """Returns the context for HTTPS.

    Args:
        ca_file: The file with the CAs to trust; "" for those of the system.

    Raises:
        OSError: The file cannot be read, or has no certificate.
    """
    return ssl.create_default_context(cafile=ca_file or None)


def read_document(url: str, ca_file: str) -> dict[str, Any]:
    """Returns a JSON object. It blocks, for about TIMEOUT at most.

    Args:
        url: Where it is.
        ca_file: The CAs to trust, read for each call, so that they can be replaced; "" for those of the
            system.

    Raises:
        DocumentError: The document cannot be read.
    """
    if not is_trustworthy(url):
        raise DocumentError(f"{url[:200]!r} must be a URL of HTTPS, or of HTTP on this machine")
    try:
        document = json.loads(_read(url, ca_file))
    except urllib.error.HTTPError as error:
        error.close()
        raise DocumentError(f"{url} answered with status {error.code}") from error
    except (OSError, EOFError) as error:
        raise DocumentError(f"{url} cannot be read: {_words(error)}") from error
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{url} does not answer with JSON") from error
    except Exception as error:  # http.client has errors of its own for answers that are not HTTP.
        raise DocumentError(f"{url} does not answer as HTTP: {type(error).__name__}") from error
    if not isinstance(document, dict):
        raise DocumentError(f"{url} does not answer with a JSON object")
    return document


def _read(url: str, ca_file: str) -> bytes:
    deadline = time.monotonic() + TIMEOUT
    handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
    if url.startswith("https:"):
        handlers.append(urllib.request.HTTPSHandler(context=tls_context(ca_file)))
    else:
        handlers.append(urllib.request.ProxyHandler({}))  # A proxy has another idea of this machine.
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 (checked above)
    with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT) as response:
        data = bytearray()
        while chunk := response.read1(_CHUNK):
            data += chunk
            if len(data) > MAX_DOCUMENT:
                raise OSError(f"it is larger than {MAX_DOCUMENT} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError(f"it did not arrive within {TIMEOUT:g} seconds")
    return bytes(data)


def _words(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return _words(reason)
    return str(reason or getattr(error, "strerror", None) or error or type(error).__name__)
