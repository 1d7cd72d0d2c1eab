"""generic.api_extractor over real sockets: each kind of paging and auth, and every answer that is none."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from engine.errors import (
    ConfigurationError,
    CredentialError,
    DataError,
    MantaError,
    TransientError,
)
from engine.request_auth import RequestAuth
from processors.generic.api_extractor import get_engine
from sandbox.rest import SECRETS
from sandbox.server import Sandbox
from tests.wire.scripted import DAY, Asked, Reading, Said, Scripted, serving

ENGINE = get_engine()
COLUMNS = [
    {"name": "id", "path": "id", "type": "INT64", "required": True},
    {"name": "day", "path": "day", "type": "DATE", "required": True},
    {"name": "name", "path": "name", "type": "STRING"},
    {"name": "amount", "path": "amount", "type": "NUMERIC"},
    {"name": "deep", "path": "/nested/deep", "type": "STRING"},
]
PAGINGS: dict[str, dict[str, Any]] = {
    "cursor": {
        "kind": "cursor",
        "cursor_path": "/next",
        "cursor_param": "cursor",
        "has_more_path": "has_more",
    },
    "cursor alone": {"kind": "cursor", "cursor_path": "/next", "cursor_param": "cursor"},
    "page": {"kind": "page", "page_param": "page"},
    "page of pages": {
        "kind": "page",
        "page_param": "page",
        "total_pages_path": "pages",
        "total_path": "total",
    },
    "offset": {"kind": "offset", "offset_param": "offset", "limit": 10, "limit_param": "limit"},
    "offset of total": {"kind": "offset", "offset_param": "offset", "limit": 10, "total_path": "/total"},
    "next_url": {"kind": "next_url", "next_path": "/links/next"},
    "link_header": {"kind": "link_header"},
    "none": {"kind": "none"},
}


def config(path: str = "/rows", *, items: str = "/items", **changes: Any) -> dict[str, Any]:
    """A step's config with changes: of its sections' keys by `section__key`."""
    made: dict[str, Any] = {
        "table": "rows_daily",
        "request": {"path": path},
        "paging": {"kind": "none"},
        "response": {"items": items, "columns": [dict(column) for column in COLUMNS]},
        "day": {"column": "day"},
        "row_id": ["id"],
    }
    for name, value in changes.items():
        section, _, key = name.partition("__")
        if key:
            made[section][key] = value
        else:
            made[section] = value
    return made


@pytest.fixture
def reading() -> Reading:
    return Reading()


@pytest.fixture
def server() -> Iterator[Scripted]:
    with serving(lambda _: Said({"items": []})) as scripted:
        yield scripted


@pytest.mark.parametrize("kind", PAGINGS)
async def test_every_kind_of_paging_reads_every_row_once(
    sandbox: Sandbox, reading: Reading, kind: str
) -> None:
    name = {"next_url": "next", "link_header": "link"}.get(kind, kind.split()[0])
    items = "" if kind == "link_header" else "/items"
    asked = config(f"/styles/{name}", items=items, paging=PAGINGS[kind])
    result = await reading.run(ENGINE, asked, sandbox.rest_url)
    table = result["tables"]["rows_daily"]
    assert table["id"].to_pylist() == list(range(45))
    assert table["amount"].to_pylist() == [Decimal(n) / 100 for n in range(45)]
    assert table["deep"].to_pylist() == [str(n) for n in range(45)]
    assert set(table["day"].to_pylist()) == {DAY}
    assert set(table["x_credential_id"].to_pylist()) == {"none"}
    pages = 1 if kind == "none" else 5
    assert result["metrics"]["pages"] == pages
    assert len(set(table["x_source_sha256"].to_pylist())) == pages
    assert table["x_source_index"].to_pylist()[:10] == list(range(10))


@pytest.mark.parametrize("rows", [0, 1, 10, 11])
@pytest.mark.parametrize("kind", ["cursor", "page", "page of pages", "offset", "offset of total", "next_url"])
async def test_the_end_of_a_list_is_found(sandbox: Sandbox, reading: Reading, kind: str, rows: int) -> None:
    name = {"next_url": "next"}.get(kind, kind.split()[0])
    asked = config(f"/styles/{name}", request__params={"rows": rows}, paging=PAGINGS[kind])
    result = await reading.run(ENGINE, asked, sandbox.rest_url)
    assert result["tables"]["rows_daily"]["id"].to_pylist() == list(range(rows))


@pytest.mark.parametrize(
    ("kind", "auth"),
    [
        ("none", RequestAuth({})),
        ("header", RequestAuth({"x-key": SECRETS["header"]})),
        ("bearer", RequestAuth({"Authorization": f"Bearer {SECRETS['bearer']}"})),
        ("query", RequestAuth({}, (("key", SECRETS["query"]),))),
        ("basic", RequestAuth({"Authorization": "Basic c2FuZGJveDpyZXN0LXNlY3JldC1iYXNpYw=="})),
    ],
)
async def test_every_fixed_auth_is_sent(
    sandbox: Sandbox, reading: Reading, kind: str, auth: RequestAuth
) -> None:
    asked = config(f"/auth/{kind}")
    result = await reading.run(ENGINE, asked, sandbox.rest_url, auths={"cred_1": auth})
    assert result["tables"]["rows_daily"]["x_credential_id"].to_pylist() == ["cred_1"] * 3
    if kind != "none":
        error = await reading.fails(ENGINE, asked, sandbox.rest_url, auths={"cred_2": RequestAuth({})})
        assert isinstance(error, CredentialError)
        assert error.message == f"Credential cred_2: example /auth/{kind}: HTTP 401: Who are you?"


async def test_a_key_in_the_query_goes_along_with_next_links_and_into_no_message(
    server: Scripted, reading: Reading
) -> None:
    def answer(asked: Asked) -> Said:
        if "page" in asked.query:
            return Said({"message": f"no such page for {asked.query['key']}"}, 400)
        return Said({"items": [], "next": "?page=2"})

    server.answer = answer
    asked = config("/v1/rows", paging={"kind": "next_url", "next_path": "next"})
    secret = "very-secret-query-key"
    error = await reading.fails(ENGINE, asked, server.url, auths={"c": RequestAuth({}, (("key", secret),))})
    assert [(one.path, one.query) for one in server.asked] == [
        ("/v1/rows", {"key": secret}),
        ("/v1/rows", {"page": "2", "key": secret}),
    ]
    assert "no such page" in error.message
    assert secret not in str(error) + "".join(reading.lines)


@pytest.mark.parametrize(
    "link",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://127.0.0.1/items",
        "http://elsewhere.example/rows?page=2",
        "//elsewhere.example/rows",
        "http://key@127.0.0.1:1/",
    ],
)
async def test_a_next_link_elsewhere_is_refused_by_name(
    server: Scripted, reading: Reading, link: str
) -> None:
    server.answer = lambda _: Said({"items": [], "next": link})
    error = await reading.fails(ENGINE, config(paging={"kind": "next_url", "next_path": "next"}), server.url)
    assert isinstance(error, ConfigurationError)
    assert error.field == "official_hosts"
    assert "nothing is sent to http" in error.message
    assert link.partition("//")[2].partition("/")[0].rpartition("@")[2] in error.message
    assert len(server.asked) == 1


async def test_a_redirect_is_not_followed(server: Scripted, reading: Reading) -> None:
    server.answer = lambda _: Said({}, 302, {"location": "http://169.254.169.254/"})
    error = await reading.fails(ENGINE, config(), server.url)
    assert "redirects to 169.254.169.254; redirects are not followed" in error.message
    assert len(server.asked) == 1


async def test_an_official_name_that_leads_to_this_machine_is_refused_before_anything_is_sent(
    server: Scripted, reading: Reading
) -> None:
    auths = {"c": RequestAuth({"x-key": "secret-secret-secret"})}
    url = server.url.replace("127.0.0.1", "localhost")
    error = await reading.fails(ENGINE, config(), url, auths=auths, official_hosts=("localhost",))
    assert isinstance(error, ConfigurationError)
    assert "localhost leads to 127.0.0.1" in error.message or "localhost leads to ::1" in error.message
    assert server.asked == []
    # The environment may point a provider there.
    await reading.run(ENGINE, config(), server.url, auths=auths, official_hosts=("localhost",))


ROW = {"id": 1, "day": "2025-12-08", "name": "n", "amount": 1, "nested": {"deep": "d"}}


def body(text: str) -> bytes:
    return text.encode()


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (Said(b""), TransientError, "undecodable after 5 attempts: 0 bytes of application/json are not JSON"),
        (
            Said(b"<html>502</html>", headers={"content-type": "text/html"}),
            TransientError,
            "16 bytes of text/html are not JSON",
        ),
        (Said({"error": {"message": "no such report"}}), DataError, "has no rows at /items: {"),
        (Said({"items": None}), DataError, "has no rows at /items"),
        (Said({"items": {"id": 1}}), DataError, "has no rows at /items"),
        (Said([]), DataError, "has no rows at /items"),
        (Said(b'{"items": [], "x": "\xff"}'), TransientError, "are not JSON"),
        (Said({"items": ["text"]}), DataError, 'page 1, row 1: is no object but "text"'),
        (
            Said({"items": [ROW, {**ROW, "name": 7}]}),
            DataError,
            "page 1, row 2: name (at name) is a number (7) where text was declared",
        ),
        (Said({"items": [{**ROW, "id": None}]}), DataError, "row 1: id (at id) is null"),
        (Said({"items": [{"day": "2025-12-08"}]}), DataError, "id (at id) is not there"),
        (Said({"items": [{**ROW, "id": "1"}]}), DataError, "is text (1) where a whole number was declared"),
        (Said({"items": [{**ROW, "id": True}]}), DataError, "is true or false (true)"),
        (Said({"items": [{**ROW, "amount": "1.5"}]}), DataError, "is text (1.5) where a number was declared"),
        (
            Said(b'{"items": [{"id": 1, "day": "2025-12-08", "amount": 0.1234567891}]}'),
            DataError,
            "amount (at amount) is 0.1234567891, which NUMERIC (29 digits and 9 places) does not hold",
        ),
        (
            Said({"items": [{**ROW, "day": "08.12.2025"}]}),
            DataError,
            "where a day as 2025-12-08 was declared",
        ),
        (Said({"items": [{**ROW, "day": "2025-12-07"}]}), DataError, "1 rows are not of 2025-12-08"),
        (Said({"items": [{**ROW, "id": 2**63}]}), DataError, "which INT64 does not hold"),
        (Said({"message": "slow down"}, 429), TransientError, "HTTP 429 after 5 attempts: slow down"),
        (Said({"error": "not_yours"}, 403), CredentialError, "HTTP 403: not_yours"),
        (Said({"title": "Bad day", "status": 400}, 400), ConfigurationError, "HTTP 400: Bad day"),
    ],
)
async def test_an_answer_that_is_none_fails_by_name_and_class(
    server: Scripted, reading: Reading, answer: Said, kind: type[MantaError], said: str
) -> None:
    server.answer = lambda _: answer
    error = await reading.fails(ENGINE, config(), server.url)
    assert said in error.message
    assert type(error) is kind or kind is ConfigurationError
    assert error.message.startswith("Credential none: example /rows")
    assert error.fix


async def test_money_keeps_every_digit(server: Scripted, reading: Reading) -> None:
    literals = ["0.1", "1e-9", "123456789012345678901234567.123456789", "-0.000000001", "100"]
    rows = ",".join(
        f'{{"id": {n}, "day": "2025-12-08", "amount": {literal}}}' for n, literal in enumerate(literals)
    )
    server.answer = lambda _: Said(body(f'{{"items": [{rows}]}}'))
    result = await reading.run(ENGINE, config(), server.url)
    assert result["tables"]["rows_daily"]["amount"].to_pylist() == [Decimal(literal) for literal in literals]


@pytest.mark.parametrize(
    ("policy", "unknown"),
    [("keep_json", '{"more":1.50,"other":["a"]}'), ("ignore", None)],
)
async def test_unknown_fields_by_policy(
    server: Scripted, reading: Reading, policy: str, unknown: str | None
) -> None:
    text = '{"items": [{"id": 1, "day": "2025-12-08", "other": ["a"], "more": 1.50}]}'
    server.answer = lambda _: Said(body(text))
    asked = config(response__unknown_fields=policy)
    result = await reading.run(ENGINE, asked, server.url)
    table = result["tables"]["rows_daily"]
    if unknown is None:
        assert "unknown_fields" not in table.column_names
        assert result["findings"] == []
    else:
        assert table["unknown_fields"].to_pylist() == [unknown]
        (finding,) = result["findings"]
        assert (finding.code, finding.subject, finding.day) == ("unknown_fields", "more, other", DAY)
    error = await reading.fails(ENGINE, config(response__unknown_fields="fail"), server.url)
    assert "page 1, row 1: has fields that no column reads: more, other" in error.message


def pages(*bodies: Any) -> Any:
    """Answers one after the other, the last for ever."""
    left = list(bodies)
    return lambda _: Said(left.pop(0) if len(left) > 1 else left[0])


CURSOR = {"kind": "cursor", "cursor_path": "next", "cursor_param": "cursor"}


async def test_a_repeated_cursor_is_noticed_and_read_again(server: Scripted, reading: Reading) -> None:
    server.answer = lambda _: Said({"items": [], "next": "same"})
    error = await reading.fails(ENGINE, config(paging=CURSOR), server.url)
    assert isinstance(error, TransientError)
    assert "page 2 leads to the same next page as one before it" in error.message
    assert len(server.asked) == 6
    # A server that found its way again is believed.
    server.answer = pages(
        {"items": [ROW], "next": "a"},
        {"items": [], "next": "a"},
        {"items": [ROW], "next": "b"},
        {"items": []},
    )
    result = await reading.run(ENGINE, config(paging=CURSOR), server.url)
    assert result["tables"]["rows_daily"]["id"].to_pylist() == [1]


async def test_empty_pages_without_end_fail(server: Scripted, reading: Reading) -> None:
    server.answer = lambda asked: Said({"items": [], "next": f"{asked.query.get('cursor', '')}x"})
    error = await reading.fails(ENGINE, config(paging={**CURSOR, "max_empty_pages": 4}), server.url)
    assert isinstance(error, DataError)
    assert "5 pages in a row held no rows" in error.message
    assert len(server.asked) == 5


async def test_more_pages_than_allowed_fail_loudly(sandbox: Sandbox, reading: Reading) -> None:
    for kind in ("cursor", "page", "page of pages"):
        asked = config(f"/styles/{kind.split()[0]}", paging={**PAGINGS[kind], "max_pages": 4})
        error = await reading.fails(ENGINE, asked, sandbox.rest_url)
        assert isinstance(error, ConfigurationError)
        assert "there are more than 4 pages" in error.message
        assert error.field == "config.paging.max_pages"


def shifting(asked: Asked) -> Said:
    """A row came in at the front after page 1 was read: its last one is now the first of page 2."""
    page = int(asked.query["page"])
    rows = {1: [1, 2], 2: [2, 3]}.get(page, [])
    return Said({"items": [{**ROW, "id": n} for n in rows]})


@pytest.mark.parametrize(
    ("answer", "more", "said"),
    [
        (shifting, {}, "the row id=2 came on page 1 and again on page 2"),
        (lambda asked: Said({"items": [ROW]}), {}, "the row id=1 came on page 1 and again on page 2"),
        (
            lambda asked: Said(
                {
                    "total": 3 if asked.query["page"] == "1" else 4,
                    "items": [{**ROW, "id": int(asked.query["page"])}],
                }
            ),
            {"total_path": "total"},
            "there were 3 rows in all, and on page 2 there are 4",
        ),
        (
            lambda asked: Said({"total": 3, "items": [ROW] if asked.query["page"] == "1" else []}),
            {"total_path": "total"},
            "1 rows came of 3",
        ),
    ],
)
async def test_shifting_pages_are_noticed(
    server: Scripted, reading: Reading, answer: Any, more: dict[str, Any], said: str
) -> None:
    server.answer = answer
    asked = config(paging={"kind": "page", "page_param": "page", **more}, concurrency=1)
    error = await reading.fails(ENGINE, asked, server.url)
    assert isinstance(error, TransientError)
    assert said in error.message


async def test_an_api_that_gives_fewer_rows_than_asked_is_noticed(server: Scripted, reading: Reading) -> None:
    def answer(asked: Asked) -> Said:
        start = int(asked.query["offset"])
        return Said({"items": [{**ROW, "id": n} for n in range(start, min(start + 5, 30))]})

    server.answer = answer
    paging = {"kind": "offset", "offset_param": "offset", "limit": 10}
    error = await reading.fails(ENGINE, config(paging=paging), server.url)
    assert isinstance(error, DataError)
    assert "page 1 held fewer than 10 rows and was not the last" in error.message


async def test_days_are_asked_for_by_window(server: Scripted, reading: Reading) -> None:
    days = [date(2025, 12, 7), DAY]
    forms = {
        "date": "2025-12-07",
        "datetime": "2025-12-07T00:00:00Z",
        "unix": "1765065600",
        "%Y%m%d": "20251207",
    }
    for form, first in forms.items():
        server.asked.clear()
        window = {"start": "from", "end": "to", "end_exclusive": True, "format": form}
        await reading.run(ENGINE, config(request__window=window), server.url, days=days)
        (asked,) = server.asked
        assert asked.query["from"] == first
    assert asked.query["to"] == "20251209"
    server.asked.clear()
    window = {"per": "day", "start": "from", "end": "to"}
    await reading.run(ENGINE, config(request__window=window), server.url, days=days)
    assert sorted((asked.query["from"], asked.query["to"]) for asked in server.asked) == [
        ("2025-12-07", "2025-12-07"),
        ("2025-12-08", "2025-12-08"),
    ]


async def test_a_posted_body_carries_window_and_cursor(server: Scripted, reading: Reading) -> None:
    server.answer = pages({"items": [], "next": "n2"}, {"items": [], "next": None})
    asked = config(
        request={
            "path": "/search",
            "method": "POST",
            "params": {"verbose": True, "tags": ["a", "b"], "left_out": None},
            "body": {"group": ["day"]},
            "window": {"start": "from", "format": "unix", "send_in": "body"},
        },
        paging={**CURSOR, "send_in": "body", "limit_param": "size", "limit": 50},
    )
    await reading.run(ENGINE, asked, server.url)
    first, second = server.asked
    assert first.query == {"verbose": "true", "tags": "b"}
    assert first.headers["content-type"] == "application/json"
    assert first.body == b'{"group":["day"],"from":1765152000,"size":50}'
    assert second.body == b'{"group":["day"],"from":1765152000,"cursor":"n2","size":50}'


@pytest.mark.parametrize(
    ("rule", "kind", "said", "calls"),
    [
        (
            {"when": {"path": "/error/code", "equals": ["quota"]}, "action": "fail", "error": "credential",
             "message": "/error/text", "fix": "Buy more."},
            CredentialError, "HTTP 200: used up", 1,
        ),
        ({"when": {"path": "error"}, "action": "retry"}, TransientError, "after 5 attempts", 5),
        (
            {"when": {"text": "quo[t]a"}, "action": "fail", "error": "transient"},
            TransientError, 'HTTP 200: {"error"', 1,
        ),
        (
            {"when": {"status": [418], "path": "error"}, "action": "retry"},
            DataError, "has no rows at /items", 1,
        ),
    ],
)  # fmt: skip
async def test_an_error_in_a_200_is_judged_by_rule(
    server: Scripted, reading: Reading, rule: Any, kind: type[MantaError], said: str, calls: int
) -> None:
    server.answer = lambda _: Said({"error": {"code": "quota", "text": "used up"}})
    error = await reading.fails(ENGINE, config(errors=[rule]), server.url)
    assert type(error) is kind
    assert said in error.message
    assert len(server.asked) == calls


async def test_an_ignored_answer_has_no_rows(server: Scripted, reading: Reading) -> None:
    server.answer = lambda _: Said({"detail": "no usage"}, 404)
    rule = {"when": {"status": [404]}, "action": "ignore"}
    result = await reading.run(ENGINE, config(errors=[rule]), server.url)
    assert result["tables"]["rows_daily"].num_rows == 0


@pytest.mark.parametrize(
    ("wait", "headers", "waited_s"),
    [
        ({"header": "x-reset", "format": "milliseconds"}, {"x-reset": "2500"}, 2.5),
        ({"path": "/retry_in"}, {}, 3.0),
        ({"header": "x-absent"}, {}, 0.0),
    ],
)
async def test_a_rate_limit_waits_as_the_answer_says_and_slows_the_credential(
    server: Scripted, reading: Reading, wait: Any, headers: dict[str, str], waited_s: float
) -> None:
    left = [Said({"error": "throttled", "retry_in": 3}, 400, headers)]
    server.answer = lambda _: left.pop() if left else Said({"items": [ROW]})
    rule = {"when": {"path": "error", "equals": ["throttled"]}, "action": "rate_limit", "wait": wait}
    result = await reading.run(ENGINE, config(errors=[rule]), server.url)
    assert result["metrics"]["rows"] == 1
    (slept,) = reading.waits
    assert waited_s <= slept <= waited_s + 0.01
    said = {"retry-after": f"{waited_s:.3f}"} if waited_s else {}
    assert reading.permits.learned == [(429, said)]


async def test_faults_of_the_sandbox_are_outlived(sandbox: Sandbox, reading: Reading) -> None:
    for name in ("server_error", "html", "cut", "truncated_json"):
        sandbox.state.faults.put(name, provider="rest", path="/styles/page")
    result = await reading.run(ENGINE, config("/styles/page", paging=PAGINGS["page"]), sandbox.rest_url)
    assert result["metrics"]["rows"] == 45
    assert len(reading.waits) == 4


async def test_maps_of_maps_become_rows(server: Scripted, reading: Reading) -> None:
    server.answer = lambda _: Said(
        body('{"base": "EUR", "rates": {"2025-12-08": {"USD": 1.16, "CHF": 0.93}}}')
    )
    asked = config(
        response={
            "items": "/rates/*/*",
            "columns": [
                {"name": "day", "path": "^1@", "type": "DATE"},
                {"name": "currency", "path": "@", "type": "STRING"},
                {"name": "base", "path": "$/base", "type": "STRING"},
                {"name": "rate", "path": "", "type": "NUMERIC"},
                {"name": "source", "value": "ecb", "type": "STRING"},
            ],
        },
        row_id=[],
    )
    result = await reading.run(ENGINE, asked, server.url)
    rows = result["tables"]["rows_daily"].select(["day", "currency", "base", "rate", "source"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        (DAY, "USD", "EUR", Decimal("1.16"), "ecb"),
        (DAY, "CHF", "EUR", Decimal("0.93"), "ecb"),
    ]


async def test_a_snapshot_is_of_today_or_yesterday_only(server: Scripted, reading: Reading) -> None:
    asked = config(
        response__columns=[{"name": "id", "path": "id", "type": "INT64"}],
        day={"column": "snapshot_date", "source": "snapshot"},
        response__unknown_fields="ignore",
    )
    server.answer = lambda _: Said({"items": [{"id": 1}]})
    result = await reading.run(ENGINE, asked, server.url)
    assert result["tables"]["rows_daily"]["snapshot_date"].to_pylist() == [DAY]
    error = await reading.fails(ENGINE, asked, server.url, days=[date(2025, 12, 7)])
    assert "shows the present only: what it said on 2025-12-07 is gone" in error.message
    error = await reading.fails(ENGINE, asked, server.url, days=[date(2025, 12, 8), date(2025, 12, 9)])
    assert "rows do not say their day" in error.message
