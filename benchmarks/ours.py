"""Our own part of the benchmarks: the product's functions on a benchmark lake."""

import sys
from datetime import date
from pathlib import Path

import yaml

from benchmarks.lake import COLUMNS
from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.core.weeks import WEEK, weeks_between
from usage_pipeline.defs.usage.assets import load_weeks, make_tables
from usage_pipeline.ingestion.facts import ingest_weeks, read_manifests
from usage_pipeline.resources import warehouse_of


def settings_of(lake: Path, out: Path, columns: dict[str, str] | None = None) -> Settings:
    """A configuration that reads all weeks of a benchmark lake and writes below `out`."""
    folders = sorted(lake.glob("year=*/week=*"))
    newest = folders[-1]
    monday = date.fromisocalendar(int(newest.parent.name[5:]), int(newest.name[5:]), 1)
    content = {
        "name": "Benchmark",
        "home": str(out / "home"),
        "as_of": (monday + WEEK).isoformat(),
        "lookback_weeks": len(folders),
        "sources": {"usage": {"path": str(lake), "partitioned": True, "columns": columns or {c: c for c in COLUMNS}}},
    }
    file = out / "sources.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_settings(file)


def ingest(lake: Path, out: Path) -> Settings:
    """From raw files to facts, through all checks of files and rows."""
    settings = settings_of(lake, out)
    weeks = weeks_between(settings.clock.window_start, settings.clock.running_week)
    ingest_weeks(settings, weeks, now=settings.as_of.isoformat())
    lost = {m.week: m.lost for m in read_manifests(settings.home.facts_dir).values() if m.lost}
    assert not lost, lost
    return settings


def load_week(settings: Settings, first: date, last: date) -> None:
    """From facts to weekly users and weekly usage in the warehouse, of the weeks from `first` to `last`."""
    with warehouse_of(settings.home, settings.ingest.wait_seconds).get_connection() as connection:
        make_tables(connection)
        load_weeks(connection, settings, first, last)


def load(settings: Settings) -> None:
    load_week(settings, settings.clock.window_start, settings.clock.running_week)


if __name__ == "__main__":
    ingest(Path(sys.argv[1]), Path(sys.argv[2]))
