"""Which requests and tries a watcher gets: by its filter, and by what its caller may see."""

from __future__ import annotations

from collections.abc import Mapping

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.v1.request_pb2 import Request, RequestFilter
from spincycle_server.store.finding import MAX_ARGS, name_and_value, time_of
from spincycle_server.store.rows import microseconds_of
from spincycle_server.store.schema import MAX_ARG_VALUE, MAX_TEXT

DEFAULT_LIMIT = 1000
"""The number of requests in the first messages of a filter that has no limit."""

MAX_LIMIT = 10_000
"""The maximum number of requests in the first messages of a filter."""


class Matching:
    """Tells which changed requests match a filter. Its `states`, `limit` and `offset` are ignored.

    Args:
        wanted: The filter.

    Attributes:
        args: The args that a request must have, by name, as the database stores them.

    Raises:
        InvalidArgumentError: The filter is malformed. Reason: BAD_FILTER.
    """

    def __init__(self, wanted: RequestFilter) -> None:
        if wanted.offset:
            raise _bad_filter("invalid 'offset' parameter: a watch has none", "offset")
        if wanted.limit > MAX_LIMIT:
            raise _bad_filter(f"invalid 'limit' parameter: must be at most {MAX_LIMIT}", "limit")
        if len(wanted.args) > MAX_ARGS:
            raise _bad_filter(f"invalid 'arg' parameter: at most {MAX_ARGS} are allowed", "args")
        self._wanted = wanted
        self._since = time_of(wanted, "since")
        self._until = time_of(wanted, "until")
        pairs = {(name[:MAX_TEXT], value[:MAX_ARG_VALUE]) for name, value in map(name_and_value, wanted.args)}
        self.args = dict(pairs)
        self._is_impossible = len(self.args) < len(pairs)  # A request has one value for each name.

    def matches(self, request: Request, args: Mapping[str, str]) -> bool:
        """Whether a request matches.

        Args:
            request: The request.
            args: Its args with the names in `self.args`.
        """
        wanted = self._wanted
        if wanted.type not in ("", request.type) or self._is_impossible:
            return False
        if wanted.user and wanted.user[:MAX_TEXT] != request.user:
            return False
        if self._until is not None and microseconds_of(request.created_at) >= self._until:
            return False
        if self._since is not None and request.HasField("finished_at"):  # noqa: SIM102 (reads better)
            if microseconds_of(request.finished_at) <= self._since:
                return False
        return all(args.get(name) == value for name, value in self.args.items())

    def may_match(self, request_type: str, user: str) -> bool:
        """Whether a request of a type and user that was deleted may have matched."""
        return self._wanted.type in ("", request_type) and self._wanted.user[:MAX_TEXT] in ("", user)


def _bad_filter(message: str, field: str) -> InvalidArgumentError:
    return InvalidArgumentError(message, reason="BAD_FILTER", field=f"filter.{field}")
