"""What of the deployment can be tried without an engine: secrets, addresses, locks, and backups of a data home."""

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import dagster as dg
import duckdb
import pytest
import start
import yaml
from dagster._core.launcher import WorkerStatus
from typer.testing import CliRunner

from usage_pipeline.cli import app
from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.core.locks import LockTimeoutError, file_lock
from usage_pipeline.ingestion.facts import facts_lock
from usage_pipeline.observability.status import write_status
from usage_pipeline.operations import backup, local, run_launcher
from usage_pipeline.operations.backup import BackupError, back_up, restore
from usage_pipeline.publishing.builds import BuildStore
from usage_pipeline_tests.support.lakes import event, write_config, write_week
from usage_pipeline_tests.support.refreshes import run_refresh
from usage_pipeline_tests.support.servers import free_port

REPO = Path(__file__).parents[2]

# ---------------------------------------------------------------- what containers start with


def test_a_secret_comes_from_the_file_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "word").write_text("p@ss/word\n", encoding="utf-8")
    environment = {"DAGSTER_DB_PASSWORD_FILE": str(tmp_path / "word"), "PATH_FILE": "/left/alone"}
    start.read_files(environment)
    start.make_addresses(environment, start._OF_PIPELINE)
    assert environment["DAGSTER_POSTGRES_URL"] == "postgresql+psycopg2://dagster:p%40ss%2Fword@postgres:5432/dagster"
    assert "PATH" not in environment


def test_a_file_that_cannot_be_read_or_a_secret_said_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(start.MissingError, match=r"REDIS_PASSWORD_FILE names .*No such file"):
        start.read_files({"REDIS_PASSWORD_FILE": str(tmp_path / "none")})
    (tmp_path / "word").write_text("x", encoding="utf-8")
    with pytest.raises(start.MissingError, match="REDIS_PASSWORD and REDIS_PASSWORD_FILE are both set"):
        start.read_files({"REDIS_PASSWORD_FILE": str(tmp_path / "word"), "REDIS_PASSWORD": "y"})


def test_every_secret_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(start.MissingError) as refused:
        start.make_addresses({}, start._OF_SUPERSET)
    assert "REDIS_PASSWORD is not set" in str(refused.value)
    assert "SUPERSET_DB_PASSWORD is not set" in str(refused.value)


def test_an_address_that_is_given_whole_wins() -> None:
    environment = {name: f"{name.lower()}://elsewhere" for name, _, _ in start._OF_SUPERSET}
    start.make_addresses(environment, start._OF_SUPERSET)
    assert environment["SUPERSET_METADATA_URI"] == "superset_metadata_uri://elsewhere"


def test_the_demo_and_other_data_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "DEMO", tmp_path / "demo")
    named = {start.CONFIG: str(tmp_path / "sources.yaml")}
    assert start.configuration(named) == tmp_path / "sources.yaml"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "sources.yaml").write_text("", encoding="utf-8")
    assert start.configuration(named) == tmp_path / "demo" / "sources.yaml"
    (tmp_path / "sources.yaml").write_text("", encoding="utf-8")
    with pytest.raises(start.MissingError, match="these volumes hold the demo"):
        start.configuration(named)


def pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE))


def test_the_image_s_lock_is_the_pipeline_s_without_the_tools_of_development() -> None:
    ours, images = pins(REPO / "requirements.lock"), pins(REPO / "deploy" / "requirements.lock")
    assert images.items() <= ours.items(), "`make lock` writes both"
    assert {"pytest", "mypy", "moto", "playwright"} <= ours.keys() - images.keys()


def test_no_secret_has_a_default_and_the_example_names_every_one() -> None:
    text = (REPO / "docker-compose.yml").read_text(encoding="utf-8")
    assert not re.findall(r"\$\{\w*(?:PASSWORD|SECRET\w*|KEY):-[^}]", text)
    required = set(re.findall(r"\$\{(\w+):\?", text))
    example = (REPO / ".env.example").read_text(encoding="utf-8")
    assert required == set(re.findall(r"^(\w+)=$", example, re.MULTILINE)) & required
    used = set(re.findall(r"\$\{(\w+)", text)) - {"USAGE_VERSION", "USAGE_CONFIG_PATIENCE", "NAME"}
    missing = {name for name in used if not re.search(rf"^#? ?{name}=", example, re.MULTILINE)}
    assert not missing, "each setting stands in .env.example"


