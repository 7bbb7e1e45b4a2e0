"""What assets are handed: the private warehouse.

Belongs here: opening and closing it, one writer at a time. Does not: what is written (`defs/`), or the settings
(`config.py`), which are handed over as they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
from dagster_duckdb import DuckDBResource
from pydantic import Field

from usage_pipeline.config import Settings
from usage_pipeline.lib.locks import exclusive

SCHEMAS = ("ref", "core", "mart", "personal")


class Warehouse(DuckDBResource):
    """The private DuckDB file. dagster-duckdb's resource always opens read-write, and stays open when a body raises."""

    lock_seconds: float = Field(default=600, description="seconds to wait for another run that holds the warehouse")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes away from the file, without opening it. Raises BusyError as below."""
        path = Path(self.database)
        with exclusive(path.with_suffix(".lock"), self.lock_seconds, what=str(path)):
            yield

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-write connection inside one transaction: all of the body's changes happen, or none.

        Raises BusyError where another process holds the warehouse for longer than `lock_seconds`.
        """
        with self.held():
            connection = duckdb.connect(self.database, config=self.connection_config)
            try:
                # no day is ever cut in the zone of the machine
                connection.execute("SET TimeZone = 'UTC'")
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
        """A read-only connection. Raises BusyError as above: DuckDB has one writer or many readers."""
        with self.held():
            connection = duckdb.connect(self.database, read_only=True, config=self.connection_config)
            try:
                connection.execute("SET TimeZone = 'UTC'")
                yield connection
            finally:
                connection.close()


def warehouse_of(settings: Settings) -> Warehouse:
    return Warehouse(database=str(settings.warehouse_path), lock_seconds=settings.ingest.wait_seconds)
