"""A Google service account's JSON key: read, checked, and made into what buys an access token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from google.auth import crypt, jwt

from engine.errors import CredentialError
from engine.json_secrets import read_json

#: Where Google has exchanged assertions, now and before; a key that names another host is refused.
TOKEN_HOSTS = frozenset({"oauth2.googleapis.com", "accounts.google.com", "www.googleapis.com"})
NEEDED = ("type", "project_id", "private_key_id", "private_key", "client_email", "token_uri")
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
#: Google's longest, seconds.
ASSERTION_S = 3600
FIX = "Store the JSON key file of the service account whole: manta credential add ORG gcp < key.json"

# Typed in part only.
_crypt: Any = crypt
_jwt: Any = jwt


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A service account that can sign; `project` is the one it was made in."""

    email: str
    project: str
    audience: str
    #: Where the key is exchanged: the environment's token endpoint, whatever the key names.
    token_url: str
    info: Mapping[str, Any] = field(repr=False)
    signer: Any = field(repr=False)

    def assertion(self, scopes: Sequence[str], *, now: datetime) -> str:
        """A signed JWT that asks for a token with these scopes; good for an hour, once."""
        issued = int(now.timestamp())
        claims = {
            "iss": self.email,
            "scope": " ".join(scopes),
            "aud": self.audience,
            "iat": issued,
            "exp": issued + ASSERTION_S,
        }
        return str(_jwt.encode(self.signer, claims).decode())


def service_account(secret: str, *, oauth_base_url: str) -> ServiceAccount:
    """Read a key.

    `oauth_base_url` is the setting GCP_OAUTH_BASE_URL: the only place where the key is exchanged. The key's
    own `token_uri` is what somebody stored, so it must name Google or that very address. Raises
    CredentialError, which never quotes the key.
    """
    info = read_key(secret)
    token_url = f"{oauth_base_url}/token"
    _check_token_uri(info["token_uri"], token_url)
    try:
        signer = _crypt.RSASigner.from_string(info["private_key"], info["private_key_id"])
    except (ValueError, TypeError) as error:
        # Its text may quote the key, so neither it nor the cause goes on.
        raise CredentialError(
            f"The service account key's private_key cannot be read ({type(error).__name__}).", fix=FIX
        ) from None
    return ServiceAccount(
        email=info["client_email"],
        project=info["project_id"],
        audience=info["token_uri"],
        token_url=token_url,
        info={**info, "token_uri": token_url},
        signer=signer,
    )


def read_key(secret: str) -> dict[str, Any]:
    """The fields of a key file, as far as its form goes. Raises CredentialError, which never quotes it."""
    info = read_json(secret, NEEDED, what="service account key", fix=FIX)
    if info["type"] != "service_account":
        raise CredentialError(
            f"The JSON is a key of type {info['type'][:40]!r}, no service_account.", fix=FIX
        )
    return info


def _check_token_uri(token_uri: str, token_url: str) -> None:
    try:
        parts = urlsplit(token_uri)
        ours = token_uri == token_url or (parts.scheme == "https" and parts.netloc in TOKEN_HOSTS)
    except ValueError:
        ours = False
    if not ours:
        raise CredentialError(
            f"The service account key names the token endpoint {token_uri[:100]!r}, which is not Google's.",
            fix="Use the key as Google made it: token_uri is https://oauth2.googleapis.com/token.",
        )
