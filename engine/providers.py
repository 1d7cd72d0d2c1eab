"""The providers of configs/system/providers.yml: how each API is addressed, paced and unlocked."""

from __future__ import annotations

from typing import Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from engine.errors import ConfigurationError
from engine.google_keys import read_key
from engine.json_secrets import client_pair
from engine.located import wrong
from engine.settings import Settings


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Auth(_Model):
    """How a secret is sent.

    `none` sends nothing and asks for no credential; `bearer` and `header` send the secret as it is stored,
    `query` as a parameter; `basic` takes `user:password`; `oauth2_client_credentials` takes JSON with
    `client_id` and `client_secret` and fetches a token at `token_url` (a path is the API's own), sending them
    by `client_auth`, with `token_params` as further form fields; `google_service_account` takes the account's
    JSON key.
    """

    #: `none`, `bearer` (`Authorization: Bearer`), `header`, `query`, `basic` (`user:password`),
    #: `oauth2_client_credentials` (JSON with `client_id` and `client_secret`) or `google_service_account`
    #: (the account's JSON key).
    kind: Literal[
        "none", "bearer", "header", "query", "basic", "oauth2_client_credentials", "google_service_account"
    ]
    #: Name of the header, with kind `header`.
    header: str | None = None
    #: Name of the query parameter, with kind `query`.
    parameter: str | None = None
    #: Where a token is fetched, with kind `oauth2_client_credentials`: https, or a path of the API's own;
    #: `PROVIDER_BASE_URLS` moves it as `{provider}.token`.
    token_url: str | None = None
    #: What a token is asked for, with the last two kinds.
    scopes: tuple[str, ...] = ()
    #: How client id and secret are sent for a token: `basic`, or `body` as form fields.
    client_auth: Literal["basic", "body"] = "basic"
    #: Further form fields of that request, such as `audience`.
    token_params: dict[str, str] = Field(default_factory=dict)

    @field_validator("token_url")
    @classmethod
    def _token_url_is_one(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("https://", "/")):
            raise wrong(
                (), f"{url!r} is no https address", "write https://host/path, or /path of the API's own"
            )
        return url

    @model_validator(mode="after")
    def _what_the_kind_needs(self) -> Self:
        for kinds, name in (
            (("header",), "header"),
            (("query",), "parameter"),
            (("oauth2_client_credentials",), "token_url"),
        ):
            if (self.kind in kinds) != (getattr(self, name) is not None):
                fix = f"give it with kind {' or '.join(kinds)}, and only then"
                raise wrong((name,), f"does not go with kind {self.kind}", fix)
        if self.scopes and self.kind not in ("oauth2_client_credentials", "google_service_account"):
            raise wrong(("scopes",), f"do not go with kind {self.kind}", "leave them out")
        if self.kind != "oauth2_client_credentials":
            for name in {"client_auth", "token_params"} & self.model_fields_set:
                raise wrong((name,), f"does not go with kind {self.kind}", "leave it out")
        return self


class Rate(_Model):
    """A token bucket for one credential: `burst` at once, refilled at `requests_per_minute`."""

    #: Refill.
    requests_per_minute: PositiveFloat
    #: Calls at once.
    burst: PositiveInt


class Key(_Model):
    """What the provider's keys look like, to refuse an ordinary one before it is stored."""

    #: Beginning of an admin key.
    admin_prefix: str
    #: Beginnings of keys that may not read usage.
    ordinary_prefixes: tuple[str, ...] = ()
    #: Page on which an admin key is made.
    where: str


