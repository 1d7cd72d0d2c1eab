"""Anthropic's Claude Code report: one day, records instead of buckets (facts 2.4)."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from sandbox.answer import Page
from sandbox.prices import ANTHROPIC, MILLION, rate_of
from sandbox.query import INTEGER, Cursor, Params, Refusal
from sandbox.rows import Draw, day_start_s
from sandbox.state import State
from sandbox.styles import iso, ordered, page_size

RECORDS = (20, 1000)
DAY = re.compile(r"\d{4}-\d\d-\d\d")
TOOLS = ("edit_tool", "multi_edit_tool", "write_tool", "notebook_edit_tool")
MODELS = ("claude-opus-5", "claude-sonnet-4-6", "claude-haiku-4-5-20251001")


def claude_code(state: State, org: str, params: Params) -> Page:
    """Report each actor's coding of one day; subscription rows are no API spend."""
    params.allow(("starting_at", "limit", "page"))
    text = params.one("starting_at")
    if text is None:
        raise Refusal(400, "starting_at: Field required")
    try:
        day = date.fromisoformat(text) if DAY.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None:
        raise Refusal(400, "starting_at: Input should be a valid date in the format YYYY-MM-DD")
    limit = _limit(params)
    cursor, style = params.cursor(), state.style_of(org)
    records = records_of(state.seed, org, day, scale=state.scale)
    if datetime.fromtimestamp(day_start_s(day), UTC) > state.now():
        records = []
    first = cursor.position if cursor else 0
    last = first + page_size(style, limit)
    number = cursor.number + 1 if cursor else 2
    following = Cursor(params.digest, last, len(records), number) if last < len(records) else None
    return Page([ordered(style, record) for record in records[first:last]], following, 1)


def _limit(params: Params) -> int:
    text = params.one("limit") or str(RECORDS[0])
    if not INTEGER.fullmatch(text) or not 1 <= int(text) <= RECORDS[1]:
        raise Refusal(400, f"limit: Input should be an integer from 1 to {RECORDS[1]}")
    return int(text)


def records_of(seed: int, org: str, day: date, *, scale: float = 1.0) -> list[dict[str, Any]]:
    """Draw the records of one day."""
    draw = Draw(seed, org, "claude_code", day.isoformat())
    if draw.chance(0.04):
        return []
    return [_record(draw, org, day, n) for n in range(round(draw.between(4, 30) * scale))]


def _record(draw: Draw, org: str, day: date, number: int) -> dict[str, Any]:
    person = {"type": "user_actor", "email_address": f"dev{number}@{org.lower()}.example"}
    robot = {"type": "api_actor", "api_key_name": f"ci-{number}"}
    api = draw.chance(0.6)
    return {
        "date": iso(day_start_s(day)),
        "actor": robot if api and draw.chance(0.5) else person,
        "organization_id": f"org-{org}",
        "customer_type": "api" if api else "subscription",
        "subscription_type": None if api else draw.pick(("enterprise", "team")),
        "terminal_type": draw.pick(("vscode", "iTerm.app", "tmux")),
        "is_remote": draw.chance(0.2),
        "core_metrics": {
            "num_sessions": draw.between(1, 9),
            "lines_of_code": {"added": draw.between(0, 900), "removed": draw.between(0, 400)},
            "commits_by_claude_code": draw.between(0, 6),
            "pull_requests_by_claude_code": draw.between(0, 2),
        },
        "tool_actions": {
            tool: {"accepted": draw.between(0, 40), "rejected": draw.between(0, 5)} for tool in TOOLS
        },
        "model_breakdown": [_model(draw, day, model) for model in draw.some(MODELS, draw.between(1, 2))],
    }


def _model(draw: Draw, day: date, model: str) -> dict[str, Any]:
    tokens = {
        "input": draw.between(100, 90_000),
        "output": draw.between(100, 30_000),
        "cache_read": draw.between(0, 900_000),
        "cache_creation": draw.between(0, 60_000),
    }
    rate = rate_of(ANTHROPIC, model, day)
    usd = (
        tokens["input"] * rate.input
        + tokens["output"] * rate.output
        + tokens["cache_read"] * rate.cached
        + tokens["cache_creation"] * rate.write
    ) / MILLION
    # A number of cents, where the cost report has a string.
    cents = (usd * 100).quantize(Decimal("0.01"))
    return {"model": model, "tokens": tokens, "estimated_cost": {"amount": cents, "currency": "USD"}}
