"""What bodies may say: unknown keys are refused, and nothing is turned into what it is not."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    model_validator,
)

from engine.api_keys import MAX_NAME_CHARS
from engine.plans import LARGEST_LIMIT
from engine.validate import SLUG
from serve.dates import Day

INT64 = 2**63
LONGEST_VARIABLE = 4096

Text = Annotated[StrictStr, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
#: What a pipeline's variable may be.
Value = (
    Annotated[StrictStr, StringConstraints(max_length=LONGEST_VARIABLE)]
    | StrictBool
    | Annotated[StrictInt, Field(ge=-INT64, lt=INT64)]
    | Annotated[StrictFloat, Field(allow_inf_nan=False)]
    | None
)
SqlName = Annotated[StrictStr, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=256)]
Limit = Annotated[StrictInt, Field(ge=1, le=LARGEST_LIMIT)] | None


class Asked(BaseModel):
    """A request's body."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RunBody(Asked):
    """Which days to run, and how. Without dates the last day that is closed at the provider."""

    date: Day | None = Field(default=None, description="One day; not together with start_date or end_date.")
    start_date: Day | None = Field(default=None, description="First day of a range.")
    end_date: Day | None = Field(default=None, description="Last day; default the last closed day.")
    policy: Literal["missing", "failed", "all"] = Field(
        default="missing", description="missing: what lacks or may have changed; failed; all."
    )
    variables: dict[str, Value] = Field(
        default_factory=dict, description="Variables that the pipeline declares."
    )
    endpoints: dict[str, StrictStr] = Field(
        default_factory=dict,
        description="Provider addresses for this run by setting name (OPENAI_BASE_URL); root key only.",
    )


class RetryBody(Asked):
    """Nothing: a retry takes what failed in the run's own range."""


class OrganizationBody(Asked):
    """A new organisation."""

    # Refused in one place, the engine's, as for the command line; here it is only said.
    org_slug: StrictStr = Field(json_schema_extra={"pattern": f"^{SLUG.pattern}$"})
    name: Text
    admin_email: StrictStr | None = Field(
        default=None, max_length=254, description="Default: the setting DEFAULT_ADMIN_EMAIL."
    )


class KeyBody(Asked):
    """A new API key. Its text is in the answer, once."""

    name: Annotated[StrictStr, StringConstraints(min_length=1, max_length=MAX_NAME_CHARS)]
    scopes: list[Literal["run", "read", "admin"]] = Field(default=["run", "read"], min_length=1, max_length=3)
    expires_in_days: Annotated[StrictInt, Field(ge=1, le=3650)] | None = None


class CredentialBody(Asked):
    """A provider's key. It is encrypted before it is stored and never shown again."""

    provider: Text
    secret: Annotated[StrictStr, StringConstraints(min_length=1, max_length=16_384)] = Field(
        json_schema_extra={"writeOnly": True}
    )
    name: Text = "default"


class QuotaBody(Asked):
    """Limits apart from the plan's: null is unlimited, what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    daily: Limit = None
    monthly: Limit = None
    concurrent: Limit = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("give at least one of daily, monthly and concurrent")
        return self


class PlanBody(Asked):
    """A plan's name."""

    plan: Text


class SuspendBody(Asked):
    """Nothing."""


class SyncBody(Asked):
    """Which procedures to sync: by name, by domain, or all."""

    names: list[SqlName] = Field(
        default_factory=list, max_length=500, description="Procedures by name; all without it."
    )
    domain: SqlName | None = Field(default=None, description="A folder under procedures/.")
    dry_run: StrictBool = Field(default=False, description="true: only say what would be done.")
