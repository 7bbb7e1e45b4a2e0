"""Numbers of accounts x applications: each is given once and kept for good.

Belongs here: giving the next numbers, keeping them, reading them. Does not: which accounts x applications there are
(`sql/subscription_periods.sql`).

Numbers lie in history, since they cannot be computed again: they tell in which order accounts x applications came.
One file a run that gave any, named by its first number, never written twice. It is there before the warehouse uses a
number, so a run that is killed in between wastes none and gives none twice. A second run gives no number.
"""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from usage_pipeline.core.files import atomic_write
from usage_pipeline.core.sql import load_sql

COLUMNS = pa.schema([("account_application_id", pa.int32()), ("account_id", pa.string()), ("application", pa.string())])


def no_numbers() -> pa.Table:
    return COLUMNS.empty_table()


def replace_account_applications(connection: duckdb.DuckDBPyConnection, history_dir: Path) -> int:
    """Replaces `core.account_applications`; returns how many numbers are new. The caller holds `history_locked`."""
    folder = history_dir / "account_applications"
    given = number(connection, kept_numbers(folder))
    keep(given, folder)
    return int(given.num_rows)


def kept_numbers(folder: Path) -> pa.Table:
    """Every number that was ever given, with what it stands for."""
    files = sorted(folder.glob("*.parquet"))
    return pa.concat_tables([no_numbers(), *(pq.read_table(file, schema=COLUMNS) for file in files)])


def number(connection: duckdb.DuckDBPyConnection, kept: pa.Table) -> pa.Table:
    """Replaces `core.account_applications`; returns the rows whose numbers are not among those kept."""
    connection.register("kept_numbers", kept)
    sql = load_sql("activity", "account_applications")
    connection.execute(f"CREATE OR REPLACE TABLE core.account_applications AS {sql}")
    given = connection.execute(
        "FROM core.account_applications WHERE account_application_id NOT IN "
        "(SELECT account_application_id FROM kept_numbers) ORDER BY account_application_id"
    ).to_arrow_table()
    connection.unregister("kept_numbers")
    return given.cast(COLUMNS)


def keep(given: pa.Table, folder: Path) -> None:
    """Keeps numbers that were given, if there are any."""
    if given.num_rows:
        first = given["account_application_id"][0].as_py()
        with atomic_write(folder / f"{first:010d}.parquet") as tmp_path:
            pq.write_table(given, tmp_path, compression="zstd")
