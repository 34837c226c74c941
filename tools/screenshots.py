"""Makes screenshots of every view of the web page, light and dark, wide and narrow.

Starts a server with users and requests in an empty directory, signs in, and writes all pictures to
.build/screenshots. The few that the documents show are also written to docs/screenshots.

    python -m tools.screenshots
"""

from __future__ import annotations

import json
import shutil
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, expect

from tests.e2e.processes import running
from tests.e2e.waiting import eventually
from tests.limits import ANSWER
from tests.page.browsers import NARROW, WIDE, chromium
from tests.page.users import new_token, require_tokens, sign_in

ROOT = Path(__file__).resolve().parent.parent
ALL = ROOT / ".build" / "screenshots"
SHOWN = ROOT / "docs" / "screenshots"

IN_DOCUMENTS = {
    "request-light-wide", "requests-light-wide", "output-dark-wide", "graph-light-wide", "waiting-light-wide",
}  # fmt: skip
"""The pictures that README.md and docs/web.md show."""

HEIGHTS = {WIDE: 800, NARROW: 740}
SIZES = {"wide": WIDE, "narrow": NARROW}
RUNNING, COMPLETE, FAIL = 2, 3, 4
PNG_START = b"\x89PNG\r\n\x1a\n"

SCRIPT = """#!/bin/sh
# step host: pretends to do one step of an upgrade.
case "$1 $2" in
  "upgrade db7")
    printf 'Reading package lists...\\n\\033[32mdb7\\033[0m: 214 MB to download\\n'
    printf '\\033[31mE:\\033[0m You do not have enough free space in /var/cache/apt/archives\\n' >&2
    exit 100 ;;
  "verify wait"*) sleep 600 ;;
esac
printf 'Reading package lists...\\n\\033[32m%s\\033[0m: %s is done\\n' "$2" "$1"
"""

SPECS: dict[str, Any] = {
    "sequences": {
        "upgrade-databases": {
            "request": True,
            "args": {
                "required": [{"name": "hosts", "desc": "The hosts, as a list of names"}],
                "optional": [{"name": "reason", "desc": "Why, for the audit log", "default": "updates"}],
            },
            "nodes": {
                "host": {
                    "category": "sequence", "type": "upgrade-database", "each": ["hosts:host"], "parallel": 4,
                },
            },
        },
        "upgrade-database": {"args": {"required": [{"name": "host"}], "static": []}, "nodes": {}},
        "check-fleet": {
            "request": True,
            "args": {"required": [{"name": "hosts", "desc": "The hosts, as a list of names"}]},
            "nodes": {"host": {"category": "sequence", "type": "check-host", "each": ["hosts:host"]}},
        },
        "resize-cluster": {
            "request": True,
            "limits": [{"key": "cluster/{cluster}", "max": 1}],
            "args": {"required": [{"name": "cluster", "desc": "The cluster"}], "static": []},
            "nodes": {},
        },
        "delete-backups": {
            "request": True,
            "args": {"required": [{"name": "host", "desc": "The host"}]},
            "nodes": {
                "list": {"category": "job", "type": "noop"},
                "permit": {
                    "category": "approval", "roles": ["dba", "operators"], "deps": ["list"],
                    "message": "Delete all backups of {host}?", "args": [{"expected": "host"}],
                },
                "delete": {"category": "job", "type": "noop", "deps": ["permit"]},
            },
        },
        "check-host": {
            "args": {"required": [{"name": "host"}]},
            "nodes": {
                "connect": {"category": "job", "type": "noop"},
                "check": {"category": "job", "type": "noop", "deps": ["connect"]},
            },
        },
    }
}  # fmt: skip


def _steps(script: Path) -> None:
    """Adds the jobs that run a script with the name of a step and of a host."""
    sequence = SPECS["sequences"]["upgrade-database"]
    before: list[str] = []
    for step in ("drain", "upgrade", "restart", "verify"):
        program = script.with_name(step)
        program.write_text(f'#!/bin/sh\nexec {script} {step} "$1"\n')
        program.chmod(0o755)
        sequence["args"]["static"].append({"name": step, "default": str(program)})
        given = [{"expected": "cmd", "given": step}, {"expected": "args", "given": "host"}]
        sequence["nodes"][step] = {"category": "job", "type": "shell-command", "args": given, "deps": before}
        before = [step]


