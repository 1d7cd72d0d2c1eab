"""Options and arguments that many commands share."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text, one object a line.")]
Slug = Annotated[str, typer.Argument(metavar="ORG", help="The organisation's slug, such as acme_corp.")]