class Provider(_Model):
    """One provider.

    Its address is the field of Settings that `setting` names, or `base_url`; one without either is computed
    from the warehouse. `services` are further addresses by name, each a field of Settings.
    """

    name: str
    #: Shown to people.
    display_name: str
    #: Setting that holds the base URL.
    setting: str | None = None
    #: The base URL itself, of a provider without a setting; https, its host among `official_hosts`.
    base_url: str | None = None
    #: Further addresses by name, each a setting.
    services: dict[str, str] = Field(default_factory=dict)
    #: Hosts requests may go to, unless a setting says otherwise; here only admin keys are taken, a sandbox or
    #: gateway may use any.
    official_hosts: tuple[str, ...] = ()
    #: Whose days the provider's buckets are.
    day_timezone: str
    #: How a key is sent.
    auth: Auth
    #: Sent with every request.
    headers: dict[str, str] = Field(default_factory=dict)
    #: Days one page carries; the plan counts calls with it.
    days_per_call: PositiveInt = 1
    #: The fewest calls that each such window takes, where a pipeline does not say.
    calls_per_window: PositiveInt = 1
    #: How fast one credential may ask; 60 a minute and 10 at once where nothing is said.
    rate: Rate = Rate(requests_per_minute=60, burst=10)
    #: What keys look like.
    key: Key | None = None

    @field_validator("setting")
    @classmethod
    def _setting_exists(cls, name: str | None) -> str | None:
        return None if name is None else _base_url_setting(name)

    @field_validator("services")
    @classmethod
    def _services_exist(cls, services: dict[str, str]) -> dict[str, str]:
        return {name: _base_url_setting(setting) for name, setting in services.items()}

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if self.setting and self.base_url:
            raise wrong(("base_url",), "does not go with setting", "give one of them")
        host = urlsplit(self.base_url or "").hostname
        if self.base_url and (not self.base_url.startswith("https://") or host not in self.official_hosts):
            fix = "write https://host/path and put the host into official_hosts"
            raise wrong(("base_url",), f"is {self.base_url!r}, no https address of official_hosts", fix)
        if self.auth.kind != "none" and not (self.setting or self.base_url):
            raise wrong(("auth",), "needs an address to send credentials to", "give setting or base_url")
        return self

    @field_validator("day_timezone")
    @classmethod
    def _timezone_exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise wrong((), f"{name!r} is no timezone", "write UTC or a name like Europe/Berlin") from error
        return name

    @property
    def needs_credential(self) -> bool:
        """False where nothing is asked for: public APIs, and what is computed from the warehouse."""
        return self.auth.kind != "none"

    def address(self, settings: Settings) -> str | None:
        """Where this environment finds the provider's API; None for one without an API."""
        if (given := settings.provider_base_url(self.name)) is not None:
            return given
        return str(getattr(settings, self.setting)) if self.setting else self.base_url

    def addresses(self, settings: Settings) -> dict[str, str]:
        """The addresses of `services`, by name."""
        return {name: str(getattr(settings, setting)) for name, setting in self.services.items()}

    def token_address(self, settings: Settings) -> str:
        """Where client credentials are exchanged; PROVIDER_BASE_URLS moves it as `{provider}.token`."""
        url = str(self.auth.token_url)
        if url.startswith("/"):
            return f"{self.address(settings)}{url}"
        return settings.provider_base_url(f"{self.name}.token") or url

    def check_key(self, secret: str, *, base_url: str | None) -> None:
        """Refuse a key that the provider's own hosts would refuse; the secret is never shown.

        A sandbox or gateway may use keys of any form, so only official hosts are strict. Raises
        ConfigurationError, and CredentialError for JSON that lacks what the kind needs.
        """
        if not self.needs_credential:
            raise ConfigurationError(
                f"{self.display_name} asks for no credential.", fix="Run its pipelines without one."
            )
        if self.auth.kind == "google_service_account":
            read_key(secret)
            return
        if self.auth.kind == "oauth2_client_credentials":
            client_pair(self.display_name, secret)
            return
        if self.auth.kind == "basic" and ":" not in secret:
            raise ConfigurationError(
                f"The {self.display_name} credential is no user:password.",
                fix="Write both, with a colon between.",
            )
        if not secret or not secret.isprintable() or not secret.isascii() or " " in secret:
            raise ConfigurationError(
                f"The {self.display_name} key is empty or holds spaces, line breaks or non-ASCII characters.",
                fix="Paste the key alone, on one line.",
            )
        if self.key is None or urlsplit(base_url or "").hostname not in self.official_hosts:
            return
        if secret.startswith(self.key.admin_prefix):
            return
        ordinary = any(secret.startswith(prefix) for prefix in self.key.ordinary_prefixes)
        said = "is an ordinary key, which may not read usage" if ordinary else "is no admin key"
        raise ConfigurationError(
            f"This {self.display_name} key {said}: admin keys begin with {self.key.admin_prefix}.",
            fix=f"Make an admin key at {self.key.where}; the address is {base_url}.",
        )


def _base_url_setting(name: str) -> str:
    if not name.endswith("_base_url") or name not in Settings.model_fields:
        known = ", ".join(field for field in Settings.model_fields if field.endswith("_base_url"))
        raise wrong((), f"no setting {name!r} holds a base URL", f"use one of {known}")
    return name
