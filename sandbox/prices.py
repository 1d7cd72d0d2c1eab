"""The sandbox's own small price list, and what a vendor would charge for one row.

Dollars per million tokens unless a name says otherwise; source: facts/providers-ai.md section 3 and the
vendors' published lists. It is kept by hand on purpose: a product that prices wrongly must not agree with
the cost endpoints because both read the same file.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from sandbox.rows import Row

MILLION = Decimal(1_000_000)
ALWAYS = date.min


@dataclass(frozen=True, slots=True)
class Rate:
    """Dollars per million tokens from a day on; `priority` multiplies all of them."""

    input: Decimal
    cached: Decimal
    output: Decimal
    write: Decimal
    write_1h: Decimal
    priority: Decimal | None = None
    flex: bool = False
    audio_input: Decimal | None = None
    audio_output: Decimal | None = None
    image_input: Decimal | None = None
    since: date = ALWAYS


@dataclass(frozen=True, slots=True)
class Charge:
    """One charge of a row: dollars, what the vendor calls it, and what it was for."""

    label: str
    usd: Decimal
    quantity: Decimal
    unit: str
    cost_type: str = "tokens"
    token_type: str | None = None


def _rate(
    input_: str,
    cached: str,
    output: str,
    *,
    write: str = "0",
    priority: str | None = None,
    flex: bool = False,
    audio: tuple[str, str] | None = None,
    image: str | None = None,
    since: date = ALWAYS,
) -> Rate:
    return Rate(
        input=Decimal(input_),
        cached=Decimal(cached),
        output=Decimal(output),
        write=Decimal(write),
        write_1h=2 * Decimal(input_),
        priority=Decimal(priority) if priority else None,
        flex=flex,
        audio_input=Decimal(audio[0]) if audio else None,
        audio_output=Decimal(audio[1]) if audio else None,
        image_input=Decimal(image) if image else None,
        since=since,
    )


# Newest first. Before GPT-5.6 a cache write costs nothing extra: it is billed as uncached input.
OPENAI: dict[str, tuple[Rate, ...]] = {
    "gpt-3.5-turbo-0125": (_rate("0.5", "0.5", "1.5", write="0.5"),),
    "gpt-4o-2024-08-06": (_rate("2.5", "1.25", "10", write="2.5", priority="1.7"),),
    "gpt-4o-mini-2024-07-18": (_rate("0.15", "0.075", "0.6", write="0.15"),),
    "gpt-4.1-2025-04-14": (_rate("2", "0.5", "8", write="2", priority="1.75"),),
    "gpt-4.1-mini-2025-04-14": (_rate("0.4", "0.1", "1.6", write="0.4", priority="1.75"),),
    "gpt-5-2025-08-07": (_rate("1.25", "0.125", "10", write="1.25", priority="2", flex=True),),
    "gpt-5-mini-2025-08-07": (_rate("0.25", "0.025", "2", write="0.25", priority="1.8", flex=True),),
    "gpt-5.1-2025-11-13": (_rate("1.25", "0.125", "10", write="1.25", priority="2", flex=True),),
    "gpt-5.6-luna": (
        _rate("0.2", "0.02", "1.2", write="0.25", priority="2", flex=True, since=date(2026, 7, 30)),
        _rate("1", "0.1", "6", write="1.25", priority="2", flex=True),
    ),
    "gpt-5.6-sol": (
        _rate("4", "0.4", "20", write="5", priority="2", flex=True, since=date(2026, 8, 21)),
        _rate("5", "0.5", "30", write="6.25", priority="2", flex=True),
    ),
    "o3-2025-04-16": (_rate("2", "0.5", "8", write="2", priority="1.75", flex=True),),
    "gpt-audio-2025-08-28": (_rate("2.5", "2.5", "10", write="2.5", audio=("32", "64")),),
    "gpt-audio-mini-2025-12-15": (_rate("0.6", "0.6", "2.4", write="0.6", audio=("10", "20")),),
    "gpt-image-1": (_rate("5", "1.25", "40", write="5", image="10"),),
    "gpt-9-nova-preview": (_rate("7", "0.7", "33", write="8.75"),),
    "text-embedding-3-small": (_rate("0.02", "0.02", "0"),),
    "text-embedding-3-large": (_rate("0.13", "0.13", "0"),),
    "text-embedding-ada-002": (_rate("0.1", "0.1", "0"),),
}
SPEECH_PER_MILLION = {"tts-1": Decimal(15), "tts-1-hd": Decimal(30)}
WHISPER_PER_HOUR = Decimal("0.36")
DALLE3 = {"1024x1024": Decimal("0.04"), "1024x1792": Decimal("0.08"), "1792x1024": Decimal("0.08")}
DALLE2 = {"256x256": Decimal("0.016"), "512x512": Decimal("0.018"), "1024x1024": Decimal("0.02")}
WEB_SEARCH_EACH = Decimal("0.01")
FILE_SEARCH_EACH = Decimal("0.0025")
SESSION_EACH = Decimal("0.03")
STORAGE_GIB_DAY = Decimal("0.10")
CODE_HOUR = Decimal("0.05")

# 1 h cache writes are 2x input; 5 min writes 1.25x: both are written out where a list says otherwise.
ANTHROPIC: dict[str, tuple[Rate, ...]] = {
    "claude-opus-5": (_rate("5", "0.5", "25", write="6.25"),),
    "claude-opus-5-5": (_rate("4", "0.2", "20", write="5"),),
    "claude-opus-4-8": (_rate("5", "0.5", "25", write="6.25"),),
    "claude-opus-4-6": (_rate("5", "0.5", "25", write="6.25"),),
    "claude-opus-4-5-20251101": (_rate("5", "0.5", "25", write="6.25"),),
    "claude-opus-4-1-20250805": (_rate("15", "1.5", "75", write="18.75"),),
    "claude-sonnet-5": (_rate("2", "0.2", "10", write="2.5"),),
    "claude-sonnet-4-6": (_rate("3", "0.3", "15", write="3.75"),),
    "claude-sonnet-4-5-20250929": (_rate("3", "0.3", "15", write="3.75"),),
    "claude-haiku-4-5-20251001": (_rate("1", "0.1", "5", write="1.25"),),
    "claude-unknown-9": (_rate("9", "0.9", "45", write="11.25"),),
}
FAST_MODELS = ("claude-opus-5", "claude-opus-5-5", "claude-opus-4-8")
LONG_CONTEXT_MODELS = ("claude-opus-4-6", "claude-sonnet-4-6")
LONG_CONTEXT_FREE_FROM = date(2026, 3, 13)
GEO_MODELS = (
    *FAST_MODELS,
    *LONG_CONTEXT_MODELS,
    "claude-sonnet-5",
    "claude-unknown-9",
)


def rate_of(rates: dict[str, tuple[Rate, ...]], model: str, day: date) -> Rate:
    """Find the rate that holds for a model on a day."""
    return next(rate for rate in rates[model] if rate.since <= day)


def charges(row: Row) -> list[Charge]:
    """Say what the vendor bills for one row; empty where nothing is billed."""
    if row.kind == "messages":
        return _message_charges(row)
    if row.kind == "code_execution":
        hours = Decimal(row.counts["minutes"]) / 60
        label = "Code Execution Usage"
        return [Charge(label, hours * CODE_HOUR, hours, "duration_hours", "code_execution")]
    if row.kind in ("completions", "decisions"):
        return _completion_charges(row)
    return _other_openai_charges(row)


def _completion_charges(row: Row) -> list[Charge]:
    model, count = str(row.dims["model"]), row.counts
    rate = rate_of(OPENAI, model, row.day)
    factor, prefix = Decimal(1), ""
    if row.dims["batch"] or row.dims["service_tier"] == "flex":
        factor = Decimal("0.5")
    elif row.dims["service_tier"] == "priority":
        factor, prefix = rate.priority or Decimal(1), "priority | "
    text = f"{prefix}{model}"
    # Only multi-modal models name the modality (facts 1.6: "gpt-image-2.5-sunburst text, cached input").
    if rate.audio_input or rate.image_input:
        text += " text"
    audio_in, image_in = rate.audio_input or rate.input, rate.image_input or rate.input
    lines = (
        (f"{text}, input", count["input_text_tokens"], rate.input),
        (f"{text}, cached input", count["input_cached_text_tokens"], rate.cached),
        (f"{text}, cache writes", count["input_cache_write_tokens"], rate.write),
        (f"{text}, output", count["output_text_tokens"], rate.output),
        (f"{prefix}{model} audio, input", count["input_audio_tokens"], audio_in),
        (f"{prefix}{model} audio, output", count["output_audio_tokens"], rate.audio_output or rate.output),
        (f"{prefix}{model} image, input", count["input_image_tokens"], image_in),
        (f"{prefix}{model} image, output", count["output_image_tokens"], rate.output),
    )
    return [
        Charge(label, Decimal(tokens) * price * factor / MILLION, Decimal(tokens), "tokens")
        for label, tokens, price in lines
        if tokens
    ]


def _other_openai_charges(row: Row) -> list[Charge]:
    count, model = row.counts, str(row.dims.get("model"))
    if row.kind == "embeddings":
        tokens = Decimal(count["input_tokens"])
        price = rate_of(OPENAI, model, row.day).input
        return [Charge(f"{model}, input", tokens * price / MILLION, tokens, "tokens")]
    if row.kind == "images":
        images, size = Decimal(count["images"]), str(row.dims["size"])
        price = (DALLE3 if model == "dall-e-3" else DALLE2)[size]
        label = f"{model.replace('e-', 'e ')}, standard, {size}"
        return [Charge(label, images * price, images, "images")]
    if row.kind == "audio_speeches":
        characters = Decimal(count["characters"])
        return [Charge(model, characters * SPEECH_PER_MILLION[model] / MILLION, characters, "characters")]
    if row.kind == "audio_transcriptions":
        seconds = Decimal(count["seconds"])
        return [Charge(model, seconds * WHISPER_PER_HOUR / 3600, seconds, "duration_seconds")]
    if row.kind == "vector_stores":
        # The first GB is free for the whole organisation; the sandbox gives it to each project.
        gib = max(Decimal(count["usage_bytes"]) / 2**30 - 1, Decimal(0))
        return [Charge("assistants api | file search", gib * STORAGE_GIB_DAY, gib * 24, "gibibyte_hours")]
    per_call = {
        "code_interpreter_sessions": ("assistants api | code interpreter", "num_sessions", SESSION_EACH),
        "file_search_calls": ("file search tool calls", "num_requests", FILE_SEARCH_EACH),
        "web_search_calls": ("web search tool calls", "num_requests", WEB_SEARCH_EACH),
    }
    if row.kind not in per_call:
        return []  # moderations are free
    label, counter, price = per_call[row.kind]
    return [Charge(label, count[counter] * price, Decimal(count[counter]), "1")]


def display_name(model: str) -> str:
    """Write a model as the cost report's descriptions do: `Claude Opus 4.5`."""
    family, *version = model.removeprefix("claude-").split("-")
    return f"Claude {family.capitalize()} {'.'.join(part for part in version if len(part) < 8)}"


