"""The sources of options, their precedence, and the errors of invalid options."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spincycle_server.config import (
    Config,
    ConfigError,
    load_config,
    load_with_sources,
    mask_secrets,
    url_of_go_dsn,
)
from spincycle_server.config.addresses import grpc_address_of
from spincycle_server.listening import Address


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_every_option_has_a_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(environment={})
    assert config.store_url() == "sqlite:///spincycle.db"
    assert config.specs_dir == "specs/"
    assert config.job_runner_addr == Address("127.0.0.1", 32307)
    assert config.request_manager_addresses == ("127.0.0.1:32318",)


def test_a_later_source_overrides_an_earlier_one(tmp_path: Path) -> None:
    file = write(
        tmp_path / "c.yaml", "specs: {dir: from-file}\nserver: {addr: '127.0.0.1:1'}\nresume_interval: 3s\n"
    )
    config = load_config(
        file,
        environment={"SPINCYCLE_SPECS_DIR": "from-environment", "SPINCYCLE_SERVER_ADDR": "127.0.0.1:2"},
        overrides={"server.addr": "127.0.0.1:3", "specs.dir": None},
    )
    assert config.specs_dir == "from-environment"
    assert config.server_addr == Address("127.0.0.1", 3)
    assert config.resume_interval == 3.0


def test_the_file_of_the_environment_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "config" / "staging.yaml", "specs: {dir: staging-specs}\n")
    assert load_config(environment={"ENVIRONMENT": "staging"}).specs_dir == "staging-specs"
    assert load_config(environment={}).specs_dir == "specs/"


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.yaml: No such file"):
        load_config(str(tmp_path / "none.yaml"), environment={})


def test_a_group_of_options_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text("auth:\n  # strict: true\nserver:\n  tls:\n")
    assert load_config(str(tmp_path / "some.yaml"), environment={}) == load_config(environment={})


def test_the_job_factory_has_two_variables() -> None:
    assert load_config(environment={"SPINCYCLE_JOBS": "m:f"}).jobs_factory == "m:f"
    assert load_config(environment={"SPINCYCLE_JOBS_FACTORY": "m:g"}).jobs_factory == "m:g"


@pytest.mark.parametrize("option", ["auth.admin_roles", "auth.strict", "auth.plugin", "auth.read"])
def test_environment_variables_do_not_set_access_options(option: str) -> None:
    variable = f"SPINCYCLE_{option.upper().replace('.', '_')}"
    with pytest.raises(ConfigError, match=f"set the option {option} in the configuration file"):
        load_config(environment={variable: "x"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spec: {dir: x}", "unknown option spec.dir"),
        ("server: {addr: nowhere}", r"option server.addr \(.*\): 'nowhere': must be host:port"),
        ("server: {addr: '127.0.0.1:99999'}", "must be host:port"),
        ("resume_interval: soon", "must be a duration"),
        ("server: {max_body: 0}", "must be a size"),
        ("job_runner: {max_threads: -1}", "must be a whole number, at least 1"),
        ("job_runner: {max_crashes: 10}", "must be at most 9, because no more crashes are stored"),
        ("auth: {strict: perhaps}", "must be true or false"),
        ("auth: {methods: [token, ldap]}", "'ldap' is unknown: must be a list of token, oidc, certificate"),
        ("auth: {methods: 'token, token'}", "must name each word once"),
        ("log: {level: loud}", "must be one of debug, info, warning, error"),
        ("- a\n- b\n", "must contain a map of options"),
        ("a: [\n", "is not valid YAML in line 2"),
        ("auth:\n  strict: true\n  strict: false\n", "not valid YAML in line 3: duplicate key strict"),
        ("auth: {methods: [token]}\nauth: {strict: true}\n", "not valid YAML in line 2: duplicate key auth"),
        ("auth: {strict: true}\nauth.strict: false\n", "sets the option auth.strict twice"),
        ("auth: {certificates: {roles: {a: [x], a: [y]}}}", "duplicate key a"),
        ("auth: token", "auth must be a map of options"),
        ("server: {tls: cert.pem}", "server.tls must be a map of options"),
        ("a: !!python/object/apply:os.system [x]", "unknown option a"),
    ],
)
def test_the_error_names_the_invalid_option(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path / "c.yaml", text), environment={})


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("1k", 1024), ("2KiB", 2048), ("3MB", 3 * 1024**2), ("1g", 1024**3)]
)
def test_sizes_have_binary_units(text: str, size: int) -> None:
    assert load_config(environment={"SPINCYCLE_SERVER_MAX_BODY": text}).server_max_body == size


@pytest.mark.parametrize(
    ("dsn", "url"),
    [
        ("root:@tcp(127.0.0.1:3306)/spincycle?parseTime=true", "mysql://root@127.0.0.1:3306/spincycle"),
        ("u:p@ss/w:rd@tcp(db:3307)/x", "mysql://u:p%40ss%2Fw%3Ard@db:3307/x"),
        ("u@tcp(db:3306)/x", "mysql://u@db:3306/x"),
        ("u:p@unix(/run/m.sock)/x", "mysql://u:p@localhost/x?unix_socket=%2Frun%2Fm.sock"),
        ("/x", "mysql://127.0.0.1:3306/x"),
    ],
)
def test_a_data_source_name_of_go_becomes_a_url(dsn: str, url: str) -> None:
    assert url_of_go_dsn(dsn) == url
    assert load_config(environment={"SPINCYCLE_MYSQL_DSN": dsn}).store_url() == url


def test_the_error_of_an_invalid_data_source_name_does_not_show_it() -> None:
    with pytest.raises(ConfigError) as raised:
        url_of_go_dsn("u:secret@tcp(db:3306)")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "address",
    [
        "mysql://u:s3cret@h/d",
        "mysql://u:s3cret/with@signs@h/d",
        "u:s3cret@tcp(h:1)/d",
        "postgresql://h/d?user=u&password=s3cret",
        "postgresql://h/d?x=1&sslkey=s3cret&y=2",
    ],
)
def test_passwords_are_masked(address: str) -> None:
    masked = mask_secrets(address)
    assert "s3cret" not in masked
    assert "***" in masked
    shown = load_config(environment={"SPINCYCLE_DATABASE_URL": address}).shown()
    assert "s3cret" not in str(shown)


@pytest.mark.parametrize(
    ("option", "text", "url"),
    [
        ("database.url", "mysql://u:s3cret@h/d\n", "mysql://u:s3cret@h/d"),
        ("mysql.dsn", "u:s3cret@tcp(h:3306)/d\r\n", "mysql://u:s3cret@h:3306/d"),
    ],
)
def test_the_database_can_be_named_in_a_file(tmp_path: Path, option: str, text: str, url: str) -> None:
    secret = write(tmp_path / "secret", text)
    variable = f"SPINCYCLE_{option.upper().replace('.', '_')}_FILE"
    config = load_config(environment={variable: secret})
    assert config.store_url() == url
    assert "s3cret" not in str(config.shown())
    assert load_config(environment={}, overrides={f"{option}_file": secret}).store_url() == url


def test_the_file_of_a_secret_is_read_only_when_the_database_is_needed(tmp_path: Path) -> None:
    config = load_config(environment={"SPINCYCLE_DATABASE_URL_FILE": str(tmp_path / "none")})
    with pytest.raises(ConfigError, match=r"option database.url_file: cannot read .*none: No such file"):
        config.store_url()


@pytest.mark.parametrize("content", [b"", b" \n", b"s3cret\nsecond\n", b"s3cret\xff"])
def test_the_file_of_a_secret_must_have_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    config = load_config(environment={"SPINCYCLE_MYSQL_DSN_FILE": str(tmp_path / "secret")})
    with pytest.raises(ConfigError, match=r"option mysql.dsn_file: .*secret") as raised:
        config.store_url()
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("option", "variable"), [("database.url", "DATABASE_URL"), ("mysql.dsn", "MYSQL_DSN")]
)
def test_one_source_cannot_set_a_secret_and_its_file(option: str, variable: str, tmp_path: Path) -> None:
    secret = write(tmp_path / "secret", "mysql://u:s3cret@h/d")
    both = {f"SPINCYCLE_{variable}": "mysql://u:s3cret@h/e", f"SPINCYCLE_{variable}_FILE": secret}
    with pytest.raises(ConfigError, match=rf"option {option}_file: {option} is set too") as raised:
        load_config(environment=both).store_url()
    assert "s3cret" not in str(raised.value)


def test_a_later_source_overrides_a_secret_in_either_form(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret", "mysql://from-file")
    in_file = write(tmp_path / "c.yaml", f"database: {{url_file: {secret}}}\n")
    assert load_config(in_file, environment={}).store_url() == "mysql://from-file"
    in_environment = {"SPINCYCLE_DATABASE_URL": "mysql://from-environment"}
    assert load_config(in_file, environment=in_environment).store_url() == "mysql://from-environment"
    in_environment = {"SPINCYCLE_DATABASE_URL_FILE": secret}
    in_file = write(tmp_path / "c.yaml", "database: {url: mysql://other}\n")
    assert load_config(in_file, environment=in_environment).store_url() == "mysql://from-file"
    on_command_line = {"database.url": "mysql://from-command-line"}
    config = load_config(in_file, environment=in_environment, overrides=on_command_line)
    assert config.store_url() == "mysql://from-command-line"
    config = load_config(in_file, environment=in_environment, overrides={"database.url": None})
    assert config.store_url() == "mysql://from-file"


def test_grpc_addresses_are_derived_from_urls() -> None:
    assert grpc_address_of("http://10.0.0.1:32308") == "10.0.0.1:32318"
    assert grpc_address_of("https://rm:1000/") == "rm:1010"
    assert grpc_address_of("http://[::1]:32308") == "[::1]:32318"
    config = load_config(environment={"SPINCYCLE_RM_CLIENT_URL": "http://a:1, http://b:2"})
    assert config.request_manager_addresses == ("a:11", "b:12")
    for wrong in ("http://rm", "ftp://rm:1", "http://rm:port", ""):
        with pytest.raises(ConfigError, match="must be http://host:port"):
            grpc_address_of(wrong)


def test_a_map_of_roles_keeps_names_with_dots(tmp_path: Path) -> None:
    file = write(
        tmp_path / "c.yaml",
        "auth:\n  certificates:\n    roles:\n      alice@example.com: [dba, admin]\n"
        "      ci.example.com: dba\n      guest: []\n",
    )
    config = load_config(file, environment={})
    assert config.auth_certificates_roles == {
        "alice@example.com": {"dba", "admin"},
        "ci.example.com": {"dba"},
        "guest": set(),
    }
    assert config.shown()["auth.certificates.roles"] == (
        "alice@example.com: admin, dba; ci.example.com: dba; guest: "
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[alice]", "must be a map from names to lists of roles"),
        ("alice", "must be a map from names to lists of roles"),
        ("{alice: {dba: yes}}", "alice must have a list of roles"),
        ("{alice: [[dba]]}", "alice must have a list of roles"),
    ],
)
def test_roles_that_are_no_map_of_lists_are_refused(tmp_path: Path, value: str, message: str) -> None:
    file = write(tmp_path / "c.yaml", f"auth: {{certificates: {{roles: {value}}}}}\n")
    with pytest.raises(ConfigError, match=message):
        load_config(file, environment={})


@pytest.mark.parametrize(
    ("variable", "advice"),
    [
        ("SPINCYCLE_SPEC_DIR", "did you mean SPINCYCLE_SPECS_DIR?"),
        ("SPINCYCLE_DATABASE_URI", "did you mean SPINCYCLE_DATABASE_URL?"),
        ("SPINCYCLE_JOB_RUNNER_MAXCHAINS", "did you mean SPINCYCLE_JOB_RUNNER_MAX_CHAINS?"),
        ("SPINCYCLE_log_level", "did you mean SPINCYCLE_LOG_LEVEL?"),
        ("SPINCYCLE_AUTH_PLUGIN", "set the option auth.plugin in the configuration file"),
        ("SPINCYCLE_QQQQ", "remove it"),
    ],
)
def test_an_unknown_variable_is_an_error_with_advice(variable: str, advice: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(environment={variable: "s3cret"})
    assert f"unknown environment variable {variable}: " in str(caught.value)
    assert advice in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "variable",
    [
        "SPINCYCLE_SERVICE_HOST",
        "SPINCYCLE_SERVICE_PORT",
        "SPINCYCLE_SERVICE_PORT_GRPC",
        "SPINCYCLE_PORT",
        "SPINCYCLE_PORT_32308_TCP_ADDR",
        "SPINCYCLE_REQUEST_MANAGER_SERVICE_HOST",
        "SPINCYCLE_JOB_RUNNER_PORT_32307_TCP",
        "SPINCYCLE_CHAOS_SEED",
        "SPINCYCLE_TEST_X",
        "MY_SPINCYCLE_X",
    ],
)
def test_variables_of_kubernetes_and_of_tests_are_no_options(variable: str) -> None:
    assert load_config(environment={variable: "tcp://10.0.0.1:80"}) == load_config(environment={})


def test_each_value_has_a_source(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", "specs: {dir: a}\nresume_interval: 3s\n")
    loaded = load_with_sources(
        file, environment={"SPINCYCLE_SPECS_DIR": "b"}, overrides={"server.addr": "127.0.0.1:3"}
    )
    assert loaded.sources == {
        "specs.dir": "SPINCYCLE_SPECS_DIR",
        "resume_interval": file,
        "server.addr": "command line",
    }
    assert loaded.file == Path(file)


TARGET = "url: 'https://hooks.example.com/s3cr3t?k=s3cr3t', secret_file: k, events: [failed]"


def targets_of(tmp_path: Path, text: str) -> Config:
    file = write(tmp_path / "c.yaml", f"notifications: {{targets: {text}}}\n")
    return load_config(file, environment={})


def test_targets_of_notifications_are_shown_without_the_paths_of_their_urls(tmp_path: Path) -> None:
    config = targets_of(
        tmp_path,
        f"{{ops: {{{TARGET}, types: 'b, a', args: [host], errors: no}}, "
        "team: {format: slack, url_file: /run/slack.url, events: 'stopped, completed', allow_http: yes}}",
    )
    ops, team = config.notifications_targets.values()
    assert (ops.format, sorted(ops.events), sorted(ops.types), ops.args) == (
        "json", ["failed"], ["a", "b"], ("host",),
    )  # fmt: skip
    assert (ops.shows_errors, ops.allows_http) == (False, False)
    assert (team.shows_errors, team.allows_http) == (True, True)
    assert config.shown()["notifications.targets"] == (
        "ops: failed of a, b as json to hooks.example.com; "
        "team: completed, stopped as slack to the URL in /run/slack.url"
    )
    assert "s3cr3t" not in repr(config)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[a]", "must be a map from names to options of targets"),
        ("{Ops: {}}", "'Ops' must be a name of at most 40 of a-z, 0-9 and -"),
        ("{ops: x}", "ops: must be a map of options"),
        (f"{{ops: {{{TARGET}, path: x}}}}", "ops: unknown option path: must be one of allow_http, args"),
        ("{ops: {events: [failed]}}", "ops: set url or url_file, and not both"),
        (f"{{ops: {{{TARGET}, url_file: x}}}}", "ops: set url or url_file, and not both"),
        ("{ops: {url: 's3cr3t:x'}}", "ops: url must be a URL of HTTPS"),
        ("{ops: {url: 'https://[s3cr3t'}}", "ops: url must be a URL of HTTPS"),
        ("{ops: {url: [s3cr3t]}}", "ops: url, url_file and secret_file must be texts"),
        (f"{{ops: {{{TARGET}, format: xml}}}}", "ops: format must be one of json, slack, pagerduty"),
        (f"{{ops: {{{TARGET}, format: slack}}}}", "ops: secret_file must not be set"),
        (f"{{ops: {{{TARGET}, errors: perhaps}}}}", "ops: errors must be true or false"),
        (f"{{ops: {{{TARGET}, types: {{a: b}}}}}}", "ops: types must be a list of words"),
        (f"{{ops: {{{TARGET}, args: [{'a,' * 21}]}}}}", "ops: args must have at most 20 names"),
        (
            "{ops: {url: 'https://x', secret_file: k}}",
            "ops: events must be a list of approval",
        ),
        (f"{{{', '.join(f't{n}: x' for n in range(21))}}}", "must have at most 20 targets"),
    ],
)
def test_the_error_of_a_target_names_it_and_shows_no_url(tmp_path: Path, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as refused:
        targets_of(tmp_path, value)
    assert "s3cr3t" not in str(refused.value)
