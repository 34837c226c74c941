"""`spincycle migrate`."""

from __future__ import annotations

import click

from spincycle_server.app.database import database_options
from spincycle_server.commands.options import overrides, server_options
from spincycle_server.config import load_config
from spincycle_server.database.engine import DatabaseOptions
from spincycle_server.maintenance.migrating import check_database, upgrade_database, upgrade_sql


@click.command("migrate")
@click.option("--check", is_flag=True, help="Only say whether the database is up to date.")
@click.option("--sql", is_flag=True, help="Print the statements that would be run, and run none.")
@server_options("db")
def migrate_command(config: str | None, check: bool, sql: bool, db: str | None) -> None:
    """Bring the database up to date, and say what was done.

    No row that is there is changed. It can be run while servers run, by several at once, and again after
    it was interrupted. CONFIG is a YAML file with options; without it, config/$ENVIRONMENT.yaml is read if
    it is there.

    Exit status: 0 done, or up to date; 1 it could not be done, or with --check the database is behind;
    2 wrong usage or configuration.
    """
    if check and sql:
        raise click.UsageError("use --check or --sql, not both")
    settings = load_config(config, overrides=overrides({"db": db}))
    url, options = settings.store_url(), database_options(settings)
    if check:
        click.echo(f"the database is up to date (revision {check_database(url, options)})")
    elif sql:
        statements = upgrade_sql(url, options)
        click.echo(statements, nl=False)
        if not statements:
            click.echo("the database is up to date: there is nothing to run", err=True)
    else:
        _migrate(url, options)


def _migrate(url: str, options: DatabaseOptions) -> None:
    done = upgrade_database(url, options)
    before, after = done.revisions
    if before == after:
        click.echo(f"the database is up to date (revision {after})")
    else:
        origin = f"revision {before}" if before else "no revision"
        click.echo(f"the database was migrated from {origin} to revision {after}")
    if done.indexed:
        click.echo(f"{done.indexed} requests of the original can now be found by their args")
