"""The status file: how the data is, after every run, failed ones too, in a DuckDB file of its own.

It says what the published builds cannot: that a run failed, which check failed, how old the data is, what was
rejected. It is made anew each time, whole, in a folder of its own (`core/numbered.py`).

Layout: `status/<number>-<random>/usage_status.duckdb`; `status/current` -> the newest.

Tables are those of `STATUS_TABLES`; the rows come from `health.py`. What depends on the time of reading, such as how
many days ago something came, is a view: a file that nobody writes any more must not say that all is fresh.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa

from usage_pipeline.config.clock import Clock
from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import Sources
from usage_pipeline.core.locks import file_lock
from usage_pipeline.core.numbered import show_new
from usage_pipeline.core.sql import literal, load_sql, named_values
from usage_pipeline.core.tables import STATUS_TABLES, Table
from usage_pipeline.observability.health import Health

_SECONDS_TO_WAIT = 120
_TYPES = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "DOUBLE": pa.float64(), "TIMESTAMP": pa.timestamp("us")}
# tables that are views, over the rows as they were written
_VIEWS = ("health", "sources")


def status_locked(status_path: Path) -> AbstractContextManager[None]:
    """Keeps others from writing the status file. Raises LockTimeoutError where one does, for minutes."""
    folder = status_path.parent.parent
    return file_lock(folder / ".lock", _SECONDS_TO_WAIT, what=str(folder))


def write_status(home: DataHome, clock: Clock, sources: Sources, instance: dg.DagsterInstance) -> None:
    """Replaces the status file with what the instance, the facts, the history and the builds say now."""
    folder = home.status_path.parent.parent
    # who writes also gathers inside: of two that end together, the later one knows of both
    with status_locked(home.status_path):
        show_new(
            folder,
            lambda made: _write(made / home.status_path.name, Health(home, clock, sources, instance)),
        )


def _write(file: Path, health: Health) -> None:
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE SCHEMA status")
        connection.execute("CREATE SCHEMA written")
        _insert(connection, "written.clock", _clock(health))
        for table in sorted(STATUS_TABLES, key=lambda table: table.name == "health"):  # its sentence is about the rest
            name = f"written.{table.name}" if table.name in _VIEWS else table.full_name
            _insert(connection, name, pa.Table.from_pylist(getattr(health, table.name), schema=_schema(table)))
        for view in _VIEWS:
            connection.execute(
                f"CREATE VIEW status.{view} AS {_with_texts(load_sql('observability', f'status_{view}'))}"
            )
        connection.execute("CHECKPOINT")


def _with_texts(sql: str) -> str:
    """The SQL of a view, which binds nothing, with its texts in it."""
    # the longest first: a name may begin another
    for name, told in sorted(named_values(sql, {}).items(), reverse=True):
        sql = sql.replace(f"${name}", literal(told))
    return sql


def _insert(connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    connection.register("given", rows)
    connection.execute(f"CREATE TABLE {name} AS SELECT * FROM given")
    connection.unregister("given")


def _schema(table: Table) -> pa.Schema:
    return pa.schema([(column.name, _TYPES[column.type]) for column in table.columns])


def _clock(health: Health) -> pa.Table:
    """What the views ask for the time: a pinned as_of stands still, otherwise it is that of the reading."""
    clock, last = health.clock, health.last_publishing
    pinned = clock.as_of.replace(tzinfo=None) if clock.is_pinned else None
    row: dict[str, Any] = {
        "timezone": clock.timezone,
        "pinned_as_of": pinned,
        "last_run_at": last["ended_at"] if last else None,
    }
    time = _TYPES["TIMESTAMP"]
    schema = pa.schema([("timezone", pa.string()), ("pinned_as_of", time), ("last_run_at", time)])
    return pa.Table.from_pylist([row], schema=schema)
