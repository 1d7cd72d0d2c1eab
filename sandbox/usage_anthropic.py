"""One organisation's Anthropic usage of one day, drawn from (seed, organisation, day)."""

from __future__ import annotations

from datetime import date

from sandbox.prices import ANTHROPIC, FAST_MODELS, GEO_MODELS, LONG_CONTEXT_MODELS
from sandbox.rows import DAY_S, Dimension, Draw, Row, day_start_s

RARE_MODEL = "claude-unknown-9"
MODELS = tuple(model for model in ANTHROPIC if model != RARE_MODEL)


class Organisation:
    """What stays the same over an organisation's days: workspaces, keys, people, favourite models."""

    def __init__(self, seed: int, org: str) -> None:
        draw = Draw(seed, org, "anthropic", "organisation")
        # None is the default workspace, which the reports show as null.
        self.workspaces = [None, *(f"wrkspc_{org}_{n}" for n in range(draw.between(2, 4)))]
        self.accounts = [f"user_{org}_{n}" for n in range(draw.between(2, 6))]
        self.models = draw.some(MODELS, 7)
        self.corrected = draw.chance(0.4)

    def who(self, draw: Draw) -> dict[str, Dimension]:
        """Draw workspace, key and account; Workbench use has no key, a service account no person."""
        workspace = draw.pick(self.workspaces)
        key = None if draw.chance(0.1) else f"apikey_{workspace or 'default'}_{draw.between(0, 1)}"
        service = f"svac_{workspace or 'default'}" if key and draw.chance(0.2) else None
        return {
            "workspace_id": workspace,
            "api_key_id": key,
            "account_id": None if service else draw.pick(self.accounts),
            "service_account_id": service,
        }


def anthropic_rows(seed: int, org: str, day: date, *, scale: float = 1.0) -> list[Row]:
    """Draw every finest-grain row of one day, whether the vendor shows it already or not."""
    draw = Draw(seed, org, "anthropic", day.isoformat())
    if draw.chance(0.04):
        return []
    company = Organisation(seed, org)
    busy = scale * (0.4 if day.weekday() >= 5 else 1.0)
    models = [draw.pick(company.models) for _ in range(max(round(draw.between(80, 140) * busy), 1))]
    if draw.chance(0.25):
        models.append(RARE_MODEL)
    rows = [_message(company, draw, day, model) for model in models]
    for _ in range(draw.between(0, 2)):
        # Code execution is in the cost report and in no usage report (facts 2.6).
        minutes = {"minutes": 3 * draw.between(2, 200)}
        dims: dict[str, Dimension] = {"workspace_id": draw.pick(company.workspaces)}
        start_s = day_start_s(day) + 60 * draw.between(0, 1439)
        rows.append(Row("code_execution", start_s, dims, minutes, draw.unit(), draw.unit()))
    if company.corrected and draw.chance(0.5):
        row = _message(company, draw, day, draw.pick(company.models))
        start_s = day_start_s(day) + DAY_S // 2
        rows.append(Row("messages", start_s, row.dims, row.counts, correction=True))
    return rows


def _message(company: Organisation, draw: Draw, day: date, model: str) -> Row:
    tier, speed = "standard", "standard"
    if draw.chance(0.15):
        tier = "batch"
    elif draw.chance(0.08):
        tier = "priority"
    elif model in FAST_MODELS and draw.chance(0.15):
        speed = "fast"
    # Models before 4.6 report no geography (facts 2.6).
    geo = draw.pick(("global", "global", "us")) if model in GEO_MODELS else "not_available"
    long = model in LONG_CONTEXT_MODELS and draw.chance(0.2)
    dims = {
        **company.who(draw),
        "model": model,
        "service_tier": tier,
        "speed": speed,
        "inference_geo": geo,
        "context_window": "200k-1M" if long else "0-200k",
    }
    requests = draw.between(1, 300)
    fresh = requests * draw.between(20, 3000)
    searches = draw.between(1, 40) if tier == "standard" and draw.chance(0.15) else 0
    counts = {
        "uncached_input_tokens": fresh,
        "cache_read_input_tokens": fresh * draw.between(0, 300) // 100,
        "ephemeral_5m_input_tokens": fresh * draw.between(0, 40) // 100,
        "ephemeral_1h_input_tokens": fresh * draw.between(1, 30) // 100 if draw.chance(0.3) else 0,
        "output_tokens": requests * draw.between(5, 1200),
        "web_search_requests": searches,
    }
    start_s = day_start_s(day) + 60 * draw.between(0, 1439)
    return Row("messages", start_s, dims, counts, draw.unit(), draw.unit())
