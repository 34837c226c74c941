"""What another web page can make a browser send to this server, and which of it is refused.

A browser adds the session cookie, and the certificate of its user, to calls that other pages begin. The
cookie's attribute SameSite keeps it back, but not for pages of the same domain. So each call says where it
comes from: by Sec-Fetch-Site, by Origin, and by a header that only a script of the same origin can set.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from spincycle_server.gateway.errors import HttpError
from spincycle_server.web.hosts import AllowedHosts

PAGE_HEADER = b"x-spincycle-page"
"""The header that the page sends with calls that change something. Its value is "1"."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_TELLING = frozenset({b"cookie", b"origin", b"sec-fetch-site", b"accept-language"})
"""The headers without which a call has no session, and does not come from a browser."""

_OWN = frozenset({b"same-origin", b"none"})  # "none": the user typed the address.


@dataclass(frozen=True)
class BrowserCalls:
    """Refuses calls that other pages begin.

    Attributes:
        hosts: The names of this server.
        origins: The origins whose pages may call by CORS; "*" for all.
        public_origin: The origin of the server as browsers see it, for example behind a proxy; "" if it is
            that of the Host header.
    """

    hosts: AllowedHosts
    origins: Collection[str] = ()
    public_origin: str = ""

    def may_concern(self, names: Iterable[bytes]) -> bool:
        """Whether a call with headers of these names may have a session, or be refused by `check_other`."""
        return not _TELLING.isdisjoint(names)

    def check_host(self, headers: Mapping[bytes, bytes]) -> None:
        """Checks that a call names this server.

        Raises:
            HttpError: It names another one (421).
        """
        host = headers.get(b"host", b"").decode("latin-1")
        if not self.hosts.allows(host):
            raise HttpError(
                421, f"Misdirected Request: this server has no name {host[:200]!r}: add it to server.hosts"
            )

    def check_of_page(self, method: str, headers: Mapping[bytes, bytes], scheme: str) -> None:
        """Checks a call that a cookie authenticates, or that begins or ends a session.

        Raises:
            HttpError: Another page began it (403), or it does not name this server (421).
        """
        self.check_host(headers)
        site = headers.get(b"sec-fetch-site")
        if site is not None and site not in _OWN:
            raise _cross_site()
        if method in _SAFE_METHODS:
            return
        origin = headers.get(b"origin")
        if origin is not None and not self._is_own(origin.decode("latin-1"), headers, scheme):
            raise _cross_site()
        if site is None and origin is None:  # Every browser sends one of the two.
            raise _cross_site()
        if headers.get(PAGE_HEADER) != b"1":
            raise _cross_site()

    def check_other(self, method: str, headers: Mapping[bytes, bytes]) -> None:
        """Checks a call without a session and without a token.

        Only calls of browsers are refused. What a user without a browser sends is not looked at.

        Raises:
            HttpError: A page that may not call began it (403), or it does not name this server (421).
        """
        origin = headers.get(b"origin", b"").decode("latin-1")
        may_call = "*" in self.origins or (origin != "" and origin in self.origins)
        if may_call:
            return
        site = headers.get(b"sec-fetch-site")
        if method not in _SAFE_METHODS and site is not None and site not in _OWN:
            raise _cross_site()
        is_browser = site is not None or _looks_like_browser(headers)
        if is_browser or (origin and urlsplit(origin).netloc == headers.get(b"host", b"").decode("latin-1")):
            self.check_host(headers)

    def _is_own(self, origin: str, headers: Mapping[bytes, bytes], scheme: str) -> bool:
        host = headers.get(b"host", b"").decode("latin-1")
        return origin in (f"{scheme}://{host}", self.public_origin)


def _looks_like_browser(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a call without fetch metadata seems to come from a browser: they need TLS or this machine."""
    return headers.get(b"user-agent", b"").startswith(b"Mozilla/") and b"accept-language" in headers


def _cross_site() -> HttpError:
    return HttpError(
        403,
        "Forbidden: another web page began this call. A page of this server sends the header "
        "X-Spincycle-Page: 1; pages of other origins need server.cors_origins and a token",
    )
