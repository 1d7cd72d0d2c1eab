"""One organisation's OpenAI usage of one day, drawn from (seed, organisation, day)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from sandbox.prices import DALLE2, DALLE3, OPENAI
from sandbox.rows import DAY_S, Dimension, Draw, Row, day_start_s

TEXT_MODELS = tuple(model for model in OPENAI if model.startswith(("gpt-3", "gpt-4", "gpt-5", "o3")))
RARE_MODEL = "gpt-9-nova-preview"
# Older models publish no cached batch price (facts 3.1), so their batch rows carry no cached tokens.
NO_BATCH_CACHE = ("gpt-3", "gpt-4", "o3")
COUNTERS = (
    "input_cached_tokens",
    "input_cache_write_tokens",
    "input_uncached_tokens",
    "input_text_tokens",
    "output_text_tokens",
    "input_cached_text_tokens",
    "input_audio_tokens",
    "input_cached_audio_tokens",
    "output_audio_tokens",
    "input_image_tokens",
    "input_cached_image_tokens",
    "output_image_tokens",
)


class Organisation:
    """What stays the same over an organisation's days: projects, keys, users, favourite models."""

    def __init__(self, seed: int, org: str) -> None:
        draw = Draw(seed, org, "openai", "organisation")
        self.projects = [f"proj_{org}_{n}" for n in range(draw.between(3, 5))]
        self.keys = {project: [f"key_{project}_{n}" for n in range(2)] for project in self.projects}
        self.users = [f"user-{org}-{n}" for n in range(draw.between(3, 7))]
        self.models = draw.some(TEXT_MODELS, 8)
        self.corrected = draw.chance(0.4)

    def who(self, draw: Draw) -> dict[str, Dimension]:
        """Draw project, key and user; a key is null for Playground use."""
        project = draw.pick(self.projects)
        key = None if draw.chance(0.08) else draw.pick(self.keys[project])
        return {"project_id": project, "api_key_id": key, "user_id": draw.pick(self.users)}


