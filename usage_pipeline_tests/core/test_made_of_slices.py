"""Tables made slice by slice: only slices that read something else are made again, and all of it where that is not known."""

from collections.abc import Iterator
from dataclasses import replace

import duckdb
import pytest

from usage_pipeline.core.fingerprints import fingerprint
from usage_pipeline.core.made_of import Recipe, content_on_record, forget_all, not_passed
from usage_pipeline.core.made_of import has_now_passed as passed
from usage_pipeline.core.made_of_slices import Slices, keep_or_make_slices, slices_made

SUMS = "SELECT day, sum(clicks) AS clicks, any_value(factor) AS factor FROM core.clicks CROSS JOIN core.factors GROUP BY day"
READS = (
    "SELECT CAST(day AS VARCHAR) AS slice, 'a day' AS content FROM (SELECT DISTINCT day FROM core.clicks) "
    "UNION ALL SELECT slice, concat_ws(' ', row_count, row_hashes) FROM meta.slices WHERE name = 'core.clicks'"
)
OTHER_CLICKS = "UPDATE core.clicks SET clicks = 1000 WHERE clicks = 3"
SLICES = Slices("mart.sums", "day", READS, {"core.clicks": "day"})


class World:
    """Clicks by day, a factor of all days, and their sums by day; each run is a new one."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        self.connection.execute("CREATE SCHEMA core; CREATE SCHEMA mart")
        self.connection.execute(
            "CREATE TABLE core.clicks AS SELECT CAST(DATE '2026-01-01' + CAST(n % 9 AS INTEGER) AS DATE) AS day, n AS clicks "
            "FROM range(90) AS numbers (n)"
        )
        self.connection.execute("CREATE TABLE core.factors AS SELECT 1.5 AS factor")
        self.run, self.code, self.slices = 0, "1", SLICES

    def refresh(self) -> list[str] | None:
        """The slices that were made, compared with the table made from nothing."""
        self.run += 1
        recipe = Recipe(["mart.sums"], ["core.clicks", "core.factors"], self.code, {})
        made = keep_or_make_slices(self.connection, recipe, self.slices, str(self.run), self._make)
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE whole AS {SUMS}")
        assert fingerprint(self.connection, "mart.sums") == fingerprint(self.connection, "temp.whole")
        assert fingerprint(self.connection, "mart.sums") == content_on_record(self.connection, "mart.sums")
        return made

    def _make(self, due: list[str] | None) -> None:
        if due is None:
            self.connection.execute(f"CREATE OR REPLACE TABLE mart.sums AS {SUMS}")
        else:
            self.connection.execute(
                f"INSERT INTO mart.sums FROM ({SUMS}) WHERE CAST(day AS VARCHAR) IN (SELECT unnest(?))", [due]
            )


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    assert made.refresh() is None
    assert made.refresh() == []
    yield made
    made.connection.close()


@pytest.mark.parametrize(
    ("change", "made"),
    [
        ("INSERT INTO core.clicks VALUES (DATE '2026-01-10', 1)", ["2026-01-10"]),
        (OTHER_CLICKS, ["2026-01-04"]),
        ("DELETE FROM core.clicks WHERE clicks = 12", ["2026-01-04"]),
        ("UPDATE core.clicks SET day = DATE '2026-01-02' WHERE clicks = 3", ["2026-01-02", "2026-01-04"]),
        ("DELETE FROM core.clicks WHERE day = DATE '2026-01-04'", []),
        ("UPDATE core.factors SET factor = 2", None),
        ("UPDATE core.clicks SET clicks = clicks + 1", None),
        ("UPDATE core.clicks SET clicks = clicks", []),
        ("DROP TABLE mart.sums", None),
        ("ALTER TABLE core.factors ADD COLUMN other INTEGER", None),
        ("DROP SCHEMA meta CASCADE", None),
        (f"DELETE FROM meta.slices WHERE slice = '2026-01-04' AND name = 'mart.sums'; {OTHER_CLICKS}", None),
    ],
)
def test_only_slices_that_read_something_else_are_made_again(world: World, change: str, made: list[str] | None) -> None:
    world.connection.execute(change)
    assert world.refresh() == made
    assert world.refresh() == []


def test_other_code_makes_all_slices_again(world: World) -> None:
    world.code = "2"
    assert world.refresh() is None


def test_a_run_that_is_killed_leaves_slices_and_record_as_they_were(world: World) -> None:
    world.connection.execute(OTHER_CLICKS)
    before = fingerprint(world.connection, "mart.sums")
    world.connection.execute("BEGIN")
    assert world.refresh() == ["2026-01-04"]
    world.connection.execute("ROLLBACK")
    assert fingerprint(world.connection, "mart.sums") == before == content_on_record(world.connection, "mart.sums")
    assert world.refresh() == ["2026-01-04"]


def test_rows_in_a_slice_that_nobody_asked_for_are_made_again_each_time(world: World) -> None:
    """The query of what slices read lacks one: its rows must not stay as they were."""
    world.slices = replace(SLICES, reads=f"FROM ({READS}) WHERE slice != '2026-01-04'")
    for clicks in (1000, 1001):
        world.connection.execute(f"UPDATE core.clicks SET clicks = {clicks} WHERE day = DATE '2026-01-04'")
        assert world.refresh() is None


def test_what_is_forgotten_is_made_as_a_whole(world: World) -> None:
    forget_all(world.connection)
    assert world.refresh() is None


def test_only_slices_that_were_made_again_have_their_schema_to_be_checked(world: World) -> None:
    assert not_passed(world.connection, "mart.sums", "one") is None
    passed(world.connection, "mart.sums", "one")
    assert not_passed(world.connection, "mart.sums", "one") == ("", [])
    assert not_passed(world.connection, "mart.sums", "another") is None
    world.connection.execute(OTHER_CLICKS)
    world.refresh()
    assert not_passed(world.connection, "mart.sums", "one") == ("day", ["2026-01-04"])


def test_what_is_published_of_slices_changes_with_them_alone(world: World) -> None:
    before = slices_made(world.connection, ["mart.sums", "core.clicks"])
    assert [*before] == ["mart.sums"]
    assert before["mart.sums"]["by"] == "day"
    world.connection.execute(OTHER_CLICKS)
    world.refresh()
    after = slices_made(world.connection, ["mart.sums"])
    differing = before["mart.sums"]["slices"].items() ^ after["mart.sums"]["slices"].items()
    assert {name for name, _ in differing} == {"2026-01-04"}
