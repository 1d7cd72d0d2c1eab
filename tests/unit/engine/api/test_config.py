"""What a described API may say, and where a mistake is found."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from engine.api.config import ApiConfig, read_config
from engine.errors import ConfigurationError

GOOD: dict[str, Any] = {
    "table": "rows_daily",
    "request": {"path": "/v1/rows", "params": {"from": "2025-12-08", "n": 5}},
    "paging": {"kind": "cursor", "cursor_path": "next", "cursor_param": "cursor"},
    "response": {
        "items": "/data",
        "columns": [
            {"name": "day", "path": "day", "type": "DATE", "required": True},
            {"name": "amount", "path": "amount", "type": "NUMERIC"},
        ],
    },
    "day": {"column": "day"},
}


def changed(at: str, value: Any) -> dict[str, Any]:
    """GOOD with one value changed; None takes it out."""
    made = deepcopy(GOOD)
    *path, last = at.split(".")
    place: Any = made
    for part in path:
        place = place[int(part) if part.isdigit() else part]
    if value is None:
        del place[last]
    else:
        place[int(last) if last.isdigit() else last] = value
    return made


def test_the_good_one_is_good() -> None:
    config = read_config(ApiConfig, GOOD, ps_type="generic.api_extractor")
    assert config.concurrency == 4
    assert config.response.item_names == ("data",)


COLUMN = {"name": "x", "type": "STRING", "path": "x"}


@pytest.mark.parametrize(
    ("at", "value", "field", "said"),
    [
        ("table", None, "config.table", "Field required"),
        ("request.path", "v1/rows", "config.request.path", "no plain path"),
        ("request.path", "/v1/../../admin", "config.request.path", "no plain path"),
        ("request.path", "//elsewhere.example/rows", "config.request.path", "no plain path"),
        ("request.path", "/rows?key=1", "config.request.path", "no plain path"),
        (
            "request.headers",
            {"Authorization": "Bearer x"},
            "config.request.headers.Authorization",
            "set by Manta",
        ),
        ("request.body", {"a": 1}, "config.request.body", "does not go with GET"),
        ("request.window", {"start": "from", "format": "iso"}, "config.request.window.format", "is 'iso'"),
        ("request.method", "DELETE", "config.request.method", "'GET' or 'POST'"),
        ("paging.kind", "magic", "config.paging", "does not match any of the expected tags"),
        ("paging.limit_param", "per_page", "config.paging.cursor.limit", "is missing beside limit_param"),
        ("paging", {"kind": "page", "page_param": "page"}, "config.row_id", "can shift"),
        ("row_id", ["nothing"], "config.row_id.0", "there is no column 'nothing'"),
        ("response.columns", [], "config.response.columns", "at least 1 item"),
        ("response.columns.1", COLUMN | {"name": "day"}, "config.response.columns.1.name", "used twice"),
        (
            "response.columns.1",
            COLUMN | {"name": "x_run_id"},
            "config.response.columns.1.name",
            "Manta's own",
        ),
        (
            "response.columns.1",
            {"name": "x", "type": "STRING"},
            "config.response.columns.1.path",
            "one of them",
        ),
        ("response.columns.1", COLUMN | {"value": "y"}, "config.response.columns.1.path", "one of them"),
        ("response.columns.1", COLUMN | {"round": True}, "config.response.columns.1.round", "with STRING"),
        (
            "response.columns.1",
            COLUMN | {"required": True, "default": "y"},
            "config.response.columns.1.default",
            "does not go with required",
        ),
        ("day.column", "week", "config.day.column", "is no column"),
        ("day.column", "amount", "config.day.column", "is no DATE"),
        ("day.source", "window", "config.day.column", "is mapped although Manta fills it"),
        ("errors", [{"when": {}, "action": "retry"}], "config.errors.0.when", "names no answer"),
        ("errors", [{"when": {"status": [99]}, "action": "retry"}], "config.errors.0.when.status.0", "100"),
        ("errors", [{"when": {"text": "("}, "action": "retry"}], "config.errors.0.when.text", "no regular"),
        (
            "errors",
            [{"when": {"status": [400]}, "action": "fail"}],
            "config.errors.0.error",
            "does not fit fail",
        ),
        (
            "errors",
            [{"when": {"status": [400]}, "action": "ignore", "wait": {"header": "x"}}],
            "config.errors.0.wait",
            "does not go with ignore",
        ),
        ("concurrency", 17, "config.concurrency", "less than or equal to 16"),
        ("surprise", 1, "config.surprise", "Extra inputs"),
    ],
)
def test_a_mistake_is_named_by_its_key(at: str, value: Any, field: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_config(ApiConfig, changed(at, value), ps_type="generic.api_extractor")
    assert (refused.value.field, said in refused.value.message) == (field, True), refused.value.message
    assert refused.value.fix
