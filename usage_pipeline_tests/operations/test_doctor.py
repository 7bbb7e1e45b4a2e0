"""`usage-pipeline doctor`: what is down, stale, broken or short is named with its remedy; `--restart` mends servers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import psutil
import pytest
import yaml
from typer.testing import CliRunner

from usage_pipeline.cli import app
from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.core.locks import LockTimeoutError, file_lock
from usage_pipeline.observability.monitors import check_runs, last_tick
from usage_pipeline.observability.status import write_status
from usage_pipeline.operations import doctor, local
from usage_pipeline.publishing.builds import store_of
from usage_pipeline_tests.support.lakes import event, write_config, write_week
from usage_pipeline_tests.support.refreshes import run_refresh
from usage_pipeline_tests.support.servers import free_port

pytestmark = pytest.mark.long

# a Wednesday: the week before has been whole since Tuesday
NOW = datetime(2025, 3, 5, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two builds and a status file. Nobody changes it."""
    folder = tmp_path_factory.mktemp("doctor")
    for number in range(5, 10):
        week = date.fromisocalendar(2025, number, 1)
        write_week(folder / "lake", f"year=2025/week={number:02d}", [event(str(week), clicks=number)])
    config = write_config(folder)
    before = os.umask(0o077)  # as every command sets it
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_refresh(load_settings(config), instance).success
        write_week(folder / "lake", "year=2025/week=09", [event("2025-02-25", clicks=3)])
        assert run_refresh(load_settings(config), instance).success
        settings = load_settings(config)
        write_status(settings.home, settings.clock, settings.sources, instance)
    os.umask(before)
    return folder


