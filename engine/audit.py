"""Who did what, from where: a change carries its audit in its own row, reads and refusals are batched."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Audit:
    """One entry. `actor` is verified (`key:1f0c...`, `root`, `cli:ann`); `user_id` is only claimed.

    `org` is `-` where a request names none that exists.
    """

    org: str
    action: str
    actor: str
    resource_type: str
    resource_id: str | None = None
    status: Literal["OK", "REFUSED", "FAILED"] = "OK"
    detail: str | None = None
    user_id: str | None = None
    ip_address: str | None = None
    user_agent: str | None = None
    request_id: str | None = None

    def column(self) -> str:
        """The `audit` column of the row that is the change."""
        return json.dumps({name: value for name, value in asdict(self).items() if value is not None})
