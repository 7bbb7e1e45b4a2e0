"""The definitions: they load in a fresh interpreter, light, alike through dg and workspace; the graph is as drawn."""

import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from usage_pipeline.config.settings import load_settings
from usage_pipeline.definitions import build_definitions
from usage_pipeline.defs import tables
from usage_pipeline.defs.partitions import weekly_partitions
from usage_pipeline.operations import local
from usage_pipeline_tests.support.lakes import write_config

REPO = Path(__file__).parents[2]
GRAPH = Path(__file__).with_name("asset_graph.yaml")


def graph_of(definitions: dg.Definitions) -> dict[str, list[str]]:
    graph = definitions.resolve_asset_graph()
    return {
        key.to_user_string(): sorted(parent.to_user_string() for parent in graph.get(key).parent_keys)
        for key in sorted(graph.get_all_asset_keys())
    }


def test_the_asset_graph_is_the_one_that_was_reviewed(tmp_path) -> None:
    """After a wanted change: copy what this test prints into asset_graph.yaml."""
    found = graph_of(build_definitions(load_settings(write_config(tmp_path))))
    print(yaml.safe_dump(found))
    assert found == yaml.safe_load(GRAPH.read_text(encoding="utf-8"))


def test_every_asset_says_what_it_is_for_and_who_owns_it(tmp_path) -> None:
    definitions = build_definitions(load_settings(write_config(tmp_path)))
    for spec in definitions.resolve_all_asset_specs():
        assert spec.description, spec.key
        assert spec.owners == ["team:data"], spec.key
        assert spec.group_name != "default", spec.key


def test_dagster_shows_that_a_build_is_older_than_a_refresh_a_week_allows(tmp_path) -> None:
    definitions = build_definitions(load_settings(write_config(tmp_path)))
    policy: Any
    (policy,) = [s.freshness_policy for s in definitions.resolve_all_asset_specs() if s.freshness_policy is not None]
    assert (policy.warn_window.to_timedelta(), policy.fail_window.to_timedelta()) == (
        timedelta(days=7, hours=12),
        timedelta(days=9),
    )
    for file in (REPO / "dagster.yaml", REPO / "deploy" / "dagster" / "dagster.yaml"):
        assert yaml.safe_load(file.read_text(encoding="utf-8"))["freshness"] == {"enabled": True}, file


def test_definitions_load_in_a_fresh_interpreter_without_superset_or_scikit_learn(tmp_path) -> None:
    code = (
        "import sys; from usage_pipeline.definitions import defs; defs(); "
        "print(sorted(m for m in ('sklearn', 'superset', 'pandas', 'moto', 'dagster_aws') if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={"USAGE_PIPELINE_CONFIG": str(write_config(tmp_path)), "PATH": "/usr/bin:/bin"},
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "sklearn" not in done.stdout
    assert "superset" not in done.stdout
    assert "dagster_aws" not in done.stdout, "where no bucket is configured"


def test_importing_the_package_reads_no_configuration() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "import usage_pipeline.definitions"],
        env={"USAGE_PIPELINE_CONFIG": "/nowhere.yaml", "PATH": "/usr/bin:/bin"},
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_dg_and_the_servers_load_the_same_module(tmp_path: Path) -> None:
    import tomllib

    project = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    settings = load_settings(write_config(tmp_path))
    code = local.services(settings.home, tmp_path / "sources.yaml", settings.home.root / "run")[local.CODE]
    assert code.command[-1] == project["code_location_target_module"]
    assert project["code_location_name"] == local.LOCATION


def test_partitions_are_mondays_up_to_the_running_week(tmp_path) -> None:
    definitions = build_definitions(load_settings(write_config(tmp_path)))
    partitions = definitions.resolve_asset_graph().get(dg.AssetKey("usage_facts")).partitions_def
    assert partitions is not None
    keys = partitions.get_partition_keys()
    assert keys[-1] == "2025-03-03"
    assert keys[0] == "2024-01-01"
    assert len(keys) == 62


@pytest.mark.parametrize(("name", "cron"), [("weekly_refresh", "0 6 * * 1"), ("monthly_refresh", "0 7 5 * *")])
def test_the_schedules_ask_for_the_window(tmp_path, name: str, cron: str) -> None:
    definitions = build_definitions(load_settings(write_config(tmp_path, timezone="America/Denver")))
    schedule = definitions.resolve_schedule_def(name)
    assert (schedule.cron_schedule, schedule.execution_timezone) == (cron, "America/Denver")
    with dg.build_schedule_context() as context:
        request = schedule.evaluate_tick(context).run_requests[0]  # type: ignore[index]
    assert request.tags["dagster/asset_partition_range_start"] == "2024-08-05"
    assert request.tags["dagster/asset_partition_range_end"] == "2025-03-03"


def test_superset_is_not_hidden_by_a_package_of_ours() -> None:
    assert not (REPO / "superset" / "__init__.py").exists()


def test_the_locks_name_no_host() -> None:
    for lock in ("requirements.lock", "superset/requirements.lock"):
        assert "://" not in (REPO / lock).read_text()


@pytest.mark.parametrize("as_of", [date(2025, 3, 5), date.today(), date.today() + timedelta(days=30)])
def test_partitions_of_a_pinned_as_of_end_with_its_running_week(tmp_path, as_of: date) -> None:
    settings = load_settings(write_config(tmp_path), as_of=as_of)
    assert weekly_partitions(settings.clock).get_last_partition_key() == settings.clock.running_week.isoformat()


@pytest.mark.parametrize("file", ["domain/rules.py", "domain/sql/rows.sql", "domain/words.yaml", "core/weeks.py"])
def test_a_code_version_names_every_file_that_an_asset_rests_on(file: str, tmp_path, monkeypatch) -> None:
    for name in ("domain/rules.py", "domain/sql/rows.sql", "domain/words.yaml", "core/weeks.py", "other/rules.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("as it was", encoding="utf-8")
    monkeypatch.setattr(tables, "_PACKAGE", tmp_path)
    before = tables.code_of("domain")
    (tmp_path / "other" / "rules.py").write_text("changed", encoding="utf-8")
    assert tables.code_of("domain") == before
    (tmp_path / file).write_text("changed", encoding="utf-8")
    assert tables.code_of("domain") != before
