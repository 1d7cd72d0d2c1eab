"""The commands, on a desk of doubles: what goes in, what comes out, with which exit code."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from engine.types import Partition, Plan, RunRequest
from serve.cli import demo, init, query
from serve.cli.desk import Desk
from serve.cli.main import app, run
from tests.unit.serve.doubles import NOW, FakeHistory, a_plan, a_run, a_table

PIPELINE = "openai/cost/usage_cost"
WEEK = RunRequest("acme_corp", PIPELINE, date(2026, 3, 8), date(2026, 3, 14))


def jsons(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_help_needs_neither_ray_nor_polars_nor_google() -> None:
    code = (
        "import sys; from serve.cli.main import run; from serve.cli.desk import terminal_desk\n"
        "assert run(['--help'], terminal_desk()) == 0\n"
        "heavy = {'ray', 'polars', 'pyarrow', 'google.cloud.bigquery', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "validate" in done.stdout


def test_alone_it_shows_its_help() -> None:
    table = a_table()
    assert run([], table.desk) == 2
    assert "Commands:" in table.out


def test_typer_s_own_runner_sees_the_same_tree() -> None:
    found = CliRunner().invoke(app, ["prices", "--help"])
    assert found.exit_code == 0
    assert "sync" in found.stdout
    assert "show" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "acme_corp", PIPELINE, "--date", "2025-02-30"], "February 2025 has 28 days"),
        (["run", "acme_corp", PIPELINE, "--start", "2026-03-09", "--end", "2026-03-08"], "lies before"),
        (["run", "acme_corp", PIPELINE, "--date", "2026-03-16"], "in the future"),
        (["run", "acme_corp", PIPELINE, "--start", "2020-01-01", "--end", "2026-03-01"], "5 years"),
        (["run", "acme_corp", "openai/cost/usage_cst"], "no pipeline"),
        (["run", "acme_corp", PIPELINE, "--var", "nope=1"], "nope"),
        (["run", "acme_corp", PIPELINE, "--policy", "some"], "policy"),
        (["run", "acme_corp"], "PIPELINE"),
        (["runs", "nobody"], "nobody"),
        (["runs", "acme_corp", "--limit", "0"], "limit"),
        (["show", "no-such-run"], "no-such-run"),
        (["cancel", "no-such-run"], "no-such-run"),
        (["cost"], "--all-orgs"),
        (["cost", "acme_corp", "--all-orgs"], "--all-orgs"),
        (["cost", "acme_corp", "--csv", "--json"], "--csv"),
        (["cost", "acme_corp", "--since", "2026-03-09", "--until", "2026-03-08"], "--until"),
        (["cost", "acme_corp", "--since", "2026-03-16", "--until", "2026-03-17"], "future"),
        (["cost", "acme_corp", "--since", "0001-01-01"], "no calendar"),
        (["cost", "acme_corp", "--until", "0001-01-20"], "no calendar"),
        (["query", "nobody", "SELECT 1"], "nobody"),
        (["credential", "add", "nobody", "openai"], "nobody"),
        (["credential", "add", "acme_corp", "openai"], "stdin"),
        (["prices", "show", "nobody"], "nobody"),
        (["nonsense"], "nonsense"),
        (["run", "acme_corp", PIPELINE, "--nonsense"], "--nonsense"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_bad_usage_is_2_with_a_fix(arguments: list[str], said: str, as_json: bool) -> None:
    table = a_table()
    as_json = as_json or "--json" in arguments
    assert run([*arguments, "--json"] if as_json else arguments, table.desk) == 2
    assert table.out == ""
    assert table.runs.submitted == []
    assert said in table.err
    assert "Traceback" not in table.err
    if as_json:
        (facts,) = jsons(table.err)
        assert set(facts) == {"code", "message", "fix", "field"}
        assert facts["fix"]
    else:
        first, second = table.err.splitlines()
        assert first.startswith("manta: ")
        assert second.startswith("  fix: ")


def broken(environ: Any) -> Any:
    raise ZeroDivisionError("by nothing")


@pytest.mark.parametrize(("environ", "traced"), [({}, False), ({"MANTA_DEBUG": "1"}, True)])
def test_what_nobody_expected_is_one_line(environ: dict[str, str], traced: bool) -> None:
    table = a_table(environ=environ)
    table.desk.load = broken
    assert run(["validate"], table.desk) == 1
    assert "manta: ZeroDivisionError: by nothing" in table.err
    assert ("Traceback" in table.err) is traced


def test_validate_counts_what_is_fine() -> None:
    table = a_table()
    assert run(["validate"], table.desk) == 0, table.out
    assert "no problem found" in table.out


def test_a_reader_that_has_enough_is_no_failure() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from serve.cli.main import main; sys.argv[1:] = ['validate']; main()",
        ],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


class TestStack:
    """What is missing is said before anything is asked, started or joined."""

    @pytest.mark.parametrize("arguments", [["up"], ["up", "--yes"]])
    def test_up_names_what_is_missing(self, arguments: list[str], tmp_path: Path) -> None:
        table = a_table(home=tmp_path, environ={"MANTA_ENV": "prod"})
        assert run(arguments, table.desk) == 1
        assert "prod: there is no BigQuery project." in table.err
        assert "Set BIGQUERY_PROJECT in .env.prod." in table.err

    def test_status_names_what_is_missing(self, tmp_path: Path) -> None:
        table = a_table(home=tmp_path, environ={"MANTA_ENV": "prod"})
        assert run(["status"], table.desk) == 1
        assert "there is no BigQuery project. Set BIGQUERY_PROJECT in .env.prod." in table.out


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, "true"),
        (Decimal("1.50"), "1.5"),
        (date(2026, 1, 2), "2026-01-02"),
        ([{"x": 1, "y": None}], '[{"x": 1, "y": null}]'),
        ({"m": Decimal("0.10")}, '{"m": "0.1"}'),
        ("True", "True"),
        (1.5, "1.5"),
    ],
)
def test_an_answer_s_cells_read_as_in_sql_and_json(value: object, shown: str | None) -> None:
    assert query.shown(value) == shown


class TestRun:
    def test_the_default_day_is_the_last_closed_one(self) -> None:
        table = a_table()
        assert run(["run", "acme_corp", PIPELINE], table.desk) == 0
        closed = date(2026, 3, 14)
        assert table.runs.submitted == [RunRequest("acme_corp", PIPELINE, closed, closed)]

    def test_options_become_the_request(self) -> None:
        table = a_table()
        arguments = ["--start", "2026-03-01", "--end", "2026-03-02", "--policy", "all"]
        run(["run", "acme_corp", PIPELINE, *arguments], table.desk)
        first, last = date(2026, 3, 1), date(2026, 3, 2)
        assert table.runs.submitted == [RunRequest("acme_corp", PIPELINE, first, last, policy="all")]

    @pytest.mark.parametrize(
        ("status", "code"), [("SUCCESS", 0), ("PARTIAL", 1), ("FAILED", 1), ("CANCELLED", 1)]
    )
    def test_the_exit_code_is_the_run_s_end(self, status: str, code: int) -> None:
        table = a_table(
            states=[{"status": "RUNNING", "units_total": 1}, {"status": status, "units_total": 1}]
        )
        assert run(["run", "acme_corp", PIPELINE], table.desk) == code
        assert status in table.out

    def test_a_dry_run_prints_the_plan_and_starts_nothing(self) -> None:
        def plan(request: RunRequest) -> Plan:
            skipped = {Partition("acme_corp", t, date(2026, 3, 8)): "already published" for t in ("a", "b")}
            return replace(a_plan(request), skipped=skipped, provisional=frozenset({date(2026, 3, 14)}))

        table = a_table(plan=plan)
        arguments = ["run", "acme_corp", PIPELINE, "--start", "2026-03-09", "--dry-run"]
        assert run(arguments, table.desk) == 0
        assert "1 unit, 6 days, at least 11 API calls, at most 2 load jobs" in table.out
        assert "skipped: 1 day already published (2026-03-08)" in table.out
        assert "not closed yet: 2026-03-14" in table.out
        assert table.runs.submitted == []
        as_json = a_table(plan=plan)
        assert run([*arguments, "--json"], as_json.desk) == 0
        (facts,) = jsons(as_json.out)
        assert (facts["plan_id"], facts["api_calls"], len(facts["skipped"])) == ("plan1", 11, 2)
        assert facts["units"] == [{"first_day": "2026-03-09", "last_day": "2026-03-14", "days": 6}]

    def test_json_lines_tell_the_story(self) -> None:
        running = {"status": "RUNNING", "units_total": 2, "units_published": 1, "row_count": 10}
        ended = {"status": "SUCCESS", "units_total": 2, "units_published": 2, "row_count": 20}
        table = a_table(states=[running, running, ended])
        assert run(["run", "acme_corp", PIPELINE, "--json"], table.desk) == 0
        events = jsons(table.out)
        # What has not changed is not said again.
        assert [event["event"] for event in events] == ["submitted", "progress", "progress", "ended"]
        assert (events[1]["units_done"], events[1]["units_running"], events[1]["eta_seconds"]) == (1, 1, 60)
        assert (events[3]["status"], events[3]["tally"]["row_count"]) == ("SUCCESS", 20)

    def test_ctrl_c_leaves_it_running_and_says_how_to_come_back(self) -> None:
        table = a_table(states=[{"status": "RUNNING", "units_total": 1}])
        table.runs.interrupt_after = 2
        assert run(["run", "acme_corp", PIPELINE], table.desk) == 0
        assert "manta show run-1 --follow" in table.out
        assert "manta cancel run-1" in table.out
        assert table.runs.cancelled == []

    def test_detached_it_does_not_wait(self) -> None:
        table = a_table(states=[])
        assert run(["run", "acme_corp", PIPELINE, "--detach"], table.desk) == 0
        assert "manta show run-1 --follow" in table.out

    def test_failures_and_findings_are_named_with_their_fix(self) -> None:
        unit = f"{PIPELINE} acme_corp 2026-03-14"
        history = FakeHistory(
            rows=[
                transition(unit, 1, "RUNNING"),
                transition(unit, 2, "FAILED", error="credential", said="HTTP 401 Fix: Store another key."),
            ],
            found=[
                {"code": "unpriced", "subject": "gpt-new", "target_table": "t", "row_count": 3, "days": 2},
            ],
        )
        table = a_table(states=[{"status": "FAILED", "units_total": 1, "units_failed": 1}], history=history)
        assert run(["run", "acme_corp", PIPELINE], table.desk) == 1
        assert (
            f"failed: {unit} (credential, attempt 1)\n    HTTP 401\n    fix: Store another key." in table.out
        )
        assert "unpriced: gpt-new (3 rows, 2 days of t)" in table.out
        assert "manta retry run-1" in table.out

    @pytest.mark.parametrize(
        "tally",
        [
            {"units_total": 0},
            {"units_total": 2, "units_published": 2, "partitions_unchanged": 8},
        ],
    )
    def test_nothing_to_do_is_said(self, tally: dict[str, int]) -> None:
        table = a_table(states=[{"status": "SUCCESS", **tally}])
        assert run(["run", "acme_corp", PIPELINE], table.desk) == 0
        assert "nothing to do" in table.out
        assert "0 load jobs" in table.out


def transition(
    unit: str,
    position: int,
    to: str,
    *,
    error: str | None = None,
    said: str = "",
    day: date = date(2026, 3, 14),
) -> dict[str, Any]:
    return {
        "entity_name": unit,
        "position": position,
        "first_day": day,
        "last_day": day,
        "attempt": 1,
        "from_state": "ASKED",
        "to_state": to,
        "error_type": error,
        "error_message": said,
        "transition_time": NOW + timedelta(seconds=position),
    }


class TestShow:
    def history(self) -> FakeHistory:
        ended = a_run(WEEK, status="PARTIAL", units_total=2, units_published=1, units_failed=1)
        rows = [
            transition("u1", 1, "RUNNING", day=date(2026, 3, 10)),
            transition("u1", 3, "PUBLISHED", day=date(2026, 3, 10)),
            transition("u2", 2, "RUNNING"),
            transition("u2", 4, "FAILED", error="data", said="Negative tokens. Fix: Ask them."),
        ]
        steps = [
            {"step_name": "extract", "duration_ms": 3000, "rows_processed": 10},
            {"step_name": "publish", "duration_ms": 1000, "rows_processed": 10},
        ]
        return FakeHistory(runs=[ended], rows=rows, timed=steps)

    def test_the_id_alone_is_enough(self) -> None:
        table = a_table(history=self.history())
        assert run(["show", "abc-1"], table.desk) == 0
        for said in (
            "2026-03-08..2026-03-09",
            "not taken",
            "PUBLISHED",
            "Negative tokens.",
            "fix: Ask them.",
            "75%",
        ):
            assert said in table.out
        assert max(map(len, table.out.splitlines())) <= 80

    def test_every_day_is_in_the_json(self) -> None:
        table = a_table(history=self.history())
        assert run(["show", "abc-1", "--json"], table.desk) == 0
        (facts,) = jsons(table.out)
        assert [(day["first"], day["last"], day["state"]) for day in facts["days"]] == [
            ("2026-03-08", "2026-03-09", "not taken"),
            ("2026-03-10", "2026-03-10", "PUBLISHED"),
            ("2026-03-11", "2026-03-13", "not taken"),
            ("2026-03-14", "2026-03-14", "FAILED"),
        ]
        assert [(stage["name"], stage["share"]) for stage in facts["stages"]] == [
            ("extract", 0.75),
            ("publish", 0.25),
        ]

    def test_retry_asks_for_what_failed(self) -> None:
        table = a_table(history=self.history())
        assert run(["retry", "abc-1"], table.desk) == 0
        assert table.runs.submitted == [replace(WEEK, policy="failed")]

    def test_cancel_finds_the_organisation(self) -> None:
        table = a_table(history=self.history())
        assert run(["cancel", "abc-1"], table.desk) == 0
        assert table.runs.cancelled == [("acme_corp", "abc-1")]

    def test_runs_fit_80_columns(self) -> None:
        table = a_table(history=self.history())
        assert run(["runs", "acme_corp"], table.desk) == 0
        assert "PARTIAL" in table.out
        assert max(map(len, table.out.splitlines())) <= 80


class TestSecrets:
    def test_the_key_comes_from_stdin_and_is_never_shown(self) -> None:
        table = a_table(stdin="sk-admin-very-secret\n")
        assert run(["credential", "add", "acme_corp", "openai"], table.desk) == 0
        assert table.work.tenants.added == [("acme_corp", "openai", "sk-admin-very-secret")]
        assert "very-secret" not in table.out + table.err

    def test_a_json_key_comes_with_all_its_lines(self) -> None:
        table = a_table(stdin='{\n  "type": "service_account",\n  "project_id": "p"\n}\n')
        assert run(["credential", "add", "acme_corp", "openai"], table.desk) == 0
        ((_, _, stored),) = table.work.tenants.added
        assert json.loads(stored) == {"type": "service_account", "project_id": "p"}

    def test_a_credential_is_turned_off(self) -> None:
        table = a_table()
        assert run(["credential", "off", "acme_corp", "cred1"], table.desk) == 0
        assert table.work.tenants.off == [("acme_corp", "cred1")]
        assert run(["credential", "off", "nobody", "cred1"], table.desk) == 2

    def test_a_key_as_an_argument_is_refused(self) -> None:
        table = a_table()
        assert run(["credential", "add", "acme_corp", "openai", "sk-admin-x"], table.desk) == 2
        assert table.work.tenants.added == []

    @pytest.mark.parametrize("key", ["sk-proj-abc", "sk-svcacct-abc", "sk-abc"])
    def test_init_refuses_an_ordinary_key_before_any_request(self, key: str) -> None:
        table = a_table(stdin=f"{key}\n")
        openai = table.work.catalog.providers["openai"]
        with pytest.raises(Exception, match="needs an Admin key") as refused:
            init.refuse_ordinary(openai, key, base_url="https://api.openai.com/v1")
        assert "platform.openai.com" in refused.value.fix  # type: ignore[attr-defined]
        assert key not in str(refused.value)

    @pytest.mark.parametrize(
        ("slug", "email", "said"),
        [
            ("Bad-Slug", "a@b.example", "no slug"),
            ("openai", "a@b.example", "openai"),
            ("initech", "nobody", "no e-mail address"),
        ],
    )
    def test_init_refuses_what_cannot_be_before_the_key_is_read(
        self, slug: str, email: str, said: str
    ) -> None:
        table = a_table(stdin="sk-admin-very-secret\n")
        table.work.central = SimpleNamespace(ensure=lambda: None)
        table.work.settings = table.desk.settings
        given = ["init", "--org", slug, "--provider", "openai", "--email", email, "--yes"]
        assert run(given, table.desk) == 2
        assert said in table.err
        assert table.desk.stdin.readline() == "sk-admin-very-secret\n"

    def test_init_knows_an_organisation_by_its_slug(self) -> None:
        there = init.known_org(a_table().desk, "acme_corp")
        assert there is not None
        assert (there.name, there.admin_email) == ("Acme_Corp", "a@b.example")
        assert init.known_org(a_table().desk, "initech") is None


class TestDemo:
    def desk(self, **environ: str) -> Desk:
        return a_table(environ=environ).desk

    def test_no_setting_around_it_reaches_the_demo(self, tmp_path: Path) -> None:
        outer = self.desk(
            MANTA_ENV="prod",
            MANTA_DEMO_HOME=str(tmp_path),
            BIGQUERY_PROJECT="real-project",
            GOOGLE_CREDENTIALS="adc",
            BIGQUERY_EMULATOR_HOST="http://127.0.0.1:1",
            OPENAI_BASE_URL="https://api.openai.com/v1",
            RAY_ADDRESS="10.0.0.1:6379",
        )
        settings = demo.own_desk(outer).settings
        assert (settings.env, settings.home, settings.bigquery_project) == ("local", tmp_path, "local")
        assert settings.google_credentials == "anonymous"
        assert (settings.bigquery_emulator_host, settings.ray_address) == (None, None)

    def test_in_a_checkout_it_keeps_to_its_own_folder(self) -> None:
        desk = self.desk()
        assert demo.home_of(desk) == desk.settings.root / ".demo"

    def test_a_printed_command_survives_the_shell(self) -> None:
        outer = self.desk(BIGQUERY_PROJECT="real-project", MANTA_ENV="stage")
        sql = demo.question(date(2026, 3, 1), date(2026, 3, 14))
        printed = demo.command(demo.shell_prefix(outer, Path("/a b/demo")), "query", "acme_corp", sql)
        words = shlex.split(printed)
        assert words[-3:] == ["query", "acme_corp", sql]
        assert {"MANTA_HOME=/a b/demo", "MANTA_ENV=local", "BIGQUERY_PROJECT=local"} <= set(words)
