"""Slack on loopback: incoming webhooks and `chat.postMessage`, strict about limits, faults on demand."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from sandbox.fault_queue import Due, FaultQueue
from sandbox.loop_thread import serving

LOOPBACK = "127.0.0.1"
WEBHOOK_PATH = "/services/TSANDBOX/BSANDBOX/sandbox"
TOKEN = "xoxb-sandbox"  # noqa: S105
#: The channels there are: name and id. The bot is in the first two.
CHANNELS = {"#alerts": "C0ALERTS", "#costs": "C0COSTS", "#elsewhere": "C0ELSEWHERE"}
MEMBER_OF = ("C0ALERTS", "C0COSTS")
BOUND_TO = "C0ALERTS"
MOST = 5_000
#: Refusals by status and code, as Slack gives them.
REFUSALS = {
    "no_service": 404,
    "channel_not_found": 404,
    "channel_is_archived": 410,
    "action_prohibited": 403,
    "invalid_payload": 400,
    "invalid_blocks": 400,
}
#: `slow` keeps the post and answers after `seconds`; `lost` keeps it and answers 500.
FAULTS = (*REFUSALS, "rate_limited", "rate_limited_bare", "server_error", "slow", "lost", "redirect")


@dataclass(frozen=True)
class Post:
    """One message as it was taken; `at` is real UTC time."""

    number: int
    at: str
    channel: str
    via: Literal["webhook", "bot"]
    payload: dict[str, Any] = field(repr=False)

    @property
    def text(self) -> str:
        """Every text in it, in the order a reader sees them."""
        found = [self.payload.get("text", "")]
        for attachment in self.payload.get("attachments", []):
            for block in attachment.get("blocks", []):
                parts = [block.get("text"), *block.get("fields", []), *block.get("elements", [])]
                found += [part["text"] for part in parts if part]
        return "\n".join(found)

    @property
    def stable_id(self) -> str | None:
        """The id in the metadata, by which a double is known."""
        found = self.payload.get("metadata", {}).get("event_payload", {}).get("id")
        return str(found) if found else None

    def summary(self) -> dict[str, Any]:
        """What a reader of the channel sees, and the stable id."""
        told = {name: getattr(self, name) for name in ("number", "at", "channel", "via", "text")}
        return {**told, "id": self.stable_id}


class Workspace:
    """The newest posts, at most MOST, and the faults to come."""

    def __init__(self) -> None:
        self.faults = FaultQueue(FAULTS)
        self._posts: deque[Post] = deque(maxlen=MOST)
        self._taken = 0

    def all(self, *, channel: str = "") -> list[Post]:
        """Give posts oldest first."""
        return [post for post in tuple(self._posts) if channel in post.channel]

    def clear(self) -> None:
        """Forget posts and faults."""
        self._posts.clear()
        self.faults.clear()

    def keep(self, channel: str, via: Literal["webhook", "bot"], payload: dict[str, Any]) -> Post:
        """Take a post in."""
        self._taken += 1
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._posts.append(post := Post(self._taken, at, channel, via, payload))
        return post


class _Web:
    """Slack's two ways in and the workspace over HTTP, one method a route."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    async def webhook(self, request: Request) -> Response:
        if request.url.path != WEBHOOK_PATH:
            return PlainTextResponse("no_service", 404)
        body = await request.body()
        if (answer := await _faulty(self._workspace, BOUND_TO, body, via="webhook")) is not None:
            return answer
        code, payload = _checked(body)
        if code:
            return PlainTextResponse(code, 400)
        self._workspace.keep(BOUND_TO, "webhook", payload)
        return PlainTextResponse("ok")

    async def post_message(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"ok": False, "error": "invalid_auth"})
        body = await request.body()
        code, payload = _checked(body)
        asked = str(payload.get("channel", ""))
        channel = CHANNELS.get(asked, asked)
        if (answer := await _faulty(self._workspace, channel, body, via="bot")) is not None:
            return answer
        if not code and channel not in CHANNELS.values():
            code = "channel_not_found"
        if not code and channel not in MEMBER_OF:
            code = "not_in_channel"
        if code:
            return JSONResponse({"ok": False, "error": code})
        post = self._workspace.keep(channel, "bot", payload)
        return JSONResponse({"ok": True, "channel": channel, "ts": f"1700000000.{post.number:06}"})

    async def listing(self, request: Request) -> Response:
        posts = self._workspace.all(channel=request.query_params.get("channel", ""))
        return JSONResponse({"posts": [post.summary() for post in posts]})

    async def one(self, request: Request) -> Response:
        number = request.path_params["number"]
        found = next((post for post in self._workspace.all() if post.number == number), None)
        return JSONResponse(found.payload) if found else PlainTextResponse("no such post", 404)

    async def fault(self, request: Request) -> Response:
        try:
            self._workspace.faults.put(**await request.json())
        except (ValueError, TypeError) as problem:
            return JSONResponse({"error": str(problem)}, 400)
        return JSONResponse({"ok": True})

    async def clear(self, _: Request) -> Response:
        self._workspace.clear()
        return JSONResponse({"ok": True})


