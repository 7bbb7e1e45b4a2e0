"""Tables of what was issued: rows as people saw them, week by week, read back from history.

Belongs here: making such a table of history's files. Does not: how an entry gets there (`history.py`), nor which rows
it holds (the assets that propose them).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb

from usage_pipeline.core.sql import literal
from usage_pipeline.publishing.history import readable_files


@dataclass(frozen=True)
class Snapshots:
    """A table of everything that was issued of a kind: its name and its columns with their DuckDB types.

    A type may name a default, for entries that are older than the column. `issued_as_of` comes from history itself.
    """

    kind: str
    table: str
    columns: Mapping[str, str]

    @property
    def all_columns(self) -> tuple[str, ...]:
        return (*self.columns, "issued_as_of")

    def replace(self, connection: duckdb.DuckDBPyConnection, history_dir: Path, before: date | None = None) -> int:
        """Replaces the table by history as it is if this run is published, or by its weeks `before` one; returns how
        many weeks that are.

        A column that an older entry lacks has its default there, or is empty. The caller holds `history_locked`.
        """
        files = [f for f in readable_files(history_dir, self.kind) if before is None or f.stem < str(before)]
        typed = {**self.columns, "issued_as_of": "TIMESTAMP"}
        columns = ", ".join(f"{name} {kind}" for name, kind in typed.items())
        connection.execute(f"CREATE OR REPLACE TABLE {self.table} ({columns})")
        for file in files:
            connection.execute(f"INSERT INTO {self.table} BY NAME {self._rows_of(connection, file)}")
        return len(files)

    def _rows_of(self, connection: duckdb.DuckDBPyConnection, file: Path) -> str:
        source = f"read_parquet({literal(file)})"
        there = {name for name, *_ in connection.execute(f"DESCRIBE FROM {source}").fetchall()}
        return f"SELECT {', '.join(name for name in self.all_columns if name in there)} FROM {source}"
