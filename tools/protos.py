"""Generates the Python stubs from the .proto files, and checks the contracts with buf.

Run as `python tools/protos.py COMMAND`:

* `generate` formats the .proto files and writes spincycle_grpc/v1 (stubs, types and descriptors) and
  docs/errors.md.
* `check` fails if these files differ from those that `generate` would write.
* `lint` runs `buf lint` and `buf format --diff`.
* `breaking` runs `buf breaking` against the contracts of the last release.
* `contracts` writes the archive and the descriptor set of a release to dist/.
* `release` makes the present contracts those of the last release. Run it when you publish a release.

No stubs are made of protos/google: at run time Python uses the package googleapis-common-protos.
"""

from __future__ import annotations

import filecmp
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from spincycle_grpc.contracts import DESCRIPTORS, descriptor_set, protos_zip
from spincycle_grpc.version import package_version

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUBS = ROOT / "spincycle_grpc" / "v1"
TOOLS = Path(sys.executable).parent
ERROR_PAGE = ROOT / "tools" / "error_page.py"
"""The program that writes docs/errors.md."""

RELEASED = ROOT / "tools" / "released.binpb"
"""The descriptor set of the contracts of the last release."""

# protoc derives imports from proto paths, but the stubs are in another package.
_PROTO_IMPORT = re.compile(r"\bspincycle\.v1\b")
_IMPORT_LINE = re.compile(r"^\s*(from|import)\s|^\s*spincycle\.v1\.|\bspincycle\.v1\.\w+_pb2\b")


class CheckFailedError(Exception):
    """A check failed. The message is for the terminal."""


def _run(*command: str | Path) -> None:
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        raise CheckFailedError(f"failed: {' '.join(Path(str(part)).name for part in command[:3])}")


def _rewrite_imports(text: str) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(
        _PROTO_IMPORT.sub("spincycle_grpc.v1", line) if _IMPORT_LINE.search(line) else line for line in lines
    )


def _generate_into(target: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        arguments = [
            "protoc",
            f"--plugin=protoc-gen-mypy={TOOLS / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={TOOLS / 'protoc-gen-mypy_grpc'}",
            f"--proto_path={PROTOS}",
            f"--proto_path={Path(str(protoc.__file__)).parent / '_proto'}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            "--include_imports",
            "--include_source_info",
            f"--descriptor_set_out={out / DESCRIPTORS}",
            *sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / "spincycle").rglob("*.proto")),
        ]
        if protoc.main(arguments) != 0:
            raise CheckFailedError("protoc failed")
        target.mkdir(parents=True, exist_ok=True)
        for stale in target.glob("*_pb2*"):
            stale.unlink()
        for generated in sorted((out / "spincycle" / "v1").iterdir()):
            text = generated.read_text()
            if "_pb2_grpc" in generated.name and "class " not in text:
                continue  # The file has no service.
            (target / generated.name).write_text(_rewrite_imports(text))
        descriptors = FileDescriptorSet.FromString((out / DESCRIPTORS).read_bytes())
        for file in descriptors.file:
            _keep_own_comments(file)
        (target / DESCRIPTORS).write_bytes(descriptors.SerializeToString(deterministic=True))


def _keep_own_comments(file: FileDescriptorProto) -> None:
    """Drops the source positions of parts without comments, and those of files of others."""
    commented = [
        location
        for location in file.source_code_info.location
        if file.package == "spincycle.v1" and (location.leading_comments or location.trailing_comments)
    ]
    file.ClearField("source_code_info")
    if commented:
        file.source_code_info.location.extend(commented)


def generate() -> None:
    """Writes the stubs and docs/errors.md."""
    _run(TOOLS / "buf", "format", "--write", "protos")
    _generate_into(STUBS)
    _run(sys.executable, ERROR_PAGE)


def check() -> None:
    """Fails if the committed stubs or docs/errors.md differ from what the .proto files give."""
    with tempfile.TemporaryDirectory() as temporary:
        fresh = Path(temporary)
        _generate_into(fresh)
        ours = {path.name for path in (*STUBS.glob("*_pb2*"), *STUBS.glob(DESCRIPTORS))}
        theirs = {path.name for path in fresh.iterdir()}
        _, different, errors = filecmp.cmpfiles(STUBS, fresh, ours & theirs, shallow=False)
        drifted = sorted((ours ^ theirs) | set(different) | set(errors))
    if drifted:
        raise CheckFailedError(
            f"generated files differ from the .proto files, run `make protos`: {', '.join(drifted)}"
        )
    _run(sys.executable, ERROR_PAGE, "--check")


def lint() -> None:
    """Runs buf's linter and its formatter."""
    _run(TOOLS / "buf", "lint")
    _run(TOOLS / "buf", "format", "--diff", "--exit-code", "protos")


def breaking() -> None:
    """Compares the contracts with those of the last release."""
    _run(TOOLS / "buf", "breaking", "--against", RELEASED)


def contracts() -> None:
    """Writes what users of other languages need, for a release."""
    check()
    target = ROOT / "dist"
    target.mkdir(exist_ok=True)
    for name, content in (("protos.zip", protos_zip()), (DESCRIPTORS, descriptor_set())):
        path = target / f"spincycle-{package_version()}-{name}"
        path.write_bytes(content)
        print(f"protos: wrote {path.relative_to(ROOT)}")


def release() -> None:
    """Makes the present contracts those that `breaking` compares with."""
    _run(TOOLS / "buf", "build", "--exclude-source-info", "--as-file-descriptor-set", "--output", RELEASED)


def main(arguments: list[str]) -> int:
    """Runs the named commands in turn. Returns the exit status."""
    commands = {
        command.__name__: command for command in (generate, check, lint, breaking, contracts, release)
    }
    try:
        for name in arguments or ["check"]:
            commands[name]()
    except CheckFailedError as error:
        print(f"protos: {error}", file=sys.stderr)
        return 1
    except KeyError as error:
        print(f"protos: no command {error}: choose from {', '.join(commands)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
