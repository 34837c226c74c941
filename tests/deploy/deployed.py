"""What the kit's files start: a command of `spincycle`, its environment and its configuration file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path

import click

from spincycle_server.__main__ import cli
from spincycle_server.config import Config, load_config

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
CONTAINERFILE = DEPLOY / "container" / "Containerfile"
SERVERS = ("request-manager", "job-runner", "server")


@dataclass(frozen=True)
class Deployed:
    """One process.

    Attributes:
        name: Its name in reports.
        words: What follows `spincycle`.
        environment: The variables that the kit sets.
        files: The files of the kit that the process finds at these paths.
    """

    name: str
    words: Sequence[str]
    environment: Mapping[str, str]
    files: Mapping[str, Path]

    @property
    def command(self) -> str:
        """The command, such as "job-runner"."""
        return self.words[0]

    @property
    def is_server(self) -> bool:
        """Whether it runs until SIGTERM."""
        return self.command in SERVERS

    def check_words(self) -> None:
        """Parses the words as the command line does.

        Raises:
            click.UsageError: A command or an option does not exist.
        """
        assert self.command in cli.list_commands(click.Context(cli)), self.command
        word = self.command.replace("-", "_")  # `cli` itself would start gRPC for the command.
        command = getattr(import_module(f"spincycle_server.commands.{word}"), f"{word}_command")
        here = [str(self.files.get(word, word)) for word in self.words[1:]]
        command.make_context(self.command, here)

    def config(self) -> Config:
        """Loads the options as the process does.

        Raises:
            ConfigError: An option, a variable or a value does not exist.
        """
        named = [self.files[word] for word in self.words if word in self.files]
        return load_config(str(named[0]) if named else None, self.environment)

    def named_files(self) -> set[str]:
        """Returns the files that its options name, with absolute paths."""
        config = self.config()
        named = [
            getattr(config, option.name)
            for option in fields(config)
            if option.metadata["key"].endswith("_file")
        ]
        return {path for path in named if path.startswith("/")}

    def http_port(self) -> int:
        """Returns the HTTP port of a server."""
        config = self.config()
        default = 32307 if self.command == "job-runner" else 32308
        return config.server_addr.port if config.server_addr else default


def image_environment() -> dict[str, str]:
    """Returns the variables that the image sets."""
    text = CONTAINERFILE.read_text().replace("\\\n", " ")
    variables = " ".join(re.findall(r"^ENV (.*)$", text, re.MULTILINE)).split()
    return dict(variable.split("=", 1) for variable in variables)


def image_words(instruction: str) -> list[str]:
    """Returns the words of ENTRYPOINT or CMD."""
    (words,) = re.findall(rf"^{instruction} (\[.*\])$", CONTAINERFILE.read_text(), re.MULTILINE)
    found: list[str] = json.loads(words)
    return found


def image_user() -> int:
    """Returns the number of the image's user."""
    (user,) = re.findall(r"^USER (\d+):\1$", CONTAINERFILE.read_text(), re.MULTILINE)
    return int(user)
