"""Metrics: what they say of runs, builds, files and mails; the file that is written; the dashboard that draws them."""

import json
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from usage_pipeline.cli import app
from usage_pipeline.config.settings import ConfigError, Settings, load_settings
from usage_pipeline.core.files import make_folder
from usage_pipeline.defs.sensors import status_sensors
from usage_pipeline.observability.status import write_status
from usage_pipeline.operations.metrics import MetricsError, metrics_text, write_metrics
from usage_pipeline.publishing.builds import Build, BuildStore
from usage_pipeline_tests.support.lakes import write_config

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "usage-pipeline.json"
METRIC = re.compile(r"usage_pipeline_\w+")


@dg.op
def works() -> None:
    """A step that does."""


@dg.op
def breaks() -> None:
    raise dg.Failure("the lake is away")


def run(instance: dg.DagsterInstance, *, fails: bool = False) -> None:
    @dg.job(name="refresh")
    def job() -> None:
        (breaks if fails else works)()

    job.execute_in_process(instance=instance, raise_on_error=False)


def show_build(settings: Settings) -> None:
    """A build without files, of which metrics read its description alone."""
    store = BuildStore(settings.home.published_dir)
    build = Build("00001-2025-03-05-abcdefgh", "2025-03-05T00:00:00+00:00", "2025-02-24", "abcdefgh", {"call_list": 7})
    make_folder(store.path(build.build_id))
    (store.path(build.build_id) / "build.json").write_text(json.dumps(asdict(build)), encoding="utf-8")
    store.finish()


