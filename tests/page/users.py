"""Users of the page who sign in with an API token."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Page

from tests.commands.in_process import spincycle


def require_tokens(directory: Path, admin_role: str) -> None:
    """Configures the server of a directory so that its users need API tokens."""
    (directory / "config").mkdir()
    settings = {"auth": {"methods": ["token"], "admin_roles": [admin_role]}}
    (directory / "config" / "development.yaml").write_text(json.dumps(settings))


def new_token(directory: Path, user: str, role: str) -> str:
    """Returns a new API token of a user. The server of the directory must have started before."""
    database = f"--db=sqlite:///{directory}/spincycle.db"
    made = spincycle(directory, "token", "create", user, database, f"--role={role}")
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def sign_in(page: Page, token: str) -> None:
    """Signs in on the page that asks for it."""
    page.get_by_label("API token").fill(token)
    page.get_by_role("button", name="Sign in").click()
