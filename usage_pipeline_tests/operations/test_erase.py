"""`usage-pipeline erase`: nothing below the home names the person any more, nothing is counted otherwise, for good."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from usage_pipeline.cli import app
from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.core.locks import LockTimeoutError, file_lock
from usage_pipeline.core.names import UnclearNameError
from usage_pipeline.ingestion.facts import facts_path
from usage_pipeline.operations.erase import EraseError, erase
from usage_pipeline.privacy.erased import Erased, remember
from usage_pipeline_tests.support.lakes import write_week
from usage_pipeline_tests.support.people import WEEKS, WORDS, make_home, names_of, week_rows, write_contacts
from usage_pipeline_tests.support.refreshes import run_refresh

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of two builds and two deliveries of contacts, and its lake. Nobody changes it."""
    return make_home(tmp_path_factory.mktemp("erase"))


@pytest.fixture
def settings(made: Path, tmp_path: Path) -> Settings:
    shutil.copytree(made, tmp_path / "copy", symlinks=True)
    return load_settings(tmp_path / "copy" / "sources.yaml")


def numbers(settings: Settings) -> dict[str, list[tuple[Any, ...]]]:
    """Clicks and different people by week, period and month, as pages have them."""
    queries = {
        "week": "SELECT week_start, account_id, application_key, clicks, active_users FROM mart.usage_by_week ORDER BY ALL",
        "period": "SELECT period, account_id, application_key, clicks, active_users, account_active_users "
        "FROM mart.usage_by_period ORDER BY ALL",
        "people": "SELECT week_start, account, count(DISTINCT user_key) FROM mart.user_weeks GROUP BY ALL ORDER BY ALL",
        "all people": "SELECT account, count(DISTINCT user_key) FROM mart.user_weeks GROUP BY ALL ORDER BY ALL",
        "growth": "SELECT unit, counted_by, period_start, account_id, change, number FROM mart.growth ORDER BY ALL",
    }
    with duckdb.connect(
        str(settings.home.published_dir / "current" / "warehouse.duckdb"), read_only=True
    ) as connection:
        return {name: connection.execute(sql).fetchall() for name, sql in queries.items()}


def test_an_erased_person_is_nowhere_counts_as_before_and_does_not_come_back(settings: Settings, instance) -> None:
    before = numbers(settings)
    places = names_of(settings.home.root, WORDS)
    assert {place.split("/")[0] for place in places} == {"facts", "history", "published", "warehouse"}
    clicks = facts_of(settings)
    done = erase(settings, "springfield", "u-anna")
    assert done.account == "a"
    assert done.places["contacts as delivered (history)"] == 2
    assert done.places["rejected rows (history)"] == 2 * len(WEEKS)
    assert done.places["facts"] == 4 * len(WEEKS)
    assert done.places["private contacts, account_contacts"] == 1
    assert sum("build 0000" in place for place in done.places) == 2
    assert "is somebody else's" in done.notes[0]
    assert names_of(settings.home.root, WORDS) == []
    assert facts_of(settings) == clicks
    assert numbers(settings) == before
    builds = sorted(settings.home.published_dir.glob("0*/contacts.duckdb"))
    assert all(build.stat().st_mode & 0o222 == 0 for build in builds)

    # the lake delivers the person again: an old week changed, contacts changed, and everything is read anew
    folder = settings.home.root.parent
    write_contacts(folder, ("u-finn", "a", "Finn Fischer", "finn@springfield.example"))
    write_week(folder / "lake", "year=2025/week=06", week_rows(WEEKS[1]), name="part-0.parquet")
    config = folder / "sources.yaml"
    config.write_text(
        config.read_text(encoding="utf-8").replace("rejected_share: 1", "rejected_share: 1\n  late_days: 1")
    )
    again = load_settings(config)
    assert run_refresh(again, instance).success
    assert len(list((settings.home.root / "history" / "reference" / "contacts").glob("*.parquet"))) == 3
    assert names_of(settings.home.root, WORDS) == []
    assert numbers(again) == before
    assert facts_of(settings) == clicks
    # and a delivery that is not new stays what it was
    assert run_refresh(again, instance).success
    assert names_of(settings.home.root, WORDS) == []

    repeated = erase(again, "a", "u-anna")
    assert repeated.places == {}
    assert repeated.key == done.key


def facts_of(settings: Settings) -> list[tuple[Any, ...]]:
    """Clicks and different people by week, account and application, of the facts themselves."""
    return duckdb.execute(
        "SELECT week_start, account_id, application, sum(clicks), count(DISTINCT user_id), count(*) "
        "FROM read_parquet($files, hive_partitioning = false) GROUP BY ALL ORDER BY ALL",
        {"files": str(settings.home.facts_dir / "week=*" / "facts.parquet")},
    ).fetchall()


def test_facts_keep_their_form_and_their_manifest(settings: Settings) -> None:
    file = facts_path(settings.home.facts_dir, WEEKS[0])
    schema, metadata = pq.read_schema(file).remove_metadata(), pq.read_metadata(file).metadata
    erase(settings, "a", "u-anna")
    assert pq.read_schema(file).remove_metadata() == schema
    assert pq.read_metadata(file).metadata == metadata
    keys = set(pq.read_table(file)["user_id"].to_pylist())
    assert keys == {"u-bert", "u-common", Erased.read(settings.home.root).key_of("a", "u-anna")}


