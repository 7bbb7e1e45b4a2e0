"""Opening what is published: the build that is shown, its contacts, the outcomes of calls. Read only, and locked.

A request resolves `published/current` once and reads that one build to its end. A build never changes, so the process
keeps its file open until another is shown. Contacts are opened for each request of a program that may see them, and
never else: an erased person is gone from the next one on.
"""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.core.tables import OUTCOME_TABLES, WAREHOUSE_TABLES, Table
from usage_pipeline.privacy.encryption import open_database
from usage_pipeline.publishing.builds import BuildStore

_LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "lock_configuration": "true",
    "threads": "1",
    "memory_limit": "1GB",
}
_REFRESH = "`usage-pipeline refresh` makes one"


class NotServedError(Exception):
    """There is no build, or none that this version reads; the message says so, and the remedy."""


@dataclass(frozen=True)
class OpenBuild:
    """A build that is open: its id, folder, and the connection that cursors are made of."""

    build_id: str
    folder: Path
    connection: duckdb.DuckDBPyConnection


class Published:
    """The published files of a data home, for all requests of a process."""

    def __init__(self, home: DataHome) -> None:
        self._home = home
        self._store = BuildStore(home.published_dir)
        self._lock = threading.Lock()
        self._build: OpenBuild | None = None
        self._outcomes: tuple[Path, duckdb.DuckDBPyConnection | None] | None = None

    def build(self) -> OpenBuild:
        """The build that is shown, as of now. Raises NotServedError."""
        folder = Path(os.path.realpath(self._store.link))
        with self._lock:
            if self._build is None or self._build.folder != folder:
                self._build = self._open(folder)
            return self._build

    def outcomes(self) -> tuple[str, duckdb.DuckDBPyConnection | None]:
        """The name of the outcomes that are shown, with a connection; None where none were written yet."""
        file = Path(os.path.realpath(self._home.outcomes_path))
        with self._lock:
            if self._outcomes is None or self._outcomes[0] != file:
                self._outcomes = (file, _connect(file, OUTCOME_TABLES) if file.exists() else None)
            return file.parent.name, self._outcomes[1]

    @contextmanager
    def contacts(self, build: OpenBuild) -> Iterator[duckdb.DuckDBPyConnection]:
        """The contacts of a build. Raises ContactsKeyError where they are encrypted with another key."""
        with open_database(build.folder / "contacts.duckdb") as connection:
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            yield connection

    def _open(self, folder: Path) -> OpenBuild:
        if not self._store.link.is_symlink() or not (folder / "build.json").exists():
            raise NotServedError(f"{self._store.folder}: there is no build yet; {_REFRESH}")
        try:
            build_id = str(json.loads((folder / "build.json").read_text(encoding="utf-8"))["build_id"])
            connection = _connect(folder / "warehouse.duckdb", WAREHOUSE_TABLES)
        except (OSError, ValueError, KeyError, duckdb.Error) as error:
            raise NotServedError(f"{folder} cannot be read ({str(error).splitlines()[0]}); {_REFRESH}") from error
        return OpenBuild(build_id, folder, connection)


def _connect(file: Path, tables: tuple[Table, ...]) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(str(file), read_only=True, config=_LOCKED)
    _check(connection, file, tables)
    return connection


def _check(connection: duckdb.DuckDBPyConnection, file: Path, tables: tuple[Table, ...]) -> None:
    """Raises NotServedError where a table lacks a column that this version reads."""
    found: dict[str, set[str]] = {}
    sql = "SELECT table_schema || '.' || table_name, column_name FROM information_schema.columns"
    for table, column in connection.execute(sql).fetchall():
        found.setdefault(table, set()).add(column)
    for wanted in tables:
        missing = [column for column in wanted.column_names if column not in found.get(wanted.full_name, set())]
        if missing:
            raise NotServedError(
                f"{file.parent.name} was made by another version: {wanted.full_name} lacks {', '.join(missing)}; "
                "refresh with this version, or end a rollback with `usage-pipeline rollback --release`"
            )
