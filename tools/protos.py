"""Makes the Python stubs from the .proto files, and checks the contracts with buf.

Run as `python tools/protos.py COMMAND`:

* `generate` writes spincycle_grpc/v1, stubs and types, and formats the .proto files.
* `check` fails when the committed stubs differ from what `generate` would write.
* `lint` runs `buf lint` and `buf format --diff`.
* `breaking` runs `buf breaking` against the newest commit whose .proto files differ
  from the working tree's, so that it says something before a commit and after it.

Files of google/api are taken from the installed googleapis-common-protos. buf gets
them as a second module, which is laid out under .build/.
"""

from __future__ import annotations

import filecmp
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import google.api
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUBS = ROOT / "spincycle_grpc" / "v1"
GOOGLEAPIS = Path(next(iter(google.api.__path__))).parent.parent
BUILD = ROOT / ".build"
TOOLS = Path(sys.executable).parent

# protoc writes imports by proto path; the package that holds the stubs has another name.
_PROTO_IMPORT = re.compile(r"\bspincycle\.v1\b")
_IMPORT_LINE = re.compile(r"^\s*(from|import)\s|^\s*spincycle\.v1\.|\bspincycle\.v1\.\w+_pb2\b")


class CheckFailedError(Exception):
    """A check did not pass; the message is for the terminal."""


def _run(*command: str | Path) -> None:
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        raise CheckFailedError(f"failed: {' '.join(Path(str(part)).name for part in command[:3])}")


def _proto_files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*.proto"))


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
            f"--proto_path={GOOGLEAPIS}",
            f"--proto_path={Path(str(protoc.__file__)).parent / '_proto'}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *_proto_files(PROTOS),
        ]
        if protoc.main(arguments) != 0:
            raise CheckFailedError("protoc failed")
        target.mkdir(parents=True, exist_ok=True)
        for stale in target.glob("*_pb2*"):
            stale.unlink()
        for generated in sorted((out / "spincycle" / "v1").iterdir()):
            text = generated.read_text()
            if "_pb2_grpc" in generated.name and "class " not in text:
                continue  # A file without a service has nothing to say to gRPC.
            (target / generated.name).write_text(_rewrite_imports(text))


def generate() -> None:
    """Writes the stubs."""
    _lay_out_modules()
    _run(TOOLS / "buf", "format", "--write", "protos")
    _generate_into(STUBS)


def check() -> None:
    """Fails when the committed stubs are not what the .proto files give."""
    with tempfile.TemporaryDirectory() as temporary:
        fresh = Path(temporary)
        _generate_into(fresh)
        ours = {path.name for path in STUBS.glob("*_pb2*")}
        theirs = {path.name for path in fresh.iterdir()}
        _, different, errors = filecmp.cmpfiles(STUBS, fresh, ours & theirs, shallow=False)
        drifted = sorted((ours ^ theirs) | set(different) | set(errors))
    if drifted:
        raise CheckFailedError(f"stubs differ from the .proto files, run `make protos`: {', '.join(drifted)}")


def _lay_out_modules() -> None:
    """Lays out what buf reads besides the project's own files: google/api, and nothing else of it."""
    target = BUILD / "googleapis" / "google" / "api"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in ("annotations.proto", "http.proto"):
        shutil.copy(GOOGLEAPIS / "google" / "api" / name, target / name)


def lint() -> None:
    """Runs buf's linter and its formatter."""
    _lay_out_modules()
    _run(TOOLS / "buf", "lint")
    _run(TOOLS / "buf", "format", "--diff", "--exit-code", "protos")


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=ROOT, check=False, capture_output=True, text=True)
    return result.stdout if result.returncode == 0 else ""


def _last_different_commit() -> str | None:
    for commit in _git("log", "--format=%H", "--", "protos").split():
        if _git("diff", "--name-only", commit, "--", "protos").strip():
            return commit
    return None


def breaking() -> None:
    """Compares the contracts with the last committed state that differs from them."""
    commit = _last_different_commit()
    if commit is None:
        print("protos: no earlier state to compare with")
        return
    _lay_out_modules()
    with tempfile.TemporaryDirectory() as temporary:
        earlier = Path(temporary)
        archive = subprocess.run(
            ["git", "archive", commit, "protos", "buf.yaml"], cwd=ROOT, check=True, capture_output=True
        ).stdout
        subprocess.run(["tar", "-x", "-C", str(earlier)], input=archive, check=True)
        shutil.copytree(BUILD / "googleapis", earlier / ".build" / "googleapis")
        _run(TOOLS / "buf", "breaking", "--against", str(earlier))


def main(arguments: list[str]) -> int:
    """Runs the named commands in turn; returns the exit status."""
    commands = {"generate": generate, "check": check, "lint": lint, "breaking": breaking}
    try:
        for name in arguments or ["check"]:
            commands[name]()
    except CheckFailedError as error:
        print(f"protos: {error}", file=sys.stderr)
        return 1
    except KeyError as error:
        print(f"protos: no command {error}; there are {', '.join(commands)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
