"""The settings of one environment: process environment over the stack's notes over `.env.{MANTA_ENV}`."""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AliasGenerator,
    Field,
    PositiveInt,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from engine.envfiles import ENVIRONMENTS, Variable, ignored, read_env, refuse_secrets, refuse_unknown
from engine.errors import ConfigurationError, UsageError

MIN_ROOT_KEY_CHARS = 32
NAMED = {"env": "MANTA_ENV", "root": "MANTA_ROOT", "home": "MANTA_HOME"}
STACK_FILE = "stack.env"
EMULATORS = (
    "bigquery_emulator_host",
    "bigquery_storage_emulator_host",
    "kms_emulator_host",
    "storage_emulator_host",
)


def variable(field: str) -> str:
    """The environment variable of a settings field."""
    return NAMED.get(field, field.upper())


def is_loopback(address: str) -> bool:
    """True when a URL or host:port names this machine."""
    host = urlsplit(address if "://" in address else f"//{address}").hostname
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


def _provider_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise ValueError(f"is {url!r}, no plain http(s) address; write https://host or https://host/v1")
    if parts.scheme == "http" and not is_loopback(url):
        raise ValueError(
            f"is {url!r}: plain http would send an admin key to {parts.hostname} readable; write https"
        )
    return url.rstrip("/")


def _openai_url(url: str) -> str:
    if not (url := _provider_url(url)).endswith("/v1"):
        raise ValueError(f"is {url!r}; as with OpenAI's own SDK it ends in /v1: write {url}/v1")
    return url


def _anthropic_url(url: str) -> str:
    if (url := _provider_url(url)).endswith("/v1"):
        raise ValueError(
            f"is {url!r}; as with Anthropic's own SDK it has no /v1: write {url.removesuffix('/v1')}"
        )
    return url


ProviderUrl = Annotated[str, AfterValidator(_provider_url)]
KmsKey = Annotated[
    str, StringConstraints(pattern=r"^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$")
]
DatasetPart = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,49}$")]


def _origins(text: str) -> str:
    for origin in filter(None, (part.strip() for part in text.split(","))):
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query:
            raise ValueError(
                f"holds {origin!r}, no origin; write https://host or https://host:port, by comma"
            )
    return text


def _embedded(data: dict[str, Any]) -> bool:
    """Local without a project of one's own: the embedded BigQuery, which knows neither login nor TLS."""
    return bool(data["env"] == "local" and data.get("bigquery_project", "local") == "local")


