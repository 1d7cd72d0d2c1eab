"""The description of a REST API as a step's config: request, pages, rows, errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from engine.api.pagination import Paging, Single
from engine.api.paths import segments
from engine.errors import ConfigurationError
from engine.http import MAX_CONNECTIONS
from engine.located import wrong

#: What a request may say, beside lists of it.
type Plain = str | bool | int | Decimal | date | datetime | None
NOT_YOURS = frozenset({"authorization", "proxy-authorization", "cookie", "host", "content-length"})
#: What every row carries besides its columns.
LINEAGE = ("x_credential_id", "x_source_sha256", "x_source_index")
UNKNOWN = "unknown_fields"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Window(_Model):
    """Parameters that say which days are asked for.

    `start` and `end` name them; a unit is asked for whole, or day by day. `format` is `date`, `datetime`
    (midnight UTC, RFC 3339), `unix` (seconds), `unix_ms` or a pattern of strftime.
    """

    #: `unit` asks for all days of a unit at once, `day` for each on its own.
    per: Literal["unit", "day"] = "unit"
    #: Parameter for the first day.
    start: str | None = None
    #: Parameter for the last day.
    end: str | None = None
    #: Send the day after the last instead.
    end_exclusive: bool = False
    #: `date`, `datetime` (midnight UTC), `unix`, `unix_ms`, or a pattern such as `%Y%m%d`.
    format: str = "date"
    #: or `body`.
    send_in: Literal["query", "body"] = "query"

    @field_validator("format")
    @classmethod
    def _known(cls, given: str) -> str:
        if given not in ("date", "datetime", "unix", "unix_ms") and "%" not in given:
            raise wrong(
                (), f"is {given!r}", "write date, datetime, unix, unix_ms or a pattern such as %Y%m%d"
            )
        return given


class Request(_Model):
    """What is asked. Values are rendered templates: `{{ date }}` is the unit's last day."""

    #: or `POST`.
    method: Literal["GET", "POST"] = "GET"
    #: Begins with `/` and follows the provider's address.
    path: str
    #: Query parameters. A list is sent as one parameter for each value, null not at all.
    params: dict[str, Plain | list[Plain]] = Field(default_factory=dict)
    #: Further headers; those that carry credentials are the provider's.
    headers: dict[str, str] = Field(default_factory=dict)
    #: JSON object to post.
    body: dict[str, Any] | None = None
    #: Parameters for the days.
    window: Window = Window()

    @field_validator("path")
    @classmethod
    def _below_the_address(cls, path: str) -> str:
        if not path.startswith("/") or "?" in path or "#" in path or "//" in path or "/../" in f"{path}/":
            raise wrong((), f"{path!r} is no plain path", "begin with / and put parameters into params")
        return path

    @field_validator("headers")
    @classmethod
    def _no_secrets(cls, headers: dict[str, str]) -> dict[str, str]:
        for name in headers:
            if name.lower() in NOT_YOURS:
                raise wrong((name,), "is set by Manta", "leave it out; a provider's auth is in providers.yml")
        return headers

    @model_validator(mode="after")
    def _bodies_are_posted(self) -> Self:
        if self.method == "GET" and (self.body is not None or self.window.send_in == "body"):
            raise wrong(("body",), "does not go with GET", "write method: POST")
        return self


