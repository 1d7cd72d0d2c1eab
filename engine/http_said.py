"""Reading what a provider says when it does not answer: its words, its code, its request id."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

MOST_CHARS = 300


def vendor_message(
    body: bytes, headers: Mapping[str, str], *, clean: Callable[[str], str], instead: str
) -> tuple[str, str]:
    """The vendor's own words with the request id, and the vendor's error code.

    Understands `{"error": {"message", "code", "type"}}`, `{"error", "error_description"}` of OAuth,
    `{"message"}`, `{"detail"}` and `{"title"}` of RFC 9457. `instead` is said where nothing can be read.
    """
    said, code = "", ""
    try:
        said, code = _words(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError):
        # A gateway's page says nothing that a person could use.
        said = "" if b"<" in body[:200] else body[:MOST_CHARS].decode(errors="replace")
    said = " ".join(clean(said).split())[:MOST_CHARS] or instead or "no message"
    return said + request_id(headers), code


def _words(body: object) -> tuple[str, str]:
    if not isinstance(body, dict):
        return "", ""
    error = body.get("error")
    if isinstance(error, dict):
        # Google's `status` is the name of what its numeric `code` only repeats.
        code = error.get("status") or error.get("code") or error.get("type")
        return str(error.get("message") or ""), str(code or "")
    if error:
        more = body.get("error_description") or body.get("message")
        return f"{error}: {more}" if more else str(error), str(error)
    words = next((body[name] for name in ("message", "detail", "title") if body.get(name)), "")
    return str(words), str(body.get("code") or "")


def request_id(headers: Mapping[str, str]) -> str:
    """` (request ...)` where the answer has an id to ask the provider's support with."""
    found = headers.get("x-request-id") or headers.get("request-id")
    return f" (request {found[:100]})" if found else ""
