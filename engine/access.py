"""One live request that says what a new key can read, before anything is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import msgspec

from engine.errors import ConfigurationError, CredentialError, DataError
from engine.http import Http

Params = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Access:
    """What the request showed: the day asked for and the models used on it (at most a page of them)."""

    provider: str
    day: date
    models: tuple[str, ...]


def _openai(first: datetime, last: datetime) -> tuple[str, Params]:
    return "/organization/usage/completions", [
        ("start_time", str(int(first.timestamp()))),
        ("end_time", str(int(last.timestamp()))),
        ("bucket_width", "1d"),
        ("group_by", "model"),
        ("limit", "1"),
    ]


def _anthropic(first: datetime, last: datetime) -> tuple[str, Params]:
    return "/v1/organizations/usage_report/messages", [
        ("starting_at", first.strftime("%Y-%m-%dT%H:%M:%SZ")),
        ("ending_at", last.strftime("%Y-%m-%dT%H:%M:%SZ")),
        ("bucket_width", "1d"),
        ("group_by[]", "model"),
        ("limit", "1"),
    ]


#: How each provider's usage of one day is asked for; the documented API, and the smallest answer it has.
REPORTS: dict[str, Callable[[datetime, datetime], tuple[str, Params]]] = {
    "openai": _openai,
    "anthropic": _anthropic,
}


async def check_access(http: Http, *, day: date) -> Access:
    """Ask for one day's usage by model.

    Raises CredentialError for a key that may not read it, and whatever else the request meets.
    """
    if http.provider not in REPORTS:
        raise ConfigurationError(
            f"There is no live check for {http.provider}.", fix="Store the key with manta credential add."
        )
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    path, params = REPORTS[http.provider](midnight, midnight + timedelta(days=1))
    try:
        page = await http.get_json(path, params, msgspec.json.decode)
        models = {row.get("model") for bucket in page["data"] for row in bucket["results"]}
    except CredentialError as error:
        error.fix = f"Use an Admin key of the organisation. {error.fix}".strip()
        raise
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f"{http.provider} {path}: the answer is no usage report.",
            fix="Look whether the base URL is the API itself.",
        ) from error
    return Access(http.provider, day, tuple(sorted(str(model) for model in models if model)))


class OneCall:
    """Permits for a single request: it waits for nobody."""

    async def take(self) -> None:
        """Go ahead."""

    def learn(self, status: int, headers: Mapping[str, str]) -> None:
        """Nothing comes after it."""
