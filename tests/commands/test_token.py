"""`spincycle token` as an operator runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from sqlalchemy import select

from spincycle_server.store.schema import api_tokens
from spincycle_server.token_text import hash_token, new_token
from tests.commands.in_process import outcome, spincycle
from tests.commands.test_migrate import OUTDATED
from tests.databases import engine_of, migrated_sqlite

SECRET = new_token()
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory whose default database is up to date."""
    migrated_sqlite(tmp_path / "spincycle.db")
    return tmp_path


def test_a_token_is_printed_once_and_stored_as_a_hash(directory: Path) -> None:
    done = spincycle(directory, "token", "create", "alice", "--role", "dba", "--role=ops")
    assert done.returncode == 0
    assert re.fullmatch(r"spincycle_[A-Za-z0-9_-]{43}\n", done.stdout)
    assert re.fullmatch(
        rf"created token 1 \(alice\), which expires at {TIME}\. Keep it: it is not shown again\.\n",
        done.stderr,
    )
    token = done.stdout.strip()
    engine = engine_of(f"sqlite:///{directory / 'spincycle.db'}")
    with engine.connect() as connection:
        assert connection.scalar(select(api_tokens.c.token_hash)) == hash_token(token)
    engine.dispose()
    assert token.encode() not in b"".join(path.read_bytes() for path in directory.iterdir())


def test_tokens_are_listed_without_secrets(directory: Path) -> None:
    assert outcome(spincycle(directory, "token", "list", "--json")) == (0, "[]", "")
    secret = spincycle(directory, "token", "create", "alice", "--role", "dba", "--expires", "12h").stdout
    spincycle(directory, "token", "create", "bob", "--expires", "never")
    assert outcome(spincycle(directory, "token", "revoke", "alice")) == (0, "revoked: token 1 (alice)", "")
    active = spincycle(directory, "token", "list")
    assert [line.split() for line in active.stdout.splitlines()[1:]] == [
        ["2", "bob", "-", active.stdout.split()[9], "never", "active"]
    ]
    every = spincycle(directory, "token", "list", "--all")
    assert [line.split()[5] for line in every.stdout.splitlines()] == ["STATE", "revoked", "active"]
    listed = spincycle(directory, "token", "list", "--all", "--json")
    first, second = json.loads(listed.stdout)
    assert (first["id"], first["name"], first["roles"], first["state"]) == (1, "alice", ["dba"], "revoked")
    assert all(re.fullmatch(TIME, first[key]) for key in ("createdAt", "expiresAt", "revokedAt"))
    assert (second["roles"], second["expiresAt"], second["revokedAt"]) == ([], None, None)
    random = secret.strip().removeprefix("spincycle_")
    assert random not in active.stdout + every.stdout + listed.stdout


def test_a_token_is_revoked_by_name_or_id(directory: Path) -> None:
    spincycle(directory, "token", "create", "alice")
    assert outcome(spincycle(directory, "token", "revoke", "1")) == (0, "revoked: token 1 (alice)", "")
    again = spincycle(directory, "token", "revoke", "1")
    assert outcome(again) == (0, "was revoked before: token 1 (alice)", "")
    missing = spincycle(directory, "token", "revoke", "alice")
    assert outcome(missing) == (
        1, "", "spincycle: no token is called 'alice': `spincycle token list` shows the tokens",
    )  # fmt: skip


def test_the_database_comes_from_the_usual_sources(tmp_path: Path) -> None:
    url = migrated_sqlite(tmp_path / "other.db")
    (tmp_path / "c.yaml").write_text(f"database: {{url: '{url}'}}\n")
    assert spincycle(tmp_path, "token", "create", "a", "c.yaml").returncode == 0
    assert spincycle(tmp_path, "token", "create", "b", f"--db={url}").returncode == 0
    listed = spincycle(tmp_path, "token", "list", "--json", SPINCYCLE_DATABASE_URL=url)
    assert [one["name"] for one in json.loads(listed.stdout)] == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create"], "Missing argument 'NAME'"),
        (["create", "1st"], "the name '1st' must start with a letter"),
        (["create", SECRET], "NAME is an API token, which is a secret"),
        (["create", "prod.yaml"], "NAME is missing before CONFIG (prod.yaml)"),
        (["create", "a", "--role", "x,y"], "the role 'x,y' must have"),
        (["create", "a", "--expires", "90"], "'90' must be a duration, for example 90d"),
        (["create", "a", "--expires", "0s"], "must be positive"),
        (["create", "a", "--expires", "never ever"], "or never"),
        (["create", "a", "--db", "oracle://x/y"], "databases of kind 'oracle' are not supported"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], message: str, directory: Path) -> None:
    done = spincycle(directory, "token", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr


def test_a_token_is_revoked_by_its_text_which_is_not_shown(directory: Path) -> None:
    token = spincycle(directory, "token", "create", "alice").stdout.strip()
    revoked = (0, "revoked: token 1 (alice)", "")
    assert outcome(spincycle(directory, "token", "revoke", token)) == revoked
    again = (0, "was revoked before: token 1 (alice)", "")
    assert outcome(spincycle(directory, "token", "revoke", token)) == again
    unknown = spincycle(directory, "token", "revoke", SECRET)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "this database does not have this token" in unknown.stderr
    assert SECRET not in unknown.stderr


def test_an_outdated_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "spincycle.db").touch()
    for arguments in (("create", "alice"), ("list",), ("revoke", "alice")):
        assert outcome(spincycle(tmp_path, "token", *arguments)) == (1, "", OUTDATED)


def test_a_name_can_be_used_again_after_its_token_was_revoked(directory: Path) -> None:
    first = spincycle(directory, "token", "create", "alice").stdout
    refused = spincycle(directory, "token", "create", "alice")
    assert outcome(refused) == (
        1, "", "spincycle: an active token is called alice: revoke it first, or choose another name",
    )  # fmt: skip
    spincycle(directory, "token", "revoke", "alice")
    second = spincycle(directory, "token", "create", "alice")
    assert second.returncode == 0
    assert second.stdout != first
