"""Published builds written by hand: every table that a build has, with the few rows that a test names."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb

from usage_pipeline.core.tables import CONTACT_TABLES, OUTCOME_TABLES, WAREHOUSE_TABLES, Table
from usage_pipeline.publishing.builds import Build

RENEWALS_THROUGH = "2027-05-23"
Rows = Mapping[str, Iterable[Mapping[str, Any]]]


def publish_by_hand(home: Path, number: int, day: str, rows: Rows) -> str:
    """Writes a build with `rows` by table, shows it, and returns its id.

    A row may hold more than a table has columns: the others are left out. `mart.build` is given the id.
    """
    build_id = f"{number:05d}-{day}-aaaaaaaa"
    folder = home / "published" / build_id
    folder.mkdir(parents=True)
    write_tables(folder / "warehouse.duckdb", WAREHOUSE_TABLES, rows)
    write_tables(folder / "contacts.duckdb", CONTACT_TABLES, rows)
    with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
        connection.execute("UPDATE mart.build SET build_id = ?", [build_id])
    build = Build(build_id, f"{day}T00:00:00-07:00", "2026-11-16", "aaaaaaaa", {}, renewals_through=RENEWALS_THROUGH)
    (folder / "build.json").write_text(json.dumps(asdict(build)))
    link = home / "published" / "current"
    link.unlink(missing_ok=True)
    link.symlink_to(build_id)
    return build_id


def outcomes_by_hand(home: Path, build_id: str, rows: Rows) -> None:
    """Writes the outcomes of a build with `rows` by table, and shows them."""
    folder = home / "outcomes" / "00001-hand"
    folder.mkdir(parents=True)
    write_tables(folder / "usage_outcomes.duckdb", OUTCOME_TABLES, rows)
    (folder / "made_of").write_text(json.dumps({"build_id": build_id, "digest": ""}))
    (home / "outcomes" / "current").symlink_to(folder.name)


def write_tables(file: Path, tables: Iterable[Table], rows: Rows) -> None:
    with duckdb.connect(str(file)) as connection:
        for table in tables:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {table.schema}")
            columns = ", ".join(f'"{column.name}" {column.type}' for column in table.columns)
            connection.execute(f"CREATE TABLE {table.full_name} ({columns})")
            for row in rows.get(table.name, ()):
                kept = {name: value for name, value in row.items() if name in table.column_names}
                named, marks = ", ".join(kept), ", ".join("?" for _ in kept)
                connection.execute(f"INSERT INTO {table.full_name} ({named}) VALUES ({marks})", list(kept.values()))
