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
    BeforeValidator,
    Field,
    PositiveInt,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

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


def _named_urls(given: object) -> object:
    """`name=url,name=url`, or a mapping, as pairs."""
    if isinstance(given, Mapping):
        return tuple(given.items())
    if not isinstance(given, str):
        return given
    pairs = [part.strip().partition("=") for part in given.split(",") if part.strip()]
    if bad := [name for name, equals, url in pairs if not (name and equals and url)]:
        raise ValueError(f"has an entry {bad[0]!r} that is no name=url; write provider=https://host,...")
    return tuple((name.strip(), url.strip()) for name, _, url in pairs)


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

    #: `local`, `stage` or `prod`. Process environment only.
    env: Literal["local", "stage", "prod"] = "local"
    #: Folder that holds `configs/`, `procedures/` and the `.env.*` files. Process environment only.
    #: Default the checkout.
    root: Path
    #: Folder for everything local: embedded BigQuery, keys, artifacts, logs.
    #: Default `~/.manta`.
    home: Path
    #: Project of all datasets. Required in stage and prod.
    #: Default `local` in local.
    bigquery_project: str = Field(default_factory=lambda data: "local" if data["env"] == "local" else "")
    #: Region of all datasets; start refuses a dataset that lies elsewhere.
    bigquery_location: str = "US"
    #: An organisation's dataset is `{org_slug}_{suffix}`.
    #: Default the environment.
    dataset_suffix: DatasetPart = Field(default_factory=lambda data: data["env"])
    #: The central dataset.
    meta_dataset: DatasetPart = "organizations"
    #: REST address of another BigQuery, such as `http://127.0.0.1:9650`.
    bigquery_emulator_host: str | None = None
    #: Its gRPC address, such as `127.0.0.1:9660`.
    bigquery_storage_emulator_host: str | None = None
    #: `adc` (application default), `file` or `anonymous` (this machine only).
    #: Default `adc`; `anonymous` for the embedded BigQuery.
    google_credentials: Literal["adc", "anonymous", "file"] = Field(
        default_factory=lambda data: "anonymous" if _embedded(data) else "adc"
    )
    #: Path of a service account key, with `GOOGLE_CREDENTIALS=file`.
    google_credentials_file: Path | None = None
    #: `plaintext` is refused for other machines.
    #: Default `tls`; `plaintext` for the embedded BigQuery.
    transport: Literal["tls", "plaintext"] = Field(
        default_factory=lambda data: "plaintext" if _embedded(data) else "tls"
    )
    #: Where the master key for credentials is. prod demands `kms`.
    #: Default `file` in local, else `kms`.
    key_store: Literal["file", "kms"] = Field(
        default_factory=lambda data: "file" if data["env"] == "local" else "kms"
    )
    #: The master key with `KEY_STORE=file`: 32 bytes, mode 0600, made on first use. Back it up: without it
    #: stored credentials stay closed.
    #: Default `$MANTA_HOME/keys/master.key`.
    key_file: Path = Field(default_factory=lambda data: data["home"] / "keys" / "master.key")
    #: With `KEY_STORE=kms`: `projects/P/locations/L/keyRings/R/cryptoKeys/K`.
    kms_key: KmsKey | None = None
    #: The key before `KMS_KEY`: it opens what it has wrapped until `manta vault rotate` has moved that
    #: ([vault.md](vault.md)).
    kms_key_previous: KmsKey | None = None
    #: gRPC address of another Cloud KMS.
    kms_emulator_host: str | None = None
    #: Address of another Cloud Storage, such as `http://127.0.0.1:4443`; plain http for this machine only.
    storage_emulator_host: str | None = None
    #: Where the Parquet file of each partition is kept. stage and prod demand `gs://bucket/folder`, which
    #: needs the extra `gcs`.
    #: Default `$MANTA_HOME/artifacts`.
    artifact_root: str = Field(default_factory=lambda data: str(data["home"] / "artifacts"))
    #: Ray cluster to join. Required in stage and prod.
    ray_address: str | None = None
    #: Address of Ray's dashboard, for links.
    ray_dashboard: ProviderUrl | None = None
    #: As with OpenAI's own SDK it ends in `/v1`.
    openai_base_url: Annotated[str, AfterValidator(_openai_url)] = "https://api.openai.com/v1"
    #: As with Anthropic's own SDK it does not.
    anthropic_base_url: Annotated[str, AfterValidator(_anthropic_url)] = "https://api.anthropic.com"
    #: Google's Cloud Billing API.
    gcp_billing_base_url: ProviderUrl = "https://cloudbilling.googleapis.com"
    #: Google's Compute API.
    gcp_compute_base_url: ProviderUrl = "https://compute.googleapis.com"
    #: The BigQuery in which customers keep their billing export.
    gcp_bigquery_base_url: ProviderUrl = "https://bigquery.googleapis.com"
    #: Its Storage Read API (gRPC).
    gcp_bigquery_storage_host: str = "bigquerystorage.googleapis.com"
    #: Where a service account's key is exchanged for a token.
    gcp_oauth_base_url: ProviderUrl = "https://oauth2.googleapis.com"
    #: Addresses of other providers, `name=https://host/path` by comma; they win over `base_url` in
    #: providers.yml.
    provider_base_urls: Annotated[
        tuple[tuple[str, ProviderUrl], ...], NoDecode, BeforeValidator(_named_urls)
    ] = ()
    #: Most bytes one BigQuery statement may read (100 GiB).
    maximum_bytes_billed: PositiveInt = 100 * 2**30
    #: E-mail address of an organisation that is added without one.
    default_admin_email: str | None = Field(default=None, pattern=r"^[^@\s]+@[^@\s]+$")
    #: Root key of the HTTP API, at least 32 characters. Secret: process environment only. Without it local
    #: uses `$MANTA_HOME/keys/root.key`.
    ca_root_api_key: SecretStr | None = None
    #: The root key before it, valid beside it while it is being changed. Secret too.
    ca_root_api_key_previous: SecretStr | None = None
    #: Where the API listens.
    api_host: str = "127.0.0.1"
    #: Its port.
    api_port: Annotated[int, Field(ge=0, le=65535)] = 8001
    #: Processes that answer.
    api_replicas: PositiveInt = 1
    #: Requests an organisation may send, over all replicas.
    api_requests_per_minute: PositiveInt = 600
    #: Requests for runs among them.
    api_runs_per_minute: PositiveInt = 120
    #: Wrong keys an address may send.
    api_failures_per_minute: PositiveInt = 10
    #: Origins whose pages may ask, by comma: `https://app.example`.
    api_cors_origins: Annotated[str, AfterValidator(_origins)] | None = None
    #: Longest body taken (10 MiB).
    api_max_body_bytes: PositiveInt = 10 * 2**20
    #: Runs accepted and not ended, of all organisations.
    max_active_runs: PositiveInt = 2000
    #: How often organisations, keys and limits are read again while somebody asks. A key revoked on the
    #: command line ends within this and 5 seconds.
    directory_refresh_seconds: Annotated[int, Field(ge=1, le=300)] = 30
    #: The API that `manta run` and `manta cancel` ask. `manta up` writes it into `stack.env`.
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

    def provider_base_url(self, name: str) -> str | None:
        """The address that PROVIDER_BASE_URLS gives a provider."""
        return dict(self.provider_base_urls).get(name)

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
