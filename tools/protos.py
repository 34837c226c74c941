"""Generates the Python stubs from the .proto files, and checks the contracts with buf.

Run as `python tools/protos.py COMMAND`:

* `generate` formats the .proto files and writes spincycle_grpc/v1: stubs, types and comments.
* `check` fails if the committed stubs differ from those that `generate` would write.
* `lint` runs `buf lint` and `buf format --diff`.
* `breaking` runs `buf breaking` against the newest commit whose .proto files differ from the working
  tree. So it has something to compare both before and after a commit.

The files of google/api come from the installed googleapis-common-protos. buf reads copies of them
under .build/ as a second module.
"""

from __future__ import annotations

import filecmp
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import google.api
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUBS = ROOT / "spincycle_grpc" / "v1"
GOOGLEAPIS = Path(next(iter(google.api.__path__))).parent.parent
BUILD = ROOT / ".build"
TOOLS = Path(sys.executable).parent
COMMENTS = "comments.json"
"""The file beside the stubs with the comments of the contracts. The OpenAPI document shows them."""

_NAMED_PARTS = {
    "FileDescriptorProto": {4: "message_type", 5: "enum_type", 6: "service"},
    "DescriptorProto": {2: "field", 3: "nested_type", 4: "enum_type"},
    "EnumDescriptorProto": {2: "value"},
    "ServiceDescriptorProto": {2: "method"},
}
"""For each kind of descriptor: the field numbers of its named parts."""

# protoc derives imports from proto paths, but the stubs are in another package.
_PROTO_IMPORT = re.compile(r"\bspincycle\.v1\b")
_IMPORT_LINE = re.compile(r"^\s*(from|import)\s|^\s*spincycle\.v1\.|\bspincycle\.v1\.\w+_pb2\b")


class CheckFailedError(Exception):
    """A check failed. The message is for the terminal."""


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
            "--include_source_info",
            f"--descriptor_set_out={out / 'descriptors'}",
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
                continue  # The file has no service.
            (target / generated.name).write_text(_rewrite_imports(text))
        descriptors = FileDescriptorSet.FromString((out / "descriptors").read_bytes())
        (target / COMMENTS).write_text(_comments(descriptors))


def _comments(descriptors: FileDescriptorSet) -> str:
    """Returns the comments as a JSON object, by the full name of the commented part."""
    found = {name: text for file in descriptors.file for name, text in _comments_of(file)}
    return json.dumps(dict(sorted(found.items())), indent=0, ensure_ascii=False) + "\n"


def _comments_of(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    for location in file.source_code_info.location:
        name = _name_at(file, location.path)
        if name and location.leading_comments:
            yield f"{file.package}.{name}", _joined(location.leading_comments)


def _name_at(file: FileDescriptorProto, path: Sequence[int]) -> str:
    """Returns the name of the part at a path of field numbers and indexes. "" if it has none."""
    names: list[str] = []
    part: Any = file
    if len(path) % 2:
        return ""
    for number, index in zip(path[::2], path[1::2], strict=True):
        field = _NAMED_PARTS.get(type(part).__name__, {}).get(number)
        if field is None:
            return ""
        part = getattr(part, field)[index]
        names.append(part.name)
    return ".".join(names)


def _joined(comment: str) -> str:
    """Returns a comment with the lines of each paragraph and of each list item joined."""
    joined: list[str] = []
    for line in comment.strip().splitlines():
        text = line.strip()
        if joined and joined[-1] and text and not text.startswith("- "):
            joined[-1] += f" {text}"
        else:
            joined.append(text)
    return "\n".join(joined)


def generate() -> None:
    """Writes the stubs."""
    _lay_out_modules()
    _run(TOOLS / "buf", "format", "--write", "protos")
    _generate_into(STUBS)


def check() -> None:
    """Fails if the committed stubs differ from those that the .proto files give."""
    with tempfile.TemporaryDirectory() as temporary:
        fresh = Path(temporary)
        _generate_into(fresh)
        ours = {path.name for path in (*STUBS.glob("*_pb2*"), *STUBS.glob(COMMENTS))}
        theirs = {path.name for path in fresh.iterdir()}
        _, different, errors = filecmp.cmpfiles(STUBS, fresh, ours & theirs, shallow=False)
        drifted = sorted((ours ^ theirs) | set(different) | set(errors))
    if drifted:
        raise CheckFailedError(f"stubs differ from the .proto files, run `make protos`: {', '.join(drifted)}")


def _lay_out_modules() -> None:
    """Copies the files of google/api that the contracts import to a place where buf finds them."""
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
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def _last_different_commit() -> str | None:
    for commit in _git("log", "--format=%H", "--", "protos").split():
        if _git("diff", "--name-only", commit, "--", "protos").strip():
            return commit
    return None


def breaking() -> None:
    """Compares the contracts with the newest committed state that differs from them."""
    if _git("rev-parse", "--is-shallow-repository").strip() == "true":
        raise SystemExit(
            "protos: this clone is shallow, so there is nothing to compare with: run git fetch --unshallow"
        )
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
    """Runs the named commands in turn. Returns the exit status."""
    commands = {"generate": generate, "check": check, "lint": lint, "breaking": breaking}
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
