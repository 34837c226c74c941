"""The options of traces: where spans go, with which headers, and which values are refused."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from spincycle_server.app.tracing import recorded_spans
from spincycle_server.config import Config, ConfigError, load_config, public_secret_files
from spincycle_server.telemetry.trace_lines import trace_lines
from tests.telemetry.collector import Collector, collecting


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(autouse=True)
def forget_spans() -> Iterator[None]:
    yield
    trace_lines.records_spans = False


async def sent(config: Config) -> None:
    """Sends one span."""
    async with recorded_spans(config, "tests") as spans:
        assert spans is not None
        span = spans.begin("call", None)
        assert span is not None
        span.end()


@pytest.mark.parametrize("path", ["", "/", "/v1/traces", "/v1/traces/"])
async def test_spans_go_to_the_path_of_otlp(collector: Collector, path: str) -> None:
    await sent(Config(telemetry_otlp=collector.url + path))
    assert [span.service for span in collector.spans] == ["tests"]


async def test_secrets_become_headers_and_are_not_shown(collector: Collector, tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("x-tenant: ops\n\nX-Key : s3cret:1\n")
    file.chmod(0o644)
    config = Config(
        telemetry_otlp=f"http://ada:p%40ss@127.0.0.1:{collector.port}", telemetry_otlp_headers_file=str(file)
    )
    await sent(config)
    (headers,) = collector.headers
    assert (headers["x-tenant"], headers["x-key"]) == ("ops", "s3cret:1")
    assert headers["authorization"] == f"Basic {base64.b64encode(b'ada:p@ss').decode()}"
    assert "p%40ss" not in config.shown()["telemetry.otlp"]
    assert public_secret_files(config) == {"telemetry.otlp_headers_file": str(file)}


async def test_without_a_collector_nothing_is_recorded() -> None:
    async with recorded_spans(Config(), "tests") as spans:
        assert spans is None
    assert not trace_lines.records_spans


@pytest.mark.parametrize(
    "text", ["no colon s3cret", "a b: s3cret", ": s3cret", "x-key: s3crét", "x-key: s3cret\x01"]
)
async def test_a_malformed_file_of_headers_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "headers"
    file.write_text(f"x-tenant: ops\n{text}\n")
    config = Config(telemetry_otlp="http://127.0.0.1:1", telemetry_otlp_headers_file=str(file))
    with pytest.raises(ConfigError, match="line 2 of") as caught:
        await sent(config)
    assert "s3cr" not in caught.value.message


@pytest.mark.parametrize("option", ["telemetry_otlp_headers_file", "telemetry_otlp_ca_file"])
async def test_a_file_that_does_not_exist_is_refused(tmp_path: Path, option: str) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(ConfigError, match=option.replace("_", ".", 1)):
        await sent(Config(**{"telemetry_otlp": "https://127.0.0.1:1", option: missing}))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"option telemetry\.otlp: "):
        await sent(Config(**{option: missing}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("OTLP", "collector:4318"),
        ("OTLP", "ftp://user:s3cret@collector"),
        ("OTLP", "http://"),
        ("OTLP", "http://user:s3cret@collector:99999"),
        ("OTLP", "http://collector/?key=s3cret"),
        ("SAMPLE_RATIO", "1.1"),
        ("SAMPLE_RATIO", "-1"),
        ("SAMPLE_RATIO", "nan"),
        ("SAMPLE_RATIO", "half"),
    ],
)
def test_a_bad_value_is_refused_without_showing_a_secret(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"telemetry.{name.lower()}") as caught:
        load_config(environment={f"SPINCYCLE_TELEMETRY_{name}": text})
    assert "s3cret" not in caught.value.message
