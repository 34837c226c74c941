"""`spincycle token` creates, lists and revokes API tokens."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import click

from spincycle_grpc.cli.tables import Column, show_table
from spincycle_server.app.database import database_options
from spincycle_server.commands.options import overrides, server_options
from spincycle_server.commands.times import Age
from spincycle_server.config import load_config
from spincycle_server.maintenance.api_tokens import ApiToken, ApiTokens
from spincycle_server.utc_text import utc_text

_NEVER = "never"


class _Lifetime(Age):
    """A positive duration, in microseconds; 0 for a token that never expires."""

    also = f", or {_NEVER}"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return 0 if value == _NEVER else super().convert(value, param, ctx)


@click.group("token")
def token_command() -> None:
    """Create, list and revoke API tokens.

    Callers send a token as `Authorization: Bearer TOKEN`. Servers accept tokens if the option auth.methods
    has the word token, and notice a change within seconds.

    Exit status: 0 success, 1 failure, 2 wrong usage or configuration.
    """


@token_command.command("create")
@click.argument("name")
@click.option("--role", "roles", metavar="ROLE", multiple=True, help="A role of the caller. Repeatable.")
@click.option(
    "--expires",
    metavar="DURATION",
    type=_Lifetime(),
    default="90d",
    show_default=True,
    help=f"How long the token is valid, for example 90d or 12h; {_NEVER} for a token that does not expire.",
)
@server_options("db")
def _create(config: str | None, name: str, roles: Sequence[str], expires: int, db: str | None) -> None:
    """Create an API token and print it.

    The database stores only a hash, so the token is shown this one time. NAME is the caller's name: no other
    active token may have it.

    CONFIG is a YAML file of options. The default is config/$ENVIRONMENT.yaml, if that file exists.
    """
    from spincycle_server.token_text import hash_token, is_token, new_token

    if is_token(name):
        raise click.UsageError("NAME is an API token, which is a secret: names are shown to others")
    if config is None and name.endswith((".yaml", ".yml")):
        raise click.UsageError(f"NAME is missing before CONFIG ({name})")
    token = new_token()
    with _api_tokens(config, db) as tokens:
        created = tokens.create(name, roles, hash_token(token), expires or None)
    until = "never expires" if created.expires_at is None else f"expires at {utc_text(created.expires_at)}"
    click.echo(
        f"created token {created.token_id} ({name}), which {until}. Keep it: it is not shown again.", err=True
    )
    click.echo(token)


@token_command.command("list")
@click.option("--all", "shows_all", is_flag=True, help="Show expired and revoked tokens too.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@server_options("db")
def _list(config: str | None, shows_all: bool, as_json: bool, db: str | None) -> None:
    """List the active API tokens.

    CONFIG is a YAML file of options. The default is config/$ENVIRONMENT.yaml, if that file exists.
    """
    with _api_tokens(config, db) as tokens:
        now, found = tokens.now(), tokens.all()
    shown = [one for one in found if shows_all or one.state(now) == "active"]
    if as_json:
        click.echo(json.dumps([_fields(one, now) for one in shown]))
        return
    ends = [_NEVER if one.expires_at is None else utc_text(one.expires_at) for one in shown]
    show_table(
        (
            Column("ID", [str(one.token_id) for one in shown]),
            Column("NAME", [one.name for one in shown], least=12),
            Column("ROLES", [", ".join(one.roles) or "-" for one in shown], least=8, wraps=True),
            Column("CREATED", [utc_text(one.created_at) for one in shown], may_drop=True),
            Column("EXPIRES", ends),
            Column("STATE", [one.state(now) for one in shown]),
        ),
        ("CREATED",),
    )


@token_command.command("revoke")
@click.argument("name_or_id", metavar="NAME|ID|TOKEN")
@server_options("db")
def _revoke(config: str | None, name_or_id: str, db: str | None) -> None:
    """Revoke an API token. Every server refuses it within 5 seconds.

    A token that somebody found can be given itself. It is not shown.

    CONFIG is a YAML file of options. The default is config/$ENVIRONMENT.yaml, if that file exists.
    """
    from spincycle_server.token_text import hash_token, is_token

    with _api_tokens(config, db) as tokens:
        is_secret = is_token(name_or_id)
        token = tokens.find_hash(hash_token(name_or_id)) if is_secret else tokens.find(name_or_id)
        tokens.revoke(token.token_id)
    done = "revoked" if token.revoked_at is None else "was revoked before"
    click.echo(f"{done}: token {token.token_id} ({token.name})")


@contextlib.contextmanager
def _api_tokens(config: str | None, db: str | None) -> Iterator[ApiTokens]:
    settings = load_config(config, overrides=overrides({"db": db}))
    with contextlib.closing(ApiTokens(settings.store_url(), database_options(settings))) as tokens:
        tokens.check()
        yield tokens


def _fields(token: ApiToken, now: int) -> dict[str, Any]:
    return {
        "id": token.token_id,
        "name": token.name,
        "roles": list(token.roles),
        "state": token.state(now),
        "createdAt": utc_text(token.created_at),
        "expiresAt": None if token.expires_at is None else utc_text(token.expires_at),
        "revokedAt": None if token.revoked_at is None else utc_text(token.revoked_at),
    }