def samples(text: bytes) -> dict[str, float]:
    """Value by name and labels, such as `usage_pipeline_checks{result="failed"}`."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sample.labels.items())
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def status_of(settings: Settings, instance: dg.DagsterInstance) -> dict[str, float]:
    write_status(settings.home, settings.clock, settings.sources, instance)
    return samples(metrics_text(settings))


def test_freshness_is_told_by_moments_so_that_an_old_file_looks_old(tmp_path, instance) -> None:
    settings = load_settings(write_config(tmp_path, timezone="America/New_York"))
    show_build(settings)
    found = status_of(settings, instance)
    midnight_after_sunday = datetime(2025, 3, 3, 5, tzinfo=UTC)
    assert found["usage_pipeline_data_through_timestamp_seconds"] == midnight_after_sunday.timestamp()
    assert found["usage_pipeline_build_as_of_timestamp_seconds"] == datetime(2025, 3, 5, tzinfo=UTC).timestamp()
    assert found['usage_pipeline_build_info{build="00001-2025-03-05-abcdefgh"}'] == 1
    assert found['usage_pipeline_published_rows{table="call_list"}'] == 7
    assert found["usage_pipeline_build_pinned"] == 0
    now = datetime.now(UTC).timestamp()
    assert now - 60 < found["usage_pipeline_status_written_timestamp_seconds"] <= now + 1


def test_a_failed_run_shows_until_one_succeeds(tmp_path, instance) -> None:
    settings = load_settings(write_config(tmp_path))
    run(instance)
    run(instance, fails=True)
    run(instance, fails=True)
    found = status_of(settings, instance)
    assert found['usage_pipeline_last_run_success{kind="refresh"}'] == 0
    assert found['usage_pipeline_runs_failed_in_a_row{kind="refresh"}'] == 2
    assert found['usage_pipeline_status{color="red"}'] == 1
    good = found['usage_pipeline_last_successful_run_timestamp_seconds{kind="refresh"}']
    assert good < found['usage_pipeline_last_run_end_timestamp_seconds{kind="refresh"}']
    assert 0 <= found['usage_pipeline_last_run_duration_seconds{kind="refresh"}'] < 60
    run(instance)
    found = status_of(settings, instance)
    assert found['usage_pipeline_last_run_success{kind="refresh"}'] == 1
    assert found['usage_pipeline_runs_failed_in_a_row{kind="refresh"}'] == 0


def test_what_is_not_known_yet_has_no_metric(tmp_path) -> None:
    settings = load_settings(write_config(tmp_path))
    assert samples(metrics_text(settings)) == {"usage_pipeline_builds_kept": 0, "usage_pipeline_incidents_open": 0}


def test_mails_that_failed_and_open_incidents_are_counted_and_nobody_is_named(tmp_path) -> None:
    settings = load_settings(write_config(tmp_path))
    make_folder(settings.home.mail_dir / "digests")
    said = {"failed": {"Jo Doe": "refused", "Al Roe": "refused"}, "without_address": ["Pat Poe"]}
    (settings.home.mail_dir / "digests" / "2025-02-24.json").write_text(json.dumps({"round": said}))
    incidents = [{"about": "runs", "ended_at": None}, {"about": "data", "ended_at": "2025-03-01T00:00:00+00:00"}]
    (settings.home.mail_dir / "incidents.json").write_text(json.dumps(incidents))
    text = metrics_text(settings)
    found = samples(text)
    assert found["usage_pipeline_digests_failed"] == 2
    assert found["usage_pipeline_digest_owners_without_address"] == 1
    assert found["usage_pipeline_incidents_open"] == 1
    assert not re.search(rb"Doe|Roe|Poe", text)


def test_nothing_is_written_unless_enabled(tmp_path) -> None:
    settings = load_settings(write_config(tmp_path))
    assert write_metrics(settings) is None
    assert not settings.home.metrics_path.exists()


def test_the_file_lies_beside_the_status_file_for_its_owner_alone(tmp_path) -> None:
    settings = load_settings(write_config(tmp_path, metrics={"enabled": True}))
    result = CliRunner().invoke(app, ["metrics", "--write", "-c", str(tmp_path / "sources.yaml")])
    assert result.exit_code == 0, result.output
    assert settings.home.metrics_path.parent == settings.home.status_path.parent.parent
    assert settings.home.metrics_path.stat().st_mode & 0o077 == 0
    assert samples(settings.home.metrics_path.read_bytes()) == samples(metrics_text(settings))


def test_a_file_for_a_collector_is_readable_for_it(tmp_path) -> None:
    settings = load_settings(write_config(tmp_path, metrics={"enabled": True, "file": "collector/usage.prom"}))
    file = write_metrics(settings)
    assert file == tmp_path / "collector" / "usage.prom"
    assert file.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in file.parent.iterdir()] == ["usage.prom"]


def test_a_file_that_cannot_be_written_says_which_and_the_remedy(tmp_path) -> None:
    (tmp_path / "taken").write_text("a file, no folder")
    settings = load_settings(write_config(tmp_path, metrics={"enabled": True, "file": "taken/usage.prom"}))
    with pytest.raises(MetricsError, match=r"taken/usage.prom: .*check metrics.file"):
        write_metrics(settings)


@pytest.mark.parametrize("file", ["metrics.txt", "s3://bucket/usage.prom"])
def test_a_file_that_no_collector_would_read_is_refused(tmp_path, file: str) -> None:
    with pytest.raises(ConfigError, match=r"metrics.*(end in \.prom|file of this machine)"):
        load_settings(write_config(tmp_path, metrics={"enabled": True, "file": file}))


def test_the_file_is_written_after_a_run_and_one_that_cannot_be_breaks_nothing(tmp_path, instance) -> None:
    (tmp_path / "taken").write_text("a file, no folder")
    run(instance, fails=True)
    record = instance.get_run_records(limit=1)[0].dagster_run
    failed = next(s for s in status_sensors(lambda: settings) if s.name == "status_after_failure")
    for file, is_written in (("usage.prom", True), ("taken/usage.prom", False)):
        settings = load_settings(write_config(tmp_path, metrics={"enabled": True, "file": file}))
        event = instance.all_logs(record.run_id, of_type=dg.DagsterEventType.PIPELINE_FAILURE)[-1].dagster_event
        assert event is not None
        failed(
            dg.build_run_status_sensor_context(
                sensor_name=failed.name, dagster_instance=instance, dagster_run=record, dagster_event=event
            )
        )
        assert (tmp_path / file).is_file() is is_written
        assert settings.home.status_path.exists()


def expressions(node: Any) -> list[str]:
    """Every query of a dashboard."""
    if isinstance(node, dict):
        own = [node["expr"]] if "expr" in node else []
        return own + [found for value in node.values() for found in expressions(value)]
    return [found for item in node for found in expressions(item)] if isinstance(node, list) else []


def test_every_metric_that_the_dashboard_draws_is_one_of_ours(tmp_path, instance) -> None:
    settings = load_settings(write_config(tmp_path))
    show_build(settings)
    make_folder(settings.home.mail_dir / "digests")
    last = {"round": {"failed": {}, "without_address": []}}
    (settings.home.mail_dir / "digests" / "2025-02-24.json").write_text(json.dumps(last))
    run(instance)
    made = {name.partition("{")[0] for name in status_of(settings, instance)}
    drawn = {name for query in expressions(json.loads(DASHBOARD.read_text())) for name in METRIC.findall(query)}
    of_facts = ("rows_rejected", "source_rows", "source_ingested_timestamp_seconds")
    assert len(drawn) > 15
    assert drawn - made <= {f"usage_pipeline_{name}" for name in of_facts}


def test_a_copy_that_is_silent_does_not_speak_for_the_installation(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("USAGE_DISABLE_NOTIFICATIONS", "1")
    settings = load_settings(write_config(tmp_path, metrics={"enabled": True, "file": "usage.prom"}))
    assert write_metrics(settings) == settings.home.metrics_path
    assert not (tmp_path / "usage.prom").exists()
