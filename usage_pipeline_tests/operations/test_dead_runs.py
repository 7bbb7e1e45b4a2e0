"""A run of the command line that was killed blocks nothing: it is noticed, and can be ended from the user interface."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path

import dagster as dg
import psutil
import pytest
import yaml
from dagster._core.launcher import WorkerStatus

from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.core.locks import file_lock
from usage_pipeline.core.processes import describe_this_process, has_ended
from usage_pipeline.ingestion.facts import facts_lock
from usage_pipeline.operations import local, run_launcher
from usage_pipeline_tests.support.lakes import event, write_config, write_week
from usage_pipeline_tests.support.servers import free_port

REPO = Path(__file__).parents[2]

# ---------------------------------------------------------------- which process


def test_a_process_is_known_by_its_place_its_id_and_the_moment_of_its_start() -> None:
    say = "from usage_pipeline.core.processes import describe_this_process as d; print(d(), flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", say], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPO
    )
    assert other.stdout is not None
    told = other.stdout.readline()
    assert has_ended(told) is False
    known = json.loads(told)
    assert has_ended(json.dumps(known | {"started": "1"})) is True, "its id is used again"
    assert has_ended(json.dumps(known | {"host": "another machine"})) is None
    other.kill()
    waited(lambda: psutil.Process(other.pid).status() == psutil.STATUS_ZOMBIE, 10)
    assert has_ended(told) is True, "it waits to be buried"
    other.wait()
    assert has_ended(told) is True
    assert has_ended(describe_this_process()) is False


@pytest.mark.parametrize("tag", ["", "12", "{}", "[]", '{"host": 1}'])
def test_a_tag_that_somebody_else_wrote_says_nothing_of_a_process(tag: str) -> None:
    @dg.job
    def refresh() -> None:
        pass

    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(refresh, tags={run_launcher.PROCESS_TAG: tag})
        assert run_launcher._process_has_ended(run) is None


def waited(holds: Callable[[], bool], seconds: float = 60) -> float:
    """Seconds until it holds."""
    begin = time.monotonic()
    while not holds():
        assert time.monotonic() < begin + seconds, "waited in vain"
        time.sleep(0.5)
    return time.monotonic() - begin


# ---------------------------------------------------------------- a refresh of the command line, on a home


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for week in (8, 9):
        write_week(tmp_path / "lake", f"year=2025/week={week:02}", [event(str(date.fromisocalendar(2025, week, 3)))])
    return write_config(tmp_path, schedule={"poll_interval_seconds": 5})


@contextmanager
def refreshing(config: Path, settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """`usage-pipeline refresh` in a process of its own, as long as it waits for what the body holds: a busy lake."""
    (settings.home.root / "facts").mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "usage_pipeline.cli", "refresh", "-c", str(config)]
    with file_lock(facts_lock(settings.home.facts_dir), 0, what="the facts", who="the test"):
        process = subprocess.Popen(command, cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            waited(lambda: has_started(settings))
            yield process
        finally:
            process.kill()
            process.wait()


def runs(settings: Settings) -> list[dg.DagsterRun]:
    """Newest first."""
    with dg.DagsterInstance.from_config(str(local.dagster_home(settings.home.root))) as instance:
        return list(instance.get_runs())


def has_started(settings: Settings) -> bool:
    return any(run.status == dg.DagsterRunStatus.STARTED for run in runs(settings))


def status_of(settings: Settings, run_id: str) -> dg.DagsterRunStatus:
    return next(run.status for run in runs(settings) if run.run_id == run_id)


@pytest.fixture
def settings(config: Path) -> Settings:
    return load_settings(config)


@pytest.mark.long
def test_a_refresh_that_was_killed_is_missed_at_once_and_its_end_can_be_asked_for(
    config: Path, settings: Settings
) -> None:
    with refreshing(config, settings) as process:
        with dg.DagsterInstance.from_config(str(local.dagster_home(settings.home.root))) as instance:
            (run,) = instance.get_runs()
            assert isinstance(instance.run_launcher, run_launcher.WatchedRunLauncher), "as in a deployment"
            for _ in range(2):
                assert instance.run_launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            found = instance.run_launcher.check_run_worker_health(run)
            assert found.status == WorkerStatus.NOT_FOUND
            assert "ended from outside" in str(found.msg)
            assert instance.run_coordinator.cancel_run(run.run_id), "what Terminate calls"
        assert status_of(settings, run.run_id) == dg.DagsterRunStatus.CANCELED


@pytest.mark.long
def test_a_refresh_of_the_command_line_ends_when_somebody_asks_for_it(config: Path, settings: Settings) -> None:
    with refreshing(config, settings) as process:
        with dg.DagsterInstance.from_config(str(local.dagster_home(settings.home.root))) as instance:
            (run,) = instance.get_runs()
            assert instance.run_coordinator.cancel_run(run.run_id)
        assert process.wait(timeout=30) == 1
        assert status_of(settings, run.run_id) == dg.DagsterRunStatus.CANCELED


@pytest.mark.soak
def test_after_a_killed_refresh_the_servers_go_on_by_themselves(
    config: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run of the killed process stayed "started": the sensor skipped for ever, and its place was never free."""
    monkeypatch.setenv("DAGSTER_PORT", str(free_port()))
    folder = settings.home.root / "run"
    with ExitStack() as servers:
        with refreshing(config, settings) as process:
            (dead,) = runs(settings)
            dagster = [
                s for s in local.services(settings.home, config, folder).values() if s.name != local.SUPERSET_SERVER
            ]
            for service in dagster:
                servers.callback(local.stop, folder, service.name, print)
            local.start(dagster, folder, print)
            waited(lambda: f"run {dead.run_id} is under way" in skipped(settings), 60)
            os.kill(process.pid, signal.SIGKILL)
        waited(lambda: status_of(settings, dead.run_id) == dg.DagsterRunStatus.FAILURE, 60)
        waited(lambda: runs(settings)[0].run_id != dead.run_id and runs(settings)[0].is_finished, 300)
        newest = runs(settings)[0]
        assert newest.tags["dagster/sensor_name"] == "lake_week_sensor"
        assert newest.status == dg.DagsterRunStatus.SUCCESS
        assert [len(runs(settings)), {service.name for service in dagster if service.answers()}] == [
            2,
            {local.CODE, local.DAEMON, local.WEBSERVER},
        ]
    assert not [name for name in local.SERVERS if local.running(folder, name)]
    assert not list(folder.glob("*.json")), "a stop forgets them all"


