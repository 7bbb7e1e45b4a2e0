"""A refresh that leaves tables as they are has the rows of one that makes them all from nothing, whatever came before.

Sequences of deliveries, late weeks, changed subscriptions, settings and erasures are drawn by number; after each step
every table is compared with those of the same home whose warehouse was removed: the same history, the same `as_of`,
nothing else to go on.
"""

import random
import shutil
from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
import yaml

from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.core.fingerprints import fingerprint
from usage_pipeline.core.weeks import WEEK
from usage_pipeline.operations.erase import erase
from usage_pipeline_tests.support.lakes import event, write_config, write_week
from usage_pipeline_tests.support.refreshes import run_refresh, upstream_of

pytestmark = pytest.mark.long

FIRST = date(2025, 1, 6)
WEEKS = 9
SETTINGS = (
    {"activity": {"low_floor_clicks": 3}},
    {"activity": {"renewal_gap_days": 10}},
    {"anomalies": {"listed_weeks": 4}},
    {"health": {"green_from": 80}},
)


class World:
    """A lake of a few accounts that goes on week by week, and its home."""

    def __init__(self, folder: Path, seed: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.chance = folder, random.Random(seed)
        self.changes: dict[str, Any] = {}
        self.through = FIRST - WEEK
        self.subscriptions = [
            (f"a{n}", app, FIRST - timedelta(days=200), "") for n in range(4) for app in ("permits", "codes")
        ]
        for _ in range(WEEKS):
            self.new_week()
        self.configure()

    def new_week(self) -> None:
        self.through += WEEK
        self._write(self.through, "part-0.parquet", 30)

    def late_rows(self) -> None:
        week = FIRST + self.chance.randrange(WEEKS) * WEEK
        self._write(week, f"part-{self.chance.randrange(1, 9)}.parquet", 4)

    def _write(self, week: date, name: str, rows: int) -> None:
        iso = week.isocalendar()
        drawn = [
            event(
                str(week + timedelta(days=self.chance.randrange(7))),
                account=f"a{self.chance.randrange(4)}",
                application=self.chance.choice(("permits", "codes")),
                user=f"u{self.chance.randrange(3)}",
                clicks=self.chance.randrange(1, 20),
            )
            for _ in range(rows)
        ]
        write_week(self.folder / "lake", f"year={iso.year}/week={iso.week:02d}", drawn, name)

    def changed_subscription(self) -> None:
        at = self.chance.randrange(len(self.subscriptions))
        account, app, start, _ = self.subscriptions[at]
        ends = str(self.through - timedelta(days=self.chance.randrange(-60, 40)))
        self.subscriptions[at] = (account, app, start, ends)

    def another_setting(self) -> None:
        self.changes = {**self.changes, **self.chance.choice(SETTINGS)}

    def erased_person(self) -> None:
        erase(self.settings(), f"a{self.chance.randrange(4)}", f"u{self.chance.randrange(3)}")

    def nothing(self) -> None:
        """The same once more."""

    def configure(self) -> None:
        lines = ["account_id,application,start_date,end_date", *(",".join(map(str, s)) for s in self.subscriptions)]
        (self.folder / "subscriptions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        file = write_config(self.folder, as_of=str(self.through + WEEK + timedelta(days=2)), **self.changes)
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        columns = {name: name for name in lines[0].split(",")}
        content["sources"]["subscriptions"] = {"path": "subscriptions.csv", "format": "csv", "columns": columns}
        file.write_text(yaml.safe_dump(content), encoding="utf-8")

    def settings(self) -> Settings:
        return load_settings(self.folder / "sources.yaml")


STEPS = ("new_week", "late_rows", "changed_subscription", "another_setting", "erased_person", "nothing")


def refreshed(settings: Settings) -> dict[str, str]:
    """The fingerprint of each table after a refresh up to the build; and what the record claims is there."""
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_refresh(settings, instance, only=upstream_of(settings, "published_build")).success
    with duckdb.connect(str(settings.home.warehouse_path), read_only=True) as connection:
        names = connection.execute(
            "SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE schema_name IN ('ref', 'core', 'mart') "
            # which file a week was loaded of, and which build this is, differ between any two
            "AND table_name NOT IN ('loaded_weeks', 'build') ORDER BY 1"
        ).fetchall()
        found = {name: fingerprint(connection, name) for (name,) in names}
        claimed = dict(
            connection.execute("SELECT name, content FROM meta.made_of WHERE made_of IS NOT NULL").fetchall()
        )
    assert {name: found[name] for name in claimed} == claimed
    return found


def published(settings: Settings) -> dict[str, str]:
    with duckdb.connect(str(settings.home.published_dir / "current" / "warehouse.duckdb"), read_only=True) as build:
        names = build.execute(
            "SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE table_name != 'build' ORDER BY 1"
        ).fetchall()
        return {name: fingerprint(build, name) for (name,) in names}


def live_through(folder: Path, seed: int, steps: list[str]) -> None:
    """Goes through steps, each compared with tables made from nothing."""
    world = World(folder / "kept", seed)
    refreshed(world.settings())
    for number, step in enumerate(steps):
        getattr(world, step)()
        world.configure()
        # in the same place: months that are closed name the files that they were computed from
        before = folder / "before"
        shutil.copytree(world.folder, before, symlinks=True)
        world.settings().home.warehouse_path.unlink()
        whole, whole_published = refreshed(world.settings()), published(world.settings())
        shutil.rmtree(world.folder)
        before.rename(world.folder)
        kept = refreshed(world.settings())
        assert {n for n in {*kept, *whole} if kept.get(n) != whole.get(n)} == set(), (seed, number, steps)
        assert published(world.settings()) == whole_published, (seed, number, steps)


@pytest.mark.parametrize(
    "steps",
    [["new_week"], ["changed_subscription", "nothing"], ["late_rows", "new_week"]],
    ids="-".join,
)
def test_what_is_kept_is_what_would_be_made(tmp_path, steps: list[str]) -> None:
    live_through(tmp_path, 1, steps)


@pytest.mark.soak
def test_long_histories_are_what_would_be_made(tmp_path) -> None:
    done: Counter[str] = Counter()
    for seed in range(8):
        steps = random.Random(seed).choices(STEPS, k=6)
        live_through(tmp_path / str(seed), seed, steps)
        done.update(steps)
    print(f"8 histories, {done.total()} steps, each compared with a full rebuild: {dict(done)}")
