"""`manta demo` as a newcomer meets it: twice, with the commands it prints, and down again."""

from __future__ import annotations

import os
import re
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from cluster import ray_node, services
from tests.acceptance.conftest import MANTA, ROOT

#: Smaller than the demo by itself, along the same path.
ORGS, PIPELINES, DAYS = 1, 4, 3
#: Usage, costs and charges of two, rows and charges of the other two.
LOADS = 2 * 3 + 2 * 2
DEMO = [*MANTA, "demo", "--orgs", str(ORGS), "--days", str(DAYS)]


def _run(command: list[str], home: Path, *, timeout_s: float) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "MANTA_DEMO_HOME": str(home)}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, env=environ, cwd=ROOT, check=False
    )


@pytest.mark.timeout(420)
def test_the_demo_works_twice_and_what_it_prints_works(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    try:
        first = _run(DEMO, home, timeout_s=300)
        assert first.returncode == 0, first.stdout + first.stderr
        printed = next(line.strip() for line in first.stdout.splitlines() if " query acme_corp " in line)
        pasted = _run(["bash", "-c", f"{printed} --json"], home, timeout_s=60)
        again = _run(DEMO, home, timeout_s=200)
    finally:
        down = _run([*MANTA, "demo", "--down"], home, timeout_s=60)

    assert len(re.findall(r"\bSUCCESS\b +1/1", first.stdout)) == ORGS * PIPELINES
    assert f"{ORGS * LOADS} load jobs" in first.stdout
    assert "http://127.0.0.1:" in first.stdout
    assert pasted.returncode == 0, pasted.stderr
    costs = [line for line in pasted.stdout.splitlines() if line.startswith("{")]
    assert len(costs) > 10
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Nothing to do" in again.stdout
    assert "0 load jobs" in again.stdout
    assert _total(again.stdout) == _total(first.stdout) > 0
    assert down.returncode == 0, down.stderr
    assert services.running(home) == {}
    assert not list(ray_node.folder(home).glob("r/session_*/sockets/*.lock"))


def _total(text: str) -> Decimal:
    found = re.search(r"^total +\$([\d,]+\.\d\d)", text, flags=re.MULTILINE)
    assert found, text
    return Decimal(found.group(1).replace(",", ""))
