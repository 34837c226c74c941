"""docs/spinc.md agrees with the code: options, variables, and examples."""

from __future__ import annotations

import re
from pathlib import Path

import click

from spincycle_grpc.cli.app import cli
from spincycle_grpc.cli.profiles import _PARSERS, find_profile, profiles_file

PAGE = (Path(__file__).parents[2] / "docs" / "spinc.md").read_text()
TABLE = PAGE.partition("\n## Options\n")[2].partition("\n## ")[0]
ROWS = [
    [cell.strip() for cell in line.split("|")[1:]] for line in TABLE.splitlines() if line.startswith("| `--")
]
"""The cells of the table of options: option, variable, name in a profile, default, meaning."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_table_has_every_common_option_with_its_variable() -> None:
    options = {
        option.opts[0]: ("" if option.is_flag else option.make_metavar(click.Context(cli)), option.envvar)
        for option in cli.params
        if isinstance(option, click.Option) and option.opts[0] != "--version"
    }
    documented = {
        row[0].strip("`").split()[0]: (row[0].strip("`").partition(" ")[2], row[1].strip("`") or None)
        for row in ROWS
    }
    assert documented == options


def test_the_table_has_every_option_of_a_profile() -> None:
    assert {name for row in ROWS for name in re.findall(r"\w+", row[2])} == set(_PARSERS)


def test_the_example_of_the_file_has_valid_profiles() -> None:
    [example] = blocks("toml")
    file = profiles_file()
    file.parent.mkdir(parents=True)
    file.touch(0o600)
    file.write_text(example)
    assert set(find_profile(None).options) == {"addr"}
    assert set(find_profile("prod").options) == {"addr", "ca", "token_file"}
    assert set(find_profile("lab").options) == {"addr", "ca", "cert", "key"}