class ColumnMap(_Model):
    """One column: where its value lies in a row, and what it must be.

    `sent_as: text` is a number in quotes. `format` of DATE: `date` (ISO), `datetime` (its UTC day), `unix`,
    `unix_ms` or a pattern of strptime; of TIMESTAMP the same but `date`. `zone: UTC` is for timestamps that
    name none. `round` lets a NUMERIC lose digits after the ninth, half-even. `value` is a constant.
    """

    #: Column of the table.
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    #: `STRING`, `INT64`, `NUMERIC`, `BOOL`, `DATE`, `TIMESTAMP` or `JSON` (as text).
    type: Literal["STRING", "INT64", "NUMERIC", "BOOL", "DATE", "TIMESTAMP", "JSON"]
    #: `amount.value` or `/amount/value` in the row; `^1/start` in what encloses it; `@` its key or
    #: position, `^1@` that of what encloses it; `$/currency` in the whole answer; empty for the row
    #: itself.
    path: str | None = None
    #: A constant instead of a path.
    value: Plain = None
    #: Absent or null fails; otherwise it becomes `default`.
    required: bool = False
    #: What absent and null become.
    default: Plain = None
    #: `text`: the API writes the number, or true and false, in quotes.
    sent_as: Literal["itself", "text"] = "itself"
    #: Of `DATE`: `date`, `datetime` (its UTC day), `unix`, `unix_ms` or a pattern; of `TIMESTAMP` the
    #: same but `date`.
    format: str | None = None
    #: `UTC`: the zone of moments that name none.
    zone: Literal["UTC"] | None = None
    #: A `NUMERIC` may lose digits after the ninth, half-even; otherwise it fails.
    round: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        given = self.model_fields_set
        if ("path" in given) == ("value" in given):
            raise wrong(("path",), "goes without value, and one of them is needed", "give path or value")
        if self.required and "default" in given:
            raise wrong(("default",), "does not go with required", "give one of them")
        for name, types in (
            ("format", ("DATE", "TIMESTAMP")),
            ("zone", ("TIMESTAMP", "DATE")),
            ("round", ("NUMERIC",)),
            ("sent_as", ("INT64", "NUMERIC", "BOOL")),
        ):
            if name in given and self.type not in types:
                raise wrong((name,), f"does not go with {self.type}", f"it is for {' and '.join(types)}")
        if self.name.startswith("x_") or self.name == UNKNOWN:
            raise wrong(("name",), f"{self.name} is Manta's own", "choose another name")
        return self


class Response(_Model):
    """Where the rows of an answer are, and their columns.

    `items` leads to a list; `*` goes through a list or through the values of an object on the way:
    `/data/*/results`, `/rates/*/*`. With `single` what it leads to is itself the only row.
    """

    #: Path to the list of rows, empty for the body itself. `*` goes through a list or through the values
    #: of an object: `/data/*/results`, `/rates/*/*`.
    items: str
    #: What the path leads to is itself the only row.
    single: bool = False
    #: One entry a column.
    columns: tuple[ColumnMap, ...] = Field(min_length=1)
    #: Fields of a row that no column reads: `keep_json` puts them into the column `unknown_fields` and
    #: reports a finding, `ignore` drops them, `fail` fails.
    unknown_fields: Literal["keep_json", "ignore", "fail"] = "keep_json"
    #: `empty` if a page without rows leaves the list out.
    missing_items: Literal["fail", "empty"] = "fail"

    @field_validator("columns")
    @classmethod
    def _once(cls, columns: tuple[ColumnMap, ...]) -> tuple[ColumnMap, ...]:
        for n, column in enumerate(columns):
            if column.name in [other.name for other in columns[:n]]:
                raise wrong((n, "name"), f"{column.name!r} is used twice", "give each column its own name")
        return columns

    @property
    def item_names(self) -> tuple[str, ...]:
        """The path to the rows."""
        return segments(self.items)


class Day(_Model):
    """The column that says to which day a row belongs: what its table is partitioned by.

    `row`: it is one of the columns. `window`: the day asked for. `snapshot`: the API shows the present only,
    so the day is today or the last one closed. `outside` is what becomes of rows of days not asked for.
    """

    #: The table's partition column.
    column: str
    #: `row`: it is one of the columns. `window`: the day that was asked for (`window.per: day`, or units
    #: of one day). `snapshot`: the API shows the present only, so just today and yesterday can be read.
    source: Literal["row", "window", "snapshot"] = "row"
    #: Rows of days that were not asked for; `drop` leaves them out and counts them.
    outside: Literal["fail", "drop"] = "fail"


class When(_Model):
    """Which answers a rule is for: all that it names must hold. `path` leads into a JSON body; alone it asks
    whether anything but null is there; `text` is searched for in the body as it came."""

    #: HTTP statuses, any of them.
    status: tuple[Annotated[int, Field(ge=100, le=599)], ...] = ()
    #: Path into the JSON body; alone it asks whether anything but null is there.
    path: str | None = None
    #: Values, one of which is at the path.
    equals: tuple[str | int | bool, ...] = ()
    #: Regular expression found in what is at the path.
    matches: str | None = None
    #: Regular expression found in the body as it came.
    text: str | None = None

    @field_validator("matches", "text")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise wrong((), f"{pattern!r} is no regular expression: {error}", "correct it") from error
        return pattern

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.status or self.path is not None or self.text):
            raise wrong((), "names no answer", "give status, path or text")
        if self.path is None and (self.equals or self.matches):
            raise wrong(("path",), "is missing beside equals or matches", "say where in the body")
        return self


