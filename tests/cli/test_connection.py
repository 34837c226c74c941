"""Which server spinc calls, with which token: options, variables, profiles and defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import trustme
from click.testing import CliRunner, Result

from spincycle_grpc import errors
from spincycle_grpc.cli.app import cli
from spincycle_grpc.cli.profiles import profiles_file
from tests.fake_manager import FakeManager, serving

TOKEN = "s3cret-token"
Spinc = Callable[..., Result]


def spinc(*arguments: str, **variables: str) -> Result:
    result = CliRunner().invoke(cli, arguments, env=variables, prog_name="spinc")
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert TOKEN not in result.output
    return result


def complaint(*arguments: str, **variables: str) -> str:
    """Returns the message of a command that is refused as wrong usage."""
    result = spinc(*arguments, **variables)
    assert (result.exit_code, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    return line.removeprefix("spinc: ").removesuffix(" (see spinc version --help)")


def private(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.touch(0o600)
    path.write_text(text)
    return path


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    return private(tmp_path / "token", f"{TOKEN}\n")


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    return private(tmp_path / "ca.pem", authority.cert_pem.bytes().decode())


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_address(manager: FakeManager, authority: trustme.CA) -> Iterator[str]:
    own = authority.issue_cert("127.0.0.1")
    chain = b"".join(pem.bytes() for pem in own.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(own.private_key_pem.bytes(), chain)])
    with serving(manager, credentials) as served:
        yield served


def test_options_precede_variables_and_those_precede_the_profile(
    manager: FakeManager, address: str, tmp_path: Path
) -> None:
    for name in ("option", "variable", "profile"):
        private(tmp_path / name, name)
    private(
        profiles_file(),
        f"[default]\naddr = '{address}'\ntoken_file = '{tmp_path}/profile'\n[none]\naddr = '{address}'\n",
    )
    variable, option = {"SPINC_TOKEN_FILE": str(tmp_path / "variable")}, f"--token-file={tmp_path}/option"
    assert spinc("version").exit_code == 0
    assert spinc("version", **variable).exit_code == 0
    assert spinc(option, "version", **variable).exit_code == 0
    assert spinc(f"--token-file={tmp_path}/none", "version", option, **variable).exit_code == 0
    assert spinc("version", "--profile=none").exit_code == 0
    assert spinc("version", SPINC_PROFILE="none").exit_code == 0
    assert spinc("version", "--profile=default", SPINC_PROFILE="none").exit_code == 0
    sent = [value for [value] in filter(None, manager.authorizations)]
    assert sent == [f"Bearer {name}" for name in ("profile", "variable", "option", "option", "profile")]
    assert manager.authorizations[4:6] == [[], []]


def test_a_profile_has_the_token_itself(manager: FakeManager, address: str) -> None:
    private(profiles_file(), f"[prod]\naddr = '{address}'\ntoken = '{TOKEN}'\ndeadline = 7.0\n")
    assert spinc("--profile=prod").exit_code == 0
    assert manager.authorizations == [[f"Bearer {TOKEN}"]]
    assert 0 < manager.asked[0].time_remaining < 8


def test_tls_can_come_from_each_source(
    manager: FakeManager, tls_address: str, ca_file: Path, token_file: Path
) -> None:
    private(
        profiles_file(),
        f"[prod]\naddr = '{tls_address}'\nca = '{ca_file}'\ntoken_file = '{token_file}'\n",
    )
    assert spinc("version", "--profile=prod").exit_code == 0
    assert spinc("version", f"--addr={tls_address}", f"--ca={ca_file}").exit_code == 0
    assert spinc("version", f"--addr={tls_address}", SPINC_CA=str(ca_file)).exit_code == 0
    assert manager.authorizations == [[f"Bearer {TOKEN}"], [], []]
    # Without --ca, the CA of the server is not a public one.
    refused = spinc("version", f"--addr={tls_address}", "--tls")
    assert refused.exit_code == 4


def test_a_client_certificate_identifies_the_user(
    manager: FakeManager, authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    own, ann = authority.issue_cert("127.0.0.1"), authority.issue_cert("ann@example.com")
    chain = b"".join(pem.bytes() for pem in own.cert_chain_pems)
    cert, key = tmp_path / "ann.pem", tmp_path / "ann.key"
    cert.write_bytes(b"".join(pem.bytes() for pem in ann.cert_chain_pems))
    key.write_bytes(ann.private_key_pem.bytes())
    required = grpc.ssl_server_credentials(
        [(own.private_key_pem.bytes(), chain)], authority.cert_pem.bytes(), require_client_auth=True
    )
    with serving(manager, required) as address:
        options = (f"--addr={address}", f"--ca={ca_file}", "version")
        assert spinc(*options, f"--cert={cert}", f"--key={key}").exit_code == 0
        assert spinc(*options, SPINC_CERT=str(cert), SPINC_KEY=str(key)).exit_code == 0
        private(profiles_file(), f"[ann]\ncert = '{cert}'\nkey = '{key}'\n")
        assert spinc(*options, "--profile=ann").exit_code == 0
        assert spinc(*options).exit_code == 4
    assert len(manager.asked) == 3


def test_a_client_certificate_needs_its_key(tmp_path: Path, ca_file: Path) -> None:
    assert "give both, or neither" in complaint("version", f"--cert={ca_file}")
    assert "give both, or neither" in complaint("version", f"--key={ca_file}")
    none = tmp_path / "none"
    assert complaint("version", f"--ca={none}") == f"cannot read {none}: No such file or directory"


def test_a_token_is_not_sent_in_plain_text_to_another_machine(token_file: Path) -> None:
    said = complaint("version", "--addr=10.0.0.1:1", f"--token-file={token_file}")
    assert said == (
        "the token would be sent to 10.0.0.1:1 in plain text: "
        "add --tls, or --ca FILE if the server's CA is not a public one"
    )


@pytest.mark.parametrize("secret", [f"token = '{TOKEN}'", "token_file = 'prod.token'"])
def test_the_token_of_a_profile_is_sent_only_to_its_server(
    secret: str, manager: FakeManager, address: str, token_file: Path
) -> None:
    private(profiles_file(), f"[prod]\naddr = 'prod:1'\ntls = true\n{secret}\n")
    private(profiles_file().parent / "prod.token", TOKEN)
    assert complaint("version", "--profile=prod", f"--addr={address}") == (
        f"the token of profile prod is for prod:1, but --addr names {address}: "
        "drop --addr, or choose another profile or --token-file"
    )
    assert f"but $SPINC_ADDR names {address}" in complaint(
        "version", SPINC_PROFILE="prod", SPINC_ADDR=address
    )
    assert not manager.asked
    private(profiles_file(), f"[prod]\naddr = '{address}'\n{secret}\n")
    assert spinc("version", "--profile=prod", SPINC_ADDR=address).exit_code == 0
    private(profiles_file(), f"[prod]\naddr = 'prod:1'\n{secret}\n")
    assert (
        spinc("version", "--profile=prod", f"--addr={address}", f"--token-file={token_file}").exit_code == 0
    )
    assert manager.authorizations == [[f"Bearer {TOKEN}"]] * 2


@pytest.mark.parametrize("option", ["--ca=", "--cert=", "--key=", "--token-file="])
def test_an_empty_file_name_is_refused(option: str) -> None:
    assert "the name of the file is empty" in complaint("version", option)


def test_an_unusable_profile_or_token_file_is_wrong_usage(tmp_path: Path) -> None:
    assert "profile nosuch: cannot read" in complaint("version", "--profile=nosuch")
    assert "No such file" in complaint("version", f"--token-file={tmp_path}/none")
    assert "is empty" in complaint("version", f"--token-file={private(tmp_path / 'empty', '')}")


def test_help_reads_no_profile() -> None:
    private(profiles_file(), "nonsense")
    assert spinc("--help", SPINC_PROFILE="nosuch").exit_code == 0
    assert spinc("status", "--help", SPINC_PROFILE="nosuch").exit_code == 0


def test_an_unknown_caller_learns_what_to_do(manager: FakeManager, address: str, token_file: Path) -> None:
    unknown = errors.UnauthenticatedError("the caller is unknown: send an API token")
    other = errors.UnauthenticatedError("the caller is unknown: log in")
    expired = errors.UnauthenticatedError("expired: ask for a new one (`spincycle token create`)")
    manager.failures["Version"] = [unknown, unknown, expired, other]
    create = "An administrator can create a token with `spincycle token create`"
    without = spinc("version", f"--addr={address}")
    assert (without.exit_code, without.stderr) == (
        3,
        f"spinc: {unknown.message}. Use --token-file, or --cert and --key, or a --profile that has them. "
        f"{create}\n",
    )
    options = (f"--addr={address}", f"--token-file={token_file}")
    assert [spinc("version", *options).stderr for _ in range(3)] == [
        f"spinc: {unknown.message}. Check that your token is for this server. {create}\n",
        f"spinc: {expired.message}. Check that your token is for this server\n",
        f"spinc: {other.message}. Check that your token is for this server\n",
    ]