def routes(workspace: Workspace) -> list[BaseRoute]:
    """Slack's two ways in, and the workspace over HTTP for people and programs."""
    web = _Web(workspace)
    return [
        Route("/services/{rest:path}", web.webhook, methods=["POST"]),
        Route("/api/chat.postMessage", web.post_message, methods=["POST"]),
        Route("/_slack/posts", web.listing),
        Route("/_slack/posts", web.clear, methods=["DELETE"]),
        Route("/_slack/posts/{number:int}", web.one),
        Route("/_slack/faults", web.fault, methods=["POST"]),
    ]


async def _faulty(
    workspace: Workspace, channel: str, body: bytes, *, via: Literal["webhook", "bot"]
) -> Response | None:
    """The answer of the fault that hits this post; None for none."""
    due = workspace.faults.take(*FAULTS, to=channel)
    if due is None:
        return None
    if due.name == "redirect":
        return RedirectResponse("https://elsewhere.invalid/", 302)
    if due.name == "slow":
        post = workspace.keep(channel, via, json.loads(body))
        await asyncio.sleep(due.seconds)
        taken = {"ok": True, "channel": channel, "ts": f"1700000000.{post.number:06}"}
        return JSONResponse(taken) if via == "bot" else PlainTextResponse("ok")
    if due.name == "lost":
        workspace.keep(channel, via, json.loads(body))
        return PlainTextResponse("rollup_error", 500)
    if due.name in REFUSALS and via == "bot":
        return JSONResponse({"ok": False, "error": due.name})
    return _refusal(due)


def _refusal(due: Due) -> Response:
    if due.name == "server_error":
        return PlainTextResponse("rollup_error", 500)
    if due.name in REFUSALS:
        return PlainTextResponse(due.name, REFUSALS[due.name])
    # Slack's Retry-After is whole seconds.
    wait = {"retry-after": str(max(round(due.seconds), 1))} if due.name == "rate_limited" else {}
    return JSONResponse({"ok": False, "error": "ratelimited"}, 429, headers=wait)


def _checked(body: bytes) -> tuple[str, dict[str, Any]]:
    """Slack's code for a body that breaks its rules, and the body."""
    try:
        payload = json.loads(body)
    except ValueError:
        return "invalid_payload", {}
    if not isinstance(payload, dict):
        return "invalid_payload", {}
    if not (payload.get("text") or payload.get("blocks") or payload.get("attachments")):
        return "no_text", payload
    if len(payload.get("text", "")) > 40_000:
        return "msg_too_long", payload
    blocks = [block for part in payload.get("attachments", []) for block in part.get("blocks", [])]
    if len(blocks) > 50 or any(_too_much(block) for block in blocks):
        return "invalid_blocks", payload
    return "", payload


def _too_much(block: dict[str, Any]) -> bool:
    """Whether a block breaks one of the limits that Slack documents."""
    texts = [part["text"] for part in (block.get("text"), *block.get("elements", [])) if part]
    fields = block.get("fields", [])
    if block["type"] == "section" and not texts and not fields:
        return True
    return (
        any(not 1 <= len(text) <= 3000 for text in texts)
        or len(fields) > 10
        or any(len(part["text"]) > 2000 for part in fields)
        or len(block.get("elements", [])) > 10
    )


@dataclass(frozen=True)
class Slack:
    """A running stand-in: the webhook's address, the API's, and what was posted."""

    url: str
    workspace: Workspace = field(repr=False)

    @property
    def webhook_url(self) -> str:
        return f"{self.url}{WEBHOOK_PATH}"

    @property
    def api_url(self) -> str:
        return f"{self.url}/api"


@contextmanager
def running() -> Iterator[Slack]:
    """Serve a workspace in a thread, on a free loopback port, until the block ends."""
    workspace = Workspace()

    async def main(ready: Callable[[str], None], stop: asyncio.Event) -> None:
        app = Starlette(routes=routes(workspace))
        config = uvicorn.Config(
            app,
            host=LOOPBACK,
            port=0,
            log_level="critical",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())
        # uvicorn has no event for it.
        while not server.started and not task.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        ready(f"http://{LOOPBACK}:{server.servers[0].sockets[0].getsockname()[1]}")
        await stop.wait()
        server.should_exit = True
        await task

    with serving(main, name="slack") as url:
        yield Slack(url, workspace)
