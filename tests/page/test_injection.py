"""Markup in args, output, names and addresses stays text, and the browser would not run it either."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import expect

from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import wait_state
from tests.page.browsers import until
from tests.page.conftest import Open, created

pytestmark = pytest.mark.page

MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"
EXECUTABLE = "script:not([src]), img, iframe, object, embed, [onerror]"
"""Elements that the page itself never has."""

FAIL = 4

SPECS = {
    "sequences": {
        f"all {MARKUP}": {
            "request": True,
            "args": {"required": [{"name": "out", "desc": MARKUP}]},
            "nodes": {
                f"say {MARKUP}": {
                    "category": "job",
                    "type": "echo",
                    "args": [{"expected": "out", "given": "out"}, {"expected": "err", "given": "out"}],
                },
                f"fail {MARKUP}": {"category": "job", "type": "panic", "deps": [f"say {MARKUP}"]},
            },
        }
    }
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp("injection")
    (directory / "specs").mkdir()
    (directory / "specs" / "specs.yaml").write_text(json.dumps(SPECS))
    with running("server", "--http=127.0.0.1:0", "--specs=specs", directory=directory) as server:
        yield server


@pytest.fixture(scope="module")
def request_id(api: httpx.Client) -> str:
    [request_type] = SPECS["sequences"]
    request_id = created(api, request_type, {"out": f"{MARKUP} \x1b[31m{MARKUP}\x1b[0m"})
    wait_state(api, request_id, FAIL)
    return request_id


@pytest.mark.parametrize(
    "path",
    ["/requests", "/requests/ID", "/start", "/runners", "/server", "/waiting", f"/requests?type={MARKUP}",
     f"/requests?arg=out={MARKUP}&user={MARKUP}", f"/waiting?limit={MARKUP}",
     f"/requests/{MARKUP.replace('/', '')}#{MARKUP}"],
)  # fmt: skip
def test_markup_is_shown_as_text(visit: Open, request_id: str, path: str) -> None:
    tab = visit()
    page = tab.open(path.replace("ID", request_id))
    expect(page.get_by_role("heading").or_(page.get_by_role("alert")).first).to_be_visible()
    expect(page.locator(EXECUTABLE)).to_have_count(0)
    tab.faults[:] = [fault for fault in tab.faults if "status of 404" not in fault]


def test_markup_in_output_and_in_the_graph_is_text(visit: Open, request_id: str) -> None:
    page = visit().open(f"/requests/{request_id}")
    failures = page.get_by_role("region", name="1 job has failed")
    expect(failures).to_contain_text(f"fail {MARKUP}")
    page.get_by_role("row").filter(has_text=f"say {MARKUP}").click()
    output = page.get_by_role("log", name="Lines of output")
    expect(output).to_contain_text(MARKUP)
    page.get_by_role("tab", name="Graph").click()
    page.get_by_role("searchbox", name="Find a job or a host").fill("say")
    page.keyboard.press("Enter")
    expect(page.locator(".graph-said")).to_contain_text(f"Job say {MARKUP}")
    expect(page.locator(EXECUTABLE)).to_have_count(0)


def test_the_name_of_a_request_is_text(visit: Open, request_id: str) -> None:
    page = visit().open("/requests")
    expect(page.get_by_role("row").filter(has_text=request_id)).to_contain_text(MARKUP)


@pytest.mark.parametrize(
    ("markup", "directive"),
    [
        ("<img src=/nosuch onerror='window.ran = true'>", "script-src-attr"),
        ("<iframe src=/runners></iframe>", "frame-src"),
        ("<p style='color: red'>", "style-src-attr"),
        ("<img src=http://127.0.0.1:9/x.png>", "img-src"),
        ("<object data=/favicon.svg></object>", "object-src"),
    ],
)
def test_the_browser_blocks_markup_that_gets_into_the_page(visit: Open, markup: str, directive: str) -> None:
    tab = visit()
    page = tab.open("/runners")
    page.evaluate(
        """markup => {
          window.blocked = [];
          document.addEventListener("securitypolicyviolation", event => {
            window.blocked.push(event.effectiveDirective);
          });
          document.body.insertAdjacentHTML("beforeend", markup);
        }""",
        markup,
    )
    until(page, "window.blocked.length > 0")
    assert page.evaluate("window.blocked[0]") == directive
    assert page.evaluate("window.ran") is None
    tab.faults.clear()  # The browser reports what it blocked.
