"""The file with the user's token."""

from __future__ import annotations

import contextlib
import os
import stat

import click

_OTHERS = stat.S_IROTH | stat.S_IWOTH


class TokenFile:
    """Returns the token of a file, as `Client(token=...)` asks for it.

    It reads the file again for each call, because other programs renew tokens while `spinc start --wait`
    runs. If the file is unusable for a moment, the last token counts. A pipe is read once.

    Args:
        path: The path of the file.

    Raises:
        click.UsageError: The file cannot be read, is empty, or others may read or change it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._is_regular = False
        self._token = self._read()

    def __call__(self) -> str:
        """Returns the token."""
        if self._is_regular:
            with contextlib.suppress(click.UsageError):
                self._token = self._read()
        return self._token

    def _read(self) -> str:
        try:
            with open(self._path, encoding="ascii") as file:
                mode = os.fstat(file.fileno()).st_mode
                self._is_regular = stat.S_ISREG(mode)
                if self._is_regular and mode & _OTHERS:
                    raise click.UsageError(
                        f"token file {self._path}: every user may read or change it: "
                        f"run `chmod 600 {self._path}`"
                    )
                token = file.read().strip()
        except OSError as error:
            raise click.UsageError(f"token file {self._path}: {error.strerror}") from error
        except UnicodeDecodeError:
            raise click.UsageError(f"token file {self._path}: it must have ASCII characters only") from None
        if not token:
            raise click.UsageError(f"token file {self._path}: it is empty")
        if len(token.split()) > 1 or not token.isprintable():
            raise click.UsageError(f"token file {self._path}: it must have one token, without spaces")
        return token
