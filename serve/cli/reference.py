"""`manta reference`: every key of every config, as Markdown."""

from __future__ import annotations

import typer

from serve.cli.desk import desk_of


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("reference")(reference)


def reference(context: typer.Context) -> None:
    """Print every key that settings and configs may have.

    Its values, its default and its meaning, as Markdown: docs/config-reference.md.
    """
    from serve.reference import markdown

    desk_of(context).out.file.write(markdown())
