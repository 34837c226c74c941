"""docs/clients.md: its example of the Python client runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trustme

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()


def test_the_example_of_the_client_opens_a_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [example] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "company-ca.pem").write_bytes(trustme.CA().cert_pem.bytes())
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(example, names)
    client = names["client"]
    assert hasattr(client, "close")
    client.close()
