"""Alerts, against a real mail server and a real webhook: one message when an incident begins, one when it is over."""

import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
import yaml
from typer.testing import CliRunner

from usage_pipeline.cli import app
from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.definitions import build_definitions
from usage_pipeline.defs.notifications.sensors import alert_sensor, digest_retry
from usage_pipeline.notifications import digest
from usage_pipeline.notifications.alerts import look, raise_alerts
from usage_pipeline.observability.health import RUNS_SHOWN
from usage_pipeline.observability.monitors import status_rows
from usage_pipeline.observability.status import write_status
from usage_pipeline_tests.support.fake_smtp import FakeSmtp, Webhook, serving_mail, serving_webhook
from usage_pipeline_tests.support.lakes import event, write_config, write_week
from usage_pipeline_tests.support.refreshes import run_refresh

pytestmark = pytest.mark.long

NOW = datetime(2025, 3, 5, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home after one good run. Nobody changes it."""
    folder = tmp_path_factory.mktemp("alerts")
    for number in range(7, 10):
        week = date.fromisocalendar(2025, number, 1)
        write_week(folder / "lake", f"year=2025/week={number:02d}", [event(str(week))])
    settings = load_settings(write_config(folder))
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_refresh(settings, instance).success
        write_status(settings.home, settings.clock, settings.sources, instance)
    return folder


@pytest.fixture
def office() -> Iterator[FakeSmtp]:
    with serving_mail() as found:
        yield found


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with serving_webhook() as found:
        yield found


@pytest.fixture
def config(made: Path, tmp_path: Path, office: FakeSmtp, hook: Webhook) -> Path:
    shutil.copytree(made, tmp_path / "copy", symlinks=True)
    file = tmp_path / "copy" / "sources.yaml"
    mail = {
        "host": "127.0.0.1",
        "port": office.port,
        "security": "none",
        "from_address": "usage@example.com",
        "pages_url": "https://usage.example.com",
        "alerts": ["data@example.com"],
        "webhook": hook.url,
    }
    changed(file, mail=mail)
    return file


def changed(config: Path, **changes: Any) -> Settings:
    content = yaml.safe_load(config.read_text(encoding="utf-8")) | changes
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_settings(config)


def mail_of(config: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(config.read_text(encoding="utf-8"))["mail"]
    return found


def tick(config: Path) -> str:
    """A look of the sensor; returns what it says in the Dagster UI."""
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance)
        found = alert_sensor(lambda: load_settings(config)).evaluate_tick(context)
    return str(found.skip_message)


@pytest.mark.soak
def test_stale_data_is_told_once_and_once_when_it_is_over(config: Path, office: FakeSmtp, hook: Webhook) -> None:
    assert tick(config) == "nothing to tell"
    changed(config, as_of="2025-03-20")
    assert "data-" in tick(config)
    assert tick(config) == "nothing to tell", "nothing while it lasts"
    (mail,) = office.to("data@example.com")
    text = mail.get_content()
    assert mail["Subject"].startswith("Test: data: complete through the week of 2025-02-24, expected 2025-03-10")
    for words in (
        "What to do: see whether the lake has it (`usage-pipeline sources check`)",
        "The pages show build 00001-",
        "https://usage.example.com/superset/dashboard/health/",
        "Incident data-",
    ):
        assert words in text
    (posted,) = hook.bodies
    assert (posted["state"], posted["level"], posted["about"], posted["installation"]) == (
        "open",
        "failed",
        "data",
        "Test",
    )
    assert posted["incident"] in text
    changed(config, as_of="2025-03-05")
    tick(config)
    assert tick(config) == "nothing to tell"
    assert [mail["Subject"] for mail in office.mails][1:] == ["Test: data well again"]
    assert [body["state"] for body in hook.bodies] == ["open", "over"]
    assert hook.bodies[1]["incident"] == posted["incident"]


def test_a_failed_run_is_told_with_its_cause_and_the_numbers_that_stand(config: Path, office: FakeSmtp) -> None:
    settings = load_settings(config)
    settings.home.models_dir.rename(config.parent / "models")
    settings.home.models_dir.write_text("in the way")
    with dg.DagsterInstance.ephemeral() as instance:
        assert not run_refresh(settings, instance).success
        write_status(settings.home, settings.clock, settings.sources, instance)
        tick(config)
        tick(config)
        (mail,) = office.mails
        assert "runs: the last run failed on" in mail["Subject"]
        assert "none has ever succeeded: " in mail.get_content()
        assert "complete through the week of 2025-02-24" in mail.get_content()
        settings.home.models_dir.unlink()
        assert run_refresh(settings, instance).success
        write_status(settings.home, settings.clock, settings.sources, instance)
    tick(config)
    assert [mail["Subject"] for mail in office.mails][1:] == ["Test: runs well again"]


def test_a_run_that_sends_digests_mends_no_refresh_that_failed(config: Path, office: FakeSmtp) -> None:
    settings = load_settings(config)
    settings.home.models_dir.rename(config.parent / "models")
    settings.home.models_dir.write_text("in the way")
    definitions = build_definitions(settings)
    sends = definitions.resolve_job_def("send_digests")
    with dg.DagsterInstance.ephemeral() as instance:
        failed = run_refresh(settings, instance)
        assert not failed.success
        assert sends.execute_in_process(instance=instance).success
        for _ in range(RUNS_SHOWN + 5):
            instance.create_run_for_job(sends, status=dg.DagsterRunStatus.SUCCESS)
        write_status(settings.home, settings.clock, settings.sources, instance)
        assert "runs-" in tick(config)
        assert tick(config) == "nothing to tell"
        (mail,) = office.mails
        assert f"run {failed.run_id[:8]} in the Dagster UI" in mail.get_content()
        (health,) = status_rows(settings.home.status_path, "FROM status.health")
        assert health["summary"] == "The last run failed: older numbers stay up"
        sensor = definitions.resolve_sensor_def("lake_week_sensor")
        with dg.build_sensor_context(instance=instance) as context:
            asked: Any = sensor(context)
        assert len(asked.run_requests) == 1, "it is tried again"


def test_an_alarm_that_one_of_several_does_not_take_is_told_to_the_others_and_said(
    config: Path, office: FakeSmtp
) -> None:
    changed(config, as_of="2025-03-20", mail=mail_of(config) | {"alerts": ["gone@example.com", "data@example.com"]})
    office.refused.add("gone@example.com")
    office.refusal = "450 come again later"
    said = tick(config)
    assert "told by mail to data@example.com" in said
    assert "could not be told by mail to gone@example.com: " in said
    office.refusal = "550 no such user here"
    assert "550 no such user here: correct the address" in tick(config), "it is tried again"
    assert "gone@example.com" not in tick(config), "but not where nobody is there"
    assert len(office.mails) == len(office.to("data@example.com")) == 1


def test_an_alarm_that_nobody_takes_is_not_given_up(config: Path, office: FakeSmtp) -> None:
    changed(config, as_of="2025-03-20", mail=mail_of(config) | {"webhook": None})
    office.refused.add("data@example.com")
    for _ in range(3):
        assert "could not be told by mail to data@example.com" in tick(config)


def test_a_check_or_a_table_made_by_hand_mends_no_refresh_that_failed(config: Path) -> None:
    settings = load_settings(config)
    job = build_definitions(settings).resolve_job_def("refresh")
    with dg.DagsterInstance.ephemeral() as instance:
        table, check = dg.AssetKey("weeks"), dg.AssetCheckKey(dg.AssetKey("weeks"), "the_newest_week_has_arrived")
        by_hand = (frozenset({table}), frozenset({check})), (None, frozenset({check}))
        for assets, checks in by_hand:
            made = dg.DagsterRun("refresh", str(uuid4()), asset_selection=assets, asset_check_selection=checks)
            instance.add_run(made.with_status(dg.DagsterRunStatus.SUCCESS))
        write_status(settings.home, settings.clock, settings.sources, instance)
        assert {row["run_kind"] for row in status_rows(settings.home.status_path, "FROM status.runs")} == {
            "single tables"
        }
        assert job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("published_build")]).success
        unlucky = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTING)
        instance.report_run_failed(unlucky)
        write_status(settings.home, settings.clock, settings.sources, instance)
    (found,) = [finding for finding in look(settings, NOW) if finding.about == "runs"]
    assert "the last run failed" in found.words, "also one that could not be started"


def test_what_could_not_be_told_is_told_at_the_next_look_by_that_channel_alone(
    config: Path, office: FakeSmtp, hook: Webhook
) -> None:
    hook.answer = 500
    changed(config, as_of="2025-03-20")
    said = tick(config)
    assert "the webhook at 127.0.0.1 answers 500: correct mail.webhook" in said
    assert "secret-part" not in said
    hook.answer = 200
    tick(config)
    assert (len(office.mails), len(hook.bodies)) == (1, 1)


def test_a_mail_server_that_is_away_is_waited_for_once_a_look(config: Path, hook: Webhook) -> None:
    changed(
        config, as_of="2025-03-20", mail=mail_of(config) | {"port": 1, "alerts": ["a@example.com", "b@example.com"]}
    )
    said = tick(config)
    assert said.count("could not be told by mail to") == 1
    assert [body["state"] for body in hook.bodies] == ["open"]


def test_a_copy_that_is_told_to_be_silent_writes_to_nobody(
    config: Path, office: FakeSmtp, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USAGE_DISABLE_NOTIFICATIONS", "1")
    settings = changed(config, as_of="2025-03-20")
    assert "nobody is told" in tick(config)
    assert "nobody is written to" in digest.send_digests(settings, print).not_sent_because
    assert (office.mails, hook.bodies) == ([], [])
    assert settings.mail.pages_url is not None, "a preview can still be written"


def test_of_what_was_over_before_it_could_be_told_nothing_is_told(
    config: Path, office: FakeSmtp, hook: Webhook
) -> None:
    hook.answer = 500
    changed(config, as_of="2025-03-20")
    tick(config)
    changed(config, as_of="2025-03-05")
    hook.answer = 200
    tick(config)
    assert (len(office.mails), hook.bodies) == (2, [])


def test_a_look_at_something_else_ends_nothing(config: Path, office: FakeSmtp) -> None:
    settings = changed(config, as_of="2025-03-20")
    raise_alerts(
        settings.home, settings.mail, settings.notify, settings.name, look(settings, NOW), ("data", "runs"), NOW, print
    )
    raise_alerts(settings.home, settings.mail, settings.notify, settings.name, [], ("servers",), NOW, print)
    raise_alerts(
        settings.home, settings.mail, settings.notify, settings.name, look(settings, NOW), ("data", "runs"), NOW, print
    )
    assert len(office.mails) == 1


def test_a_refresh_that_was_due_and_never_came_is_told_though_none_failed(config: Path, office: FakeSmtp) -> None:
    settings = changed(config, as_of=None)
    weeks_later = datetime.now(UTC) + timedelta(days=15)
    # in the hours after the next refresh was due, that one may still come
    weeks_later += timedelta(days=3 - weeks_later.weekday())
    raise_alerts(
        settings.home,
        settings.mail,
        settings.notify,
        settings.name,
        look(settings, weeks_later),
        ("runs",),
        weeks_later,
        print,
    )
    (mail,) = office.mails
    assert "none has succeeded since the refresh that was due" in mail["Subject"]
    assert "What to do: see that Dagster runs" in mail.get_content()


def test_the_doctor_tells_where_dagster_is_down(config: Path, office: FakeSmtp) -> None:
    changed(config, as_of="2025-03-20")
    for _ in range(2):
        done = CliRunner().invoke(app, ["doctor", "--alert", "-c", str(config)])
        assert done.exit_code == 1
    assert len(office.mails) == 1
    changed(config, mail={})
    done = CliRunner().invoke(app, ["doctor", "--alert", "-c", str(config)])
    assert "nobody is told: the configuration names no mail.host" in done.output


def test_digests_that_failed_are_asked_for_again(config: Path) -> None:
    schedule = digest_retry(lambda: load_settings(config))

    def asked() -> Any:
        with dg.build_schedule_context() as context:
            return schedule.evaluate_tick(context)

    def failed(**refused: str) -> None:
        with digest._remembered(settings.home.mail_dir, "2025-02-24") as memory:
            memory["round"] = {"failed": {"Ana": "could not be sent"}, "refused": refused}

    def asks() -> bool:
        return bool(asked().run_requests)

    settings = changed(config, mail=mail_of(config) | {"recipients": {"Ana": "ana@example.com"}})
    assert "every digest was sent" in asked().skip_message
    failed()
    assert asks()
    changed(config, as_of="2025-03-20")
    assert not asks(), "nothing old is sent"
    changed(config, as_of="2025-03-05")
    failed(Ana="ana@example.com")
    assert not asks(), "a mailbox that is not known is left alone"
    changed(config, mail=mail_of(config) | {"recipients": {"Ana": "ana.ruiz@example.com"}})
    assert asks(), "until it is another one"
    changed(config, mail=mail_of(config) | {"recipients": {}})
    assert not asks()
    assert schedule.job_name == "send_digests"
