"""The whole id of a request of which a user has given the beginning."""

from __future__ import annotations

from spincycle_grpc.client import Client

_LENGTH = 20


def whole_id(client: Client, given: str) -> str:
    """Returns the id of the request that an id or its beginning names.

    Commands with several calls or with a stream use it, so that all of these are about the same request, even
    if a new request begins so too.

    Raises:
        NotFoundError: There is no such request.
        InvalidArgumentError: Several requests begin so. Reason: AMBIGUOUS_REQUEST_ID.
        SpinCycleError: The call failed.
    """
    return given if len(given) >= _LENGTH else client.get(given, with_job_chain=False).id
