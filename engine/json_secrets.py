"""Credentials that are JSON: read without ever quoting them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from engine.errors import CredentialError


def read_json(secret: str, needed: Sequence[str], *, what: str, fix: str) -> dict[str, Any]:
    """The object that a secret is, with a text that is not empty in each needed field.

    Raises CredentialError naming what is missing.
    """
    try:
        found = json.loads(secret)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CredentialError(f"The {what} is no JSON object.", fix=fix)
    if missing := [name for name in needed if not isinstance(found.get(name), str) or not found[name]]:
        raise CredentialError(f"The {what} lacks {', '.join(missing)}.", fix=fix)
    return found


def client_pair(provider: str, secret: str) -> dict[str, Any]:
    """The `client_id` and `client_secret` of an OAuth 2 client. Raises CredentialError."""
    return read_json(
        secret,
        ("client_id", "client_secret"),
        what=f"{provider} credential",
        fix='Store JSON: {"client_id": "...", "client_secret": "..."}.',
    )
