"""What assets are handed: the private warehouse, and the private contacts where they are asked for.

Belongs here: opening and closing it, one writer at a time. Does not: what is written (`defs/`), or the settings
(`config.py`), which are handed over as they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
from dagster_duckdb import DuckDBResource
from pydantic import Field

from usage_pipeline.config.settings import Settings
from usage_pipeline.core.locks import file_lock
from usage_pipeline.privacy.encryption import PERSONAL, attach, contacts_beside, keep_spill_private

SCHEMAS = ("ref", "core", "mart")


class Warehouse(DuckDBResource):
    """The private DuckDB file. dagster-duckdb's resource always opens read-write, and stays open when a body raises."""

    lock_seconds: float = Field(default=600, description="seconds to wait for another run that holds the warehouse")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes away from the file, without opening it. Raises LockTimeoutError as below."""
        path = Path(self.database)
        with file_lock(path.with_suffix(".lock"), self.lock_seconds, what=str(path)):
            yield

    @contextmanager
    def get_connection(self, *, with_contacts: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-write connection inside one transaction: all of the body's changes happen, or none.

        `with_contacts` adds `personal.contacts` and what is made of it, a file of its own: a body writes to one of the
        two files. Raises LockTimeoutError where another process holds the warehouse for longer than `lock_seconds`,
        ContactsKeyError where contacts cannot be opened.
        """
        with self.locked():
            connection = duckdb.connect(self.database, config=self.connection_config)
            try:
                # no day is ever cut in the zone of the machine
                connection.execute("SET TimeZone = 'UTC'")
                for schema in SCHEMAS:
                    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
                if with_contacts:
                    self._attach_contacts(connection, read_only=False)
                connection.execute("BEGIN")
                yield connection
                connection.execute("COMMIT")
            finally:
                # closing an open transaction rolls it back
                connection.close()

    @contextmanager
    def read(self, *, with_contacts: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-only connection. Raises LockTimeoutError as above: DuckDB has one writer or many readers."""
        with self.locked():
            connection = duckdb.connect(self.database, read_only=True, config=self.connection_config)
            try:
                connection.execute("SET TimeZone = 'UTC'")
                if with_contacts:
                    self._attach_contacts(connection, read_only=True)
                yield connection
            finally:
                connection.close()

    def _attach_contacts(self, connection: duckdb.DuckDBPyConnection, *, read_only: bool) -> None:
        keep_spill_private(connection)
        attach(connection, contacts_beside(Path(self.database)), PERSONAL, read_only=read_only)


def warehouse_of(settings: Settings) -> Warehouse:
    return Warehouse(database=str(settings.warehouse_path), lock_seconds=settings.ingest.wait_seconds)
