"""`spincycle protos`: the files that it writes, and its errors."""

from __future__ import annotations

from pathlib import Path

from tests.commands.in_process import REPOSITORY, outcome, spincycle

PROTOS = REPOSITORY / "protos"


def test_all_files_are_written_and_old_ones_replaced(tmp_path: Path) -> None:
    expected = {str(path.relative_to(PROTOS)): path.read_bytes() for path in PROTOS.rglob("*.*")}
    old = tmp_path / "new/contracts/spincycle/v1/job.proto"
    for _ in range(2):
        done = spincycle(tmp_path, "protos", "new/contracts")
        assert outcome(done) == (0, "", f"wrote {len(expected)} files to new/contracts")
        written = {
            str(path.relative_to(tmp_path / "new/contracts")): path.read_bytes()
            for path in (tmp_path / "new/contracts").rglob("*.*")
        }
        assert written == expected
        old.write_text("old")


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "google").write_text("a file")
    done = spincycle(tmp_path, "protos", ".")
    assert outcome(done) == (1, "", "Error: cannot write to .: Not a directory")
