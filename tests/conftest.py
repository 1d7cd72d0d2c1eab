"""Which tests share a worker: those of one file, and all that need a whole stack, since two are too many."""

from __future__ import annotations

from pathlib import Path

import pytest

ACCEPTANCE = Path(__file__).parent / "acceptance"


# First: pytest-xdist reads the marks in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        group = "stack" if item.path.is_relative_to(ACCEPTANCE) else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
