"""URLs of databases: all forms of PostgreSQL's URLs with several hosts."""

from __future__ import annotations

from typing import Any

import pytest

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_server.database.urls import parse_url


def driver_arguments(text: str) -> dict[str, Any]:
    """Returns the arguments that the driver gets for a URL."""
    url = parse_url(text)
    return dict(url.get_dialect()().create_connect_args(url)[1])


@pytest.mark.parametrize(
    ("url", "hosts", "ports"),
    [
        ("postgresql://u:p@h1:5433,h2:5434/db", "h1,h2", "5433,5434"),
        ("postgresql://u:p@h1,h2:5434,h3/db", "h1,h2,h3", "5432,5434,5432"),
        ("postgres://u:p@h1,h2/db", "h1,h2", "5432,5432"),
        ("postgresql://u:p@[::1]:5433,h2/db", "::1,h2", "5433,5432"),
        ("postgresql://u:p@/db?host=h1:5433&host=h2:5434", "h1,h2", "5433,5434"),
        ("postgresql://u:p@/db?host=h1,h2&port=5433,5434", "h1,h2", "5433,5434"),
        ("postgresql://u:p@/db?host=h1:5433,h2", "h1,h2", "5433,5432"),
        ("postgresql://u:p@/db?host=h1,h2&port=5433", "h1,h2", "5433,5433"),
        ("postgresql://u:p@/db?host=/run/pg,h2:5434", "/run/pg,h2", "5432,5434"),
    ],
)
def test_several_hosts(url: str, hosts: str, ports: str) -> None:
    arguments = driver_arguments(url)
    assert (arguments["host"], arguments["port"]) == (hosts, ports)
    assert (arguments["user"], arguments["password"], arguments["dbname"]) == ("u", "p", "db")
    assert arguments["target_session_attrs"] == "read-write"


def test_parameters_of_a_url_with_several_hosts_stay() -> None:
    arguments = driver_arguments("postgresql://u@h1,h2/db?sslmode=require&target_session_attrs=any")
    assert (arguments["sslmode"], arguments["target_session_attrs"]) == ("require", "any")


@pytest.mark.parametrize("url", ["postgresql://u:a,b@h/db", "postgresql://u:a%2Cb@h/db"])
def test_a_comma_in_a_password_separates_no_hosts(url: str) -> None:
    arguments = driver_arguments(url)
    assert (arguments["host"], arguments["password"]) == ("h", "a,b")


@pytest.mark.parametrize(
    "url",
    ["postgresql://s3cret@h1,:5432/db", "postgresql://s3cret@h1:x,h2/db", "postgresql://s3cret@h1,h2"],
)
def test_a_wrong_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_url(url)
    assert caught.value.reason == "BAD_DATABASE_URL"
    assert "s3cret" not in str(caught.value)
