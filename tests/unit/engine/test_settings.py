"""Three environments, one order of precedence, and refusals that name the line."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import pytest

from engine.errors import ConfigurationError
from engine.secretscan import scan
from engine.settings import EMULATORS, Settings, check_start, is_loopback, variable

CHECKOUT = Path(__file__).resolve().parents[3]
ROOT_KEY = "x" * 32


def load(root: Path, environ: Mapping[str, str] | None = None) -> Settings:
    return Settings.load({"MANTA_HOME": str(root / "home"), **(environ or {})}, root=root)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_local_is_complete_without_any_file(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert (settings.env, settings.bigquery_project) == ("local", "local")
    assert (settings.google_credentials, settings.transport) == ("anonymous", "plaintext")
    assert settings.key_file == tmp_path / "home" / "keys" / "master.key"
    assert settings.artifact_root == str(tmp_path / "home" / "artifacts")
    assert settings.dataset("acme") == "acme_local"


def test_process_over_stack_over_file(tmp_path: Path) -> None:
    write(tmp_path / ".env.local", "BIGQUERY_LOCATION=file\nBIGQUERY_PROJECT=file\nRAY_ADDRESS=file:1\n")
    write(tmp_path / "home" / "stack.env", "BIGQUERY_LOCATION=stack\nRAY_ADDRESS=stack:1\n")
    settings = load(tmp_path, {"BIGQUERY_LOCATION": "process"})
    assert settings.bigquery_location == "process"
    assert settings.ray_address == "stack:1"
    assert settings.bigquery_project == "file"


def test_an_empty_value_hides_the_layers_below(tmp_path: Path) -> None:
    write(tmp_path / "home" / "stack.env", "BIGQUERY_EMULATOR_HOST=http://127.0.0.1:9650\n")
    assert load(tmp_path).bigquery_emulator_host == "http://127.0.0.1:9650"
    assert load(tmp_path, {"BIGQUERY_EMULATOR_HOST": ""}).bigquery_emulator_host is None


def test_the_local_stack_says_nothing_about_other_environments(tmp_path: Path) -> None:
    write(tmp_path / "home" / "stack.env", "BIGQUERY_EMULATOR_HOST=http://127.0.0.1:9650\n")
    assert load(tmp_path, {"MANTA_ENV": "prod"}).bigquery_emulator_host is None


def test_real_bigquery_from_a_laptop_uses_login_and_tls(tmp_path: Path) -> None:
    settings = load(tmp_path, {"BIGQUERY_PROJECT": "my-project"})
    assert (settings.google_credentials, settings.transport) == ("adc", "tls")


def test_dot_env_is_ignored_and_said_so(tmp_path: Path) -> None:
    write(tmp_path / ".env", "BIGQUERY_PROJECT=from-dot-env\n")
    settings = load(tmp_path)
    assert settings.bigquery_project == "local"
    assert settings.warnings == (
        f"{tmp_path}/.env is ignored: Manta reads .env.local, .env.stage or .env.prod.",
    )


def test_unknown_name_in_the_stack_file_is_a_warning(tmp_path: Path) -> None:
    stack = write(tmp_path / "home" / "stack.env", "FROM_A_NEWER_MANTA=1\n")
    assert load(tmp_path).warnings == (f"{stack}:1: FROM_A_NEWER_MANTA is no setting and is ignored.",)


@pytest.mark.parametrize(
    ("line", "message", "fix"),
    [
        ("BIGQUERY_PROJEKT=a", "BIGQUERY_PROJEKT: no such setting", "BIGQUERY_PROJECT?"),
        ("MANTA_ENV=prod", "MANTA_ENV: comes too late here", "process environment"),
        ("SOMETHING_ELSE=1", "SOMETHING_ELSE: no such setting", "docs/configs.md"),
        ("just words", "no setting", "NAME=value"),
        ("RAY_ADDRESS=a:1\nRAY_ADDRESS=b:1", "RAY_ADDRESS: set before", "one of the two"),
        ("OPENAI_BASE_URL=api.openai.com/v1", "OPENAI_BASE_URL: is 'api.openai.com/v1', no plain", "OPENAI"),
        ("OPENAI_BASE_URL=https://api.openai.com", "write https://api.openai.com/v1", "OPENAI_BASE_URL"),
        ("OPENAI_BASE_URL=http://api.openai.com/v1", "plain http would send an admin key", "OPENAI"),
        ("ANTHROPIC_BASE_URL=https://api.anthropic.com/v1", "it has no /v1", "ANTHROPIC_BASE_URL"),
        ("MAXIMUM_BYTES_BILLED=0", "MAXIMUM_BYTES_BILLED: Input should be greater than 0", "MAXIMUM"),
        ("KMS_KEY=projects/p/key", "KMS_KEY: String should match pattern", "KMS_KEY"),
    ],
)
def test_a_bad_line_is_refused_by_file_and_line(tmp_path: Path, line: str, message: str, fix: str) -> None:
    write(tmp_path / ".env.local", f"# a comment\n\n{line}\n")
    with pytest.raises(ConfigurationError) as refused:
        load(tmp_path)
    assert f"{tmp_path}/.env.local:{2 + len(line.splitlines())}: " in refused.value.message
    assert message in refused.value.message
    assert fix in refused.value.fix


def test_a_bad_process_value_names_the_environment(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the environment: TRANSPORT: Input should be 'tls'"):
        load(tmp_path, {"TRANSPORT": "carrier pigeon"})


def test_an_unknown_environment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="MANTA_ENV is 'production'"):
        load(tmp_path, {"MANTA_ENV": "production"})


@pytest.mark.parametrize("setting", [variable(field) for field in EMULATORS])
@pytest.mark.parametrize("open_by", [{"TRANSPORT": "tls"}, {"GOOGLE_CREDENTIALS": "adc"}])
def test_open_wires_to_other_machines_are_refused(
    tmp_path: Path, setting: str, open_by: dict[str, str]
) -> None:
    with pytest.raises(ConfigurationError, match=f"{setting} is '10.0.0.7:9650', not this machine"):
        load(tmp_path, {setting: "10.0.0.7:9650", **open_by})
    shut = {"TRANSPORT": "tls", "GOOGLE_CREDENTIALS": "adc", setting: "10.0.0.7:9650"}
    assert load(tmp_path, shut).transport == "tls"


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("http://127.0.0.1:9650", True),
        ("127.0.0.9:1", True),
        ("localhost:1", True),
        ("http://[::1]:5/v1", True),
        ("127.0.0.1.evil.example:1", False),
        ("https://localhost.example", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback(address: str, here: bool) -> None:
    assert is_loopback(address) is here


@pytest.mark.parametrize("env", ["local", "stage", "prod"])
def test_a_secret_in_any_of_the_files_is_refused_unseen(tmp_path: Path, env: str) -> None:
    secret = "sk-admin-" + "a1B2c3D4" * 4
    write(tmp_path / f".env.{env}", f"# fine\nOPENAI_ADMIN={secret}\n")
    with pytest.raises(ConfigurationError, match=rf"\.env\.{env}:2: OPENAI_ADMIN: looks like") as refused:
        load(tmp_path)
    assert secret not in str(refused.value)
    assert "manta credential add" in refused.value.fix


@pytest.mark.parametrize(
    "line",
    [
        "A=sk-ant-admin01-abcdefgh",
        "A=AIza" + "Sy0a1b2c3d4e5f6g7h8i9j",
        "A=xox" + "b-123456789012",
        "SLACK_WEBHOOK_URL=https://hooks.slack.com" + "/services/T000/B000/abc123",
        "A=-----BEGIN PRIVATE KEY-----",
        "SMTP_PASSWORD=hunter2",
        "CA_ROOT_API_KEY=short",
        "API_TOKEN='quoted'",
        "# CA_ROOT_API_KEY=c29tZXRoaW5nbG9uZ2FuZHJhbmRvbQ",
        "# sk-ant-admin01-abcdefgh was mine",
        "KMS_KEY=3f9a0c5d7e1b2846af90c3d5e7b1f284",
        "RAY_ADDRESS=https://me:secret@ray.example",
        "ANYTHING=3f9a0c5d7e1b2846af90c3d5e7b1f284",
        "ANYTHING=aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC2eF4",
    ],
)
def test_secrets_are_seen(line: str) -> None:
    assert [found.line for found in scan(f"# first\n{line}\n")] == [2]


@pytest.mark.parametrize(
    "line",
    [
        "KMS_KEY=projects/manta-prod/locations/europe-west3/keyRings/manta/cryptoKeys/credentials-master",
        "KEY_FILE=~/.manta/keys/master.key",
        "KEY_STORE=file",
        "SMTP_PASSWORD=",
        "ARTIFACT_ROOT=gs://manta-artifacts-prod/partitions",
        "OPENAI_BASE_URL=https://api.openai.com/v1",
        "# CA_ROOT_API_KEY comes from the process environment",
    ],
)
def test_settings_and_references_are_no_secrets(line: str) -> None:
    assert scan(line) == []


def test_shipped_files_hold_no_secret_and_load() -> None:
    for env in ("local", "stage", "prod"):
        assert scan((CHECKOUT / f".env.{env}").read_text()) == []
        assert (
            Settings.load({"MANTA_ENV": env, "MANTA_HOME": "/nowhere"}, root=CHECKOUT).dataset_suffix == env
        )


def test_root_defaults_to_the_checkout() -> None:
    assert Settings.load({}).root == CHECKOUT


def test_settings_with_a_secret_do_not_travel(tmp_path: Path) -> None:
    settings = load(tmp_path, {"CA_ROOT_API_KEY": ROOT_KEY})
    assert ROOT_KEY not in repr(settings)
    assert ROOT_KEY not in settings.model_dump_json()
    with pytest.raises(TypeError, match="without_secrets"):
        pickle.dumps(settings)
    assert pickle.loads(pickle.dumps(settings.without_secrets())) == settings.without_secrets()


REMOTE = {
    "BIGQUERY_PROJECT": "p",
    "KMS_KEY": "projects/p/locations/l/keyRings/r/cryptoKeys/k",
    "ARTIFACT_ROOT": "gs://bucket/folder",
    "RAY_ADDRESS": "ray:6379",
}


@pytest.mark.parametrize("env", ["stage", "prod"])
def test_a_complete_remote_environment_starts(tmp_path: Path, env: str) -> None:
    check_start(load(tmp_path, {"MANTA_ENV": env, **REMOTE}))


@pytest.mark.parametrize("env", ["stage", "prod"])
@pytest.mark.parametrize("name", sorted(REMOTE))
def test_each_missing_requirement_is_named(tmp_path: Path, env: str, name: str) -> None:
    given = {key: value for key, value in REMOTE.items() if key != name}
    with pytest.raises(ConfigurationError) as refused:
        check_start(load(tmp_path, {"MANTA_ENV": env, **given}))
    assert refused.value.field == name
    assert name in refused.value.fix


def test_more_refusals_at_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="may not be a file here"):
        check_start(load(tmp_path, {"MANTA_ENV": "prod", **REMOTE, "KEY_STORE": "file"}))
    with pytest.raises(ConfigurationError, match=r"Run `manta up`\."):
        check_start(load(tmp_path))
    with pytest.raises(ConfigurationError, match="GOOGLE_CREDENTIALS=file needs"):
        load(tmp_path, {"GOOGLE_CREDENTIALS": "file"})
