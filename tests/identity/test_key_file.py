"""The file with the servers' keys: what it may contain, and how a key is replaced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_server.identity import key_file as key_file_module
from spincycle_server.identity.key_file import MIN_KEY_LENGTH, KeyFile, new_key

KEY, NEXT_KEY = "k" * MIN_KEY_LENGTH, "n" * MIN_KEY_LENGTH


class Clock:
    """A clock that stands still until a test advances it. It replaces the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(key_file_module, "time", clock)
    return clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.key"
    path.write_text(KEY)
    return path


def rewrite(path: Path, text: str, clock: Clock) -> None:
    """Writes the file with a time of its own, and lets the next check happen."""
    path.write_text(text)
    clock.now += 10
    os.utime(path, (clock.now, clock.now))


def test_the_keys_are_the_lines(path: Path) -> None:
    path.write_text(f"\n  {KEY}\r\n\n{NEXT_KEY}\n")
    assert KeyFile(str(path))() == (KEY, NEXT_KEY)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", b"k" * (MIN_KEY_LENGTH - 1), b"k" * 32 + b"\nshort", b"k" * 40 + b"\x07", b"\xff" * 40],
)
def test_a_file_without_usable_keys_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InvalidArgumentError, match=r"option cluster\.key_file") as raised:
        KeyFile(str(path))
    assert raised.value.reason == "BAD_CONFIG"
    assert "kkkk" not in str(raised.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="No such file"):
        KeyFile(str(tmp_path / "missing"))


def test_a_changed_file_is_read_again(path: Path, clock: Clock) -> None:
    keys = KeyFile(str(path))
    rewrite(path, f"{KEY}\n{NEXT_KEY}", clock)
    assert keys() == (KEY, NEXT_KEY)
    rewrite(path, NEXT_KEY, clock)
    assert keys() == (NEXT_KEY,)


def test_a_file_is_looked_at_at_most_once_a_second(path: Path, clock: Clock) -> None:
    keys = KeyFile(str(path))
    path.write_text(NEXT_KEY)
    os.utime(path, (5, 5))
    clock.now += 0.9
    assert keys() == (KEY,)
    clock.now += 0.1
    assert keys() == (NEXT_KEY,)


def test_the_last_keys_stay_valid_while_the_file_is_unusable(path: Path, clock: Clock) -> None:
    keys = KeyFile(str(path))
    rewrite(path, "half", clock)
    assert keys() == (KEY,)
    path.unlink()
    clock.now += 10
    assert keys() == (KEY,)
    rewrite(path, NEXT_KEY, clock)
    assert keys() == (NEXT_KEY,)


def test_a_change_while_the_file_is_read_is_noticed(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = KeyFile._read

    def read_before_a_change(self: KeyFile) -> object:
        keys = read(self)
        rewrite(path, NEXT_KEY, clock)
        return keys

    with monkeypatch.context() as patch:
        patch.setattr(KeyFile, "_read", read_before_a_change)
        keys = KeyFile(str(path))
    clock.now += 10
    assert keys() == (NEXT_KEY,)


def test_new_keys_are_random_and_long_enough() -> None:
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(len(key) >= MIN_KEY_LENGTH and key.isascii() and key.isprintable() for key in made)
