"""The data home: what was killed leaves nothing behind, what is full keeps what it shows, and an erasure sees all."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import duckdb
import openpyxl
import pandas as pd
import pytest
from typer.testing import CliRunner

from usage_pipeline.cli import app
from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.core.files import atomic_write, is_tmp_path
from usage_pipeline.core.locks import file_lock
from usage_pipeline.core.processes import describe_this_process
from usage_pipeline.ingestion.facts import facts_lock
from usage_pipeline.ingestion.sources import OWNER
from usage_pipeline.observability.status import write_status
from usage_pipeline.operations import doctor
from usage_pipeline.operations.data_home import PLACES, clean, unknown
from usage_pipeline.operations.erase import EraseError, erase
from usage_pipeline.publishing import history
from usage_pipeline.publishing.builds import store_of
from usage_pipeline_tests.support.lakes import write_week
from usage_pipeline_tests.support.people import WEEKS, WORDS, left_over, make_home, names_of, week_rows, write_contacts
from usage_pipeline_tests.support.refreshes import keep_as_published, run_refresh

pytestmark = pytest.mark.long

# a run that is killed: argv is the configuration, minutes after its as_of, the asset(s), and where it ends
KILLED = """
import os, signal, sys
from datetime import timedelta
import dagster as dg
from usage_pipeline.config.settings import load_settings
from usage_pipeline.core import files
from usage_pipeline.ingestion import facts
from usage_pipeline.privacy import encryption
from usage_pipeline.publishing import builds, history
from usage_pipeline_tests.conftest import run_refresh

def dies(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def after(module, name):
    real = getattr(module, name)
    def then_dies(*words, **named):
        real(*words, **named)
        dies()
    setattr(module, name, then_dies)

config, minutes, assets, where = sys.argv[1:]
settings = load_settings(config)
settings = settings.model_copy(update={"as_of": settings.as_of + timedelta(minutes=int(minutes))})
if where == "a publish":
    builds.BuildStore._problems = dies
elif where == "before a build is shown":
    builds.BuildStore._point = dies
elif where == "while the link is moved":
    real = builds.Path.replace
    builds.Path.replace = lambda path, target: dies() if path.name.startswith(".current.") else real(path, target)
elif where == "before history is kept":
    history.shutil.copyfile = dies
elif where == "a removal of builds":
    settings = settings.model_copy(update={"publish": settings.publish.model_copy(update={"keep_builds": 1})})
    builds.remove = lambda path: (path / "build.json").unlink(missing_ok=True) or dies()
elif where == "facts":
    after(facts, "replace_users")
elif where == "rejected rows":
    facts.forget_users = dies
elif where == "a delivery":
    after(encryption.pq, "write_table")
elif where == "a proposal":
    after(history.pq, "write_table")
elif where == "a transaction":
    from usage_pipeline.defs.ingestion import assets as ingest
    after(ingest, "load_reference")
with dg.DagsterInstance.ephemeral() as instance:
    run_refresh(settings, instance, only=assets.split(","))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with contacts and two builds. Nobody changes it."""
    return make_home(tmp_path_factory.mktemp("data_home"))


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


@pytest.fixture
def settings(folder: Path) -> Settings:
    return load_settings(folder / "sources.yaml")


def kill(folder: Path, minutes: int, assets: str, where: str) -> None:
    words = [sys.executable, "-c", KILLED, str(folder / "sources.yaml"), str(minutes), assets, where]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, f"{where}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.fixture(scope="module")
def killed(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which one run after the other was killed, each somewhere else. Nobody changes it."""
    folder = tmp_path_factory.mktemp("killed") / "copy"
    shutil.copytree(made, folder, symlinks=True)
    home = folder / "home"
    write_week(folder / "lake", "year=2025/week=06", [*week_rows(WEEKS[1]), *week_rows(WEEKS[1])])
    kill(folder, 1, "usage_facts", "rejected rows")
    assert any(name.startswith("history/rejected/") for name in left_over(home))
    kill(folder, 2, "usage_facts", "facts")
    assert any("/.facts.parquet." in name for name in left_over(home))
    write_contacts(folder, ("u-gerd", "b", "Gerd Gruber", "gerd@shelbyville.example"))
    kill(folder, 3, "contacts", "a delivery")
    assert any(name.startswith("history/reference/contacts/.") for name in left_over(home))
    kill(folder, 4, "contacts", "a transaction")
    # nothing is kept yet: the next publish has something to keep
    for kind in ("anomalies", "scores"):
        shutil.rmtree(home / "history" / kind)
    kill(folder, 5, "anomaly_snapshots", "a proposal")
    assert any("anomalies/pending/." in name for name in left_over(home))
    kill(folder, 6, "published_build", "a removal of builds")
    assert any(name.startswith("published/.0000") for name in left_over(home))
    kill(folder, 7, "published_build", "while the link is moved")
    assert any(name.startswith("published/.current.") for name in left_over(home))
    kill(folder, 8, "anomaly_snapshots,score_snapshots,published_build", "before history is kept")
    assert not list((home / "history" / "scores").glob("*.parquet"))
    kill(folder, 9, "published_build", "a publish")
    assert any(name.startswith("published/.0000") for name in left_over(home))
    (home / "spill" / "copies").mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"user": [7], "mail": [WORDS[1]]}).to_parquet(home / "spill" / "copies" / "part-0.parquet")
    an_hour_ago = time.time() - 3600
    for path in (home / "spill" / "copies" / "part-0.parquet", home / "spill" / "copies"):
        os.utime(path, (an_hour_ago, an_hour_ago))
    return folder