@dataclass(frozen=True)
class Site:
    """A running server with requests, and a token to sign in."""

    origin: str
    token: str
    failed: str
    fleet: str
    running: str
    locked: str
    asking: str


def _lock(script: Path) -> None:
    """Adds the job that holds a lock for as long as the pictures are taken."""
    sequence = SPECS["sequences"]["resize-cluster"]
    sequence["args"]["static"] = [
        {"name": "cmd", "default": str(script)}, {"name": "resize", "default": "verify wait"}
    ]  # fmt: skip
    given = [{"expected": "cmd", "given": "cmd"}, {"expected": "args", "given": "resize"}]
    sequence["nodes"]["resize"] = {"category": "job", "type": "shell-command", "args": given}


def _prepare(directory: Path) -> None:
    script = directory / "step.sh"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    _steps(script)
    _lock(script)
    (directory / "specs").mkdir()
    (directory / "specs" / "specs.yaml").write_text(json.dumps(SPECS))
    shutil.copy(ROOT / "examples" / "specs" / "nap.yaml", directory / "specs")
    require_tokens(directory, "operators")


def _site(api: httpx.Client, origin: str, token: str) -> Site:
    """Creates what the pictures show."""

    def create(request_type: str, **args: object) -> str:
        answer = api.post("/api/v1/requests", json={"type": request_type, "args": args})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    fleet = create("check-fleet", hosts=[f"web{number:05}.example.com" for number in range(10_000)])
    _wait(api, fleet, COMPLETE)
    for ms in ("50", "120", "80"):
        _wait(api, create("nap", ms=ms), COMPLETE)
    _wait(api, create("upgrade-databases", hosts=["db1", "db2"]), COMPLETE)
    failed = create("upgrade-databases", hosts=[f"db{number}" for number in range(1, 13)])
    _wait(api, failed, FAIL)
    holders = [create("resize-cluster", cluster=f"eu-{number}") for number in (1, 2)]
    for holder in holders:
        _wait(api, holder, RUNNING)
    locked = [create("resize-cluster", cluster="eu-1") for _ in range(3)][-1]
    asking = create("delete-backups", host="db7.example.com")
    eventually(lambda: api.get("/api/v1/approvals").json()["approvals"])
    running = create("upgrade-databases", hosts=["wait1", "wait2"])
    eventually(lambda: api.get(f"/api/v1/requests/{running}").json().get("finishedJobs", 0) > 8)
    return Site(origin, token, failed, fleet, running, locked, asking)


def _wait(api: httpx.Client, request_id: str, *states: int) -> None:
    """Waits until a request is in one of some states."""

    def has_come() -> bool:
        answer = api.get(f"/api/v1/requests/{request_id}", params={"view": "BASIC"})
        # A busy machine may answer late, with 503 or 504.
        assert answer.status_code in (200, 503, 504), answer.text
        return answer.status_code == 200 and answer.json()["state"] in states

    eventually(has_come)


def _sign_in(page: Page, site: Site) -> None:
    page.goto(f"{site.origin}/requests")
    sign_in(page, site.token)
    expect(page.get_by_role("row").nth(1)).to_be_visible()


def _fleet(page: Page) -> None:
    _graph(page)
    expect(page.get_by_role("list").filter(has_text="Complete 20,000")).to_be_visible()


def _graph(page: Page) -> None:
    page.get_by_role("tab", name="Graph").click()
    expect(page.get_by_role("list").filter(has_text="Pending")).to_be_visible()
    page.get_by_role("application", name="Job chain").scroll_into_view_if_needed()


def _output(page: Page) -> None:
    page.get_by_role("button", name="Show output").first.click()
    expect(page.get_by_role("log", name="Lines of output")).to_contain_text("free space")


def _plan(page: Page) -> None:
    page.get_by_label("hosts", exact=False).first.fill('["db1", "db2", "db3"]')
    page.get_by_role("button", name="Plan").click()
    expect(page.get_by_role("heading", name="Plan: 12 jobs")).to_be_visible()


