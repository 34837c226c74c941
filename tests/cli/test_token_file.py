"""The file with the user's token."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest

from spincycle_grpc.cli.token_file import TokenFile


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("first\n")
    path.chmod(0o600)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(click.UsageError) as caught:
        TokenFile(str(path))
    return caught.value.message


def test_the_file_is_read_again_for_each_call(file: Path) -> None:
    token = TokenFile(str(file))
    assert token() == "first"
    file.write_text("second")
    assert token() == "second"


@pytest.mark.parametrize("content", ["", "a b"])
def test_the_last_token_counts_while_the_file_is_unusable(content: str, file: Path) -> None:
    token = TokenFile(str(file))
    file.write_text(content)
    assert token() == "first"
    file.unlink()
    assert token() == "first"
    file.write_text("second")
    file.chmod(0o600)
    assert token() == "second"


def test_a_pipe_is_read_once() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"piped\n")
    os.close(writer)
    try:
        token = TokenFile(f"/dev/fd/{reader}")
        assert [token(), token()] == ["piped", "piped"]
    finally:
        os.close(reader)


def test_the_error_says_what_is_wrong_with_the_file(file: Path, tmp_path: Path) -> None:
    none = tmp_path / "none"
    assert refusal(none) == f"token file {none}: No such file or directory"
    assert refusal(tmp_path) == f"token file {tmp_path}: Is a directory"
    for content, message in [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"s3cret s3cret", "it must have one token, without spaces"),
        (b"s3cret\ns3cret\n", "it must have one token, without spaces"),
        (b"s3cret\x00", "it must have one token, without spaces"),
        (b"s3cret\xff", "it must have ASCII characters only"),
    ]:
        file.write_bytes(content)
        assert refusal(file) == f"token file {file}: {message}"


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644])
def test_a_file_that_every_user_can_read_or_change_is_refused(mode: int, file: Path) -> None:
    file.chmod(mode)
    assert refusal(file) == f"token file {file}: every user may read or change it: run `chmod 600 {file}`"
    file.chmod(0o640)
    assert TokenFile(str(file))() == "first"