def test_the_key_of_contacts_is_known_to_those_who_open_contacts_and_to_no_other() -> None:
    """The pipeline, which writes them, and the servers that show them: no worker, no set-up, no page of Dagster."""
    services = yaml.safe_load((REPO / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    with_key = {name for name, said in services.items() if "USAGE_CONTACTS_KEY" in (said.get("environment") or {})}
    assert with_key == {"code", "superset", "api"}
    assert (
        services["code"]["environment"]["USAGE_PIPELINE_CONFIG"] and services["superset"]["environment"]["USAGE_STATUS"]
    )


def test_the_read_api_sees_builds_outcomes_and_tokens_alone_and_writes_nothing() -> None:
    services = yaml.safe_load((REPO / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    api = services["api"]
    assert set(api["volumes"]) == {"published:/data/published:ro", "outcomes:/data/outcomes:ro", "api:/data/api:ro"}
    assert set(api["environment"]) == {"USAGE_CONTACTS_KEY", "USAGE_API_PER_MINUTE"}, "no secret of a database or lake"
    assert api["networks"] == ["outer"], "no database is within its reach"
    assert (api["read_only"], api["cap_drop"], api["profiles"]) == (True, ["ALL"], ["api"])
    assert api["ports"] == ["${USAGE_BIND:-127.0.0.1}:${API_PORT:-8090}:8090"]
    writers = {name for name, said in services.items() if "api:/data/api" in (said.get("volumes") or [])}
    assert writers == {"code"}, "`docker compose exec code usage tokens add` makes tokens"


def test_the_read_api_starts_without_any_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(start, "PIPELINE", tmp_path)
    monkeypatch.setattr(start, "become", lambda command, _: became.append([str(word) for word in command]))
    for name in ("DAGSTER_DB_PASSWORD", "DAGSTER_POSTGRES_URL", "USAGE_API_PER_MINUTE"):
        monkeypatch.delenv(name, raising=False)
    assert start.main(["api"]) == 0
    assert became[0][1:4] == ["api", "--home", "/data"]
    assert "--behind-https" in became[0]


def test_the_form_alone_writes_what_people_record() -> None:
    """Superset's server writes the folder, the pipeline reads it, nobody else sees it; and Superset writes nothing else."""
    services = yaml.safe_load((REPO / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    mounts = {name: said.get("volumes") or [] for name, said in services.items()}
    assert {name for name, found in mounts.items() if "feedback:/data/feedback" in found} == {"superset"}
    assert {name for name, found in mounts.items() if "feedback:/data/feedback:ro" in found} == {"code", "demo"}
    of_superset = [mount for name in ("superset", "worker", "beat", "superset-set-up") for mount in mounts[name]]
    assert {mount for mount in of_superset if not mount.endswith(":ro")} == {"feedback:/data/feedback"}


def test_a_restore_gives_the_form_its_outcomes_by_superset_before_anybody_can_record() -> None:
    script = (REPO / "deploy" / "restore.sh").read_text(encoding="utf-8")
    steps = [
        "code restore -",
        "code outcomes export |",
        "superset bring-back-outcomes",
        "docker compose up -d --wait\n",
    ]
    assert [script.index(step) for step in steps] == sorted(script.index(step) for step in steps)
    assert "set -euo pipefail" in script, "records that were cut off fail it"
    assert '"bring-back-outcomes"' in (REPO / "deploy" / "start.py").read_text(encoding="utf-8")


def test_make_env_writes_random_secrets_for_its_owner_only(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    for name in ("deploy/make-env.sh", ".env.example"):
        (tmp_path / name).write_bytes((REPO / name).read_bytes())
    run = ["bash", str(tmp_path / "deploy" / "make-env.sh")]
    subprocess.run(run, check=True, capture_output=True)
    written = dict(
        line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines() if re.match(r"\w+=", line)
    )
    secret = [
        v for k, v in written.items() if k.endswith(("_PASSWORD", "SECRET_KEY")) and not k.startswith("USAGE_SMTP")
    ]
    assert len(secret) == len(set(secret)) == 6
    assert all(len(value) >= 40 for value in secret)
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "config").stat().st_mode & 0o777 == 0o755, "read by a user of the container"
    again = subprocess.run(run, check=False, capture_output=True, text=True)
    assert again.returncode == 1
    assert "already" in again.stderr


def test_webserver_and_daemon_load_the_same_place_as_the_local_ones(tmp_path: Path) -> None:
    settings = load_settings(write_config(tmp_path))
    ours = local.services(settings.home, tmp_path / "sources.yaml", settings.home.root / "run")[local.CODE]
    written = yaml.safe_load((settings.home.root / "run" / "workspace.yaml").read_text())["load_from"][0]["grpc_server"]
    deployed = yaml.safe_load((REPO / "deploy" / "workspace.yaml").read_text())["load_from"][0]["grpc_server"]
    assert deployed["location_name"] == written["location_name"]
    assert ours.address == f"unix:{written['socket']}"
    assert f'"-m", "{ours.command[-1]}"' in (REPO / "deploy" / "start.py").read_text()


# ---------------------------------------------------------------- backups


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small installation, run once; its configuration lies beside its home."""
    folder = tmp_path_factory.mktemp("home")
    for number in (8, 9):
        write_week(folder / "lake", f"year=2025/week={number:02}", [event(f"2025-02-{17 + 7 * (number - 8)}")])
    settings = load_settings(write_config(folder))
    with dg.DagsterInstance.ephemeral() as made:
        assert run_refresh(settings, made).success
        write_status(settings.home, settings.clock, settings.sources, made)
    return folder


@pytest.mark.long
def test_a_restored_home_is_the_same_to_the_byte_and_runs_on(home: Path, tmp_path: Path) -> None:
    settings = load_settings(home / "sources.yaml")
    packed = io.BytesIO()
    files = back_up(settings.home, settings.ingest.wait_seconds, packed)
    packed.seek(0)
    assert restore(tmp_path / "home", packed) == files
    for file in (f for f in (tmp_path / "home").rglob("*") if f.is_file() and not f.is_symlink()):
        assert file.read_bytes() == (home / "home" / file.relative_to(tmp_path / "home")).read_bytes()
    before, after = (BuildStore(place / "published").current() for place in (home / "home", tmp_path / "home"))
    assert before == after is not None
    file = tmp_path / "home" / "published" / "current" / "warehouse.duckdb"
    with duckdb.connect(str(file), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM mart.usage_by_week").fetchone() != (0,)
    kept = {str(f.relative_to(home / "home")) for f in (home / "home").rglob("*") if f.is_file() and not f.is_symlink()}
    lost = {f for f in kept if not (tmp_path / "home" / f).exists()}
    assert all(f.endswith((".lock", ".holder")) for f in lost), lost


def pack(folder: Path, to: io.BytesIO) -> int:
    settings = load_settings(folder / "sources.yaml")
    return back_up(settings.home, settings.ingest.wait_seconds, to)


def warehouse_lock(settings: Settings) -> Path:
    return settings.home.warehouse_path.with_suffix(".lock")


@pytest.mark.long
@pytest.mark.parametrize(
    "lock", [lambda s: facts_lock(s.home.facts_dir), lambda s: s.home.history_lock, warehouse_lock]
)
def test_no_backup_is_taken_while_a_run_writes(home: Path, tmp_path: Path, lock: Callable[[Settings], Path]) -> None:
    settings = load_settings(home / "sources.yaml")
    hurried = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"wait_seconds": 0.1})})
    with (
        file_lock(lock(settings), 0, what="the home", who="run 1"),
        pytest.raises(LockTimeoutError, match=r"held by run 1"),
    ):
        back_up(hurried.home, hurried.ingest.wait_seconds, io.BytesIO())


@pytest.mark.long
def test_what_is_taken_away_meanwhile_is_no_longer_of_use(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = backup._paths

    def with_one_that_goes(place: Path, name: str) -> Iterator[Path]:
        yield place / name / "gone"
        yield from paths(place, name)

    packed, whole = io.BytesIO(), pack(home, io.BytesIO())
    monkeypatch.setattr(backup, "_paths", with_one_that_goes)
    assert pack(home, packed) == whole
    packed.seek(0)
    assert restore(tmp_path / "home", packed) == whole


@pytest.mark.long
def test_a_home_that_holds_something_is_not_written_over(home: Path) -> None:
    packed = io.BytesIO()
    pack(home, packed)
    packed.seek(0)
    with pytest.raises(BackupError, match=r"holds facts.* already: restore into an empty place"):
        restore(home / "home", packed)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "facts/../../outside", "elsewhere/file"])
def test_what_leads_out_of_the_home_is_refused(tmp_path: Path, name: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    packed.seek(0)
    with pytest.raises(BackupError, match="no part of a data home"):
        restore(tmp_path / "home", packed)


@pytest.mark.parametrize("target", ["/etc", "..", "../../elsewhere"])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, target: str) -> None:
    packed, link = io.BytesIO(), tarfile.TarInfo("published/current")
    link.type, link.linkname = tarfile.SYMTYPE, target
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(link)
    packed.seek(0)
    with pytest.raises(BackupError, match="no part of a data home"):
        restore(tmp_path / "home", packed)


def packed_of(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    """A whole backup of members that somebody else has made up."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for member, content in (*members, (tarfile.TarInfo("end-of-backup"), b"")):
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    packed.seek(0)
    return packed


def a_member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, target, mode
    return member


def test_no_mode_of_an_archive_reaches_the_home(tmp_path: Path) -> None:
    """Before: setuid and setgid bits and rights for everybody were taken over (`run/tool` became 6777)."""
    packed = packed_of(
        (a_member("run", tarfile.DIRTYPE, mode=0o2777), b""),
        (a_member("run/tool", mode=0o6777), b"#!/bin/sh"),
        (a_member("published/00001-x/contacts.duckdb", mode=0o4777), b"x"),
        (a_member("warehouse/warehouse.duckdb", mode=0), b"x"),
    )
    before = os.umask(0)
    try:
        assert restore(tmp_path / "home", packed) == 3
    finally:
        os.umask(before)
    modes = {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o7777 for path in tmp_path.rglob("*")}
    assert modes.pop("home/published/00001-x/contacts.duckdb") == 0o400
    assert {
        name: mode for name, mode in modes.items() if mode != (0o700 if (tmp_path / name).is_dir() else 0o600)
    } == {}


@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [
        (".", tarfile.DIRTYPE, ""),
        ("./", tarfile.DIRTYPE, ""),
        ("", tarfile.REGTYPE, ""),
        ("/", tarfile.DIRTYPE, ""),
        ("facts", tarfile.REGTYPE, ""),
        ("inputs/x", tarfile.REGTYPE, ""),
        ("inputs", tarfile.DIRTYPE, ""),
        ("run/pipe", tarfile.FIFOTYPE, ""),
        ("run/disk", tarfile.BLKTYPE, ""),
        ("run/null", tarfile.CHRTYPE, ""),
        ("run/hard", tarfile.LNKTYPE, "/etc/passwd"),
        ("run/hard", tarfile.LNKTYPE, "run/other"),
        ("run/soft", tarfile.SYMTYPE, "neighbour"),
        ("published/current", tarfile.SYMTYPE, "."),
        ("run/kind", b"Z", ""),
    ],
)
def test_what_is_no_file_and_no_folder_of_ours_is_refused_by_its_name(
    tmp_path: Path, name: str, kind: bytes, target: str
) -> None:
    """Before: names without a part ended in an IndexError, any link to a neighbour was made, a place became a file."""
    with pytest.raises(BackupError, match="no part of a data home") as refused:
        restore(tmp_path / "home", packed_of((a_member(name, kind, target), b"")))
    assert name.rstrip("/") in str(refused.value)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


def test_nothing_is_written_behind_a_link_or_twice(tmp_path: Path) -> None:
    """Before: a member below `published/current` was written into the build that the link names, over what it held."""
    build = (a_member("published/00001-x/build.json"), b"{}")
    link = (a_member("published/current", tarfile.SYMTYPE, "00001-x"), b"")
    with pytest.raises(BackupError, match=r"'published/current/build.json' is behind a link"):
        restore(tmp_path / "one", packed_of(build, link, (a_member("published/current/build.json"), b"[]")))
    assert (tmp_path / "one" / "published" / "00001-x" / "build.json").read_bytes() == b"{}"
    with pytest.raises(BackupError, match=r"'published/00001-x/build.json' cannot be put into .*: .*File exists"):
        restore(tmp_path / "two", packed_of(build, (a_member("published/00001-x/build.json"), b"[]")))
    with pytest.raises(BackupError, match=r"cannot be put into .*: .*too long"):
        restore(tmp_path / "three", packed_of((a_member(f"run/{'x' * 300}"), b"")))


@pytest.mark.long
def test_an_archive_with_folders_and_dots_that_another_tar_has_made_is_restored(home: Path, tmp_path: Path) -> None:
    """Before: its folders were refused."""
    packed, folder = io.BytesIO(), tmp_path / "unpacked"
    files = pack(home, packed)
    packed.seek(0)
    with tarfile.open(fileobj=packed) as archive:
        archive.extractall(folder, filter="data")
    places = sorted(f"./{path.name}" for path in folder.iterdir() if path.name != "end-of-backup")
    subprocess.run(["tar", "-C", folder, "-cf", tmp_path / "again.tar", *places, "end-of-backup"], check=True)
    with (tmp_path / "again.tar").open("rb") as stream:
        assert restore(tmp_path / "home", stream) == files


@pytest.mark.long
def test_a_link_that_no_backup_takes_is_said(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path / "copy", symlinks=True)
    settings = load_settings(tmp_path / "copy" / "sources.yaml")
    (settings.home.root / "run").mkdir()
    (settings.home.root / "run" / "elsewhere").symlink_to("/etc")
    packed, said = io.BytesIO(), list[str]()
    files = back_up(settings.home, settings.ingest.wait_seconds, packed, said.append)
    assert said == [f"{settings.home.root}/run/elsewhere is a link, and none of ours: left out"]
    packed.seek(0)
    assert restore(tmp_path / "home", packed) == files


@pytest.mark.long
def test_a_backup_that_is_cut_off_is_said(home: Path, tmp_path: Path) -> None:
    packed = io.BytesIO()
    pack(home, packed)
    with pytest.raises(BackupError, match="cut off"):
        restore(tmp_path / "home", io.BytesIO(packed.getvalue()[:5000]))


@pytest.mark.long
def test_the_commands_pack_and_unpack_for_their_owner_only(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "backup.tar"
    done = CliRunner().invoke(app, ["backup", str(out), "-c", str(home / "sources.yaml")])
    assert done.exit_code == 0, done.output
    assert out.stat().st_mode & 0o777 == 0o600
    again = CliRunner().invoke(app, ["backup", str(out), "-c", str(home / "sources.yaml")])
    assert again.exit_code == 1
    done = CliRunner().invoke(app, ["restore", str(out), "--home", str(tmp_path / "home")])
    assert done.exit_code == 0, done.output
    assert os.path.realpath(tmp_path / "home" / "published" / "current") != str(
        tmp_path / "home" / "published" / "current"
    )


# ---------------------------------------------------------------- runs whose code server died


_WAITING_JOB = """
import time
import dagster as dg

@dg.op
def wait():
    time.sleep(600)

@dg.job
def waiting():
    wait()

defs = dg.Definitions(jobs=[waiting])
"""


@contextmanager
def serving_code(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A code server in a process group of its own, which is killed with the runs in it."""
    dagster = str(Path(sys.executable).parent / "dagster")
    command = [dagster, "api", "grpc", "-h", "127.0.0.1", "-p", str(port), "-f", str(folder / "jobs.py")]
    server = subprocess.Popen(command, cwd=folder, env=of_home(folder), start_new_session=True)
    try:
        waited(lambda: is_open(port))
        yield server
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def of_home(folder: Path) -> dict[str, str]:
    return os.environ | {"DAGSTER_HOME": str(folder), "PYTHONPATH": str(REPO)}


def waited(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


@pytest.mark.long
def test_a_run_is_missed_only_by_a_code_server_that_was_started_anew(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "jobs.py").write_text(_WAITING_JOB, encoding="utf-8")
    launcher = yaml.safe_load((REPO / "deploy" / "dagster" / "dagster.yaml").read_text())["run_launcher"]
    at_once = {"module": "dagster.core.run_coordinator", "class": "DefaultRunCoordinator"}
    of_instance = {"run_launcher": launcher, "run_coordinator": at_once}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(of_instance), encoding="utf-8")
    place = {"host": "127.0.0.1", "port": port, "location_name": "jobs"}
    (tmp_path / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [{"grpc_server": place}]}), encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:

        def health() -> WorkerStatus:
            (run,) = instance.get_runs()
            return instance.run_launcher.check_run_worker_health(run).status

        with serving_code(tmp_path, port):
            launch = [str(Path(sys.executable).parent / "dagster"), "job", "launch", "-j", "waiting"]
            subprocess.run(launch, cwd=tmp_path, env=of_home(tmp_path), check=True, capture_output=True)
            waited(lambda: instance.get_runs()[0].status == dg.DagsterRunStatus.STARTED)
            assert health() == WorkerStatus.RUNNING
        assert health() == WorkerStatus.RUNNING, "a server that does not answer may hold it still"
        with serving_code(tmp_path, port):
            assert health() == WorkerStatus.NOT_FOUND


def test_a_run_outside_of_any_code_server_is_missed_only_once_it_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_notified, may_end = threading.Event(), threading.Event()

    @dg.op
    def work() -> None:
        is_notified.set()
        assert may_end.wait(60)

    @dg.job
    def refresh() -> None:
        work()

    launcher = run_launcher.WatchedRunLauncher()

    def seen() -> tuple[WorkerStatus, float]:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        return launcher.check_run_worker_health(run).status, float(run.tags[run_launcher.HEARTBEAT_TAG])

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        run_id = str(uuid4())
        launcher.register_instance(instance)
        monkeypatch.setattr(run_launcher, "_SAY_SECONDS", 1.1)
        with run_launcher.heartbeat(instance, run_id):
            tags = run_launcher.has_heartbeat()
            run = threading.Thread(
                target=lambda: refresh.execute_in_process(instance=instance, run_id=run_id, tags=tags)
            )
            run.start()
            assert is_notified.wait(60)
            status, first = seen()
            assert status == WorkerStatus.RUNNING
            waited(lambda: seen()[1] > first)
        seen()
        assert seen()[0] == WorkerStatus.RUNNING, "it may have slept: it is heard of by a clock of its own"
        monkeypatch.setattr(run_launcher, "_SILENT_SECONDS", 0)
        assert seen()[0] == WorkerStatus.NOT_FOUND
        may_end.set()
        run.join()
        assert instance.get_runs()[0].status == dg.DagsterRunStatus.SUCCESS


def test_a_run_that_says_nothing_is_judged_by_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    @dg.job
    def refresh() -> None:
        pass

    launcher = run_launcher.WatchedRunLauncher()
    with dg.DagsterInstance.ephemeral() as instance:
        launcher.register_instance(instance)
        run = instance.create_run_for_job(refresh)
        monkeypatch.setattr(run_launcher, "_SILENT_SECONDS_WITHOUT_WORD", 0)
        assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
        instance.report_engine_event("an event", run)
        assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
        assert launcher.check_run_worker_health(run).status == WorkerStatus.NOT_FOUND


@pytest.mark.long
def test_a_refresh_of_the_command_line_says_that_it_is_alive(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setattr(run_launcher, "_SAY_SECONDS", 0.5)
    shutil.copytree(home, tmp_path / "copy", symlinks=True)
    done = CliRunner().invoke(app, ["refresh", "-c", str(tmp_path / "copy" / "sources.yaml")])
    assert done.exit_code == 0, done.output
    with dg.DagsterInstance.get() as instance:
        (record,) = instance.get_run_records()
    assert record.start_time is not None
    assert float(record.dagster_run.tags[run_launcher.HEARTBEAT_TAG]) > record.start_time + 1, "and says it again"
