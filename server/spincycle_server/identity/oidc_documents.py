"""Reads the JSON documents of an OIDC provider over HTTPS."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from spincycle_grpc.loopback import is_loopback_host

TIMEOUT = 5.0
"""Seconds for one document to arrive."""

MAX_DOCUMENT = 1024 * 1024
"""The largest document in bytes."""

_CHUNK = 65_536
_JSON = {"Accept": "application/json"}


class DocumentError(Exception):
    """A document cannot be read. The message says why."""


class RefusedFormError(DocumentError):
    """The provider refused a form.

    Attributes:
        status: The HTTP status.
        code: The error code of OAuth, such as "invalid_grant"; "" without one. It is not trustworthy text.
    """

    def __init__(self, url: str, status: int, code: str) -> None:
        super().__init__(f"{url} answered with status {status}")
        self.status = status
        self.code = code


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
    return _read_object(urllib.request.Request(_checked(url), headers=_JSON), ca_file)  # noqa: S310 (checked)


def post_form(
    url: str, fields: Mapping[str, str], headers: Mapping[str, str], ca_file: str
) -> dict[str, Any]:
    """Sends a form, and returns the JSON object of the answer. It blocks, for about TIMEOUT at most.

    Args:
        url: Where to.
        fields: The fields of the form. No error shows them.
        headers: Further headers. No error shows them either.
        ca_file: As for `read_document`.

    Raises:
        RefusedFormError: The answer is an error of the client (4xx).
        DocumentError: There is no usable answer.
    """
    data = urlencode(fields).encode()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    request = urllib.request.Request(_checked(url), data, {**_JSON, **form, **headers})  # noqa: S310 (checked)
    return _read_object(request, ca_file)


def _checked(url: str) -> str:
    if not is_trustworthy(url):
        raise DocumentError(f"{url[:200]!r} must be a URL of HTTPS, or of HTTP on this machine")
    return url


def _read_object(request: urllib.request.Request, ca_file: str) -> dict[str, Any]:
    url = request.full_url
    try:
        document = json.loads(_read(request, ca_file))
    except urllib.error.HTTPError as error:
        with error:
            if request.data is not None and 400 <= error.code < 500:
                raise RefusedFormError(url, error.code, _error_code(error)) from error
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


def _error_code(error: urllib.error.HTTPError) -> str:
    try:
        document = json.loads(error.read(_CHUNK))
    except (OSError, ValueError, RecursionError):
        return ""
    code = document.get("error", "") if isinstance(document, dict) else ""
    return code if isinstance(code, str) else ""


def _read(request: urllib.request.Request, ca_file: str) -> bytes:
    deadline = time.monotonic() + TIMEOUT
    handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
    if request.full_url.startswith("https:"):
        handlers.append(urllib.request.HTTPSHandler(context=tls_context(ca_file)))
    else:
        handlers.append(urllib.request.ProxyHandler({}))  # A proxy has another idea of this machine.
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