class Wait(_Model):
    """Where an answer says how long to wait; not said there, the usual growing wait is taken."""

    #: Header that says how long.
    header: str | None = None
    #: Or a path into the JSON body.
    path: str | None = None
    #: How it is said.
    format: Literal["seconds", "milliseconds", "unix", "datetime"] = "seconds"

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.header is None) == (self.path is None):
            raise wrong(("header",), "goes without path, and one of them is needed", "give header or path")
        return self


class ErrorRule(_Model):
    """What to make of certain answers, also of 200s; the first rule that fits is taken.

    `retry` asks again, `rate_limit` too and slows every request with the credential, `ignore` takes the
    answer for one without rows, `fail` ends the unit with an error of the given class.
    """

    #: `status` (a list), `path` into a JSON body with `equals` (a list) or `matches`, `text` searched in
    #: the body; all that is given must hold.
    when: When
    #: `retry`; `rate_limit` (and slow down every request with the credential); `ignore` (an answer
    #: without rows); `fail`.
    action: Literal["retry", "rate_limit", "ignore", "fail"]
    #: With the first two: `header` or `path`, and `format` `seconds`, `milliseconds`, `unix` or
    #: `datetime`.
    wait: Wait | None = None
    #: With `fail`: `credential`, `configuration`, `data` or `transient`.
    error: Literal["credential", "configuration", "data", "transient"] | None = None
    #: Path of the words to show.
    message: str | None = None
    #: What to do about it.
    fix: str | None = None

    @model_validator(mode="after")
    def _fits_the_action(self) -> Self:
        if self.wait is not None and self.action not in ("retry", "rate_limit"):
            raise wrong(("wait",), f"does not go with {self.action}", "leave it out")
        if (self.error is not None) != (self.action == "fail"):
            raise wrong(("error",), f"does not fit {self.action}", "give it with fail, and only then")
        return self


class ApiConfig(_Model):
    """Keys of a `generic.api_extractor` step."""

    #: Table the step returns.
    table: str
    #: What is asked.
    request: Request
    #: How one page leads to the next; without it one answer holds all rows.
    paging: Paging = Single(kind="none")
    #: Where rows are and what they hold.
    response: Response
    #: Which day a row belongs to.
    day: Day
    #: Columns that tell two rows apart: one that comes on two pages means that pages have shifted, and
    #: they are read again. Required with pages by number and by offset.
    row_id: tuple[str, ...] = ()
    #: Rules for answers, the first that fits is taken; then the usual ones below.
    errors: tuple[ErrorRule, ...] = ()
    #: Requests at once, over all credentials, windows and pages; 16 at most.
    concurrency: PositiveInt = Field(default=4, le=MAX_CONNECTIONS)

    @model_validator(mode="after")
    def _references_exist(self) -> Self:
        types = {column.name: column.type for column in self.response.columns}
        if (self.day.source == "row") != (self.day.column in types):
            said = "is no column" if self.day.source == "row" else "is mapped although Manta fills it"
            raise wrong(("day", "column"), f"{self.day.column!r} {said}", "correct day or response.columns")
        if types.get(self.day.column, "DATE") != "DATE":
            raise wrong(("day", "column"), f"{self.day.column} is no DATE", "map it as one")
        for n, name in enumerate(self.row_id):
            if name not in types:
                raise wrong(("row_id", n), f"there is no column {name!r}", f"use one of {', '.join(types)}")
        if self.paging.kind in ("page", "offset") and not self.row_id:
            fix = "name the columns that tell two rows apart"
            raise wrong(("row_id",), f"is missing, and pages by {self.paging.kind} can shift", fix)
        if self.day.source == "snapshot" and self.request.window.start:
            raise wrong(("request", "window"), "does not go with a snapshot", "use day.source: window")
        return self


def read_config[M: BaseModel](model: type[M], step_config: Mapping[str, Any], *, ps_type: str) -> M:
    """Check a step's rendered config. Raises ConfigurationError naming the key."""
    try:
        return model.model_validate(dict(step_config))
    except ValidationError as error:
        first = error.errors()[0]
        context = first.get("ctx", {})
        where = ".".join(str(part) for part in (*first["loc"], *context.get("at", ()))) or "config"
        raise ConfigurationError(
            f"{ps_type}: config.{where}: {first['msg']}.",
            fix=f"{str(context.get('fix') or 'correct the value').capitalize()}.",
            field=f"config.{where}",
        ) from None