@pytest.fixture
def config(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy" / "sources.yaml"


def changed(config: Path, **changes: Any) -> Settings:
    """The configuration with other top-level keys."""
    content = yaml.safe_load(config.read_text(encoding="utf-8")) | changes
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_settings(config)


def findings(config: Path, level: str = "failed", now: datetime = NOW) -> list[str]:
    return [str(found) for found in doctor.examine(load_settings(config), config, now) if found.level == level]


def run_doctor(config: Path, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["doctor", "-c", str(config), *options])
    return done.exit_code, done.output


def test_a_sound_installation_passes_with_a_line_for_everything(config: Path) -> None:
    code, said = run_doctor(config)
    assert code == 0, said
    for words in (
        "superset was not started here, or was stopped: not watched",
        "complete through the week of 2025-02-24, the newest that can be by 2025-03-05",
        "the last run succeeded",
        "none is quarantined",
        "is shown and keeps its schema; 2 of 2 open",
        "free at",
        "reading may use 1.0 GB (ingest.memory_mb)",
    ):
        assert words in said
    assert "failed" not in said


def test_nothing_at_all_fails_with_the_first_step(tmp_path: Path) -> None:
    code, said = run_doctor(write_config(tmp_path))
    assert code == 1
    assert "no refresh is on record: run `usage-pipeline refresh`" in said
    assert "builds    there is none: run `usage-pipeline refresh`" in said


# ---------------------------------------------------------------- servers

# answers until a file is there; then it runs on and says nothing, as a server that hangs
SERVER = """
import http.server, pathlib, subprocess, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        while pathlib.Path(sys.argv[2]).exists():
            time.sleep(0.2)
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def servers(config: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, local.Service]]:
    """Two real servers, started as `up` starts its own; small ones, so that a test can end them often."""
    ports = {"dagster-webserver": free_port(), "superset": free_port()}

    def small(home: DataHome, config: Path, folder: Path) -> dict[str, local.Service]:
        def one(name: str) -> local.Service:
            command = [sys.executable, "-c", SERVER, str(ports[name]), str(folder / f"{name}.hangs")]
            return local.web_server(name, command, ports[name], health="/health", variable="SOME_PORT")

        return {name: one(name) for name in ports}

    monkeypatch.setattr(local, "services", small)
    monkeypatch.setattr(doctor, "_PATIENCE_SECONDS", 5)
    settings = load_settings(config)
    folder = settings.home.root / "run"
    made = small(settings.home, config, folder)
    local.start(made.values(), folder, print)
    yield made
    for hang in folder.glob("*.hangs"):
        hang.unlink()
    for name in ports:
        local.stop(folder, name, print)


def pid_of(config: Path, name: str) -> int:
    process = local.running(load_settings(config).home.root / "run", name)
    assert process is not None
    return process.pid


def test_a_server_that_was_killed_is_named_and_started_again(config: Path, servers: dict[str, local.Service]) -> None:
    code, said = run_doctor(config)
    assert code == 0, said
    killed, other = pid_of(config, "superset"), pid_of(config, "dagster-webserver")
    (child,) = psutil.Process(killed).children()
    os.kill(killed, signal.SIGKILL)
    psutil.Process(killed).wait(5)
    code, said = run_doctor(config)
    assert code == 1
    assert "failed   servers   superset is down: its process has ended" in said
    assert "`usage-pipeline doctor --restart` starts it again; its log: " in said
    assert "dagster-webserver answers at" in said
    assert child.is_running(), "what it left behind still runs"

    code, said = run_doctor(config, "--restart")
    assert code == 0, said
    assert "superset answers at" in said
    assert pid_of(config, "superset") != killed
    assert pid_of(config, "dagster-webserver") == other, "one that answers is left alone"
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_server_that_hangs_counts_as_down_and_is_ended_before_it_starts_again(
    config: Path, servers: dict[str, local.Service]
) -> None:
    folder = load_settings(config).home.root / "run"
    hung = pid_of(config, "dagster-webserver")
    (folder / "dagster-webserver.hangs").touch()
    starting = findings(config, "warning")
    assert any("dagster-webserver does not answer yet: it was started" in line for line in starting), (
        "it may be on its way"
    )
    stamp = folder / "dagster-webserver.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "_START_SECONDS", 1)
        (line,) = [line for line in findings(config) if "servers" in line]
        assert f"dagster-webserver is down: process {hung} runs, and does not answer at http://127.0.0.1:" in line
        # it comes back when it is started anew
        settings = load_settings(config)
        said: list[str] = []

        def say(line: str) -> None:
            said.append(line)
            (folder / "dagster-webserver.hangs").unlink(missing_ok=True)

        assert doctor.restart(settings.home, config, say) == []
    assert said[0] == "dagster-webserver stopped"
    assert not psutil.pid_exists(hung) or psutil.Process(hung).status() == psutil.STATUS_ZOMBIE
    assert stamp.exists()
    assert [line for line in findings(config) if "servers" in line] == []


def test_one_that_does_not_come_up_again_stays_named_and_two_doctors_take_turns(
    config: Path, servers: dict[str, local.Service]
) -> None:
    settings, folder = load_settings(config), load_settings(config).home.root / "run"
    with file_lock(folder / "restart.lock", 0, what="restarting", who="another"), pytest.raises(LockTimeoutError):
        doctor.restart(settings.home, config, print)
    killed = pid_of(config, "superset")
    os.kill(killed, signal.SIGKILL)
    psutil.Process(killed).wait(5)
    local.stop(folder, "nothing of this name", print)
    for left in local._left_behind(folder, "superset"):
        left.kill()
    taken = subprocess.Popen(
        [sys.executable, "-m", "http.server", str(servers["superset"].port), "--bind", "127.0.0.1"]
    )
    try:
        time.sleep(1)
        code, said = run_doctor(config, "--restart")
        assert code == 1
        assert "superset could not be started again: port" in said
        assert "superset is down: its process has ended" in said, "somebody else's answer is not its own"
    finally:
        taken.kill()
        taken.wait()
    code, said = run_doctor(config, "--restart")
    assert code == 0, said


def test_a_server_that_was_stopped_is_not_started_again(config: Path, servers: dict[str, local.Service]) -> None:
    folder = load_settings(config).home.root / "run"
    local.stop(folder, "superset", print)
    code, said = run_doctor(config, "--restart")
    assert code == 0, said
    assert "superset was not started here, or was stopped: not watched" in said
    assert local.running(folder, "superset") is None


def test_a_server_that_died_keeps_its_port_unless_another_is_asked_for(tmp_path: Path) -> None:
    settings = load_settings(write_config(tmp_path))
    folder = settings.home.root / "run"
    folder.mkdir(parents=True)
    (folder / "superset.json").write_text(json.dumps({"pid": 4_000_000, "started": 1.0, "port": 12345}))
    assert local.services(settings.home, tmp_path / "sources.yaml", folder)["superset"].port == 12345
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUPERSET_PORT", "12346")
        assert local.services(settings.home, tmp_path / "sources.yaml", folder)["superset"].port == 12346


# ---------------------------------------------------------------- data, runs, checks


def test_old_data_is_warned_of_and_older_data_fails(config: Path) -> None:
    changed(config, as_of="2025-03-11")  # the week of 3 March counts as whole since today
    assert not findings(config)
    assert any("the next run takes it in" in line for line in findings(config, "ok"))
    changed(config, as_of="2025-03-13")
    (line,) = findings(config, "warning")
    assert "complete through the week of 2025-02-24, expected 2025-03-03 (2 days ago)" in line
    changed(config, as_of="2025-03-20")
    (line,) = findings(config)
    assert "no run has taken the weeks since in: see whether the lake has it" in line


def test_a_refresh_that_was_due_and_did_not_come_is_told_where_the_clock_rules(config: Path) -> None:
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    del content["as_of"]
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    settings = load_settings(config)
    soon, late = datetime.now(UTC), datetime.now(UTC) + timedelta(days=9)
    assert [f.level for f in check_runs(settings.home.status_path, settings.clock, settings.schedule, soon)] == ["ok"]
    ok, missed = check_runs(settings.home.status_path, settings.clock, settings.schedule, late)
    assert (ok.level, missed.level) == ("ok", "warning")
    assert "none has succeeded since the refresh that was due" in missed.words
    tick = last_tick(settings.timezone, settings.schedule, datetime(2025, 3, 5, 12, tzinfo=UTC))
    assert tick == datetime(2025, 3, 3, 6, tzinfo=UTC), "Mondays at 06:00"


def test_a_failed_run_a_failed_check_and_files_set_aside_are_told_with_their_cause(config: Path) -> None:
    folder = config.parent
    (folder / "lake" / "year=2025" / "week=09" / "part-1.parquet").write_bytes(b"PAR1 cut off")
    settings = load_settings(config)
    (settings.home.models_dir).rename(folder / "models")
    settings.home.models_dir.write_text("in the way")
    with dg.DagsterInstance.ephemeral() as instance:
        assert not run_refresh(settings, instance).success
        write_status(settings.home, settings.clock, settings.sources, instance)
    code, said = run_doctor(config)
    assert code == 1
    assert "failed   runs      the last run failed" in said
    assert "risk_models: " in said
    assert "did not pass: no quarantined file (usage facts)" in said
    assert "quarantined, so the week of 2025-02-24 is incomplete: " in said
    assert "part-1.parquet: cannot be read" in said


# ---------------------------------------------------------------- builds, disk, memory


def test_a_link_that_leads_nowhere_fails_and_the_remedy_mends_it(config: Path) -> None:
    settings = load_settings(config)
    store = store_of(settings.home, settings.publish)
    shown = store.current()
    assert shown is not None
    store.link.unlink()
    store.link.symlink_to("00009-gone")
    code, said = run_doctor(config)
    assert code == 1
    assert f"the link {store.link} leads nowhere: pages show errors: `usage-pipeline rollback {shown.build_id}`" in said
    CliRunner().invoke(app, ["rollback", shown.build_id, "-c", str(config)])
    assert "a rollback holds" in " ".join(findings(config, "warning"))
    CliRunner().invoke(app, ["rollback", "--release", "-c", str(config)])
    assert not any("builds" in line for line in findings(config))


def test_a_build_that_is_broken_fails_where_it_is_shown_and_warns_where_it_is_kept(config: Path) -> None:
    settings = load_settings(config)
    store = store_of(settings.home, settings.publish)
    before, shown = store.builds()
    (store.path(before.build_id) / "contacts.duckdb").unlink()
    (line,) = findings(config, "warning")
    assert f"{before.build_id}, is broken: contacts.duckdb is missing: it cannot be rolled back to" in line
    file = store.path(shown.build_id) / "warehouse.duckdb"
    file.chmod(0o600)
    with duckdb.connect(str(file)) as connection:
        connection.execute("ALTER TABLE mart.growth DROP COLUMN number")
    (line,) = findings(config)
    assert f"{shown.build_id}, which pages read, is broken: columns of mart.growth are not those" in line
    file.write_bytes(b"no database")
    assert any("warehouse.duckdb cannot be read" in line for line in findings(config))


def test_a_disk_that_is_too_full_fails_with_the_settings_that_say_so(config: Path) -> None:
    free = shutil.disk_usage(config.parent).free // 1_000_000
    changed(config, doctor={"minimum_free_mb": free + 100_000})
    (line,) = findings(config)
    assert line.startswith("failed   disk")
    assert "make room, keep fewer builds (publish.keep_builds)" in line
    changed(config, doctor={"minimum_free_mb": int(free * 0.7)})
    assert any("disk" in line for line in findings(config, "warning"))
    changed(config, doctor={"minimum_free_mb": 1, "free_builds": 10_000_000})
    (line,) = findings(config)
    assert "(10000000 builds of " in line


def test_little_memory_is_told(config: Path) -> None:
    whole = psutil.virtual_memory().total // 1_000_000
    changed(config, ingest={"memory_mb": whole * 2})
    (line,) = findings(config, "warning")
    assert "end something else, or lower ingest.memory_mb" in line
    changed(config, ingest={"memory_mb": whole * 2}, doctor={"minimum_memory_mb": whole * 2})
    assert any("memory" in line for line in findings(config))
