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
from engine.located import wrong
from engine.settings import Settings, variable


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Auth(_Model):
    """How a secret is sent: `Authorization: Bearer`, or alone in a header of its own."""

    kind: Literal["bearer", "header"]
    header: str | None = None

    @model_validator(mode="after")
    def _header_where_needed(self) -> Self:
        if (self.kind == "header") != (self.header is not None):
            raise wrong(
                ("header",), f"does not go with kind {self.kind}", "give it with kind header, and only then"
            )
        return self

    def headers(self, secret: str) -> dict[str, str]:
        """The request headers that carry the secret."""
        return {self.header: secret} if self.header else {"Authorization": f"Bearer {secret}"}


class Rate(_Model):
    """A token bucket for one credential: `burst` at once, refilled at `requests_per_minute`."""

    requests_per_minute: PositiveFloat
    burst: PositiveInt


class Key(_Model):
    """What the provider's keys look like, to refuse an ordinary one before it is stored."""

    admin_prefix: str
    ordinary_prefixes: tuple[str, ...] = ()
    where: str


class Provider(_Model):
    """One provider. `setting` names the field of Settings that holds its base URL."""

    name: str
    display_name: str
    setting: str
    official_hosts: tuple[str, ...]
    day_timezone: str
    auth: Auth
    headers: dict[str, str] = Field(default_factory=dict)
    days_per_call: PositiveInt
    calls_per_window: PositiveInt = 1
    rate: Rate
    key: Key

    @field_validator("setting")
    @classmethod
    def _setting_exists(cls, name: str) -> str:
        if not name.endswith("_base_url") or name not in Settings.model_fields:
            known = ", ".join(field for field in Settings.model_fields if field.endswith("_base_url"))
            raise wrong((), f"no setting {name!r} holds a base URL", f"use one of {known}")
        return name

    @field_validator("day_timezone")
    @classmethod
    def _timezone_exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise wrong((), f"{name!r} is no timezone", "write UTC or a name like Europe/Berlin") from error
        return name

    def base_url(self, settings: Settings) -> str:
        """Where this environment finds the provider's API."""
        return str(getattr(settings, self.setting))

    def request_headers(self, secret: str) -> dict[str, str]:
        """Every header that a request to this provider needs."""
        return {**self.headers, **self.auth.headers(secret)}

    def check_key(self, secret: str, *, base_url: str) -> None:
        """Refuse a key that the provider's own hosts would refuse; the secret is never shown.

        A sandbox or gateway may use keys of any form, so only official hosts are strict. Raises
        ConfigurationError.
        """
        if not secret or not secret.isprintable() or not secret.isascii() or " " in secret:
            raise ConfigurationError(
                f"The {self.display_name} key is empty or holds spaces, line breaks or non-ASCII characters.",
                fix="Paste the key alone, on one line.",
            )
        if urlsplit(base_url).hostname not in self.official_hosts or secret.startswith(self.key.admin_prefix):
            return
        ordinary = any(secret.startswith(prefix) for prefix in self.key.ordinary_prefixes)
        said = "is an ordinary key, which may not read usage" if ordinary else "is no admin key"
        raise ConfigurationError(
            f"This {self.display_name} key {said}: admin keys begin with {self.key.admin_prefix}.",
            fix=f"Make an admin key at {self.key.where} (setting {variable(self.setting)} is {base_url}).",
        )
