"""The contracts that the package contains compile without other files, and say what the stubs say."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from spincycle_grpc import contracts
from spincycle_grpc.v1 import job_runner_pb2, json_pb2, request_manager_pb2, runner_reports_pb2
from tests.limits import COMMAND

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def descriptors() -> dict[str, FileDescriptorProto]:
    """The files of the descriptor set by path."""
    return {file.name: file for file in FileDescriptorSet.FromString(contracts.descriptor_set()).file}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files of the zip alone."""
    directory = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(io.BytesIO(contracts.protos_zip())) as archive:
        archive.extractall(directory)
    return directory


def run(*command: str | Path, directory: Path) -> str:
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=COMMAND, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_protoc_compiles_the_files_of_the_zip_alone(unpacked: Path, tmp_path: Path) -> None:
    names = sorted(str(path.relative_to(unpacked)) for path in unpacked.rglob("*.proto"))
    output = tmp_path / "image.binpb"
    warnings = run(
        BIN / "python", "-m", "grpc_tools.protoc", f"--proto_path={unpacked}",
        f"--descriptor_set_out={output}", *names, directory=tmp_path,
    )  # fmt: skip
    assert warnings == ""
    assert {file.name for file in FileDescriptorSet.FromString(output.read_bytes()).file} == set(names)


def test_buf_builds_the_files_of_the_zip_alone(unpacked: Path, tmp_path: Path) -> None:
    assert run(BIN / "buf", "build", "--output", tmp_path / "image.binpb", directory=unpacked) == ""
    image = FileDescriptorSet.FromString((tmp_path / "image.binpb").read_bytes())
    assert set(contracts.proto_files()) <= {file.name for file in image.file}


def test_every_file_names_its_packages_for_go_java_and_csharp(
    descriptors: dict[str, FileDescriptorProto],
) -> None:
    own = [file for name, file in descriptors.items() if name.startswith("spincycle/")]
    assert len(own) >= 10
    for file in own:
        options = file.options
        assert options.go_package == "spincycle.dev/grpc/v1;spincyclev1"
        assert (options.java_package, options.java_multiple_files) == ("dev.spincycle.v1", True)
        assert options.csharp_namespace == "SpinCycle.V1"


@pytest.mark.parametrize("published", [http_pb2.DESCRIPTOR, annotations_pb2.DESCRIPTOR])
def test_the_declared_options_are_the_published_ones(
    descriptors: dict[str, FileDescriptorProto], published: FileDescriptor
) -> None:
    expected = FileDescriptorProto.FromString(published.serialized_pb)
    declared = descriptors[expected.name]
    expected.ClearField("source_code_info")
    assert without_json_names(declared) == without_json_names(expected)


def without_json_names(file: FileDescriptorProto) -> FileDescriptorProto:
    """Returns a file without the JSON names, which stubs leave out if they follow from the field names."""
    plain = FileDescriptorProto()
    plain.CopyFrom(file)
    for fields in (plain.extension, *(message.field for message in plain.message_type)):
        for field in fields:
            field.ClearField("json_name")
    return plain


def test_the_descriptor_set_has_every_import_before_the_files_that_import_it(
    descriptors: dict[str, FileDescriptorProto],
) -> None:
    seen: set[str] = set()
    for name, file in descriptors.items():
        assert set(file.dependency) <= seen
        seen.add(name)
    assert set(contracts.proto_files()) <= seen


@pytest.mark.parametrize("stub", [request_manager_pb2, runner_reports_pb2, job_runner_pb2, json_pb2])
def test_the_descriptor_set_says_what_the_stubs_say(
    descriptors: dict[str, FileDescriptorProto], stub: object
) -> None:
    of_stub = FileDescriptorProto.FromString(stub.DESCRIPTOR.serialized_pb)  # type: ignore[attr-defined]
    described = descriptors[of_stub.name]
    assert [message.name for message in described.message_type] == [one.name for one in of_stub.message_type]
    assert described.service == of_stub.service
    assert all(field.json_name for message in described.message_type for field in message.field)


def test_comments_are_found_by_full_names() -> None:
    comments = contracts.comments()
    assert comments["spincycle.v1.RequestManager.Create"].startswith("Creates a request and starts it.\n\n")
    assert comments["spincycle.v1.CreateRequest.type"] == "The name of the request spec. Required."
    assert comments["spincycle.v1.State.STATE_PENDING"] == "Not started."


def test_the_zip_is_the_same_each_time() -> None:
    assert contracts.protos_zip() == contracts.protos_zip()
    with zipfile.ZipFile(io.BytesIO(contracts.protos_zip())) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == contracts.contract_files()
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
