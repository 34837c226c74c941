"""What is made of PEM files, while they change and expire."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import structlog

from spincycle_server.config import ConfigError
from spincycle_server.listening import TlsFiles
from spincycle_server.tls.pem_files import Pems
from spincycle_server.tls.reloaded import Reloaded
from tests.certificates import replace
from tests.tls.test_pem_files import FAULTS, files_in, reissue


def build(pems: Pems) -> Pems:
    return pems


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_new_file_leaves_the_old_value_until_it_is_repaired(fault: str, tmp_path: Path) -> None:
    reloaded = Reloaded(files_in(tmp_path), build)
    old = reloaded.value
    spoil, message = FAULTS[fault]
    spoil(tmp_path)
    with structlog.testing.capture_logs() as log:
        reloaded.reload()
        reloaded.reload()
    assert reloaded.value is old
    assert [entry["event"] for entry in log] == [
        "new certificate files not used, the old ones stay in use"
    ], "one warning for each fault"
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(log[0]["error"])
    files_in(tmp_path)
    reloaded.reload()
    assert reloaded.value != old


def test_files_that_were_written_again_with_the_same_contents_change_nothing(tmp_path: Path) -> None:
    files = files_in(tmp_path)
    reloaded = Reloaded(files, build)
    old = reloaded.value
    replace(tmp_path / "own.pem", (tmp_path / "own.pem").read_bytes())
    reloaded.reload()
    assert reloaded.value is old


def test_a_value_that_cannot_be_built_leaves_the_old_one(tmp_path: Path) -> None:
    def refuse_second(pems: Pems) -> Pems:
        if built:
            raise ConfigError("not this one")
        built.append(pems)
        return pems

    built: list[Pems] = []
    reloaded = Reloaded(files_in(tmp_path), refuse_second)
    files_in(tmp_path)
    reloaded.reload()
    assert reloaded.value is built[0]


@pytest.mark.parametrize(
    ("lifetime", "left", "warning"),
    [
        (365, 15, []),
        (365, 13, ["certificate expires soon"]),
        (4, 1.1, []),
        (4, 0.9, ["certificate expires soon"]),
        (365, -1, ["certificate has expired"]),
    ],
)
def test_a_certificate_that_ends_soon_is_logged_once_a_day(
    tmp_path: Path, lifetime: float, left: float, warning: list[str]
) -> None:
    end = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(days=lifetime / 2)
    reissue(tmp_path, not_before=end - datetime.timedelta(days=lifetime), not_after=end)
    reloaded = Reloaded(TlsFiles(str(tmp_path / "own.pem"), str(tmp_path / "own-key.pem")), build)
    now = end - datetime.timedelta(days=left)
    with structlog.testing.capture_logs() as log:
        reloaded.warn_before_end(now)
        reloaded.warn_before_end(now + datetime.timedelta(hours=1))
    assert [entry["event"] for entry in log] == warning
    with structlog.testing.capture_logs() as log:
        reloaded.warn_before_end(now + datetime.timedelta(days=1))
    assert len(log) >= len(warning)
