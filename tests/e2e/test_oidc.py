"""A server whose users have tokens of an OIDC provider, which may be away when the server starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import grpc
import httpx

from spincycle_grpc.v1.request_manager_pb2 import FindRequest
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import eventually
from tests.identity.oidc_providers import chosen_provider, log_in, real_provider
from tests.limits import ANSWER


def settings_for(issuer: str) -> Mapping[str, str]:
    return {
        "SPINCYCLE_AUTH_METHODS": "oidc",
        "SPINCYCLE_AUTH_OIDC_ISSUER": issuer,
        "SPINCYCLE_AUTH_OIDC_AUDIENCE": "spincycle",
        "SPINCYCLE_AUTH_OIDC_NAME_CLAIM": "email",
    }


def find(server: ServerProcess, token: str, name: str = "request-manager") -> httpx.Response:
    path = "/api/v1/requests" if name == "request-manager" else "/api/v1/status/running"
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.get(f"http://{server.address(name, 'http')}{path}", headers=headers, timeout=ANSWER)


def test_users_call_with_the_tokens_of_a_real_provider(tmp_path: Path) -> None:
    with real_provider() as issuer:
        token = log_in(issuer, "alice", "spincycle", email="alice@example.com", roles=["dba"])
        foreign = log_in(issuer, "alice", "another", email="alice@example.com", roles=["dba"])
        arguments = ("server", "--http=127.0.0.1:0")
        with running(*arguments, directory=tmp_path, environment=settings_for(issuer)) as server:
            assert find(server, token).status_code == 200
            assert find(server, token, "job-runner").status_code == 200
            for wrong in (foreign, token[:-6] + "AAAAAA", "nonsense", ""):
                refused = find(server, wrong)
                assert refused.status_code == 401
                assert "www-authenticate" in refused.headers
            url = f"http://{server.address('request-manager', 'http')}/api/v1/requests"
            headers = {"authorization": f"Bearer {token}"}
            body = {"type": "one-job", "args": {"out": "x"}}
            created = httpx.post(url, json=body, headers=headers, timeout=ANSWER)
            assert (created.status_code, created.json()["user"]) == (201, "alice@example.com")
            with grpc.insecure_channel(server.address("request-manager", "grpc")) as channel:
                metadata = (("authorization", f"Bearer {token}"),)
                RequestManagerStub(channel).Find(FindRequest(), metadata=metadata, timeout=ANSWER)
            assert token not in server.log()


def test_a_server_starts_while_the_provider_is_away(tmp_path: Path) -> None:
    with chosen_provider() as provider:
        provider.documents["/jwks"] = (503, b"")
        token = provider.token(email="alice@example.com")
        arguments = ("server", "--http=127.0.0.1:0")
        with running(*arguments, directory=tmp_path, environment=settings_for(provider.issuer)) as server:
            server.wait_for("the keys of the OIDC provider cannot be read", level="warning")
            away = find(server, token)
            assert (away.status_code, "try again later" in away.text) == (503, True)
            del provider.documents["/jwks"]
            eventually(lambda: find(server, token).status_code == 200)