class Settings(BaseSettings):
    """Everything that differs between environments; public but for the `SecretStr` fields.

    The variable of a field is its name in capitals (`MANTA_ENV`, `MANTA_ROOT`, `MANTA_HOME` for the first
    three). Refuses to be pickled while it holds a secret: `without_secrets()` is what travels to tasks.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        case_sensitive=True,
        validate_by_name=True,
        validate_by_alias=True,
        validate_default=True,
        hide_input_in_errors=True,
        alias_generator=AliasGenerator(validation_alias=variable),
    )

    env: Literal["local", "stage", "prod"] = "local"
    root: Path
    home: Path
    bigquery_project: str = Field(default_factory=lambda data: "local" if data["env"] == "local" else "")
    bigquery_location: str = "US"
    dataset_suffix: DatasetPart = Field(default_factory=lambda data: data["env"])
    meta_dataset: DatasetPart = "organizations"
    bigquery_emulator_host: str | None = None
    bigquery_storage_emulator_host: str | None = None
    google_credentials: Literal["adc", "anonymous", "file"] = Field(
        default_factory=lambda data: "anonymous" if _embedded(data) else "adc"
    )
    google_credentials_file: Path | None = None
    transport: Literal["tls", "plaintext"] = Field(
        default_factory=lambda data: "plaintext" if _embedded(data) else "tls"
    )
    key_store: Literal["file", "kms"] = Field(
        default_factory=lambda data: "file" if data["env"] == "local" else "kms"
    )
    key_file: Path = Field(default_factory=lambda data: data["home"] / "keys" / "master.key")
    kms_key: KmsKey | None = None
    kms_key_previous: KmsKey | None = None
    kms_emulator_host: str | None = None
    storage_emulator_host: str | None = None
    artifact_root: str = Field(default_factory=lambda data: str(data["home"] / "artifacts"))
    ray_address: str | None = None
    ray_dashboard: ProviderUrl | None = None
    openai_base_url: Annotated[str, AfterValidator(_openai_url)] = "https://api.openai.com/v1"
    anthropic_base_url: Annotated[str, AfterValidator(_anthropic_url)] = "https://api.anthropic.com"
    maximum_bytes_billed: PositiveInt = 100 * 2**30
    default_admin_email: str | None = Field(default=None, pattern=r"^[^@\s]+@[^@\s]+$")
    ca_root_api_key: SecretStr | None = None
    ca_root_api_key_previous: SecretStr | None = None
    api_host: str = "127.0.0.1"
    api_port: Annotated[int, Field(ge=0, le=65535)] = 8001
    api_replicas: PositiveInt = 1
    api_requests_per_minute: PositiveInt = 600
    api_runs_per_minute: PositiveInt = 120
    api_failures_per_minute: PositiveInt = 10
    api_cors_origins: Annotated[str, AfterValidator(_origins)] | None = None
    api_max_body_bytes: PositiveInt = 10 * 2**20
    max_active_runs: PositiveInt = 2000
    directory_refresh_seconds: Annotated[int, Field(ge=1, le=300)] = 30
    manta_api_url: ProviderUrl | None = None
    warnings: tuple[str, ...] = Field(default=(), exclude=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is given: `load` alone reads the environment, so two Settings made alike are alike."""
        return (init_settings,)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, *, root: Path | None = None) -> Settings:
        """Read the settings of `MANTA_ENV`.

        The process environment (`environ`) wins over `$MANTA_HOME/stack.env` (local only: what `manta up`
        started), which wins over `.env.{MANTA_ENV}` under `root`. An empty value means "not set" and hides
        the layers below. Raises ConfigurationError naming file, line and variable.
        """
        environ = os.environ if environ is None else environ
        env = environ.get("MANTA_ENV") or "local"
        if env not in ENVIRONMENTS:
            raise ConfigurationError(
                f"MANTA_ENV is {env!r}.",
                fix=f"Set it to one of {', '.join(ENVIRONMENTS)}.",
                field="MANTA_ENV",
            )
        root = root or Path(environ.get("MANTA_ROOT") or Path(__file__).resolve().parents[1])
        refuse_secrets(root)
        known = {variable(name) for name in cls.model_fields} - {"WARNINGS"}
        file = read_env(root / f".env.{env}")
        refuse_unknown(file, known, process_only=("MANTA_ENV", "MANTA_ROOT"))
        home_note = file.get("MANTA_HOME")
        home = Path(environ.get("MANTA_HOME") or (home_note.value if home_note else "") or "~/.manta")
        home = home.expanduser().absolute()
        stack = read_env(home / STACK_FILE) if env == "local" else {}
        notes = ignored(root) + tuple(
            f"{var.where}: {name} is no setting and is ignored."
            for name, var in stack.items()
            if name not in known
        )
        given = {name: Variable(value, "the environment") for name, value in environ.items() if name in known}
        return cls._built(
            ChainMap(given, {n: v for n, v in stack.items() if n in known}, file),
            fixed={"MANTA_ENV": env, "MANTA_ROOT": str(root.absolute()), "MANTA_HOME": str(home)},
            warnings=notes,
        )

    @classmethod
    def _built(
        cls, layers: Mapping[str, Variable], *, fixed: Mapping[str, str], warnings: tuple[str, ...]
    ) -> Settings:
        source = EnvSettingsSource(cls)
        source.env_vars = {name: var.value for name, var in layers.items() if var.value} | dict(fixed)
        try:
            return cls(**source(), warnings=warnings)
        except ValidationError as error:
            first = error.errors()[0]
            name = variable(str(first["loc"][0])) if first["loc"] else ""
            where = f"{layers[name].where}: {name}: " if name in layers else (f"{name}: " if name else "")
            message = first["msg"].removeprefix("Value error, ")
            raise ConfigurationError(
                f"{where}{message}.", fix=f"Correct {name or 'the settings'}.", field=name or None
            ) from error

    @model_validator(mode="after")
    def _open_wires_stay_at_home(self) -> Self:
        unguarded = self.transport == "plaintext" or self.google_credentials == "anonymous"
        for field in EMULATORS:
            host = getattr(self, field)
            if unguarded and host and not is_loopback(host):
                raise ValueError(
                    f"{variable(field)} is {host!r}, not this machine, and TRANSPORT={self.transport} with "
                    f"GOOGLE_CREDENTIALS={self.google_credentials} would let anyone read along; "
                    "use tls and adc, or a loopback address"
                )
        if self.google_credentials == "file" and self.google_credentials_file is None:
            raise ValueError(
                "GOOGLE_CREDENTIALS=file needs GOOGLE_CREDENTIALS_FILE, the path of the key file"
            )
        return self

    def __getstate__(self) -> dict[Any, Any]:
        if self.ca_root_api_key is not None or self.ca_root_api_key_previous is not None:
            raise TypeError("Settings that hold a secret do not travel; send settings.without_secrets().")
        return super().__getstate__()

    def without_secrets(self) -> Settings:
        """The same settings with every secret left out: what may become a task argument."""
        return self.model_copy(update={"ca_root_api_key": None, "ca_root_api_key_previous": None})

    def with_endpoints(self, endpoints: Mapping[str, str]) -> Settings:
        """The same settings with other provider addresses, by variable (OPENAI_BASE_URL).

        Raises UsageError for a variable that is no provider's address and for an address that cannot be one.
        """
        if not endpoints:
            return self
        known = {variable(name): name for name in type(self).model_fields if name.endswith("_base_url")}
        for name in endpoints:
            if name not in known:
                raise UsageError(
                    f"{name} is no provider's address.",
                    fix=f"Use one of {', '.join(sorted(known))}.",
                    field="endpoints",
                )
        changed = {known[name]: url for name, url in endpoints.items()}
        try:
            return type(self).model_validate({**self.model_dump(), **changed, "warnings": self.warnings})
        except ValidationError as error:
            first = error.errors()[0]
            name = variable(str(first["loc"][0])) if first["loc"] else "endpoints"
            raise UsageError(
                f"{name}: {first['msg'].removeprefix('Value error, ')}.",
                fix="Give the provider's address.",
                field="endpoints",
            ) from error

    def dataset(self, org_slug: str) -> str:
        """The dataset of an organisation in this environment."""
        return f"{org_slug}_{self.dataset_suffix}"


