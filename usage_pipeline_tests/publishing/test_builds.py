"""Publishing: immutable builds, an atomic link, rollback and release, what is kept."""

import threading
from pathlib import Path

import duckdb
import pytest

from usage_pipeline.core.tables import TABLES, WAREHOUSE_TABLES
from usage_pipeline.privacy.encryption import contacts_beside
from usage_pipeline.publishing.builds import Build, BuildStore, PublishError


class Private:
    """A private warehouse: opened for each statement, since nobody may hold it while it is published."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def execute(self, sql: str, values: list[str] | None = None) -> None:
        with duckdb.connect(str(self.path)) as connection:
            connection.execute(sql, values or [])


@pytest.fixture
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Private:
    """Every published table with one row of a number that a test can change."""
    path = tmp_path_factory.mktemp("private") / "warehouse's.duckdb"
    samples = {"VARCHAR": "'x'", "BIGINT": "1", "INTEGER": "1", "DOUBLE": "1.0", "BOOLEAN": "TRUE"}
    samples["TIMESTAMP"] = "TIMESTAMP '2025-02-03'"
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"ATTACH '{contacts_beside(path)}' AS personal")
        for schema in {table.schema for table in TABLES.values()} - {"personal"}:
            connection.execute(f"CREATE SCHEMA {schema}")
        for table in TABLES.values():
            columns = ", ".join(f"CAST({samples[c.type]} AS {c.type}) AS {c.name}" for c in table.columns)
            connection.execute(f"CREATE TABLE {table.full_name} AS SELECT {columns}")
    return Private(path)


def publish(store: BuildStore, warehouse: Private, content: str, week: str = "2025-02-03") -> Build:
    build_id = store.next_id("2025-03-05", content)
    for table in ("mart.build", "mart.usage_by_week"):
        column = "build_id" if table == "mart.build" else "account"
        warehouse.execute(f"UPDATE {table} SET {column} = ?", [build_id])
    return store.publish(warehouse.path, Build(build_id, "2025-03-05", week, content, {}))


def test_a_build_is_read_only_and_complete(tmp_path, warehouse) -> None:
    store = BuildStore(tmp_path)
    build = publish(store, warehouse, "a" * 8)
    assert store.current() == build
    files = sorted(f.name for f in (tmp_path / "current").iterdir())
    assert files == ["build.json", "contacts.duckdb", "warehouse.duckdb"]
    assert all(f.stat().st_mode & 0o222 == 0 for f in (tmp_path / "current").iterdir())


def test_personal_data_lies_in_its_own_file_only(tmp_path, warehouse) -> None:
    publish(BuildStore(tmp_path), warehouse, "a" * 8)

    def tables(file: str) -> set[str]:
        connection = duckdb.connect(str(tmp_path / "current" / file), read_only=True)
        found = connection.execute("SELECT table_schema || '.' || table_name FROM information_schema.tables").fetchall()
        connection.close()
        return {name for (name,) in found}

    assert tables("contacts.duckdb") == {"personal.account_contacts"}
    assert not any("contact" in name for name in tables("warehouse.duckdb"))


def test_the_last_builds_are_kept_and_never_the_shown_one_removed(tmp_path, warehouse) -> None:
    store = BuildStore(tmp_path, keep=2)
    first = publish(store, warehouse, "00000000")
    store.rollback(first.build_id)
    for number in range(1, 5):
        publish(store, warehouse, f"{number:08d}")
    kept = [build.build_id for build in store.builds()]
    assert first.build_id in kept
    assert len(kept) == 3
    assert store.current() == first, "a rollback holds until it is released"
    released = store.release()
    assert released is not None
    assert store.current() == released
    assert released.build_id == kept[-1]


def test_a_rollback_to_what_is_not_there_says_what_is(tmp_path, warehouse) -> None:
    store = BuildStore(tmp_path)
    with pytest.raises(PublishError, match="kept are: none"):
        store.rollback()
    publish(store, warehouse, "a" * 8)
    with pytest.raises(PublishError, match="there is no build 7; kept are: 00001-2025-03-05-aaaaaaaa"):
        store.rollback("7")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("ALTER TABLE mart.accounts_summary DROP COLUMN owner", "owner"),
        ("INSERT INTO mart.user_weeks FROM mart.user_weeks", "the key of mart.user_weeks"),
        ("UPDATE mart.accounts_summary SET account_id = NULL", "the key of mart.accounts_summary"),
        ("DELETE FROM mart.usage_by_week", "mart.usage_by_week is empty"),
    ],
)
def test_a_broken_table_is_not_shown_and_leaves_nothing_behind(tmp_path, warehouse, change: str, said: str) -> None:
    store = BuildStore(tmp_path)
    shown = publish(store, warehouse, "a" * 8)
    warehouse.execute(change)
    with pytest.raises((PublishError, duckdb.Error), match=said):
        publish(store, warehouse, "b" * 8)
    assert store.current() == shown
    assert sorted(f.name for f in tmp_path.iterdir()) == [shown.build_id, "current"]


def test_an_older_week_is_not_shown_over_a_newer_one(tmp_path, warehouse) -> None:
    store = BuildStore(tmp_path)
    publish(store, warehouse, "a" * 8, week="2025-02-10")
    with pytest.raises(PublishError, match="went back from 2025-02-10 to 2025-02-03"):
        publish(store, warehouse, "b" * 8, week="2025-02-03")


@pytest.mark.long
def test_readers_see_exactly_one_build_while_builds_are_swapped(tmp_path, warehouse) -> None:
    store = BuildStore(tmp_path)
    publish(store, warehouse, f"{0:08d}")
    done, errors, seen = threading.Event(), [], set()

    def read() -> None:
        while not done.is_set():
            try:
                path = Path(tmp_path / "current").resolve() / "warehouse.duckdb"
                connection = duckdb.connect(str(path), read_only=True)
                row = connection.execute(
                    "SELECT (SELECT build_id FROM mart.build), (SELECT any_value(account) FROM mart.usage_by_week)"
                ).fetchone()
                connection.close()
                assert row is not None
                assert row[0] == row[1], "one query, one build"
                seen.add(row[0])
            except Exception as error:
                errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for number in range(1, 12):
        publish(store, warehouse, f"{number:08d}")
    done.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert len(seen) > 1


def test_only_slices_that_differ_are_written_anew(tmp_path, warehouse) -> None:
    """What a build has in common with the one before is copied; the rest is what the warehouse holds."""
    store = BuildStore(tmp_path)

    def publish_slices(clicks: list[int]) -> Build:
        """A week with each of these clicks."""
        with duckdb.connect(str(warehouse.path)) as connection:
            connection.execute(
                "CREATE TEMP TABLE one AS FROM mart.usage_by_week LIMIT 1; DELETE FROM mart.usage_by_week"
            )
            connection.execute(
                "INSERT INTO mart.usage_by_week SELECT one.* REPLACE (TIMESTAMP '2025-01-06' + 7 * n * INTERVAL 1 DAY AS "
                "week_start, ($clicks)[n + 1] AS clicks) FROM one CROSS JOIN range(len($clicks)) AS numbers (n)",
                {"clicks": clicks},
            )
            days = connection.execute("SELECT CAST(week_start AS VARCHAR), clicks FROM mart.usage_by_week").fetchall()
            connection.execute("UPDATE mart.user_weeks SET user_key = $sum", {"sum": sum(clicks)})
        slices = {"usage_by_week": {"by": "week_start", "promised": "1", "slices": {w: str(c) for w, c in days}}}
        contents = {table.name: "same" for table in WAREHOUSE_TABLES} | dict.fromkeys(slices, str(clicks))
        content = f"{len(store.builds()):08d}"
        build_id = store.next_id("2025-03-05", content)
        return store.publish(
            warehouse.path, Build(build_id, "2025-03-05", "2025-02-03", content, {}, contents, "one", "", slices)
        )

    def shown() -> tuple[list[int], list[int]]:
        with duckdb.connect(str(tmp_path / "current" / "warehouse.duckdb"), read_only=True) as build:
            weeks = build.execute("SELECT clicks FROM mart.usage_by_week ORDER BY week_start").fetchall()
            users = build.execute("SELECT user_key FROM mart.user_weeks").fetchall()
        return [clicks for (clicks,) in weeks], [key for (key,) in users]

    # the clicks of users tell that the rest was copied: they changed, and nobody said so
    publish_slices([1, 2, 3, 4, 5])
    assert shown() == ([1, 2, 3, 4, 5], [15])
    publish_slices([1, 2, 30, 4, 5, 6])
    assert shown() == ([1, 2, 30, 4, 5, 6], [15])
    build = publish_slices([1, 2, 30, 4, 5])
    assert shown() == ([1, 2, 30, 4, 5], [15])
    assert build.rows["usage_by_week"] == 5
    publish_slices([5, 4, 3, 2, 1])
    assert shown() == ([5, 4, 3, 2, 1], [15])
