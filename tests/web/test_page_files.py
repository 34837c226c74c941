"""The files of a built page, and the answer without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from spincycle_grpc.errors import FailedPreconditionError
from spincycle_server.gateway import openapi
from spincycle_server.web import page_files
from spincycle_server.web.page_files import ROUTES, PageFiles

INDEX = b"<!doctype html><script src=/assets/main-1a2b.js></script>"


@pytest.fixture
def built(tmp_path: Path) -> Path:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_bytes(INDEX)
    (tmp_path / "favicon.svg").write_bytes(b"<svg/>")
    (tmp_path / "assets" / "main-1a2b.js").write_bytes(b"long " * 20)
    (tmp_path / "assets" / "main-1a2b.js.gz").write_bytes(b"gzip")
    (tmp_path / "assets" / "main-1a2b.js.br").write_bytes(b"br")
    (tmp_path / "assets" / "odd.xyz").write_bytes(b"?")
    return tmp_path


def answer_of(page: PageFiles, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    sent = {name.replace("_", "-").encode(): text.encode() for name, text in headers.items()}
    status, answered, body = page.answer(path, sent)
    return status, {name.decode(): text.decode() for name, text in answered}, body


def test_the_index_is_asked_for_again_and_assets_never(built: Path) -> None:
    page = PageFiles(built)
    for path in ("/", "/index.html", "/requests/abc", "/requests", "/runners", "/waiting"):
        assert page.has(path)
        status, headers, body = answer_of(page, path)
        assert (status, body, headers["cache-control"]) == (200, INDEX, "no-cache")
        assert headers["content-type"] == "text/html; charset=UTF-8"
        status, _, body = answer_of(page, path, if_none_match=headers["etag"])
        assert (status, body) == (304, b"")
    status, headers, _ = answer_of(page, "/assets/main-1a2b.js")
    assert headers["cache-control"] == "public, max-age=31536000, immutable"
    assert headers["content-type"] == "text/javascript; charset=UTF-8"
    assert answer_of(page, "/favicon.svg")[1]["cache-control"] == "no-cache"
    assert answer_of(page, "/assets/odd.xyz")[1]["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br", "br"),
        ("gzip", "gzip"),
        ("br;q=0.1, gzip", "gzip"),
        ("br;q=0, identity", None),
        ("identity, gzip;q=0.5", None),
        ("", None),
        ("zstd", None),
    ],
)
def test_the_coding_that_the_browser_likes_best_is_sent(
    built: Path, accepted: str, coding: str | None
) -> None:
    _, headers, body = answer_of(PageFiles(built), "/assets/main-1a2b.js", accept_encoding=accepted)
    assert headers.get("content-encoding") == coding
    assert body == ((coding or "").replace("gzip", "gzip").encode() or b"long " * 20)
    assert headers["vary"] == "Accept-Encoding"


def test_every_answer_has_the_policies(built: Path) -> None:
    for page, path in (
        (PageFiles(built), "/"),
        (PageFiles(built), "/assets/gone-1.js"),
        (PageFiles(built / "x"), "/"),
    ):
        _, headers, _ = answer_of(page, path)
        policy = headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "*" not in policy
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_an_old_asset_is_not_the_index(built: Path) -> None:
    status, headers, _ = answer_of(PageFiles(built), "/assets/main-old.js")
    assert (status, headers["content-type"]) == (404, "text/plain; charset=UTF-8")


def test_without_a_build_the_answer_says_where_to_read_on(tmp_path: Path) -> None:
    page = PageFiles(tmp_path / "missing")
    assert not page.is_built
    status, _, body = answer_of(page, "/")
    assert status == 404
    assert b"docs/web.md" in body


@pytest.mark.parametrize(
    "path",
    ["/api/v1/requests", "/version", "/openapi.json", "/protos.zip", "/descriptors.binpb", "/metrics",
     "/healthz", "/readyz", "/requestsx", "/assets", "/../secret", "/index.html/x"],
)  # fmt: skip
def test_other_paths_are_not_the_pages(built: Path, path: str) -> None:
    assert not PageFiles(built).has(path)


def test_no_route_of_the_page_is_one_of_the_server() -> None:
    documents = {openapi.PATH, openapi.PATH_3_0, openapi.PROTOS_PATH, openapi.DESCRIPTORS_PATH}
    assert ROUTES.isdisjoint({"api", "version", "metrics", "healthz", "readyz", "web"})
    assert ROUTES.isdisjoint(path.strip("/") for path in documents)


def test_a_page_that_is_too_large_is_refused(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_files, "MAX_BYTES", 10)
    with pytest.raises(FailedPreconditionError) as caught:
        PageFiles(built)
    assert caught.value.reason == "PAGE_TOO_LARGE"
