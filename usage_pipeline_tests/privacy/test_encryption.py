"""Contacts at rest: with a key nothing below the home, and nothing in a backup, tells a name, an address or a number."""

import gzip
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
import yaml
from typer.testing import CliRunner

from usage_pipeline.cli import app
from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.ingestion.deliveries import hold_back
from usage_pipeline.ingestion.lake import Lake, LakeFile
from usage_pipeline.ingestion.sources import Nearby
from usage_pipeline.operations import doctor
from usage_pipeline.operations.backup import back_up, restore
from usage_pipeline.operations.erase import EraseError, erase
from usage_pipeline.operations.local import SUPERSET, SUPERSET_PYTHON, superset_environment
from usage_pipeline.operations.rekey import files_of_contacts, plain_files, rekey
from usage_pipeline.privacy.encryption import (
    KEY_VARIABLE,
    OLD_KEY_VARIABLE,
    ContactsKeyError,
    attach,
    connect_beside,
    contacts_key,
    is_encrypted,
    open_database,
    parquet_rows,
)
from usage_pipeline_tests.support.lakes import event, write_config, write_week
from usage_pipeline_tests.support.refreshes import run_refresh
from usage_pipeline_tests.support.servers import serve_superset
from usage_pipeline_tests.support.visitors import Visitor, ask_for

KEY, OTHER = "kJ8sd7f6ASDkjh3487dfhkjHDFS873hs/+=", "Qm2x'Zr9wLk4TgYb7NcVp0HdJs6FaEuIo3R"
CONTACTS = (
    ("u-anna", "a", "Anna Archer", "anna@springfield.example", "+1 217 555 0143"),
    ("u-bert", "a", "Bert Baker", "bert@springfield.example", "+1 217 555 0187"),
    ("u-dora", "b", "Dora Dyer", "dora@shelbyville.example", "+1 217 555 0122"),
)
EMIL = ("u-emil", "b", "Emil Egger", "emil@shelbyville.example", "+1 217 555 0166")
WORDS = [word for row in (*CONTACTS, EMIL) for word in row[2:]]


def write_contacts(folder: Path, *rows: tuple[str, ...]) -> None:
    columns = ["user_id", "account_id", "name", "email", "phone"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "contacts.csv", index=False)


