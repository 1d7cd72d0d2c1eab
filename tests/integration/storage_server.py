"""The part of Cloud Storage's JSON API that its official client uses for whole objects, on loopback."""

from __future__ import annotations

import base64
import email
import itertools
import json
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import google_crc32c

Key = tuple[str, str]


@dataclass(frozen=True)
class Stored:
    data: bytes
    generation: int


@dataclass(frozen=True)
class Asked:
    """One request: `what` is multipart, start, finish, look, list, read or delete."""

    what: str
    bucket: str
    name: str
    query: dict[str, str]


class Hangs(Exception):  # noqa: N818  (no failure of the server: it is told to)
    """Close the connection without an answer."""


#: What a request meets: a status to answer, or "lost" (done, unanswered), "cut" or "corrupt" (a download's
#: body), or something to do just before the request is looked at.
Fault = int | str | Callable[[], None]


class StorageServer:
    """Buckets in memory; `faults[what]` is what the next requests of that kind meet, one each."""

    def __init__(self, *buckets: str) -> None:
        self.buckets = set(buckets)
        self.objects: dict[Key, Stored] = {}
        self.asked: list[Asked] = []
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self._sessions: dict[str, tuple[Key, dict[str, str], str | None]] = {}
        self._generations = itertools.count(1001)
        self._lock = threading.Lock()
        server = self

        class Handler(_Handler):
            storage = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def put(self, key: Key, data: bytes) -> Stored:
        self.objects[key] = Stored(data, next(self._generations))
        return self.objects[key]

    def kinds(self) -> list[str]:
        return [asked.what for asked in self.asked]

    def answer(
        self, method: str, target: str, headers: Any, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        with self._lock:
            return self._answer(method, target, headers, body)

    def _answer(
        self, method: str, target: str, headers: Any, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        url = urlsplit(target)
        query = dict(parse_qsl(url.query))
        place, _, rest = url.path.partition("/storage/v1/b/")
        bucket, _, name = (unquote(part) for part in rest.partition("/o"))
        name = name.removeprefix("/")
        crc: str | None = None
        if place == "/upload" and method == "PUT":
            what, ((bucket, name), query, crc) = "finish", self._sessions[query["upload_id"]]
        elif place == "/upload" and query["uploadType"] == "resumable":
            what, name = "start", json.loads(body)["name"]
        elif place == "/upload":
            what, (name, crc, body) = "multipart", _parts(headers["Content-Type"], body)
        else:
            read = "read" if query.get("alt") == "media" else "look" if name else "list"
            what = {"DELETE": "delete", "GET": read}[method]
        self.asked.append(Asked(what, bucket, name, query))
        fault = self.faults[what].pop(0) if self.faults[what] else None
        if callable(fault):
            fault()
        elif isinstance(fault, int):
            return _failure(fault, "as told")
        status, more, content = self._do(what, (bucket, name), query, crc, body)
        if fault == "lost":
            raise Hangs
        if fault == "corrupt":
            content = bytes([content[0] ^ 1]) + content[1:]
        if fault == "cut":
            more, content = {**more, "Content-Length": str(len(content))}, content[: len(content) // 2]
        return status, more, content

    def _do(
        self, what: str, key: Key, query: dict[str, str], crc: str | None, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        there = self.objects.get(key)
        if key[0] not in self.buckets:
            return _failure(404, "The specified bucket does not exist.")
        if what in {"multipart", "start", "finish"}:
            wanted = query.get("ifGenerationMatch")
            if wanted is not None and int(wanted) != (there.generation if there else 0):
                return _failure(412, "At least one of the pre-conditions you specified did not hold.")
            if what == "start":
                session = f"session-{len(self._sessions)}"
                self._sessions[session] = (key, query, None)
                place = f"{self.url}/upload/storage/v1/b/{key[0]}/o?uploadType=resumable&upload_id={session}"
                return 200, {"Location": place}, b""
            if crc is not None and crc != crc32c(body):
                return _failure(400, "Provided CRC32C does not match.")
            return _metadata(key, self.put(key, body))
        if what == "list":
            return self._list(key[0], query)
        if there is None:
            return _failure(404, f"No such object: {'/'.join(key)}")
        if what == "delete":
            del self.objects[key]
            return 204, {}, b""
        if what == "look":
            return _metadata(key, there)
        hashes = f"crc32c={crc32c(there.data)}"
        return 200, {"X-Goog-Hash": hashes, "X-Goog-Generation": str(there.generation)}, there.data

    def _list(self, bucket: str, query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Two a page, so that the second is asked for."""
        found = sorted(k for k in self.objects if k[0] == bucket and k[1].startswith(query.get("prefix", "")))
        first = int(query.get("pageToken", 0))
        items = [{"bucket": bucket, "name": name} for _, name in found[first : first + 2]]
        more = {"nextPageToken": str(first + 2)} if len(found) > first + 2 else {}
        return 200, {}, json.dumps({"kind": "storage#objects", "items": items, **more}).encode()


class _Handler(BaseHTTPRequestHandler):
    storage: StorageServer
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            status, headers, content = self.storage.answer(self.command, self.path, self.headers, body)
        except Hangs:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = int(headers.get("Content-Length", len(content))) != len(content)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815  (the names that http.server looks for)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the overridden method's name)
        """Say nothing."""


def crc32c(data: bytes) -> str:
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def _parts(content_type: str, body: bytes) -> tuple[str, str | None, bytes]:
    """Name, announced checksum and bytes of a multipart/related upload."""
    boundary = email.message_from_string(f"Content-Type: {content_type}\n\n").get_param("boundary")
    mark = f"--{boundary}".encode()
    _, first, rest = body.split(mark, 2)
    metadata = json.loads(first.split(b"\r\n\r\n", 1)[1])
    media = rest.removesuffix(mark + b"--").split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
    return metadata["name"], metadata.get("crc32c"), media


def _metadata(key: Key, stored: Stored) -> tuple[int, dict[str, str], bytes]:
    bucket, name = key
    found = {
        "kind": "storage#object",
        "bucket": bucket,
        "name": name,
        "generation": str(stored.generation),
        "size": str(len(stored.data)),
        "crc32c": crc32c(stored.data),
    }
    return 200, {"Content-Type": "application/json"}, json.dumps(found).encode()


def _failure(status: int, message: str) -> tuple[int, dict[str, str], bytes]:
    said = {"error": {"code": status, "message": message, "errors": [{"message": message, "reason": "told"}]}}
    return status, {"Content-Type": "application/json"}, json.dumps(said).encode()
