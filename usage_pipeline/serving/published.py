"""Opening what is published: the build that is shown, its contacts, the outcomes of calls. Read only, and locked.

A request resolves `published/current` once and reads that one build to its end. A build never changes, so the process
keeps its file open until another is shown. Contacts are opened for each request of a program that may see them, and
never else: an erased person is gone from the next one on.
"""

import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.core.tables import OUTCOME_TABLES, WAREHOUSE_TABLES, Table
from usage_pipeline.outcomes.database import build_of
from usage_pipeline.privacy.encryption import open_database
from usage_pipeline.publishing.builds import BuildStore

logger = logging.getLogger("usage_pipeline.serving")
# as Superset's connections are; nothing is written to a disk
_LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
    "lock_configuration": "true",
    "threads": "1",
    "memory_limit": "1GB",
}
# a file that may be encrypted is attached first
_LOCKED_LATER = ("SET threads = 1", "SET enable_external_access = false", "SET lock_configuration = true")
_NO_OUTCOMES = "no outcomes were written yet: the first are, within a minute of a build"
_OTHER_OUTCOMES = "the outcomes at hand are of another build: those of this one are written within a minute of it"
_REFRESH = "`usage-pipeline refresh` makes one"


class NotServedError(Exception):
    """There is no build, none that this version reads, or no outcomes of it yet; the message says so."""


@dataclass(frozen=True)
class OpenBuild:
    """A build that is open: its id, folder, and the connection that cursors are made of.

    as_of: the moment that it looks at the data from, with the offset of the configured zone; renewals_through: the last
    day that renewals are listed of, empty in a build that does not say.
    """

    build_id: str
    folder: Path
    connection: duckdb.DuckDBPyConnection
    as_of: str
    renewals_through: str


@dataclass(frozen=True)
class OpenOutcomes:
    """What was recorded of calls. name: another with every answer; connection: None where nothing was written yet.

    no_status: why what came of the calls of the build is not known; empty where it is.
    """

    name: str
    connection: duckdb.DuckDBPyConnection | None
    no_status: str = ""


class Published:
    """The published files of a data home, for all requests of a process."""

    def __init__(self, home: DataHome) -> None:
        self._home = home
        self._store = BuildStore(home.published_dir)
        self._lock = threading.Lock()
        self._build: OpenBuild | None = None
        self._outcomes: tuple[Path, str, OpenOutcomes] | None = None
        self._without_value: dict[tuple[str, str, str], bool] = {}

    def build(self) -> OpenBuild:
        """The build that is shown, as of now. Raises NotServedError."""
        with self._lock:
            folder = self._shown()
            if self._build is None or self._build.folder != folder:
                try:
                    self._build = self._open(folder)
                except NotServedError:
                    # another may be shown, and this one removed, since the link was read
                    if self._shown() == folder:
                        raise
                    self._build = self._open(self._shown())
                self._without_value = {}
            return self._build

    def warm(self) -> None:
        """Opens the build that is shown, so that no program waits for what only the first one needs."""
        with suppress(NotServedError):
            # for the first value that is bound DuckDB imports pandas, which takes seconds
            self.build().connection.cursor().execute("SELECT $first", {"first": 1}).fetchall()

    def outcomes(self, build: OpenBuild) -> OpenOutcomes:
        """What was recorded, beside a build: outcomes of another build say nothing of the calls of this one."""
        file = Path(os.path.realpath(self._home.outcomes_path))
        with self._lock:
            if self._outcomes is None or self._outcomes[:2] != (file, build.build_id):
                self._outcomes = (file, build.build_id, _open_outcomes(file, build))
            return self._outcomes[2]

    def is_without_value(self, build: OpenBuild, table: Table, column: str | None = None) -> bool:
        """Whether no row of a build has a value in a column, or the table has no row at all.

        Stops at the first value. Kept while the build is shown.
        """
        key = (build.build_id, table.full_name, column or "")
        kept = self._without_value
        if key not in kept:
            where = f"WHERE {column} IS NOT NULL" if column else ""
            found = build.connection.cursor().execute(f"SELECT 1 FROM {table.full_name} {where} LIMIT 1").fetchone()
            kept[key] = found is None
        return kept[key]

    @contextmanager
    def contacts(self, build: OpenBuild) -> Iterator[duckdb.DuckDBPyConnection]:
        """The contacts of a build. Raises ContactsKeyError where they are encrypted with another key."""
        with open_database(build.folder / "contacts.duckdb") as connection:
            for setting in _LOCKED_LATER:
                connection.execute(setting)
            yield connection

    def _shown(self) -> Path:
        return Path(os.path.realpath(self._store.link))

    def _open(self, folder: Path) -> OpenBuild:
        if not self._store.link.is_symlink() or not (folder / "build.json").exists():
            # where it was looked for is for the operator alone
            logger.error("%s: there is no build yet; %s", self._store.folder, _REFRESH)
            raise NotServedError(f"there is no build yet; {_REFRESH}")
        try:
            about = json.loads((folder / "build.json").read_text(encoding="utf-8"))
            build_id, as_of = str(about["build_id"]), str(about["as_of"])
            connection = _connect(folder / "warehouse.duckdb", WAREHOUSE_TABLES)
        except (OSError, ValueError, KeyError, duckdb.Error) as error:
            logger.error("%s cannot be read (%s)", folder, str(error).splitlines()[0])
            raise NotServedError(
                f"build {folder.name} cannot be read: the log of the server says why; {_REFRESH}"
            ) from error
        return OpenBuild(build_id, folder, connection, as_of, str(about.get("renewals_through", "")))


def _open_outcomes(file: Path, build: OpenBuild) -> OpenOutcomes:
    if not file.exists():
        return OpenOutcomes("none", None, _NO_OUTCOMES)
    connection, name = _connect(file, OUTCOME_TABLES), file.parent.name
    return OpenOutcomes(name, connection, "" if build_of(file) == build.build_id else _OTHER_OUTCOMES)


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
