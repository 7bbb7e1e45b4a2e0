"""The small published tables of each build, kept for good as Parquet: builds themselves go after a while.

`history/builds/<build id>/<table>.parquet`; a folder is there whole or not at all, and is never written twice. The
large tables are left out: they can be computed again from facts. All of it is written under `history_locked`.
"""

from datetime import date
from pathlib import Path

import duckdb

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import PublishSettings
from usage_pipeline.core.files import FOLDER, atomic_write
from usage_pipeline.core.sql import literal
from usage_pipeline.core.tables import WAREHOUSE_TABLES
from usage_pipeline.publishing.builds import store_of

_COMPUTED_AGAIN = {"usage_by_week", "user_weeks", "kpi_report"}


class KeptTableError(Exception):
    """No such table or build is kept; the message says what there is."""


def kept_builds(history_dir: Path) -> list[Path]:
    """The folder of every build whose tables are kept, oldest first."""
    return sorted(path for path in _folder(history_dir).glob("[0-9]*-*") if path.is_dir())


def keep_tables(home: DataHome, publish: PublishSettings) -> Path | None:
    """Keeps the small tables of the build that is shown; None where they are kept, or a rollback is pinned."""
    store = store_of(home, publish)
    build = store.current()
    if build is None or store.pinned is not None:
        return None
    kept = _folder(home.history_dir) / build.build_id
    if kept.exists():
        return None
    with atomic_write(kept) as tmp_path:
        tmp_path.mkdir(FOLDER)
        _write(store.path(build.build_id) / "warehouse.duckdb", tmp_path)
    return kept


def _write(build: Path, folder: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH {literal(build)} AS build (READ_ONLY)")
        for table in WAREHOUSE_TABLES:
            if table.name not in _COMPUTED_AGAIN:
                file = literal(folder / f"{table.name}.parquet")
                connection.execute(f"COPY build.{table.full_name} TO {file} (FORMAT parquet, COMPRESSION zstd)")


def find_table(history_dir: Path, name: str, day: date) -> tuple[Path, str]:
    """The file of a table as it was shown on a day, and its build. Raises KeptTableError."""
    shown = [folder for folder in kept_builds(history_dir) if _day_of(folder) <= day]
    if not shown:
        first = next((f"the first is of {_day_of(folder)}" for folder in kept_builds(history_dir)), "none is kept yet")
        raise KeptTableError(f"no build was shown on {day}: {first}")
    file = shown[-1] / f"{name}.parquet"
    if not file.exists():
        there = ", ".join(sorted(path.stem for path in shown[-1].glob("*.parquet")))
        raise KeptTableError(f"build {shown[-1].name} kept no table '{name}'; it kept {there}")
    return file, shown[-1].name


def build_of_week(history_dir: Path, week: date) -> Path | None:
    """The folder of the last build kept whose newest complete week began on that Monday; None where there is none."""
    for folder in reversed(kept_builds(history_dir)):
        file = folder / "build.parquet"
        found = duckdb.execute(f"SELECT CAST(newest_week AS DATE) FROM read_parquet({literal(file)})").fetchone()
        if found == (week,):
            return folder
        if found is not None and found[0] < week:
            return None
    return None


def _day_of(folder: Path) -> date:
    """Of `00012-2026-11-22-1a2b3c4d`, the day of its as_of."""
    return date.fromisoformat("-".join(folder.name.split("-")[1:4]))


def _folder(history_dir: Path) -> Path:
    return history_dir / "builds"
