"""The kinds of paging that a config can name."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from engine.located import wrong


class _Paging(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Pages of one chain; more are an error, never a cut.
    max_pages: PositiveInt = 1000
    #: Pages without a row that may follow each other before the end.
    max_empty_pages: PositiveInt = 10
    #: Parameter that asks for so many rows a page.
    limit_param: str | None = None
    #: How many rows that is.
    limit: PositiveInt | None = None
    #: Where parameters of paging are sent.
    send_in: Literal["query", "body"] = "query"

    @model_validator(mode="after")
    def _limit_whole(self) -> Self:
        if self.limit_param is not None and self.limit is None:
            raise wrong(("limit",), "is missing beside limit_param", "say how many rows")
        return self


class Single(_Paging):
    """One answer holds all rows."""

    #: One answer holds all rows.
    kind: Literal["none"]


class Cursor(_Paging):
    """The answer names what to send for the next page; the last one names nothing, or says so."""

    #: The answer names what to send for the next page.
    kind: Literal["cursor"]
    #: Path to the cursor; the last page has none.
    cursor_path: str
    #: Parameter that carries it.
    cursor_param: str
    #: Path to true or false, where the API says whether there is another page.
    has_more_path: str | None = None


class PageNumber(_Paging):
    """Pages have numbers. The last is the one before an empty page, or as `total_pages_path` says."""

    #: Pages have numbers.
    kind: Literal["page"]
    #: Parameter for the number.
    page_param: str
    #: Number of the first page.
    first_page: int = Field(default=1, ge=0)
    #: Path to the number of pages.
    total_pages_path: str | None = None
    #: Path to the number of rows in all, which is checked.
    total_path: str | None = None


class Offset(_Paging):
    """Rows are skipped. The last page is the one before an empty one, or `total_path` says (rows in all)."""

    #: Rows are skipped.
    kind: Literal["offset"]
    #: Parameter for how many.
    offset_param: str
    #: Rows a page has.
    limit: PositiveInt
    #: Path to the number of rows in all, which is checked.
    total_path: str | None = None


class NextUrl(_Paging):
    """The answer holds the address of the next page."""

    #: The answer holds the address of the next page.
    kind: Literal["next_url"]
    #: Path to the address; the last page has none.
    next_path: str


class LinkHeader(_Paging):
    """The header `Link` holds it, with rel="next" (RFC 8288)."""

    #: The header `Link` holds it, with rel="next".
    kind: Literal["link_header"]


Paging = Annotated[Single | Cursor | PageNumber | Offset | NextUrl | LinkHeader, Field(discriminator="kind")]