def _message_charges(row: Row) -> list[Charge]:
    model, count, dims = str(row.dims["model"]), row.counts, row.dims
    searches = Decimal(count["web_search_requests"])
    found = []
    if searches:
        found.append(
            Charge("Web Search Usage", searches * WEB_SEARCH_EACH, searches, "1", cost_type="web_search")
        )
    # Priority Tier is billed by commitment and never in the cost report (facts 2.6).
    if dims["service_tier"] == "priority":
        return found
    rate = rate_of(ANTHROPIC, model, row.day)
    factor = Decimal("0.5") if dims["service_tier"] == "batch" else Decimal(1)
    if dims["speed"] == "fast":
        factor *= 2
    if dims["inference_geo"] == "us":
        factor *= Decimal("1.1")
    long = dims["context_window"] == "200k-1M" and row.day < LONG_CONTEXT_FREE_FROM
    inputs, outputs = factor * (2 if long else 1), factor * (Decimal("1.5") if long else 1)
    name = display_name(model)
    lines = (
        ("Input Tokens", "uncached_input_tokens", rate.input * inputs),
        ("Input Tokens, Cache Hit", "cache_read_input_tokens", rate.cached * inputs),
        ("Input Tokens, Cache Write", "cache_creation.ephemeral_5m_input_tokens", rate.write * inputs),
        ("Input Tokens, Cache Write 1h", "cache_creation.ephemeral_1h_input_tokens", rate.write_1h * inputs),
        ("Output Tokens", "output_tokens", rate.output * outputs),
    )
    for label, token_type, price in lines:
        tokens = Decimal(count[token_type.rpartition(".")[2]])
        if tokens:
            charge = Charge(
                f"{name} Usage - {label}", tokens * price / MILLION, tokens, "tokens", token_type=token_type
            )
            found.append(charge)
    return found