def check_start(settings: Settings) -> None:
    """Refuse to start with something required missing; the API's keys are `engine.root_keys`' to check.

    Raises ConfigurationError naming the variable.
    """
    for name, missing, fix in _required(settings):
        if missing:
            raise ConfigurationError(f"{settings.env}: {missing}", fix=fix, field=name)


def _required(s: Settings) -> list[tuple[str, str, str]]:
    """(variable, what is missing or "", what to do) for each requirement, in the order of reporting."""
    file = f".env.{s.env}"
    remote = s.env != "local"
    no_project = "" if s.bigquery_project else "there is no BigQuery project."
    no_stack = _embedded(s.model_dump()) and s.bigquery_emulator_host is None
    no_bucket = remote and not s.artifact_root.startswith("gs://")
    return [
        ("BIGQUERY_PROJECT", no_project, f"Set BIGQUERY_PROJECT in {file}."),
        ("BIGQUERY_EMULATOR_HOST", "the local stack is not running." if no_stack else "", "Run `manta up`."),
        (
            "KEY_STORE",
            "the master key may not be a file here." if s.env == "prod" and s.key_store == "file" else "",
            f"Set KEY_STORE=kms in {file}.",
        ),
        (
            "KMS_KEY",
            "there is no KMS key." if s.key_store == "kms" and not s.kms_key else "",
            f"Set KMS_KEY=projects/P/locations/L/keyRings/R/cryptoKeys/K in {file}.",
        ),
        (
            "ARTIFACT_ROOT",
            f"ARTIFACT_ROOT is {s.artifact_root!r}, which other nodes cannot read." if no_bucket else "",
            f"Set ARTIFACT_ROOT=gs://bucket/folder in {file}.",
        ),
        (
            "RAY_ADDRESS",
            "there is no Ray cluster address." if remote and not s.ray_address else "",
            f"Set RAY_ADDRESS in {file}.",
        ),
    ]
