"""What assets are handed: the private warehouse, and the private contacts where they are asked for.

Belongs here: opening and closing it, one writer at a time. Does not: what is written (`defs/`), or the settings
(`config/`), which are handed over as they are.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg
import duckdb
from dagster_duckdb import DuckDBResource
from pydantic import Field, PrivateAttr

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.core.locks import file_lock
from usage_pipeline.privacy.encryption import PERSONAL, attach, contacts_beside, keep_spill_private

SCHEMAS = ("ref", "core", "mart")
# opening and closing cost 50 ms, a third of a small refresh; other processes wait no longer than this for the file
_KEPT_SECONDS = 2.0


class _Kept:
    """An open warehouse with its lock, for the steps of a run that follow each other closely."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, held: ExitStack) -> None:
        self.connection, self.close = connection, held.close
        self.until = time.monotonic() + _KEPT_SECONDS


class Warehouse(DuckDBResource):
    """The private DuckDB file. dagster-duckdb's resource always opens read-write, and stays open when a body raises.

    Within a run the file stays open between steps, for two seconds at most; else it is opened and closed by each body.
    """

    lock_seconds: float = Field(default=600, description="seconds to wait for another run that holds the warehouse")
    _is_in_run: bool = PrivateAttr(default=False)
    _kept: _Kept | None = PrivateAttr(default=None)
    _in_use: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        self._is_in_run = True

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        self._is_in_run = False
        self.let_go()

    def let_go(self) -> None:
        """Closes the file at once where it is still open: for steps that wait for its lock in another way."""
        with self._in_use:
            self._let_go()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes away from the file, without opening it. Raises LockTimeoutError as below."""
        with self._in_use:
            self._let_go()
            with self._lock():
                yield

    @contextmanager
    def get_connection(self, *, with_contacts: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-write connection inside one transaction: all of the body's changes happen, or none.

        `with_contacts` adds `personal.contacts` and what is made of it, a file of its own: a body writes to one of the
        two files. Raises LockTimeoutError where another process holds the warehouse for longer than `lock_seconds`,
        ContactsKeyError where contacts cannot be opened.
        """
        with self._opened(with_contacts=with_contacts) as connection:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def read(self, *, with_contacts: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection that cannot write. Raises LockTimeoutError as above: DuckDB has one writer or many readers."""
        if not with_contacts and self._is_in_run and Path(self.database).exists():
            with self._opened() as connection:
                connection.execute("BEGIN TRANSACTION READ ONLY")
                yield connection
            return
        with self.locked():
            connection = duckdb.connect(self.database, read_only=True, config=self.connection_config)
            try:
                connection.execute("SET TimeZone = 'UTC'")
                if with_contacts:
                    self._attach_contacts(connection, read_only=True)
                yield connection
            finally:
                connection.close()

    @contextmanager
    def _opened(self, *, with_contacts: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of the body's own, without a transaction; closing one rolls an open transaction back."""
        with self._in_use:
            if with_contacts:
                self._let_go()
            kept = self._kept = self._kept or self._open()
            connection = kept.connection.cursor()
            try:
                # no day is ever cut in the zone of the machine
                connection.execute("SET TimeZone = 'UTC'")
                if with_contacts:
                    self._attach_contacts(connection, read_only=False)
                yield connection
            finally:
                connection.close()
                seconds = kept.until - time.monotonic()
                if with_contacts or not self._is_in_run or seconds <= 0:
                    self._let_go()
                else:
                    self._let_go_later(kept, seconds)

    def _open(self) -> _Kept:
        with ExitStack() as opening:
            opening.enter_context(self._lock())
            connection = duckdb.connect(self.database, config=self.connection_config)
            opening.callback(connection.close)
            for schema in SCHEMAS:
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            return _Kept(connection, opening.pop_all())

    def _let_go(self) -> None:
        """Closes the file, for who holds `_in_use`."""
        if self._kept is not None:
            kept, self._kept = self._kept, None
            kept.close()

    def _let_go_later(self, kept: _Kept, seconds: float) -> None:
        """So that a long step that does not use the warehouse keeps nobody else from it."""

        def unless_in_use() -> None:
            # a body that uses it then closes it itself
            if self._kept is kept and self._in_use.acquire(blocking=False):
                try:
                    if self._kept is kept:
                        self._let_go()
                finally:
                    self._in_use.release()

        timer = threading.Timer(seconds, unless_in_use)
        timer.daemon = True
        timer.start()

    @contextmanager
    def _lock(self) -> Iterator[None]:
        path = Path(self.database)
        with file_lock(path.with_suffix(".lock"), self.lock_seconds, what=str(path)):
            yield

    def _attach_contacts(self, connection: duckdb.DuckDBPyConnection, *, read_only: bool) -> None:
        keep_spill_private(connection)
        attach(connection, contacts_beside(Path(self.database)), PERSONAL, read_only=read_only)


def warehouse_of(home: DataHome, seconds: float) -> Warehouse:
    """The warehouse of a data home, and how long to wait for another process that holds it."""
    return Warehouse(database=str(home.warehouse_path), lock_seconds=seconds)
