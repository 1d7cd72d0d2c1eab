"""A customer's BigQuery as Manta meets it: the embedded one behind a door that asks for Google's tokens,
writes down what comes in, and refuses what it is told to."""

from __future__ import annotations

import base64
import json
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

EMAIL = "manta-reader@acme-billing.iam.gserviceaccount.com"


@cache
def private_key() -> str:
    """A private key in the form of Google's key files, one for the session."""
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def key_json(*, project: str = "acme-billing", email: str = EMAIL, **more: Any) -> str:
    """A service account's JSON key."""
    key = {
        "type": "service_account",
        "project_id": project,
        "private_key_id": "0123456789abcdef",
        "private_key": private_key(),
        "client_email": email,
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    return json.dumps({**key, **more})


@dataclass
class Request:
    """One request that came in."""

    method: str
    path: str
    body: Any

    @property
    def query(self) -> dict[str, Any] | None:
        """The job's configuration, where the request starts a query."""
        if self.method != "POST" or not isinstance(self.body, dict):
            return None
        if self.path.endswith("/queries"):
            return self.body
        found: dict[str, Any] | None = self.body.get("configuration")
        return found if found is not None and "query" in found else None


@dataclass
class Front:
    """The door; `refusals` are (part of the path, status, body) answered instead of what lies behind."""

    behind: str
    asked: list[Request] = field(default_factory=list)
    refusals: list[tuple[str, int, Any]] = field(default_factory=list)
    issuers: list[str] = field(default_factory=list)
    url: str = ""

    def __enter__(self) -> Front:
        front = self

        class Handler(_Handler):
            door = front

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def queries(self) -> list[dict[str, Any]]:
        """The configuration of every query that was started."""
        return [found for request in self.asked if (found := request.query) is not None]

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> tuple[int, bytes]:
        """The answer to one request."""
        path = urlsplit(target).path
        for part, status, said in self.refusals:
            if part in path:
                return status, said if isinstance(said, bytes) else json.dumps(said).encode()
        if path == "/token":
            return self._token(body)
        self.asked.append(Request(method, path, json.loads(body) if body[:1] == b"{" else body))
        if headers.get("Authorization") != f"Bearer token-for-{EMAIL}":
            return 401, json.dumps(error(401, "Invalid Credentials", "authError")).encode()
        onward = urllib.request.Request(
            self.behind + target,
            data=body or None,
            method=method,
            headers={"Content-Type": headers.get("Content-Type", "application/json")},
        )
        try:
            with urllib.request.urlopen(onward, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()

    def _token(self, body: bytes) -> tuple[int, bytes]:
        claims = parse_qs(body.decode())["assertion"][0].split(".")[1]
        issuer = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["iss"]
        self.issuers.append(issuer)
        token = {"access_token": f"token-for-{issuer}", "expires_in": 3600, "token_type": "Bearer"}
        return 200, json.dumps(token).encode()


def error(status: int, message: str, reason: str) -> dict[str, Any]:
    """An error as BigQuery writes it."""
    return {
        "error": {
            "code": status,
            "message": message,
            "errors": [{"message": message, "domain": "global", "reason": reason}],
        }
    }


class _Handler(BaseHTTPRequestHandler):
    door: Front
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, content = self.door.answer(self.command, self.path, self.headers, body)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815  (the names that http.server looks for)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the overridden method's name)
        """Say nothing."""