# ---------------------------------------------------------------- killed


@pytest.mark.soak
def test_after_runs_were_killed_anywhere_a_plain_refresh_leaves_nothing_of_it(killed: Path, tmp_path: Path) -> None:
    shutil.copytree(killed, tmp_path / "copy", symlinks=True)
    settings = load_settings(tmp_path / "copy" / "sources.yaml")
    settings = settings.model_copy(update={"as_of": settings.as_of + timedelta(hours=1)})
    assert {name.split("/")[0] for name in left_over(settings.home.root)} >= {"facts", "history", "published"}
    shown = store_of(settings.home, settings.publish).current()
    assert shown is not None, "what was published stays up"
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_refresh(settings, instance).success
        write_status(settings.home, settings.clock, settings.sources, instance)
    assert left_over(settings.home.root) == []
    assert not list((settings.home.root / "spill").iterdir())
    assert unknown(settings.home.root) == []
    store = store_of(settings.home, settings.publish)
    current = store.current()
    assert current == store.builds()[-1] and current.build_id > shown.build_id
    entries = history.entries(settings.home.history_dir)
    kinds = ("anomalies", "scores", "health", "calls")
    assert [(entry.kind, entry.period) for entry in entries] == [(kind, "2025-02-24") for kind in kinds]
    # as people saw them, in the build of the run that was killed before it could keep them
    with_history = [build.build_id for build in store.builds() if (store.path(build.build_id) / "history").exists()]
    emptied = [entry for entry in entries if entry.kind in ("anomalies", "scores")]  # by the fixture
    assert {entry.build_id for entry in emptied} == {with_history[-1]}
    assert len(list((settings.home.root / "history" / "reference" / "contacts").glob("*.parquet"))) == 3


@pytest.mark.soak
def test_after_runs_were_killed_anywhere_an_erased_person_is_nowhere(killed: Path, tmp_path: Path) -> None:
    shutil.copytree(killed, tmp_path / "copy", symlinks=True)
    settings = load_settings(tmp_path / "copy" / "sources.yaml")
    assert any("published/." in place for place in names_of(settings.home.root, WORDS))
    erase(settings, "a", "u-anna")
    assert names_of(settings.home.root, WORDS) == []
    assert left_over(settings.home.root) == []


def test_a_pin_is_brought_to_its_end_and_what_is_young_or_held_is_left_alone(settings: Settings) -> None:
    store = store_of(settings.home, settings.publish)
    first, second = store.builds()
    store.pin_file.write_text(first.build_id)  # and killed before the link was moved
    facts = settings.home.facts_dir / f".facts.parquet.{'0' * 32}"
    facts.write_bytes(b"half")
    young = settings.home.root / "spill" / "copy"
    young.mkdir(parents=True)
    said: list[str] = []
    with file_lock(facts_lock(settings.home.facts_dir), 1, what="the facts", who="a run"):
        clean(settings.home, said.append, seconds=0)
    assert facts.exists(), "a run that writes may need it"
    assert any("is held by a run" in line for line in said)
    assert store.current() == first
    clean(settings.home, said.append)
    assert not facts.exists() and young.exists()
    store.release()
    assert store.current() == second


