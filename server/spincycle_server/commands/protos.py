"""`spincycle protos` writes the contracts."""

from __future__ import annotations

from pathlib import Path

import click

from spincycle_grpc.contracts import contract_files


@click.command("protos")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
def protos_command(directory: Path) -> None:
    """Write the .proto files and the gRPC service config to DIR, to generate clients from them.

    They compile without other files: `protoc --proto_path=DIR ...`. Files of an earlier version are replaced.
    """
    files = contract_files()
    try:
        for path, content in files.items():
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    except OSError as error:
        raise click.ClickException(f"cannot write to {directory}: {error.strerror}") from error
    click.echo(f"wrote {len(files)} files to {directory}", err=True)
