"""`spincycle config` prints the options, their values, and where these come from."""

from __future__ import annotations

import json

import click

from spincycle_grpc.cli.tables import Column, show_table
from spincycle_server.config import load_with_sources


@click.command("config")
@click.argument("config", required=False, type=click.Path(dir_okay=False))
@click.option("--set", "only_set", is_flag=True, help="Print only the options that a source sets.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def config_command(config: str | None, only_set: bool, as_json: bool) -> None:
    """Print each option with its value and its source.

    The source is a file, an environment variable, or "default". Passwords are masked.

    CONFIG is a YAML file of options. The default is config/$ENVIRONMENT.yaml, if that file exists.

    Exit status: 0 success, 2 wrong usage or configuration.
    """
    loaded = load_with_sources(config)
    shown = {
        key: (value, loaded.sources.get(key, "default"))
        for key, value in loaded.config.shown().items()
        if key in loaded.sources or not only_set
    }
    if as_json:
        click.echo(
            json.dumps({key: {"value": value, "source": source} for key, (value, source) in shown.items()})
        )
        return
    show_table(
        (
            Column("OPTION", list(shown)),
            Column("VALUE", [value or "-" for value, _ in shown.values()]),
            Column("SOURCE", [source for _, source in shown.values()]),
        )
    )
