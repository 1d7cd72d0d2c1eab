"""Which tests share a worker: those of one file, and all that need a whole stack, since two are too many."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

STACK = "tests/acceptance/"


class Sharing(LoadScopeScheduling):
    """Files go to workers whole, and what lies under tests/acceptance goes to one."""

    def _split_scope(self, nodeid: str) -> str:
        return STACK if nodeid.startswith(STACK) else nodeid.split("::", 1)[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Sharing:
    return Sharing(config, log)