def _views(site: Site) -> Iterator[tuple[str, str, str, Callable[[Page], None]]]:
    """Yields each view: its name, its path, a text of it, and what is done before the picture is taken."""

    def nothing(page: Page) -> None:
        """The view is complete as it opens."""

    yield "requests", "/requests", "upgrade-databases", nothing
    yield "request", f"/requests/{site.failed}", "1 job has failed", nothing
    yield "output", f"/requests/{site.failed}", "1 job has failed", _output
    yield "graph", f"/requests/{site.failed}", "1 job has failed", _graph
    yield "fleet", f"/requests/{site.fleet}", "check-fleet", _fleet
    yield "start", "/start", "upgrade-databases", nothing
    yield "plan", "/start/upgrade-databases", "upgrade-databases", _plan
    yield "running", f"/requests/{site.running}", "of 8 jobs complete", nothing
    yield "locked", f"/requests/{site.locked}", "Waits for the limit", nothing
    yield "asking", f"/requests/{site.asking}", "Delete all backups", nothing
    yield "waiting", "/waiting", "cluster/eu-1", nothing
    yield "nothing", "/requests?state=STOPPED", "No request matches", nothing
    yield "runners", "/runners", "Runners", nothing
    yield "server", "/server", "Health", nothing


def _take(page: Page, name: str) -> None:
    page.mouse.move(0, 0)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    picture = smaller(page.screenshot(animations="disabled", caret="hide"))
    (ALL / f"{name}.png").write_bytes(picture)
    if name in IN_DOCUMENTS:
        (SHOWN / f"{name}.png").write_bytes(picture)
    print(f"{name}.png: {len(picture):,} bytes")


def smaller(png: bytes) -> bytes:
    """Returns the same picture with its pixels compressed as well as zlib can."""
    chunks, place = [], len(PNG_START)
    while place < len(png):
        (length,) = struct.unpack_from(">I", png, place)
        chunks.append((png[place + 4 : place + 8], png[place + 8 : place + 8 + length]))
        place += 12 + length
    pixels = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    packed = (b"IDAT", zlib.compress(pixels, 9))
    kept = [chunk for chunk in chunks if chunk[0] in (b"IHDR", b"PLTE", b"tRNS")]
    written = [PNG_START]
    for kind, body in (*kept, packed, (b"IEND", b"")):
        written.append(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )
    return min(b"".join(written), png, key=len)


def _all_pictures(browser: Browser, site: Site) -> None:
    for scheme in ("light", "dark"):
        for size, width in SIZES.items():
            context = browser.new_context(
                color_scheme=scheme,
                viewport={"width": width, "height": HEIGHTS[width]},
                reduced_motion="reduce",
            )
            page = context.new_page()
            page.goto(f"{site.origin}/")
            expect(page.get_by_label("API token")).to_be_visible()
            _take(page, f"sign-in-{scheme}-{size}")
            _sign_in(page, site)
            for name, path, text, act in _views(site):
                page.goto(f"{site.origin}{path}")
                expect(page.get_by_text(text).first).to_be_visible()
                act(page)
                expect(page.get_by_role("alert")).to_have_count(0)
                _take(page, f"{name}-{scheme}-{size}")
            context.close()


def main() -> int:
    """Makes all pictures."""
    for directory in (ALL, SHOWN):
        directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, chromium() as browser:
        directory = Path(temporary)
        _prepare(directory)
        with running("server", "--http=127.0.0.1:0", "--specs=specs", directory=directory) as server:
            origin = f"http://{server.address('request-manager', 'http')}"
            token = new_token(directory, "alice", "operators")
            # Somebody else creates the requests, so that alice may approve one.
            headers = {"Authorization": f"Bearer {new_token(directory, 'bob', 'operators')}"}
            with httpx.Client(base_url=origin, timeout=ANSWER, headers=headers) as api:
                site = _site(api, origin, token)
            _all_pictures(browser, site)
    return 0


if __name__ == "__main__":
    sys.exit(main())
