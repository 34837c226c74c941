"""`spincycle migrate` creates or upgrades the database schema."""

from __future__ import annotations

import click

from spincycle_server.app.database import database_options
from spincycle_server.commands.options import overrides, server_options
from spincycle_server.config import load_config
from spincycle_server.database.engine import DatabaseOptions
from spincycle_server.maintenance.migrating import check_database, upgrade_database, upgrade_sql


@click.command("migrate")
@click.option("--check", is_flag=True, help="Check whether the schema is up to date, and change nothing.")
@click.option("--sql", is_flag=True, help="Print the SQL statements, and run none.")
@click.option(
    "--fail-pending",
    is_flag=True,
    help="Also set the PENDING requests of an original Spin Cycle to FAIL. It may have denied them.",
)
@server_options("db")
def migrate_command(config: str | None, check: bool, sql: bool, fail_pending: bool, db: str | None) -> None:
    """Create or upgrade the database schema.

    A migration never changes stored values, except with --fail-pending. It is safe to run while servers
    run, in several processes at once, and again after an interruption.

    CONFIG is a YAML file of options. The default is config/$ENVIRONMENT.yaml, if that file exists.

    Exit status: 0 if the schema is up to date; 1 if the migration failed, or if --check finds an
    outdated schema; 2 for wrong usage or configuration.
    """
    if check and sql:
        raise click.UsageError("use --check or --sql, not both")
    if fail_pending and (check or sql):
        raise click.UsageError("use --fail-pending without --check and --sql: it changes requests")
    settings = load_config(config, overrides=overrides({"db": db}))
    url, options = settings.store_url(), database_options(settings)
    if check:
        click.echo(f"the database is up to date (revision {check_database(url, options)})")
    elif sql:
        statements = upgrade_sql(url, options)
        click.echo(statements, nl=False)
        if not statements:
            click.echo("the database is up to date: there are no statements to run", err=True)
    else:
        _migrate(url, options, fail_pending=fail_pending)


def _migrate(url: str, options: DatabaseOptions, *, fail_pending: bool) -> None:
    done = upgrade_database(url, options, fail_pending=fail_pending)
    before, after = done.revisions
    if before == after:
        click.echo(f"the database is up to date (revision {after})")
    else:
        origin = f"revision {before}" if before else "no revision"
        click.echo(f"the database was migrated from {origin} to revision {after}")
    if done.indexed:
        click.echo(f"{done.indexed} requests of the original Spin Cycle can now be found by their args")
    if fail_pending:
        click.echo(f"{done.failed} PENDING requests of the original Spin Cycle are now FAIL")
    if done.left_pending:
        click.echo(
            f"{done.left_pending} PENDING requests of the original Spin Cycle stay PENDING, because it may "
            "have denied them: start those that must run, or set all to FAIL with --fail-pending"
        )
