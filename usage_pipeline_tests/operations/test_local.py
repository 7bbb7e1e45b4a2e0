"""The commands: servers started and stopped by their own ids, clear messages, a second time that changes nothing."""

import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from usage_pipeline.cli import app
from usage_pipeline.config.settings import load_settings
from usage_pipeline.operations import local
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.lakes import write_config
from usage_pipeline_tests.support.outcomes import MOMENT, record
from usage_pipeline_tests.support.servers import free_port

REPO = Path(__file__).parents[2]


def server(port: int, name: str = "server") -> local.Service:
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    return local.web_server(name, command, port, health="/", variable="SOME_PORT")


def test_a_server_is_started_once_and_stopped_by_its_own_id(tmp_path) -> None:
    said: list[str] = []
    one = server(free_port())
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        local.start([one], tmp_path, said.append)
        process = local.running(tmp_path, "server")
        assert process is not None
        local.start([one], tmp_path, said.append)
        assert said[-1] == "server runs already"
        assert local.running(tmp_path, "server") == process
        local.stop(tmp_path, "server", said.append)
        assert not psutil.pid_exists(process.pid) or process.status() == psutil.STATUS_ZOMBIE
        assert other.poll() is None, "nothing else was ended"
    finally:
        local.stop(tmp_path, "server", said.append)
        other.kill()
        other.wait()


def test_a_process_id_that_was_given_to_somebody_else_is_not_ended(tmp_path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        (tmp_path / "server.json").write_text(f'{{"pid": {other.pid}, "started": 1000000, "port": 1}}')
        local.stop(tmp_path, "server", print)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_what_a_server_that_was_killed_left_running_is_ended_and_a_strangers_session_is_not(tmp_path) -> None:
    child = "import subprocess, sys, time; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True); time.sleep(60)"
    left = []
    for place in (REPO, tmp_path):
        leader = subprocess.Popen(
            [sys.executable, "-c", child], cwd=place, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert leader.stdout is not None
        left.append(psutil.Process(int(leader.stdout.readline())))
        started = psutil.Process(leader.pid).create_time()
        leader.kill()
        leader.wait()
        (tmp_path / "server.json").write_text(f'{{"pid": {leader.pid}, "started": {started}, "port": 1}}')
        local.stop(tmp_path, "server", print)
    ours, theirs = left
    try:
        assert not ours.is_running() or ours.status() == psutil.STATUS_ZOMBIE
        assert theirs.is_running()
    finally:
        theirs.kill()


def test_a_busy_port_is_named_with_the_remedy(tmp_path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(local.LocalError, match=f"port {port}, wanted for server, is in use.*SOME_PORT={port + 1}"):
            local.start([server(port)], tmp_path, print)


def test_a_server_that_fails_shows_the_end_of_its_log(tmp_path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such thing')"]
    broken = local.web_server("broken", command, free_port(), health="/", variable="SOME_PORT")
    with pytest.raises(local.LocalError, match="no such thing"):
        local.start([broken], tmp_path, print, seconds=10)


def test_passwords_are_made_per_installation_and_readable_by_their_owner_only(tmp_path) -> None:
    one, two = local.demo_accounts(tmp_path / "a"), local.demo_accounts(tmp_path / "b")
    assert not {a["password"] for a in one} & {a["password"] for a in two}
    assert local.demo_accounts(tmp_path / "a") == one
    assert (tmp_path / "a" / local.ACCOUNTS).stat().st_mode & 0o077 == 0


@pytest.mark.long
def test_a_refresh_of_unchanged_data_runs_nothing_and_a_changed_lake_is_seen(demo: Demo) -> None:
    assert local.refresh(demo.settings, only_if_changed=True, say=print)
    said: list[str] = []
    assert local.refresh(demo.settings, only_if_changed=True, say=said.append)
    assert said[-1].startswith("nothing changed since build ")
    before = local.input_fingerprint(demo.settings)
    newest = sorted((demo.folder / "lake" / "usage").rglob("*.parquet"))[-1]
    times = newest.stat()
    os.utime(newest, ns=(times.st_atime_ns, times.st_mtime_ns + 1_000_000))
    try:
        assert local.input_fingerprint(demo.settings) != before
    finally:
        os.utime(newest, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(("variable", "value"), [("USAGE_DATE_FORMAT", "%d/%m/%Y"), ("USAGE_CURRENCY", "€")])
def test_another_form_of_days_or_money_is_a_change(tmp_path, monkeypatch, variable: str, value: str) -> None:
    settings = load_settings(write_config(tmp_path))
    before = local.input_fingerprint(settings)
    monkeypatch.setenv(variable, value)
    assert local.input_fingerprint(settings) != before


def test_of_outcomes_a_kind_that_moves_down_alone_is_a_change(tmp_path) -> None:
    settings = load_settings(write_config(tmp_path, as_of="2026-11-22"))
    said = [{"call_reason": "inactive", "is_useful": False, "why_not": "no problem"}]
    prints = [local.input_fingerprint(settings)]
    for n in range(21):
        record(settings.home.feedback_dir, f"A{n}", "a note", MOMENT + timedelta(minutes=n), useful=said)
        prints.append(local.input_fingerprint(settings))
    assert len(set(prints)) == 2
    assert prints.index(prints[-1]) == 20, "the twentieth answer moves it down; neither those before nor one after"


def test_builds_rollback_and_release_from_the_command_line(demo: Demo) -> None:
    config = ["-c", str(demo.folder / "sources.yaml")]
    runner = CliRunner()
    listed = runner.invoke(app, ["builds", *config])
    assert "data through the week of 2026-11-09  shown" in listed.output
    missing = runner.invoke(app, ["rollback", "99999", *config])
    assert missing.exit_code == 1
    assert "there is no build 99999; kept are: 00001-" in missing.output
    assert "is shown" in runner.invoke(app, ["rollback", "--release", *config]).output


def test_a_refresh_with_a_broken_configuration_says_what_is_wrong(tmp_path) -> None:
    config = write_config(tmp_path, timezone="Nowhere")
    done = CliRunner().invoke(app, ["refresh", "-c", str(config)])
    assert done.exit_code == 1
    assert "'Nowhere' is not a time zone" in done.output


def test_make_alone_lists_the_commands() -> None:
    done = subprocess.run(["make"], cwd=REPO, capture_output=True, text=True, check=True)
    for command in ("demo", "stop", "test", "soak", "check"):
        assert f"make {command} " in done.stdout


def test_a_wrong_python_is_named_with_the_remedy(tmp_path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\necho 3.9\n")
    old.chmod(0o755)
    done = subprocess.run(
        ["bash", "scripts/setup.sh"],
        cwd=REPO,
        env=os.environ | {"PYTHON": str(old)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "is Python 3.9, and 3.11 is needed" in done.stderr
