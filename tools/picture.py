"""Renders docs/architecture.dot to docs/architecture.svg with Graphviz.

Run as `python tools/picture.py`. The SVG holds a hash of its source, so that a test can tell, without
Graphviz, whether the committed SVG belongs to the committed source.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
SOURCE = DOCS / "architecture.dot"
PICTURE = DOCS / "architecture.svg"

_DESCRIPTION = (
    "Users and operators at the top, the packages of the Request Manager and of the Job Runner below"
)
_RENDER_TIMEOUT = 60.0
"""Seconds that Graphviz may take."""


def source_hash(source: str) -> str:
    """Returns the hash that the SVG of a source holds."""
    return hashlib.sha256(source.encode()).hexdigest()


def render(source: str) -> str:
    """Returns a source as SVG, with the hash of the source in a comment.

    Raises:
        FileNotFoundError: Graphviz is not installed.
        subprocess.CalledProcessError: The source is not valid; the error holds Graphviz's message.
    """
    drawn = subprocess.run(
        ["dot", "-Tsvg"], input=source, capture_output=True, text=True, check=True, timeout=_RENDER_TIMEOUT
    ).stdout
    start = drawn.index("<svg")
    svg = re.sub(r"<!--.*?-->\n?", "", drawn[start:], flags=re.DOTALL)  # These name Graphviz's version.
    svg = svg.replace("<title>architecture</title>", f"<title>{_DESCRIPTION}</title>", 1)
    return f"<!-- Made by `make picture` from architecture.dot, sha256 {source_hash(source)} -->\n{svg}"


def labels(svg: str) -> list[str]:
    """Returns the texts that an SVG shows, sorted.

    Positions depend on Graphviz's version, texts do not.
    """
    return sorted(re.findall(r"<text[^>]*>(.*?)</text>", svg))


if __name__ == "__main__":
    PICTURE.write_text(render(SOURCE.read_text()))
