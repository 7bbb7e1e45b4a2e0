"""What assets are handed: the private warehouse.

Belongs here: opening and closing it, one writer at a time. Does not: what is written (`defs/`), or the settings
(`config.py`), which are handed over as they are.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import filelock
from dagster_duckdb import DuckDBResource
from pydantic import Field

from usage_pipeline.config import Settings

SCHEMAS = ("ref", "core", "mart", "personal")


class WarehouseBusyError(Exception):
    """Another run holds the warehouse; the message says which."""


class Warehouse(DuckDBResource):
    """The private DuckDB file. dagster-duckdb's resource always opens read-write, and stays open when a body raises."""

    lock_seconds: float = Field(default=600, description="seconds to wait for another run that holds the warehouse")

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-write connection inside one transaction: all of the body's changes happen, or none.

        Raises WarehouseBusyError where another process holds the warehouse for longer than `lock_seconds`.
        """
        path = Path(self.database)
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(path.with_suffix(".lock"), self.lock_seconds):
            connection = duckdb.connect(self.database, config=self.connection_config)
            try:
                for schema in SCHEMAS:
                    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
                connection.execute("BEGIN")
                yield connection
                connection.execute("COMMIT")
            finally:
                # closing an open transaction rolls it back
                connection.close()

    @contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-only connection. Raises WarehouseBusyError as above: DuckDB has one writer or many readers."""
        path = Path(self.database)
        with exclusive(path.with_suffix(".lock"), self.lock_seconds):
            connection = duckdb.connect(self.database, read_only=True, config=self.connection_config)
            try:
                yield connection
            finally:
                connection.close()


@contextmanager
def exclusive(lock: Path, seconds: float) -> Iterator[None]:
    """Holds a lock between processes; who holds it stands beside it."""
    holder = lock.with_suffix(".holder")
    try:
        with filelock.FileLock(lock, timeout=seconds):
            holder.write_text(f"process {os.getpid()}", encoding="utf-8")
            yield
    except filelock.Timeout as error:
        who = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
        raise WarehouseBusyError(
            f"{lock.with_suffix('.duckdb')} is held by {who}, for more than {seconds:.0f} s: "
            "wait for that run to end, or cancel it in the Dagster UI"
        ) from error


def warehouse_of(settings: Settings) -> Warehouse:
    return Warehouse(database=str(settings.warehouse_path))
