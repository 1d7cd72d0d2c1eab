"""The tutorial of docs/generic-api.md: its files, taken from the page, validate and read what it says."""

from __future__ import annotations

import re
import shutil
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from engine.catalog import Catalog
from engine.checks import audit
from engine.request_auth import request_auth
from engine.templates import render
from engine.types import Unit
from engine.unit import add_lineage
from engine.validate import validate
from processors import resolve
from sandbox.server import Sandbox
from tests.wire.scripted import NOW, Reading

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs" / "generic-api.md").read_text(encoding="utf-8")
DAYS = tuple(date(2025, 12, 1) + timedelta(days=n) for n in range(8))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout's configs with the tutorial's files among them."""
    for folder in ("configs", "procedures"):
        shutil.copytree(CHECKOUT / folder, tmp_path / folder)
    files = re.findall(r"^```yaml\n# ([\w./]+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(files) == 3
    for name, text in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(f"{before}\n{text}", encoding="utf-8")
    return tmp_path


async def test_the_tutorials_files_are_all_it_takes(root: Path, sandbox: Sandbox) -> None:
    assert [str(problem) for problem in validate(root, resolve=resolve)] == []
    catalog = Catalog.load(root)
    pipeline, provider = catalog.pipeline("acorn/invoices"), catalog.providers["acorn"]
    (step,), (output,) = pipeline.steps, pipeline.outputs
    context = {"org_slug": "acme_corp", "pipeline_id": "p", "run_id": "r", "clock": lambda: NOW}
    result = await Reading().run(
        resolve(step.ps_type),
        render(step.config, {}),
        f"{sandbox.rest_url}/acorn",
        days=DAYS,
        auths={"cred_1": request_auth(provider, "acorn_sandbox")},
        context=context,
    )
    assert result["metrics"] == {"rows": 40, "pages": 2, "dropped": 0, "unknown_fields": ["lines"]}
    schema = catalog.schemas[output.schema_]
    table = add_lineage(result["tables"][output.table], schema, context)
    table = audit(table, schema, output.checks, Unit("acme_corp", pipeline.path, DAYS))
    assert set(table["issued_on"].to_pylist()) == set(DAYS)
    assert set(table["unknown_fields"].to_pylist()) == {f'{{"lines":{n + 1}}}' for n in range(5)}
    assert all(amount == amount.quantize(Decimal("0.01")) for amount in table["amount"].to_pylist())


def test_a_mistake_in_the_tutorials_pipeline_is_named_by_line(root: Path) -> None:
    path = root / "configs" / "acorn" / "invoices.yml"
    text = path.read_text(encoding="utf-8").replace(
        "path: customer.name, type: STRING", "path: customer.name, type: TEXT"
    )
    path.write_text(text.replace("kind: cursor", "kind: cursors"), encoding="utf-8")
    line = next(n for n, line in enumerate(text.splitlines(), start=1) if "customer.name" in line)
    problems = [str(problem) for problem in validate(root, resolve=resolve)]
    assert any(f"invoices.yml:{line}: steps[0].config.response.columns[2].type: " in one for one in problems)
    assert any("steps[0].config.paging" in one for one in problems)