def test_the_same_id_in_another_account_is_another_person(settings: Settings) -> None:
    erase(settings, "a", "u-common")
    assert names_of(settings.home.root, ("cora@springfield.example", "Cora Carter")) == []
    with duckdb.connect(str(settings.home.private_contacts_path), read_only=True) as connection:
        assert connection.execute("SELECT account_id, name FROM contacts WHERE user_id = 'u-common'").fetchall() == [
            ("b", "Dora Dyer")
        ]
    with duckdb.connect(str(settings.home.warehouse_path), read_only=True) as connection:
        users = connection.execute("SELECT DISTINCT account_id FROM core.weekly_users WHERE user_id = 'u-common'")
        assert users.fetchall() == [("b",)]


def test_an_erasure_that_was_cut_short_is_run_again_from_the_start(settings: Settings) -> None:
    impatient = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"wait_seconds": 0})})
    with (
        file_lock(settings.home.facts_dir / ".lock", 1, what="the facts", who="a run"),
        pytest.raises(LockTimeoutError, match="is held by a run"),
    ):
        erase(impatient, "a", "u-anna")
    left = names_of(settings.home.root, WORDS)
    assert not any(place.startswith("history/reference") for place in left), "what had its turn is done"
    assert any(place.startswith("facts") for place in left)
    key = Erased.read(settings.home.root).key_of("a", "u-anna")
    # and a writer that was killed in the middle leaves an unfinished file
    facts = facts_path(settings.home.facts_dir, WEEKS[0])
    shutil.copy(facts, facts.with_name(f".facts.parquet.{'0' * 32}"))
    half_way = settings.home.published_dir / ".00003-2025-03-05-abcdef12.0a1b2c3d"
    shutil.copytree(settings.home.published_dir / "current", half_way)
    assert erase(settings, "a", "u-anna").key == key
    assert names_of(settings.home.root, WORDS) == []


def test_a_reader_that_has_the_contacts_open_does_not_fail_and_the_next_one_sees_nothing(settings: Settings) -> None:
    path = (settings.home.published_dir / "current").resolve() / "contacts.duckdb"
    count = "SELECT count(*) FROM personal.account_contacts WHERE user_id = 'u-anna'"
    reader = duckdb.connect(str(path), read_only=True)
    assert reader.execute(count).fetchone() == (1,)
    erase(settings, "a", "u-anna")
    assert reader.execute(count).fetchone() is not None, "whoever has it open goes on reading"
    code = f"import duckdb; print(duckdb.connect({str(path)!r}, read_only=True).execute({count!r}).fetchone()[0])"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == "0"
    reader.close()
    with duckdb.connect(str(path), read_only=True) as again:
        assert again.execute(count).fetchone() == (0,)


def test_who_is_not_known_is_not_erased_and_near_ids_are_named(settings: Settings) -> None:
    for account, user, said in (
        ("a", "u-ana", "nothing is known of user 'u-ana' of account a, and nobody was erased; near: u-anna"),
        ("Springfeld", "u-anna", r"there is no account 'Springfeld'; near: Springfield \(a\)"),
    ):
        with pytest.raises(EraseError, match=said):
            erase(settings, account, user)
    assert not (settings.home.root / "erased").exists()
    with duckdb.connect(str(settings.home.warehouse_path)) as connection:
        connection.execute("UPDATE core.account_names SET account = 'Springfield (' || account_id || ')'")
        connection.execute("UPDATE ref.accounts SET account_name = 'Springfield'")
    with pytest.raises(UnclearNameError, match="is the name of 2"):
        erase(settings, "Springfield", "u-anna")


def test_the_command_says_what_it_found_and_what_it_cannot_reach(settings: Settings) -> None:
    config = ["-c", str(settings.home.root.parent / "sources.yaml")]
    log = settings.home.root / "run" / "superset.log"
    log.parent.mkdir()
    log.write_text("GET /contacts?email=anna@springfield.example\n")
    looked = CliRunner().invoke(app, ["erase", "a", "u-anna", "--dry-run", *config])
    assert looked.exit_code == 0, looked.output
    assert "user u-anna of account a stands in" in looked.output
    assert "nothing was changed" in looked.output
    assert names_of(settings.home.root / "facts", WORDS)
    done = CliRunner().invoke(app, ["erase", "a", "u-anna", *config])
    assert done.exit_code == 0, done.output
    assert f"{4 * len(WEEKS)} rows  facts" in done.output
    assert "1 row   private contacts, account_contacts" in done.output
    assert f"{log} still says the id or an e-mail address" in done.output
    assert (
        "was erased before; nothing of them was found"
        in CliRunner().invoke(app, ["erase", "a", "u-anna", *config]).output
    )
    missing = CliRunner().invoke(app, ["erase", "a", "nobody", *config])
    assert missing.exit_code == 1
    assert "nobody was erased" in missing.output


def test_the_list_names_nobody_and_is_for_its_owner_only(tmp_path: Path) -> None:
    one, two = remember(tmp_path, "a", "u-anna"), remember(tmp_path, "a", "u-bert")
    assert one != two
    assert remember(tmp_path, "a", "u-anna") == one
    file = tmp_path / "erased" / "people.json"
    assert "anna" not in file.read_text(encoding="utf-8")
    assert file.stat().st_mode & 0o077 == 0
    known = Erased.read(tmp_path)
    assert known.is_erased("a", "u-anna")
    assert known.is_erased(None, "u-anna"), "a row without account may be of anybody of that id"
    assert not known.is_erased("b", "u-anna")
    assert not known.is_erased("au", "-anna")
    other = tmp_path / "other"
    remember(other, "a", "u-anna")
    assert (other / "erased" / "people.json").read_text() != file.read_text(), "every home has a salt of its own"
