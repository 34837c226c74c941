"""The container file: what it names exists, and it follows the rules of its README."""

from __future__ import annotations

import re

from spincycle_server.app.job_runner import job_runner  # noqa: F401
from spincycle_server.config import load_config
from tests.deploy.deployed import CONTAINERFILE, Deployed, image_environment, image_user, image_words

TEXT = CONTAINERFILE.read_text()


def test_it_starts_a_command_that_exists_with_options_that_exist() -> None:
    assert image_words("ENTRYPOINT") == ["spincycle"]
    process = Deployed("image", image_words("CMD"), image_environment(), {})
    process.check_words()
    assert process.config().specs_dir == "/etc/spincycle/specs"


def test_it_exposes_the_default_ports_and_that_of_the_metrics() -> None:
    metrics = load_config(environment=image_environment()).server_metrics
    assert metrics is not None
    (ports,) = re.findall(r"^EXPOSE (.*)$", TEXT, re.MULTILINE)
    assert {int(port) for port in ports.split()} == {32308, 32318, 32307, 32317, metrics.port}
    (asked,) = re.findall(r"C\('127\.0\.0\.1', (\d+), timeout=4\); c\.request\('GET', '(/\w+)'\)", TEXT)
    assert asked == (str(metrics.port), "/healthz")


def test_it_runs_as_a_number_that_is_not_root_and_pins_what_it_installs() -> None:
    assert image_user() > 0
    assert re.search(rf"useradd --uid {image_user()} ", TEXT)
    assert "--require-hashes -r requirements-otel.lock" in TEXT
    assert "--no-deps" in TEXT
    bases = re.findall(r"^FROM (\S+)", TEXT, re.MULTILINE)
    assert set(bases) == {"${PYTHON_IMAGE}"}


def test_the_context_has_only_what_is_copied() -> None:
    ignored = (CONTAINERFILE.parent / "Containerfile.dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.*)$", TEXT, re.MULTILINE)
        for word in line.split()[:-1]
    }
    assert "*" in ignored
    assert allowed == copied