def skipped(settings: Settings) -> list[str]:
    """What the lake's sensor said of its latest look, where it asked for nothing."""
    with dg.DagsterInstance.from_config(str(local.dagster_home(settings.home.root))) as instance:
        states = [s for s in instance.all_instigator_state() if s.instigator_name == "lake_week_sensor"]
        return [
            str(tick.skip_reason)
            for state in states
            for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        ]


# ---------------------------------------------------------------- what local installations and deployments share


def test_the_instance_of_this_machine_and_that_of_a_deployment_watch_their_runs_alike() -> None:
    ours, deployed = (
        yaml.safe_load((REPO / folder / "dagster.yaml").read_text(encoding="utf-8"))
        for folder in ("", "deploy/dagster")
    )
    # a deployment says besides where its storage and its logs are
    assert ours == {name: deployed[name] for name in ours}
    assert ours["run_launcher"]["class"] == run_launcher.WatchedRunLauncher.__name__


def test_the_code_server_listens_where_nobody_else_may_enter(tmp_path: Path) -> None:
    for folder in (tmp_path / "run", tmp_path / ("long" * 30) / "run"):
        place = local._socket(folder)
        assert len(str(place)) < 104
        assert place.parent.stat().st_mode & 0o777 == 0o700
        assert local._socket(folder) == place
        place.parent.chmod(0o755)
        with pytest.raises(local.LocalError, match="can be entered by others: remove it"):
            local._socket(folder)
        place.parent.rmdir()
