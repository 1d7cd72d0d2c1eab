"""Service accounts of the sandbox: their JSON keys, and the token endpoint that takes what they sign."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any
from uuid import uuid4

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from sandbox.state import State

EXPONENT, BITS = 65537, 2048
DOMAIN = "sandbox.iam.gserviceaccount.com"
TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LASTS_S = 3600


@cache
def _private_key() -> rsa.RSAPrivateKey:
    """One key a process: making one takes a noticeable moment."""
    return rsa.generate_private_key(public_exponent=EXPONENT, key_size=BITS)


def service_account_key(org: str, *, project: str | None = None) -> str:
    """A service account's JSON key, as Google writes it.

    Its `private_key_id` carries the public key, so that a sandbox started later still knows what it signed.
    """
    private = _private_key()
    modulus = private.public_key().public_numbers().n
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    project = project or f"{org.replace('_', '-')}-sandbox"
    return json.dumps(
        {
            "type": "service_account",
            "project_id": project,
            "private_key_id": _b64(modulus.to_bytes(BITS // 8)),
            "private_key": pem.decode(),
            "client_email": f"{org}@{DOMAIN}",
            "client_id": "100000000000000000000",
            "token_uri": TOKEN_URI,
            "universe_domain": "googleapis.com",
        },
        indent=2,
    )


class Refused(Exception):  # noqa: N818 - the protocol's own word is an error code
    """An OAuth error: its code and its description."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(description)
        self.code, self.description = code, description


def issue(state: State, form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange an assertion for a token. Raises Refused as the real endpoint would refuse."""
    if form.get("grant_type") != GRANT:
        raise Refused("unsupported_grant_type", f"Invalid grant_type: {form.get('grant_type')}")
    try:
        head, claims = _verified(form.get("assertion", ""))
    except (ValueError, InvalidSignature):
        raise Refused("invalid_grant", "Invalid JWT Signature.") from None
    email, now_s = str(claims.get("iss")), datetime.now().timestamp()  # noqa: DTZ005 - seconds since the epoch
    if email in state.revoked or not email.endswith(f"@{DOMAIN}"):
        raise Refused("invalid_grant", "Invalid grant: account not found")
    if claims.get("aud") != TOKEN_URI or not head.get("kid"):
        raise Refused("invalid_grant", "Invalid JWT: audience")
    if not claims["iat"] - 300 <= now_s <= claims["exp"] or claims["exp"] - claims["iat"] > LASTS_S:
        raise Refused("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes)")
    if not claims.get("scope"):
        raise Refused("invalid_scope", "Empty or missing scope not allowed.")
    token = f"ya29.sandbox-{uuid4().hex}"
    state.tokens[token] = email
    return {"access_token": token, "expires_in": LASTS_S - 1, "token_type": "Bearer"}


def _verified(assertion: str) -> tuple[dict[str, Any], dict[str, Any]]:
    signed, _, signature = assertion.rpartition(".")
    head, claims = (json.loads(_bytes(part)) for part in signed.split("."))
    public = rsa.RSAPublicNumbers(EXPONENT, int.from_bytes(_bytes(head["kid"]))).public_key()
    public.verify(_bytes(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return head, claims


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