def command(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, done.output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that was plain for a refresh and had a key for the next, with a delivery that is held back."""
    folder = tmp_path_factory.mktemp("encryption")
    for number in range(5):
        week = date(2025, 1, 27) + timedelta(days=7 * number)
        rows = [event(str(week), account=row[1], user=row[0], clicks=3) for row in CONTACTS]
        write_week(folder / "lake", f"year=2025/week={week.isocalendar().week:02d}", rows)
    config = write_config(folder)
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    columns = {name: name for name in ("user_id", "account_id", "name", "email", "phone")}
    content["sources"] |= {"contacts": {"path": "contacts.csv", "format": "csv", "columns": columns}}
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(KEY_VARIABLE, raising=False)
        write_contacts(folder, *CONTACTS)
        assert command("refresh", "-c", str(config))[0] == 0
        settings = load_settings(config)
        assert all(not is_encrypted(file) for file in files_of_contacts(settings.home)), "no key: nothing has changed"
        patch.setenv(KEY_VARIABLE, KEY)
        write_contacts(folder, *CONTACTS, EMIL)
        assert command("refresh", "-c", str(config))[0] == 0
        hold_back(
            settings.home.history_dir,
            settings.clock.as_of,
            "contacts",
            pa.table({"name": ["Emil Egger"], "phone": ["+1 217 555 0166"]}),
            "f",
            ["few"],
        )
    assert len(list(settings.home.published_dir.glob("0*/contacts.duckdb"))) == 2
    return folder


@pytest.fixture
def settings(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.delenv(OLD_KEY_VARIABLE, raising=False)
    shutil.copytree(made, tmp_path / "copy", symlinks=True)
    return load_settings(tmp_path / "copy" / "sources.yaml")


def config_of(settings: Settings) -> str:
    return str(settings.home.root.parent / "sources.yaml")


def tells(file: Path) -> list[str]:
    """What a file says without a key: its bytes, and its tables where anybody can open them."""
    raw = file.read_bytes()
    found = [word for word in WORDS if word.encode() in raw or word.lower().encode() in raw]
    cells: list[object] = []
    if raw[:4] == b"PAR1":
        cells = [*pq.read_table(file).to_pylist(), pq.read_metadata(file).metadata]
    elif raw[8:12] == b"DUCK":
        with duckdb.connect() as connection:
            try:
                connection.execute(f"ATTACH '{file}' AS f (READ_ONLY)")
            except duckdb.CatalogException as error:
                assert "without a key" in str(error)
                return found
            for schema, table in connection.execute(
                "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'f'"
            ).fetchall():
                cells += connection.execute(f'FROM f."{schema}"."{table}"').fetchall()
    return found + [word for word in WORDS if any(word in str(cell) for cell in cells)]


def all_that_tell(folder: Path) -> dict[str, list[str]]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.is_symlink()]
    return {str(file.relative_to(folder)): words for file in files if (words := tells(file))}


# ---------------------------------------------------------------- at rest


@pytest.mark.soak
def test_no_file_below_the_home_tells_a_name_an_address_or_a_number(settings: Settings) -> None:
    """Also of the build and the delivery that were made before there was a key."""
    assert all_that_tell(settings.home.root) == {}
    assert len(files_of_contacts(settings.home)) == 6, (
        "the private one, two builds, two deliveries, one that is held back"
    )
    with open_database(settings.home.published_dir / "current" / "contacts.duckdb") as connection:
        found = connection.execute("SELECT name, email, phone FROM personal.account_contacts").fetchall()
    assert sorted(found) == sorted(row[2:] for row in (*CONTACTS, EMIL)), "whoever has the key finds all of it"
    sealed = list(settings.home.published_dir.glob("0*/contacts.duckdb"))
    assert {stat.S_IMODE(file.stat().st_mode) for file in sealed} == {0o400}


@pytest.mark.long
def test_the_search_finds_them_where_there_is_no_key(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the test above proves something."""
    monkeypatch.delenv(KEY_VARIABLE)
    monkeypatch.setenv(OLD_KEY_VARIABLE, KEY)
    assert rekey(settings.home, settings.ingest.wait_seconds) == 6
    assert len(all_that_tell(settings.home.root)) == 6
    assert plain_files(settings.home) == []


@pytest.mark.soak
def test_a_backup_tells_nobody_anything_and_a_restored_home_runs_on(settings: Settings, tmp_path: Path) -> None:
    packed = io.BytesIO()
    back_up(settings.home, settings.ingest.wait_seconds, packed)
    assert not any(word.encode() in packed.getvalue() for word in WORDS)
    packed.seek(0)
    with tarfile.open(fileobj=packed) as archive:
        archive.extractall(tmp_path / "read", filter="data")
    assert all_that_tell(tmp_path / "read") == {}
    packed.seek(0)
    shutil.rmtree(settings.home.root)
    restore(settings.home.root, packed)
    assert command("refresh", "-c", config_of(settings))[0] == 0
    assert [f.level for f in doctor._key(settings.home)] == ["ok"]


def test_what_does_not_fit_in_memory_is_encrypted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with connect_beside(tmp_path / "contacts.duckdb") as connection:
        attach(connection, tmp_path / "contacts.duckdb", "personal", read_only=False)
        connection.execute("SET memory_limit = '60MB'; SET threads = 1")
        connection.execute(
            "CREATE TEMP TABLE x AS SELECT 'Anna Archer ' || range AS n, hash(range) FROM range(3000000)"
        )
        spilled = [file.read_bytes() for file in (tmp_path / "contacts.duckdb.tmp").iterdir()]
    assert spilled and not any(b"Anna Archer" in part for part in spilled)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only Linux has files in memory that a name leads to")
@pytest.mark.long
def test_copies_of_contacts_that_are_being_read_lie_in_memory(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a bucket, and unpacked: a reader that is killed leaves nothing of them on the disk."""
    packed = tmp_path / "contacts.csv.gz"
    packed.write_bytes(gzip.compress((settings.home.root.parent / "contacts.csv").read_bytes()))
    table = tmp_path / "contacts.parquet"
    pd.read_csv(settings.home.root.parent / "contacts.csv").to_parquet(table, compression=None)
    lake = Lake(settings.store)
    monkeypatch.setattr(lake, "_copy", lambda _, target: target.write_bytes(table.read_bytes()))
    nearby = Nearby(lake, settings.home.spill_dir, keeps_in_memory=True)
    text = nearby.path(LakeFile(str(packed), 1, "", ""), "csv")
    copied = nearby.path(LakeFile("s3://bucket/contacts.parquet", 1, "", ""), "parquet")
    assert "Emil Egger" in text.read_text()
    assert pq.read_table(copied).num_rows == len(CONTACTS) + 1
    with duckdb.connect() as connection:
        for file in (copied, text):
            assert connection.execute(f"SELECT count(*) FROM '{file}'").fetchone() == (len(CONTACTS) + 1,)
    assert all_that_tell(settings.home.root) == {}
    assert [file.is_symlink() for file in (text, copied)] == [True, True]
    nearby.clear()
    assert not copied.exists() and not nearby.folder.exists()


@pytest.mark.soak
def test_contacts_in_a_packed_file_are_read_by_way_of_memory(settings: Settings) -> None:
    folder = settings.home.root.parent
    with gzip.open(folder / "contacts.csv.gz", "wb") as packed:
        packed.write(
            (folder / "contacts.csv").read_bytes() + b"u-fred,b,Fred Finch,fred@shelbyville.example,+1 217 555 0199\n"
        )
    config = Path(config_of(settings))
    config.write_text(config.read_text().replace("contacts.csv", "contacts.csv.gz"))
    assert command("sources", "check", "-c", str(config))[0] == 0
    assert command("refresh", "-c", str(config))[0] == 0
    with open_database(settings.home.private_contacts_path) as connection:
        assert connection.execute("SELECT count(*) FROM contacts").fetchone() == (5,)
    assert all_that_tell(settings.home.root) == {} and list((settings.home.root / "spill").glob("*")) == []


# ---------------------------------------------------------------- keys that are wrong, or missing


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (OTHER, "is encrypted with another key than that of USAGE_CONTACTS_KEY"),
        (None, "is encrypted, and USAGE_CONTACTS_KEY is not set"),
        ("short", "USAGE_CONTACTS_KEY is no key: give it 32 random ASCII characters or more"),
        ("schlüssel-mit-umlaut-der-lang-genug-wäre", "USAGE_CONTACTS_KEY is no key"),
    ],
)
@pytest.mark.long
def test_a_wrong_or_missing_key_is_a_sentence_and_never_shown(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, key: str | None, sentence: str
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key) if key else monkeypatch.delenv(KEY_VARIABLE)
    before = {file: file.read_bytes() for file in files_of_contacts(settings.home)}
    for words in (["refresh"], ["erase", "a", "u-anna"], ["contacts", "rekey"]):
        code, output = command(*words, "-c", config_of(settings))
        said = sentence if words[0] != "contacts" or "is no key" in sentence else f"set {OLD_KEY_VARIABLE} to it"
        assert code == 1 and said in output, output
        assert "Traceback" not in output and KEY not in output and (not key or key not in output)
    findings = doctor.examine(settings, Path(config_of(settings)), datetime.now(UTC))
    told = [finding for finding in findings if finding.about == "key"]
    assert told and all(finding.level == "failed" for finding in told) and sentence in told[0].words
    assert not any("is broken" in finding.words for finding in findings), "the builds are sound"
    assert {file: file.read_bytes() for file in files_of_contacts(settings.home)} == before


@pytest.mark.long
def test_a_run_with_a_wrong_key_fails_in_one_sentence_and_the_build_stays(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, instance: object
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, OTHER)
    shown = (settings.home.published_dir / "current").readlink()
    result = run_refresh(settings, instance)  # type: ignore[arg-type]
    failed = [event.event_specific_data.error for event in result.all_events if event.is_step_failure]
    assert not result.success
    assert any("is encrypted with another key than that of USAGE_CONTACTS_KEY" in str(error) for error in failed)
    assert not any(KEY in str(error) or OTHER in str(error) for error in failed)
    assert (settings.home.published_dir / "current").readlink() == shown


# ---------------------------------------------------------------- changing the key


@pytest.mark.long
def test_a_key_is_turned_on_changed_and_turned_off(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows() -> set[str]:
        with duckdb.connect() as connection:
            found = set()
            for number, file in enumerate(files_of_contacts(settings.home)):
                if file.suffix == ".parquet":
                    found |= {
                        row[0]
                        for row in connection.execute(f"SELECT name FROM {parquet_rows(connection, file)}").fetchall()
                    }
                else:
                    attach(connection, file, f"f{number}")
                    table = (
                        "account_contacts"
                        if file == settings.home.private_contacts_path
                        else "personal.account_contacts"
                    )
                    found |= {row[0] for row in connection.execute(f"SELECT name FROM f{number}.{table}").fetchall()}
        return found

    modes = {file: file.stat().st_mode for file in files_of_contacts(settings.home)}
    people = rows()
    for new, old, files in ((OTHER, KEY, 6), (OTHER, KEY, 0), (None, OTHER, 6), (None, None, 0), (KEY, None, 6)):
        monkeypatch.setenv(KEY_VARIABLE, new or "")
        monkeypatch.setenv(OLD_KEY_VARIABLE, old or "")
        code, output = command("contacts", "rekey", "-c", config_of(settings))
        assert code == 0 and f"{files} files rewritten" in output, output
        assert KEY not in output and OTHER not in output
        assert all(is_encrypted(file) == (new is not None) for file in files_of_contacts(settings.home))
        assert rows() == people
        assert {file: file.stat().st_mode for file in files_of_contacts(settings.home)} == modes
    assert command("refresh", "-c", config_of(settings))[0] == 0


@pytest.mark.soak
def test_a_change_that_was_killed_half_way_is_run_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of both keys lie beside each other then, and one that is unfinished, plain."""
    first, *_, last = files_of_contacts(settings.home)
    monkeypatch.setenv(KEY_VARIABLE, OTHER)
    monkeypatch.setenv(OLD_KEY_VARIABLE, KEY)
    monkeypatch.setattr(
        "usage_pipeline.operations.rekey.databases_of_contacts", lambda _: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        rekey(settings.home, settings.ingest.wait_seconds)
    monkeypatch.undo()
    monkeypatch.setenv(KEY_VARIABLE, OTHER)
    monkeypatch.setenv(OLD_KEY_VARIABLE, KEY)
    left = first.with_name(f".{first.name}.{'0' * 32}")
    left.write_text("Anna Archer")
    assert 0 < rekey(settings.home, settings.ingest.wait_seconds) < 6
    assert not left.exists() and all_that_tell(settings.home.root) == {}
    monkeypatch.delenv(OLD_KEY_VARIABLE)
    assert [finding.level for finding in doctor._key(settings.home)] == ["ok"]
    with open_database(last):
        pass


@pytest.mark.soak
def test_files_that_are_plain_while_a_key_is_set_are_named_and_read(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE)
    monkeypatch.setenv(OLD_KEY_VARIABLE, KEY)
    rekey(settings.home, settings.ingest.wait_seconds)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.delenv(OLD_KEY_VARIABLE)
    found = list(doctor._key(settings.home))
    assert {finding.level for finding in found} == {"warning"}
    assert "is not encrypted yet" in found[0].words
    # what a killed run of the time before left is taken in, and encrypted
    with duckdb.connect(str(settings.home.private_contacts_path)) as connection:
        connection.execute("SET wal_autocheckpoint = '1GB'; PRAGMA disable_checkpoint_on_shutdown")
        connection.execute("INSERT INTO contacts (name) VALUES ('Emil Egger')")
    assert settings.home.private_contacts_path.with_name("contacts.duckdb.wal").exists()
    assert command("refresh", "-c", config_of(settings))[0] == 0
    assert all_that_tell(settings.home.root) == {}


# ---------------------------------------------------------------- erasing


@pytest.mark.long
def test_a_person_is_erased_from_encrypted_files(settings: Settings) -> None:
    done = erase(settings, "a", "u-anna")
    assert done.places["private contacts, contacts"] == 1
    assert sum("build" in place for place in done.places) == 2
    assert done.places["contacts as delivered (history)"] == 2
    assert all_that_tell(settings.home.root) == {} and plain_files(settings.home) == []
    for file in files_of_contacts(settings.home):
        with duckdb.connect() as connection:
            if file.suffix == ".parquet":
                rows = connection.execute(f"FROM {parquet_rows(connection, file)}").fetchall()
            else:
                attach(connection, file, "f")
                tables = connection.execute(
                    "SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE database_name = 'f'"
                ).fetchall()
                rows = [row for (table,) in tables for row in connection.execute(f"FROM f.{table}").fetchall()]
        assert "Anna" not in str(rows) and rows
    assert erase(settings, "a", "u-anna").found == 0


@pytest.mark.long
def test_an_erasure_fails_where_a_copy_cannot_be_looked_into(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that somebody made has another key: the person may stand in it."""
    copy = settings.home.root / "copies" / "before.duckdb"
    copy.parent.mkdir()
    monkeypatch.setenv(KEY_VARIABLE, OTHER)
    with duckdb.connect() as connection:
        attach(connection, copy, "copy", read_only=False)
        connection.execute("CREATE TABLE copy.x AS SELECT 'Anna Archer' AS name")
        connection.execute("DETACH copy")
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with pytest.raises(EraseError, match=r"before\.duckdb is encrypted with another key"):
        erase(settings, "a", "u-anna")


# ---------------------------------------------------------------- Superset

CONNECTION = """
import json, os, sys, threading
import sqlalchemy as sa, superset_config as c
key = os.environ['USAGE_CONTACTS_KEY']
def engine():
    url, params = c.DB_CONNECTION_MUTATOR(sa.engine.make_url('duckdb:///usage_contacts'), {})
    assert key not in repr(url) + repr(params), 'the key is shown'
    return sa.create_engine(url, poolclass=sa.pool.NullPool, **params)
def ask(connection, sql):
    try:
        return ['answered', str(connection.execute(sa.text(sql)).fetchall())]
    except Exception as error:
        return ['refused', str(error)]
with engine().connect() as one, engine().connect() as two:
    told = {sql: ask(one, sql) for sql in json.load(sys.stdin)}
    told['two at once'] = ask(two, 'SELECT count(*) FROM personal.account_contacts')
inspector = sa.inspect(engine())
told['schemas'] = ['answered', str(inspector.get_schema_names())]
told['tables'] = ['answered', str(inspector.get_table_names(schema='personal'))]
print(json.dumps(told))
"""
STATEMENTS = (
    *("CREATE TABLE memory.x AS SELECT 1", "CREATE TABLE memory.main.x AS SELECT 1", "CREATE TABLE main.x AS SELECT 1"),
    *("CREATE TABLE personal.x AS SELECT 1", "CREATE VIEW personal.x AS SELECT 1", "CREATE SCHEMA x"),
    *("CREATE MACRO x() AS 1", "INSERT INTO personal.account_contacts (name) VALUES ('x')", "USE memory"),
    *("DELETE FROM personal.account_contacts", "DROP TABLE personal.account_contacts", "DETACH contacts"),
    *("ATTACH ':memory:' AS m", "ATTACH '{folder}/attack.duckdb'", "ATTACH '{published}/warehouse.duckdb' AS w"),
    *("ATTACH '{published}/contacts.duckdb' AS c", "COPY (SELECT 1) TO '{folder}/attack.csv'"),
    *("EXPORT DATABASE '{folder}/attack'", "FROM read_text('/etc/passwd')", "FROM read_csv('/etc/passwd')"),
    *("FROM glob('/*')", "FROM '{published}/warehouse.duckdb'", "INSTALL httpfs", "LOAD httpfs"),
    *("SET enable_external_access = true", "SET lock_configuration = false", "SET memory_limit = '100GB'"),
    *("SET temp_directory = '{folder}'", "SET force_mbedtls_unsafe = true", "RESET memory_limit"),
    *("CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')", "SELECT * FROM os"),
    "PRAGMA add_parquet_key('k', '0123456789abcdef')",
)
ASKED = (
    *("FROM duckdb_databases()", "FROM duckdb_settings()", "FROM duckdb_secrets()", "PRAGMA database_list"),
    *("SHOW DATABASES", "SHOW ALL TABLES", "SELECT current_query()", "FROM duckdb_logs", "FROM duckdb_extensions()"),
    *("FROM pragma_database_size()", "FROM duckdb_prepared_statements()"),
    "SELECT current_database()",
    "SELECT DISTINCT catalog_name FROM information_schema.schemata ORDER BY ALL",
    "SELECT name, email, phone FROM personal.account_contacts",
)
# answered to a plain file too: what it makes lives in this connection's memory, and goes with it
_TAKEN_EVER = ("PRAGMA add_parquet_key('k', '0123456789abcdef')",)


def connected(settings: Settings, folder: Path, key: str) -> subprocess.CompletedProcess[str]:
    published = (settings.home.published_dir / "current").resolve()
    statements = [sql.format(folder=folder / "made", published=published) for sql in (*STATEMENTS, *ASKED)]
    environment = (
        os.environ | superset_environment(settings.home, folder) | {"PYTHONPATH": str(SUPERSET), KEY_VARIABLE: key}
    )
    return subprocess.run(
        [str(SUPERSET_PYTHON), "-W", "ignore", "-c", CONNECTION],
        input=json.dumps(statements),
        env=environment | {"TMPDIR": str(folder / "empty")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.long
def test_a_connection_of_superset_may_do_what_one_to_a_plain_file_may_and_shows_no_key(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statement by statement beside the same build, made plain; with the catalogs and schemas that rights rest on."""
    for folder in ("made", "empty"):
        (tmp_path / folder).mkdir()
    done = connected(settings, tmp_path, KEY)
    assert done.returncode == 0, done.stderr
    encrypted = json.loads(done.stdout)
    assert list((tmp_path / "empty").iterdir()) == [], "the empty files are removed"
    monkeypatch.setenv(OLD_KEY_VARIABLE, KEY)
    monkeypatch.delenv(KEY_VARIABLE)
    rekey(settings.home, settings.ingest.wait_seconds)
    plain = json.loads(connected(settings, tmp_path, KEY).stdout)
    assert list((tmp_path / "made").iterdir()) == []
    assert KEY not in done.stdout + done.stderr
    published = (settings.home.published_dir / "current").resolve()
    # its own file can be attached twice where it is plain, and not without the key where it is not: closed further
    again = [f"ATTACH '{published}/contacts.duckdb' AS c", "SHOW DATABASES", "SHOW ALL TABLES", "PRAGMA database_list"]
    again += ["FROM pragma_database_size()", "FROM duckdb_logs", "FROM duckdb_prepared_statements()"]
    again += ["FROM duckdb_databases()", "FROM duckdb_settings()", *(sql for sql in ASKED if "catalog_name" in sql)]
    for sql, told in plain.items():
        assert encrypted[sql][0] == "refused" or told[0] == "answered", f"only where encrypted: {sql}"
        if sql not in again and told[0] == "answered":
            assert encrypted[sql] == told, sql
    for sql in STATEMENTS:
        if sql not in _TAKEN_EVER:
            sql = sql.format(folder=tmp_path / "made", published=published)
            assert encrypted[sql][0] == "refused", sql
    assert "[('contacts',), ('system',), ('temp',)]" in encrypted[again[-1]][1]
    assert "Anna Archer" in encrypted[ASKED[-1]][1] and "(4,)" in encrypted["two at once"][1]
    assert "personal" in encrypted["schemas"][1] and "account_contacts" in encrypted["tables"][1]


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (OTHER, "contacts are encrypted with another key than this server has: correct USAGE_CONTACTS_KEY"),
        ("", "contacts are encrypted, and this server has no key: set USAGE_CONTACTS_KEY"),
        ("short", "superset_config.py: USAGE_CONTACTS_KEY is no key"),
    ],
)
@pytest.mark.long
def test_superset_says_a_wrong_or_missing_key_in_a_sentence(
    settings: Settings, tmp_path: Path, key: str, sentence: str
) -> None:
    done = connected(settings, tmp_path, key)
    assert done.returncode != 0 and sentence in done.stderr
    assert KEY not in done.stderr and (not key or key not in done.stderr)


@pytest.fixture(scope="module")
def served(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Visitor, Visitor, Settings]]:
    """A Superset with the key, and the same build; as a manager and as an administrator."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_VARIABLE, KEY)
        settings = load_settings(made / "sources.yaml")
        with serve_superset(settings, tmp_path_factory.mktemp("superset-encrypted")) as server:
            yield Visitor(server, "manager"), Visitor(server, "admin"), settings


def dataset_of(admin: Visitor) -> int:
    listed = admin.get("/api/v1/dataset/?q=(page_size:200)").json()["result"]
    return next(int(item["id"]) for item in listed if item["table_name"] == "account_contacts")


def shown(answer: requests.Response) -> bool:
    return answer.status_code == 200 and "anna@springfield.example" in answer.text


@pytest.mark.long
def test_a_manager_sees_contacts_that_are_encrypted_and_nobody_sees_the_key(
    served: tuple[Visitor, Visitor, Settings],
) -> None:
    manager, admin, _ = served
    dataset = dataset_of(admin)
    asked = ask_for(dataset, columns=["name", "email", "phone"])
    answers = [manager.post("/api/v1/chart/data", asked) for _ in range(3)]
    assert all(shown(answer) for answer in answers), answers[0].text[:500]
    database = next(
        item["id"]
        for item in admin.get("/api/v1/database/").json()["result"]
        if item["database_name"] == "Usage contacts"
    )
    places = ("", f"{database}", f"{database}/connection", f"{database}/schemas/", f"{database}/catalogs/")
    told = [admin.get(f"/api/v1/database/{place}") for place in places]
    told += [
        admin.run(sql, database) for sql in ("FROM duckdb_settings()", "FROM duckdb_databases()", "EXPLAIN SELECT 1")
    ]
    assert not any(KEY in answer.text for answer in (*answers, *told))
    assert "personal" in told[3].text


@pytest.mark.soak
def test_superset_shows_the_new_file_after_a_change_of_the_key(served: tuple[Visitor, Visitor, Settings]) -> None:
    """The server has the old key still: it says so at once, and shows no connection from before."""
    manager, admin, settings = served
    asked = ask_for(dataset_of(admin), columns=["name", "email"])
    assert shown(manager.post("/api/v1/chart/data", asked))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_VARIABLE, OTHER)
        patch.setenv(OLD_KEY_VARIABLE, KEY)
        rekey(settings.home, settings.ingest.wait_seconds)
        answer = manager.post("/api/v1/chart/data", asked)
        assert not shown(answer) and "encrypted with another key" in answer.text, answer.text[:500]
        assert KEY not in answer.text and OTHER not in answer.text
        patch.setenv(KEY_VARIABLE, KEY)
        patch.setenv(OLD_KEY_VARIABLE, OTHER)
        rekey(settings.home, settings.ingest.wait_seconds)
    assert shown(manager.post("/api/v1/chart/data", asked))


# ---------------------------------------------------------------- keys


def test_a_key_is_random_ascii_of_some_length(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "  "):
        monkeypatch.setenv(KEY_VARIABLE, value)
        assert contacts_key() is None
    for value in (KEY, f" {OTHER}\n"):
        monkeypatch.setenv(KEY_VARIABLE, value)
        assert contacts_key() == value.strip()
    for value in ("x" * 40, "a b" * 20, "é" + KEY):
        monkeypatch.setenv(KEY_VARIABLE, value)
        with pytest.raises(ContactsKeyError, match="openssl rand"):
            contacts_key()
