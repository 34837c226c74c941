"""The file of profiles: what a profile sets, and which files are refused."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest

from spincycle_grpc.cli.profiles import find_profile, profiles_file

TOKEN = "s3cret-token"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The private file of profiles, which is empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = profiles_file()
    path.parent.mkdir()
    path.touch(0o600)
    return path


def refusal(name: str | None = None) -> str:
    with pytest.raises(click.UsageError) as caught:
        find_profile(name)
    assert TOKEN not in caught.value.message
    return caught.value.message


def test_a_profile_sets_every_option(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    file.write_text(
        '[prod]\naddr = "spin.example.com:32318"\ndeadline = 2.5\ntls = true\nca = "ca.pem"\n'
        'cert = "/etc/ann.pem"\nkey = "~/ann.key"\ntoken_file = "../prod.token"\n'
        f'[other]\ntoken = "{TOKEN}"\n'
    )
    assert find_profile("prod").options == {
        "addr": "spin.example.com:32318",
        "deadline": 2.5,
        "tls": True,
        "ca": f"{file.parent}/ca.pem",
        "cert": "/etc/ann.pem",
        "key": "/home/ann/ann.key",
        "token_file": f"{file.parent}/../prod.token",
    }
    other = find_profile("other")
    assert other.options == {"token": TOKEN}
    assert TOKEN not in repr(other)


def test_the_file_is_in_the_users_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("XDG_CONFIG_HOME", "")
    assert profiles_file() == Path("/home/ann/.config/spinc/profiles.toml")


def test_the_default_profile_is_optional(file: Path) -> None:
    assert find_profile(None).options == {}
    file.write_text("[default]\ndeadline = 3\n[prod]\ndeadline = 4\n")
    assert find_profile(None).options == {"deadline": 3}
    assert find_profile("default").options == {"deadline": 3}
    file.unlink()
    assert find_profile(None).options == {}


def test_an_unknown_profile_is_refused(file: Path) -> None:
    file.write_text("[prod]\n[staging]\n")
    assert refusal("dev") == f"profile dev does not exist: {file} has: prod, staging"
    file.write_text("")
    assert refusal("dev") == f"profile dev does not exist: {file} has: none"
    file.unlink()
    assert refusal("dev") == f"profile dev: cannot read {file}: No such file or directory"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[prod]\naddress = 1", "profile prod: unknown option address: use addr, deadline, tls, ca"),
        ('[prod]\naddr = "http://x"', "profile prod: addr: 'http://x' must be HOST:PORT"),
        ("[prod]\ndeadline = 0", "profile prod: deadline: 0 must be a number of seconds above 0"),
        ("[prod]\ndeadline = true", "profile prod: deadline: must be a number"),
        ("[prod]\ndeadline = nan", "profile prod: deadline: nan must be a number"),
        ('[prod]\ntls = "yes"', "profile prod: tls: must be true or false"),
        ('[prod]\nca = ""', "profile prod: ca: must be text in quotes"),
        (f"[prod]\ntoken = ['{TOKEN}']", "profile prod: token: must be text in quotes"),
        (f"[prod]\ntoken = '{TOKEN}'\ntoken_file = 'x'", "profile prod: set token or token_file, not both"),
        (f"[prod]\ntoken = 'Bearer {TOKEN}'", "profile prod: token: must be one token, without spaces"),
        (f"token = '{TOKEN}'\n[prod]", "token must be in a profile, below a line like [default]"),
        (f"[prod]\ntoken = {TOKEN}", "is not valid TOML"),
        (f"[prod]\ntoken = '{TOKEN}\n", "is not valid TOML"),
        ("[prod]\ntoken = 'caf\xe9'", "is not valid TOML"),
    ],
)
def test_the_error_names_the_file_and_the_option(text: str, message: str, file: Path) -> None:
    file.write_text(text, encoding="latin-1")
    said = refusal("prod")
    assert said.startswith(str(file))
    assert message in said


def test_a_file_may_start_with_a_byte_order_mark_and_have_the_line_ends_of_windows(file: Path) -> None:
    file.write_text("\ufeff[prod]\r\naddr = 'h:1'\r\n", encoding="utf-8")
    assert find_profile("prod").options == {"addr": "h:1"}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
@pytest.mark.parametrize("secret", ["token = 's3cret-token'", "token_file = 'x'", "key = 'x'"])
def test_a_file_with_secrets_that_others_can_read_is_refused(secret: str, mode: int, file: Path) -> None:
    file.write_text(f"[prod]\naddr = 'h:1'\n[other]\n{secret}\n")
    file.chmod(mode)
    expected = f"{file} has secrets, but other users can read it: run `chmod 600 {file}`"
    assert [refusal("prod"), refusal()] == [expected] * 2
    file.chmod(0o600)
    assert find_profile("prod").options == {"addr": "h:1"}


def test_a_file_without_secrets_may_be_read_but_not_changed(file: Path) -> None:
    file.write_text("[prod]\naddr = 'h:1'\nca = '/ca.pem'\n")
    file.chmod(0o644)
    assert find_profile("prod").options == {"addr": "h:1", "ca": "/ca.pem"}
    for mode in (0o664, 0o646):
        file.chmod(mode)
        assert refusal("prod") == f"{file} can be changed by other users: run `chmod 600 {file}`"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_another_user_is_refused(file: Path) -> None:
    file.write_text("[prod]\naddr = 'h:1'\n")
    os.chown(file, 12345, 12345)
    assert refusal("prod").startswith(f"{file} belongs to another user")


def test_a_file_that_is_unreadable_matters_only_if_a_profile_is_chosen(file: Path) -> None:
    file.unlink()
    file.parent.rmdir()
    file.parent.write_text("not a directory")
    assert find_profile(None).options == {}
    assert refusal("prod") == f"profile prod: cannot read {file}: Not a directory"
