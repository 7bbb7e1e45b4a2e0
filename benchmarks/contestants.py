"""One contestant, one task, one process: `python contestants.py NAME TASK LAKE OUT` prints its figures as JSON.

Tasks: `scan` reads the needed columns and nothing else; `rollup` writes account x application x week with clicks,
records and exact distinct users; `facts` writes account x application x user x day, a file a week, and made of them
account x application x user x week and the roll-up. Every contestant writes zstd Parquet (ours its own files and its
warehouse). Libraries are imported and warmed up before the clock starts. Runs in an environment of its own: none of
the peers is a part of the product.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

KEYS = ["account_id", "application"]
COLUMNS = [*KEYS, "user_id", "event_time", "clicks", "records_created"]


def files_of(lake: Path) -> list[Path]:
    return sorted(lake.glob("year=*/week=*/*.parquet"))


def week_of(file: Path) -> str:
    return f"{file.parent.parent.name[5:]}-{file.parent.name[5:]}"


# ---------------------------------------------------------------- Polars


def polars_scan(lake: Path, _: Path) -> None:
    import polars as pl

    for file in files_of(lake):
        pl.read_parquet(file, columns=COLUMNS)


def _polars_facts(frame):  # type: ignore[no-untyped-def]
    import polars as pl

    return frame.group_by(*KEYS, "user_id", pl.col("event_time").dt.date().alias("day")).agg(
        pl.len().alias("source_rows"), pl.col("clicks").sum(), pl.col("records_created").sum()
    )


def _polars_usage(facts):  # type: ignore[no-untyped-def]
    import polars as pl

    return facts.group_by(KEYS).agg(
        pl.col("clicks").sum(), pl.col("records_created").sum(), pl.col("user_id").n_unique().alias("active_users")
    )


def polars_facts(lake: Path, out: Path) -> None:
    import polars as pl

    for file in files_of(lake):
        facts = _polars_facts(pl.scan_parquet(file)).collect(engine="streaming")
        facts.write_parquet(out / f"facts-{week_of(file)}.parquet", compression="zstd")
        users = facts.group_by(*KEYS, "user_id").agg(pl.col("clicks", "records_created", "source_rows").sum())
        users.write_parquet(out / f"users-{week_of(file)}.parquet", compression="zstd")
        _polars_usage(users).write_parquet(out / f"usage-{week_of(file)}.parquet", compression="zstd")


def polars_rollup(lake: Path, out: Path) -> None:
    import polars as pl

    for file in files_of(lake):
        usage = _polars_usage(pl.scan_parquet(file)).collect(engine="streaming")
        usage.write_parquet(out / f"usage-{week_of(file)}.parquet", compression="zstd")


# ---------------------------------------------------------------- DuckDB

_FACTS = (
    "SELECT account_id, application, user_id, CAST(event_time AS DATE) AS day{week}, count(*) AS source_rows, "
    "sum(clicks) AS clicks, sum(records_created) AS records_created "
    "FROM read_parquet({files}, hive_partitioning = false) GROUP BY ALL"
)
_USERS = (
    "SELECT account_id, application, user_id{week}, sum(clicks) AS clicks, sum(records_created) AS records_created, "
    "sum(source_rows) AS source_rows FROM facts GROUP BY ALL"
)
_USAGE = (
    "SELECT account_id, application{week}, sum(clicks) AS clicks, sum(records_created) AS records_created, "
    "count(*) AS active_users FROM (SELECT account_id, application, user_id{week}, sum(clicks) AS clicks, "
    "sum(records_created) AS records_created FROM {rows} GROUP BY ALL) GROUP BY ALL"
)


def _duckdb(threads: int | None = None):  # type: ignore[no-untyped-def]
    import duckdb

    connection = duckdb.connect(config={"threads": threads} if threads else {})
    connection.execute("SET preserve_insertion_order = false")
    return connection


def _copy(query: str, file: Path) -> str:
    return f"COPY ({query}) TO '{file}' (FORMAT parquet, COMPRESSION zstd)"


def duckdb_per_week_facts(lake: Path, out: Path) -> None:
    connection = _duckdb()
    for file in files_of(lake):
        connection.execute(f"CREATE OR REPLACE TEMP TABLE facts AS {_FACTS.format(week='', files=[str(file)])}")
        connection.execute(_copy("FROM facts", out / f"facts-{week_of(file)}.parquet"))
        connection.execute(f"CREATE OR REPLACE TEMP TABLE users AS {_USERS.format(week='')}")
        connection.execute(_copy("FROM users", out / f"users-{week_of(file)}.parquet"))
        connection.execute(_copy(_USAGE.format(week="", rows="users"), out / f"usage-{week_of(file)}.parquet"))


def duckdb_per_week_rollup(lake: Path, out: Path) -> None:
    connection = _duckdb()
    for file in files_of(lake):
        query = _USAGE.format(week="", rows=f"read_parquet('{file}')")
        connection.execute(_copy(query, out / f"usage-{week_of(file)}.parquet"))


def duckdb_one_query_facts(lake: Path, out: Path) -> None:
    connection, week = _duckdb(), ", date_trunc('week', event_time) AS week"
    listed = [str(file) for file in files_of(lake)]
    connection.execute(f"CREATE TEMP TABLE facts AS {_FACTS.format(week=week, files=listed)}")
    options = "FORMAT parquet, COMPRESSION zstd, PARTITION_BY (week), FILENAME_PATTERN 'facts-{uuid}'"
    connection.execute(f"COPY facts TO '{out / 'facts'}' ({options})")
    connection.execute(f"CREATE TEMP TABLE users AS {_USERS.format(week=', week')}")
    connection.execute(_copy("FROM users", out / "users-all.parquet"))
    connection.execute(_copy(_USAGE.format(week=", week", rows="users"), out / "usage-all.parquet"))


def duckdb_one_query_rollup(lake: Path, out: Path) -> None:
    listed = [str(file) for file in files_of(lake)]
    rows = f"(SELECT *, date_trunc('week', event_time) AS week FROM read_parquet({listed}, hive_partitioning = false))"
    _duckdb().execute(_copy(_USAGE.format(week=", week", rows=rows), out / "usage-all.parquet"))


# ---------------------------------------------------------------- ClickHouse


def chdb_facts(lake: Path, out: Path) -> None:
    for file in files_of(lake):
        facts = out / f"facts-{week_of(file)}.parquet"
        _chdb(
            f"INSERT INTO FUNCTION file('{facts}', Parquet) SELECT account_id, application, user_id, "
            "toDate(event_time) AS day, count() AS source_rows, sum(clicks) AS clicks, "
            f"sum(records_created) AS records_created FROM file('{file}', Parquet) "
            "GROUP BY account_id, application, user_id, day"
        )
        users = out / f"users-{week_of(file)}.parquet"
        _chdb(
            f"INSERT INTO FUNCTION file('{users}', Parquet) SELECT account_id, application, user_id, "
            "sum(clicks) AS clicks, sum(records_created) AS records_created, sum(source_rows) AS source_rows "
            f"FROM file('{facts}', Parquet) GROUP BY account_id, application, user_id"
        )
        _chdb_usage(users, out / f"usage-{week_of(file)}.parquet")


def chdb_rollup(lake: Path, out: Path) -> None:
    for file in files_of(lake):
        _chdb_usage(file, out / f"usage-{week_of(file)}.parquet")


def _chdb_usage(rows: Path, target: Path) -> None:
    _chdb(
        f"INSERT INTO FUNCTION file('{target}', Parquet) SELECT account_id, application, sum(clicks) AS clicks, "
        "sum(records_created) AS records_created, uniqExact(user_id) AS active_users "
        f"FROM file('{rows}', Parquet) GROUP BY account_id, application"
    )


def _chdb(query: str) -> None:
    import chdb

    chdb.query(f"{query} SETTINGS output_format_parquet_compression_method = 'zstd'")


# ---------------------------------------------------------------- pandas


def _pandas_facts(rows, more: list[str]):  # type: ignore[no-untyped-def]
    rows["day"] = rows["event_time"].dt.normalize()
    return (
        rows.groupby([*KEYS, "user_id", "day", *more], sort=False)
        .agg(source_rows=("clicks", "size"), clicks=("clicks", "sum"), records_created=("records_created", "sum"))
        .reset_index()
    )


def _pandas_users(facts, more: list[str]):  # type: ignore[no-untyped-def]
    counts = ["source_rows", "clicks", "records_created"]
    return facts.groupby([*KEYS, "user_id", *more], sort=False)[counts].sum().reset_index()


def _pandas_usage(facts, more: list[str]):  # type: ignore[no-untyped-def]
    return (
        facts.groupby([*KEYS, *more], sort=False)
        .agg(clicks=("clicks", "sum"), records_created=("records_created", "sum"), active_users=("user_id", "nunique"))
        .reset_index()
    )


def pandas_per_week_facts(lake: Path, out: Path) -> None:
    import pandas as pd

    for file in files_of(lake):
        facts = _pandas_facts(pd.read_parquet(file, columns=COLUMNS), [])
        facts.to_parquet(out / f"facts-{week_of(file)}.parquet", compression="zstd")
        users = _pandas_users(facts, [])
        users.to_parquet(out / f"users-{week_of(file)}.parquet", compression="zstd")
        _pandas_usage(users, []).to_parquet(out / f"usage-{week_of(file)}.parquet", compression="zstd")


def pandas_per_week_rollup(lake: Path, out: Path) -> None:
    import pandas as pd

    for file in files_of(lake):
        usage = _pandas_usage(pd.read_parquet(file, columns=COLUMNS), [])
        usage.to_parquet(out / f"usage-{week_of(file)}.parquet", compression="zstd")


def pandas_one_frame_facts(lake: Path, out: Path) -> None:
    facts = _pandas_facts(_one_frame(lake), ["week"])
    for week, rows in facts.groupby("week"):
        rows.to_parquet(out / f"facts-{week:%Y-%m-%d}.parquet", compression="zstd")
    users = _pandas_users(facts, ["week"])
    users.to_parquet(out / "users-all.parquet", compression="zstd")
    _pandas_usage(users, ["week"]).to_parquet(out / "usage-all.parquet", compression="zstd")


def pandas_one_frame_rollup(lake: Path, out: Path) -> None:
    _pandas_usage(_one_frame(lake), ["week"]).to_parquet(out / "usage-all.parquet", compression="zstd")


def _one_frame(lake: Path):  # type: ignore[no-untyped-def]
    import pandas as pd

    rows = pd.concat([pd.read_parquet(file, columns=COLUMNS) for file in files_of(lake)], ignore_index=True)
    rows["week"] = rows["event_time"].dt.to_period("W").dt.start_time
    return rows


# ---------------------------------------------------------------- ours


def ours_facts(lake: Path, out: Path) -> None:
    """The whole of it: listing, checking files and rows, manifests, facts; then weekly users and weekly usage."""
    from benchmarks.ours import ingest, load

    settings = ingest(lake, out)
    load(settings)


def ours_rollup(lake: Path, out: Path) -> None:
    """The roll-up alone, by the product's own reading of plain weeks, weeks side by side; no facts are kept."""
    from datetime import date

    from benchmarks.ours import settings_of
    from usage_pipeline.core.weeks import WeekFolder
    from usage_pipeline.ingestion.fast_path import read_fast_path
    from usage_pipeline.ingestion.lake import Lake

    # by week alone: the day of an event is not looked at
    columns = {name: name for name in COLUMNS if name != "event_time"}
    settings = settings_of(lake, out, columns)
    source, reader = settings.sources.usage, Lake(settings.store)
    connections = [_duckdb(threads=1) for _ in range(2)]

    def one(file: Path) -> None:
        year, number = (int(part) for part in week_of(file).split("-"))
        files = reader.week_files(str(lake), "parquet", WeekFolder(year, number))
        found = read_fast_path(
            settings.completeness, source, reader, files, date.fromisocalendar(year, number, 1), print
        )
        assert found is not None
        assert found.facts is not None
        connection = connections.pop()
        connection.register("facts", found.facts)
        connection.execute(_copy(_USAGE.format(week="", rows="facts"), out / f"usage-{week_of(file)}.parquet"))
        connections.append(connection)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, files_of(lake)))


# ---------------------------------------------------------------- figures


def _totals(out: Path) -> tuple[int, int, int]:
    """Rows, clicks and active users of the roll-up that was written: the same for everybody."""
    import duckdb

    warehouse = out / "home" / "warehouse" / "warehouse.duckdb"
    if warehouse.exists():
        connection, table = duckdb.connect(str(warehouse), read_only=True), "core.weekly_usage"
    else:
        connection, table = duckdb.connect(), f"read_parquet('{out}/usage-*.parquet')"
    found = connection.execute(f"SELECT count(*), sum(clicks), sum(active_users) FROM {table}").fetchone()
    assert found is not None
    return int(found[0]), int(found[1]), int(found[2])


def main() -> None:
    name, task, lake, out = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    contestant: Callable[[Path, Path], None] = globals()[f"{name}_{task}"]
    warm = out / "warm"
    for folder in (out, warm):
        folder.mkdir(parents=True, exist_ok=True)
    contestant(lake.with_name("warm-up"), warm)
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    contestant(lake, out)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
                "peak_mb": after.ru_maxrss / 1024,
                "totals": None if task == "scan" else _totals(out),
            }
        )
    )


if __name__ == "__main__":
    main()