def openai_rows(seed: int, org: str, day: date, *, scale: float = 1.0) -> list[Row]:
    """Draw every finest-grain row of one day, whether the vendor shows it already or not."""
    draw = Draw(seed, org, "openai", day.isoformat())
    if draw.chance(0.04):
        return []
    company = Organisation(seed, org)
    busy = scale * (0.4 if day.weekday() >= 5 else 1.0)
    rows: list[Row] = []

    def many(low: int, high: int, make: Callable[[Organisation, Draw], _Made]) -> None:
        for _ in range(max(round(draw.between(low, high) * busy), 1)):
            kind, dims, counts = make(company, draw)
            start_s = day_start_s(day) + 60 * draw.between(0, 1439)
            rows.append(Row(kind, start_s, dims, counts, draw.unit(), draw.unit()))

    many(80, 120, _completion)
    many(4, 9, _embedding)
    many(2, 4, _moderation)
    many(2, 4, _image)
    many(1, 3, _speech)
    many(1, 3, _transcription)
    many(2, 5, _file_search)
    many(3, 7, _web_search)
    many(1, 3, _session)
    if draw.chance(0.3):
        many(1, 3, _decision)
    if draw.chance(0.25):
        many(1, 2, _rare)
    for project in company.projects[:2]:
        stored = {"usage_bytes": draw.between(512, 40 * 1024) * 2**20}
        rows.append(Row("vector_stores", day_start_s(day), {"project_id": project}, stored))
    if company.corrected and draw.chance(0.5):
        kind, dims, counts = _completion(company, draw)
        rows.append(Row(kind, day_start_s(day) + DAY_S // 2, dims, counts, correction=True))
    return rows


type _Made = tuple[str, dict[str, Dimension], dict[str, int]]


def _completion(company: Organisation, draw: Draw) -> _Made:
    if draw.chance(0.06):
        return _multimodal(company, draw, draw.pick(("gpt-audio-2025-08-28", "gpt-audio-mini-2025-12-15")))
    if draw.chance(0.04):
        return _multimodal(company, draw, "gpt-image-1")
    return _text(company, draw, draw.pick(company.models))


def _rare(company: Organisation, draw: Draw) -> _Made:
    return _text(company, draw, RARE_MODEL)


def _decision(company: Organisation, draw: Draw) -> _Made:
    _, dims, counts = _text(company, draw, draw.pick(company.models))
    return "decisions", dims, counts


def _text(company: Organisation, draw: Draw, model: str) -> _Made:
    rate = OPENAI[model][0]
    batch, tier = draw.chance(0.15), "default"
    if not batch and rate.flex and draw.chance(0.2):
        tier = "flex"
    elif not batch and rate.priority and draw.chance(0.2):
        tier = "priority"
    requests = draw.between(1, 400)
    total = requests * draw.between(40, 9000)
    cacheable = not (batch and model.startswith(NO_BATCH_CACHE)) and not model.startswith("gpt-3")
    cached = total * draw.between(0, 60) // 100 if cacheable else 0
    write = total * draw.between(0, 25) // 100 if model.startswith(("gpt-5.6", "gpt-9")) else 0
    output = requests * draw.between(5, 1500)
    counts = dict.fromkeys(COUNTERS, 0) | {
        "input_cached_tokens": cached,
        "input_cached_text_tokens": cached,
        "input_cache_write_tokens": write,
        "input_uncached_tokens": total - cached - write,
        "input_text_tokens": total - cached - write,
        "output_text_tokens": output,
    }
    return "completions", _dims(company, draw, model, tier, batch=batch), _totals(counts, requests)


def _multimodal(company: Organisation, draw: Draw, model: str) -> _Made:
    requests = draw.between(1, 60)
    text, other = requests * draw.between(20, 900), requests * draw.between(50, 4000)
    out_text, out_other = requests * draw.between(5, 200), requests * draw.between(50, 3000)
    modality = "image" if "image" in model else "audio"
    counts = dict.fromkeys(COUNTERS, 0) | {
        "input_uncached_tokens": text + other,
        "input_text_tokens": text,
        f"input_{modality}_tokens": other,
        "output_text_tokens": out_text if modality == "audio" else 0,
        f"output_{modality}_tokens": out_other,
    }
    return "completions", _dims(company, draw, model, "default", batch=False), _totals(counts, requests)


def _totals(counts: dict[str, int], requests: int) -> dict[str, int]:
    """Add the totals that follow from the parts: input includes cached and cache-write tokens."""
    return {
        "input_tokens": counts["input_uncached_tokens"]
        + counts["input_cached_tokens"]
        + counts["input_cache_write_tokens"],
        "output_tokens": sum(counts[f"output_{part}_tokens"] for part in ("text", "audio", "image")),
        "num_model_requests": requests,
        **counts,
    }


def _dims(company: Organisation, draw: Draw, model: str, tier: str, *, batch: bool) -> dict[str, Dimension]:
    source = "agents_api" if draw.chance(0.1) else "unlabeled"
    who = company.who(draw)
    return {**who, "model": model, "batch": batch, "service_tier": tier, "api_source": source}


def _embedding(company: Organisation, draw: Draw) -> _Made:
    models = ("text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002")
    requests = draw.between(1, 900)
    counts = {"input_tokens": requests * draw.between(3, 700), "num_model_requests": requests}
    return "embeddings", {**company.who(draw), "model": draw.pick(models)}, counts


def _moderation(company: Organisation, draw: Draw) -> _Made:
    requests = draw.between(1, 300)
    counts = {"input_tokens": requests * draw.between(3, 300), "num_model_requests": requests}
    return "moderations", {**company.who(draw), "model": "omni-moderation-latest"}, counts


def _image(company: Organisation, draw: Draw) -> _Made:
    model = draw.pick(("dall-e-3", "dall-e-2"))
    # Edits and variations exist for dall-e-2 only.
    sources = ("image.generation",) if model == "dall-e-3" else ("image.edit", "image.variation")
    size = draw.pick(tuple(DALLE3 if model == "dall-e-3" else DALLE2))
    images = draw.between(1, 30)
    dims = {**company.who(draw), "model": model, "source": draw.pick(sources), "size": size}
    return "images", dims, {"images": images, "num_model_requests": images}


def _speech(company: Organisation, draw: Draw) -> _Made:
    dims = {**company.who(draw), "model": draw.pick(("tts-1", "tts-1-hd"))}
    requests = draw.between(1, 50)
    return (
        "audio_speeches",
        dims,
        {"characters": requests * draw.between(20, 2000), "num_model_requests": requests},
    )


def _transcription(company: Organisation, draw: Draw) -> _Made:
    dims = {**company.who(draw), "model": "whisper-1"}
    requests = draw.between(1, 30)
    return (
        "audio_transcriptions",
        dims,
        {"seconds": requests * draw.between(5, 900), "num_model_requests": requests},
    )


def _file_search(company: Organisation, draw: Draw) -> _Made:
    who = company.who(draw)
    dims = {**who, "vector_store_id": f"vs_{who['project_id']}_{draw.between(0, 1)}"}
    return "file_search_calls", dims, {"num_requests": draw.between(1, 400)}


def _web_search(company: Organisation, draw: Draw) -> _Made:
    requests = draw.between(1, 80)
    dims = {
        **company.who(draw),
        "model": draw.pick(company.models),
        "context_level": draw.pick(("low", "medium", "high")),
        "api_source": "unlabeled",
    }
    return "web_search_calls", dims, {"num_model_requests": requests, "num_requests": requests * 2}


def _session(company: Organisation, draw: Draw) -> _Made:
    project = draw.pick(company.projects)
    return "code_interpreter_sessions", {"project_id": project}, {"num_sessions": draw.between(1, 40)}
