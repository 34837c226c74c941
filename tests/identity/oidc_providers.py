"""OIDC providers in the process of a test: a real one, and one whose keys and answers a test chooses."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import html
import json
import secrets
import threading
import time
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

from tests.limits import ANSWER

REDIRECT = "https://client.example/callback"
Key = RSAKey | ECKey | OKPKey


@functools.cache
def rsa_key(kid: str, owner: str = "provider") -> RSAKey:
    """Returns a key with this id, the same one for each call, because generating a key takes long.

    Args:
        kid: The id of the key; "" for none.
        owner: Whose key it is. Owners have different keys with the same id.
    """
    return RSAKey.generate_key(2048, {"kid": kid} if kid else None)


@contextlib.contextmanager
def real_provider() -> Iterator[str]:
    """Runs the provider of oidc-provider-mock. Yields its issuer."""
    with warnings.catch_warnings(record=True):  # authlib insists on warning of its own future.
        from oidc_provider_mock import run_server_in_thread
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with run_server_in_thread() as server:
            yield f"http://localhost:{server.server_port}"


def log_in(issuer: str, user: str, audience: str, **claims: Any) -> str:
    """Logs in at the real provider as a browser and a web application do. Returns the ID token."""
    with httpx.Client(base_url=issuer, timeout=ANSWER) as http:
        http.put(f"/users/{user}", json=claims).raise_for_status()
        query = {
            "client_id": audience,
            "redirect_uri": REDIRECT,
            "response_type": "code",
            "scope": "openid email profile",
            "state": "s",
        }
        answer = http.post("/oauth2/authorize", params=query, data={"sub": user})
        code = parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT}
        token = http.post("/oauth2/token", data=form, auth=(audience, "secret")).raise_for_status()
        text: str = token.json()["id_token"]
        return text


class Provider:
    """A provider that a test controls.

    Attributes:
        keys: Its keys; it publishes their public parts.
        documents: Answers that replace its own, by path: a status and a body.
        reads: The paths that were read.
        forms: The forms that clients have sent to exchange a code, with their header `Authorization`.
        token_changes: Claims that the ID tokens of a sign-in have instead of the usual ones.
    """

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.issuer = f"http://{server.server_address[0]!s}:{server.server_port}"
        self.keys: list[Key] = [rsa_key("first")]
        self.documents: dict[str, tuple[int, bytes]] = {}
        self.reads: list[str] = []
        self.forms: list[tuple[dict[str, str], str]] = []
        self.token_changes: dict[str, Any] = {}
        self._codes: dict[str, dict[str, str]] = {}

    def sign_in(self, url: str) -> str:
        """Signs a user in who follows a link to the provider. Returns where the browser goes then."""
        asked = dict(parse_qsl(urlsplit(url).query))
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(8)
        self._codes[code] = asked
        answer = {"code": code, "state": asked["state"], "iss": self.issuer}
        return f"{asked['redirect_uri']}?{urlencode(answer)}"

    def exchange(self, form: dict[str, str], authorization: str) -> tuple[int, bytes]:
        """Answers the exchange of a code, which is possible once."""
        self.forms.append((form, authorization))
        if "/token" in self.documents:
            return self.documents["/token"]
        asked = self._codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (
            asked is None
            or asked["code_challenge"] != challenge
            or asked["redirect_uri"] != form["redirect_uri"]
        ):
            return 400, b'{"error": "invalid_grant"}'
        claims = {"nonce": asked["nonce"], "aud": asked["client_id"], **self.token_changes}
        answer = {"access_token": "a", "token_type": "Bearer", "id_token": self.token(**claims)}
        return 200, json.dumps(answer).encode()

    def answer(self, path: str) -> tuple[int, bytes]:
        """Returns the status and the body for a path."""
        self.reads.append(path)
        if path in self.documents:
            return self.documents[path]
        if path == "/.well-known/openid-configuration":
            return 200, json.dumps(
                {
                    "issuer": self.issuer,
                    "jwks_uri": f"{self.issuer}/jwks",
                    "authorization_endpoint": f"{self.issuer}/authorize",
                    "token_endpoint": f"{self.issuer}/token",
                }
            ).encode()
        if path.startswith("/authorize?"):
            allow = html.escape(path.replace("/authorize", "/allow", 1))
            link = f'<link rel="icon" href="data:,"><a href="{allow}">Continue</a>'
            return 200, f"<!doctype html><title>Provider</title>{link}".encode()
        if path.startswith("/allow?"):
            return 302, self.sign_in(path).encode()
        if path == "/jwks":
            return 200, json.dumps({"keys": [key.as_dict(private=False) for key in self.keys]}).encode()
        return 404, b""

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Returns the claims of a token that is valid for an hour. A value of None removes a claim."""
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": "spincycle", "sub": "alice", "iat": now, "exp": now + 3600}
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def token(
        self, key: Key | None = None, algorithm: str = "RS256", *, header: dict[str, Any] | None = None,
        **changes: Any,
    ) -> str:  # fmt: skip
        """Returns a token that is signed by one of the provider's keys, the first by default."""
        key = key or self.keys[0]
        head = {"alg": algorithm, "kid": key.kid, **(header or {})}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joserfc warns of EdDSA, which has a new name.
            return jwt.encode(
                {name: value for name, value in head.items() if value is not None},
                self.claims(**changes),
                key,
                algorithms=[algorithm],
            )


@contextlib.contextmanager
def chosen_provider(host: str = "127.0.0.1") -> Iterator[Provider]:
    """Runs a provider whose keys and answers the test chooses.

    Args:
        host: Its address. Browsers take another address than that of a server for another site.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(*provider.answer(self.path))

        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._send(*provider.exchange(dict(parse_qsl(form)), self.headers.get("Authorization", "")))

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", body.decode())
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((host, 0), Handler) as server:
        provider = Provider(server)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()
            thread.join()
