"""The documents' links lead somewhere, and their lines are short enough to compare."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_architecture import ALLOWED, ALLOWED_MODULES, KNOW_ALL_PACKAGES

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md"), *(REPOSITORY / "deploy").rglob("*.md")]
)
WIDTH = 140


def prose_of(document: Path) -> str:
    """Returns a document without its code blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors_of(document: Path) -> set[str]:
    """Returns the anchors that a renderer makes from the headings."""
    headings = re.findall(r"^#+ (.+)$", prose_of(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_to_files_and_headings_that_exist(document: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(document)):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_lines_of_prose_are_short(document: Path) -> None:
    long = [
        line for line in prose_of(document).splitlines() if len(line) > WIDTH and not line.startswith("|")
    ]
    assert not long


def test_the_table_of_packages_has_the_imports_that_the_import_test_allows() -> None:
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    rows = re.findall(
        r"^\| `server/spincycle_server/(\w+?)(?:\.py)?` \|[^|]*\|([^|]*)\|$", page, re.MULTILINE
    )
    table = {
        package: set(re.findall(r"`(\w+)`", imports))
        for package, imports in rows
        if package not in KNOW_ALL_PACKAGES
    }
    assert table == ALLOWED | ALLOWED_MODULES