@pytest.mark.parametrize("text", ["", "00009-2024-01-01-gone", "\x00"])
def test_a_pin_that_holds_nothing_is_said_and_does_not_block(folder: Path, settings: Settings, text: str) -> None:
    """A rollback on a full disk left an empty file, and no build was shown from then on."""
    store = store_of(settings.home, settings.publish)
    store.pin_file.write_text(text)
    assert store.pinned is None
    assert store.pin_problem is not None and "rollback --release" in store.pin_problem
    findings = [str(f) for f in doctor._builds(store)]
    assert any(str(store.pin_file) in line for line in findings)
    later = settings.model_copy(update={"as_of": settings.as_of + timedelta(minutes=1)})
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_refresh(later, instance, only=["published_build"]).success
        write_status(later.home, later.clock, later.sources, instance)
    assert store.current() == store.builds()[-1]
    assert len(store.builds()) == 3
    with duckdb.connect(str(settings.home.status_path), read_only=True) as connection:
        (told,) = connection.execute("SELECT health_sentence FROM status.health").fetchone() or ("",)
    assert "ublished/pinned" in told or "inned is empty" in told or "inned names build" in told
    assert CliRunner().invoke(app, ["rollback", "--release", "-c", str(folder / "sources.yaml")]).exit_code == 0
    assert store.pin_problem is None


# ---------------------------------------------------------------- full disks

FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import dagster as dg
from datetime import timedelta
from usage_pipeline.cli import app
from usage_pipeline.config.settings import load_settings
from usage_pipeline.publishing.builds import store_of
from usage_pipeline.publishing.builds import Build
config, what, limit = sys.argv[1:]
settings = load_settings(config)
store = store_of(settings.home, settings.publish)
build = Build(store.next_id("2025-03-05", "f" * 8), "2025-03-05", "2025-02-24", "f" * 8, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
if what == "rollback":
    store.rollback()
else:
    store.publish(settings.home.warehouse_path, build)
"""


def on_a_full_disk(folder: Path, what: str, limit: int) -> str:
    """The error of a command that may write so many bytes to a file, and no more."""
    words = [sys.executable, "-c", FULL, str(folder / "sources.yaml"), what, str(limit)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(("what", "limit"), [("rollback", 0), ("publish", 0), ("publish", 100_000)])
def test_on_a_full_disk_what_was_published_stays_up_and_nothing_is_left(
    folder: Path, settings: Settings, what: str, limit: int
) -> None:
    store = store_of(settings.home, settings.publish)
    before = store.current()
    on_a_full_disk(folder, what, limit)
    assert store.current() == before
    assert store.pinned is None and not store.pin_file.exists()
    assert left_over(settings.home.root) == []
    assert len(store.builds()) == 2
    store.rollback()
    assert store.pinned == store.builds()[0].build_id


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 120 MB of its own; skipped where nobody may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.soak
def test_a_disk_that_is_full_fails_a_run_and_the_next_one_heals(made: Path, small_disk: Path) -> None:
    folder = small_disk / "copy"
    shutil.copytree(made, folder, symlinks=True)
    settings = load_settings(folder / "sources.yaml")
    store = store_of(settings.home, settings.publish)
    before = store.current()
    filler = small_disk / "filler"
    with filler.open("wb") as stream:
        stream.write(b"\0" * (shutil.disk_usage(small_disk).free - (1 << 20)))
    later = settings.model_copy(update={"as_of": settings.as_of + timedelta(minutes=1)})
    with dg.DagsterInstance.ephemeral() as instance:
        assert not run_refresh(later, instance).success
        assert store.current() == before
        with filler.open("ab", buffering=0) as stream, pytest.raises(OSError, match="No space left"):
            while True:
                stream.write(b"\0" * 4096)
        with pytest.raises(OSError, match="No space left"):
            store.rollback()
        assert (store.pinned, store.current()) == (None, before)
        filler.unlink()
        assert run_refresh(later, instance).success
    assert store.current() != before
    assert left_over(settings.home.root) == []


def test_a_body_that_raises_leaves_no_file_and_no_folder(tmp_path: Path) -> None:
    for make in (Path.touch, Path.mkdir):
        with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "target") as target:
            make(target)
            assert is_tmp_path(target.name)
            Path(f"{target}.wal").touch()
            raise ZeroDivisionError
        assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- what lies there


def test_everything_that_a_refresh_writes_is_known(settings: Settings) -> None:
    assert unknown(settings.home.root) == []
    assert {path.name for path in settings.home.root.iterdir()} <= {place.name for place in PLACES}


def test_what_nobody_knows_is_said_by_the_doctor(settings: Settings) -> None:
    copies = [settings.home.root / "old" / "facts.parquet", settings.home.published_dir / "contacts.duckdb.bak"]
    for copy in copies:
        copy.parent.mkdir(exist_ok=True)
        copy.touch()
    (settings.home.facts_dir / f".facts.parquet.{'0' * 32}").touch()  # under way
    assert unknown(settings.home.root) == [copies[0].parent, copies[1]]
    told = [finding.words for finding in doctor._home(settings.home.root)]
    assert told == [f"{copies[0].parent} is none of ours", f"{copies[1]} is none of ours"]


# ---------------------------------------------------------------- an erasure looks at all of it


def a_table_of_contacts(file: Path) -> None:
    pd.DataFrame({"person": ["u-anna"], "customer": ["a"]}).to_parquet(file)


def a_database(file: Path) -> None:
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE whoever AS SELECT 'ANNA@springfield.example' AS mail, 1 AS n")


def a_workbook(file: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["Anna Archer", "call her"])
    book.save(file)


def a_log(file: Path) -> None:
    file.write_text("wrote to u-anna\n")


def a_broken_table(file: Path) -> None:
    file.write_bytes(b"PAR1 and no more")


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (a_table_of_contacts, "old/copy"),
        (a_database, "published/contacts.duckdb.bak"),
        (a_workbook, "history/reference/contacts/for-the-call.xlsx"),
        (a_log, "notes"),
        (a_broken_table, "warehouse/copy.parquet"),
    ],
)
@pytest.mark.sample("a_log-notes", rest="soak")
def test_an_erasure_that_finds_the_person_where_it_cannot_erase_fails_with_the_path(
    settings: Settings, make, place: str
) -> None:
    file = settings.home.root / place
    file.parent.mkdir(exist_ok=True)
    make(file)
    with pytest.raises(EraseError, match="Remove it by hand") as failed:
        erase(settings, "a", "u-anna")
    assert str(file) in str(failed.value)
    assert WORDS[1] not in str(failed.value), "a message goes into logs"
    file.unlink()
    erase(settings, "a", "u-anna")
    assert names_of(settings.home.root, WORDS) == []


def test_what_others_have_too_is_no_trace_of_the_person(settings: Settings) -> None:
    """The town's common address, and a colleague of the same name, stay."""
    folder = settings.home.root.parent
    write_contacts(folder, ("u-anna2", "a", "Anna Archer", "anna@springfield.example"))
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_refresh(settings, instance, only=["contacts", "account_contacts", "published_build"]).success
    done = erase(settings, "a", "u-anna")
    assert done.found
    with duckdb.connect(str(settings.home.private_contacts_path), read_only=True) as connection:
        left = connection.execute("SELECT user_id FROM contacts WHERE name = 'Anna Archer'").fetchall()
    assert left == [("u-anna2",)]


def test_a_delivery_that_is_held_back_is_erased_like_one_that_was_taken(settings: Settings) -> None:
    contacts = settings.home.history_dir / "reference" / "contacts"
    held = contacts / "held_back" / "00003.parquet"
    held.parent.mkdir()
    shutil.copy(sorted(contacts.glob("*.parquet"))[-1], held)
    held.with_suffix(".json").write_text(json.dumps({"why": "2 keys are gone: a/u-anna, a/u-anna2", "rows": 2}))
    done = erase(settings, "a", "u-anna")
    assert done.places["contacts as delivered (history)"] == 3
    assert json.loads(held.with_suffix(".json").read_text())["why"] == "2 keys are gone: a/(erased), a/u-anna2"
    assert len(pd.read_parquet(held)) == 4
    assert unknown(settings.home.root) == []


def test_entries_without_their_build_are_listed_too(settings: Settings) -> None:
    """A build goes after five; what it brought stays."""
    keep_as_published(settings)
    assert all(entry.build_id for entry in history.entries(settings.home.history_dir))


def test_copies_of_lake_files_go_once_their_process_has_ended(settings: Settings) -> None:
    """A process of another container that shares the home cannot be seen from here: its copies stay for their time."""
    spill = settings.home.root / "spill"
    known = json.loads(describe_this_process())
    owners = {"mine": known, "ended": known | {"started": "1"}, "elsewhere": known | {"host": "other", "started": "1"}}
    for name, owner in owners.items():
        (spill / name).mkdir(parents=True)
        (spill / name / OWNER).write_text(json.dumps(owner))
    clean(settings.home)
    assert sorted(path.name for path in spill.iterdir() if path.name in owners) == ["elsewhere", "mine"]
