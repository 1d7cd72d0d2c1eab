# One command each, with all set-up in it. Needs make and Python 3.13, nothing else.
.DEFAULT_GOAL := help
.PHONY: help setup demo down test lint docs bench chaos focus clean

UV_VERSION := 0.13.9
PY := .venv/bin/python
export UV_COMPILE_BYTECODE := 1
export UV_PYTHON_DOWNLOADS := never
# Ray starts a dozen Python processes; without .pyc files each compiles everything again.
unexport PYTHONDONTWRITEBYTECODE

help:  ## What there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1|/' | column -t -s '|'

.venv/.ready: pyproject.toml uv.lock scripts/find-python
	@set -e; python="$$(sh scripts/find-python)"; \
	test -x .tools/bin/uv || { echo "manta: installing uv $(UV_VERSION) into .tools"; \
	  "$$python" -m venv .tools && .tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); }; \
	echo "manta: installing the locked dependencies into .venv"; \
	.tools/bin/uv sync --quiet --frozen --all-extras --python "$$python"
	@touch $@

setup: .venv/.ready  ## Install everything into .venv

demo: setup  ## Five organisations, fourteen days, two providers: see what they spent
	@.venv/bin/manta demo

down: setup  ## Stop the demo's processes
	@.venv/bin/manta demo --down

test: lint  ## Lint, types and every test but the slow ones
	@$(PY) -m pytest tests -n 2 --dist loadfile --no-loadscope-reorder

lint: setup  ## ruff check, ruff format --check, mypy
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy

docs: setup  ## Write docs/config-reference.md from the models
	@.venv/bin/manta reference > docs/config-reference.md

bench: setup  ## Benchmarks, side by side in one run
	@$(PY) -m benchmarks

chaos: setup  ## The longer kill tests
	@$(PY) -m pytest tests -m slow

.tools/focus/.ready: .venv/.ready scripts/focus-validator.txt
	@echo "manta: installing the FOCUS validator into .tools/focus"; \
	.tools/bin/uv venv --quiet --clear --python "$$(sh scripts/find-python)" .tools/focus && \
	.tools/bin/uv pip install --quiet --no-deps --python .tools/focus/bin/python -r scripts/focus-validator.txt
	@touch $@

focus: .tools/focus/.ready  ## Our FOCUS charges through the FinOps Foundation's validator
	@$(PY) -m tests.focus.validate

clean:  ## Remove what make installed
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache
