"""The seam between engines: from the files of a week to the facts of a week.

Belongs here: reading the usage source, one week at a time, and saying of every file and every row what became of
it. Does not: which weeks are read and where facts are kept (`facts.py`). Another engine takes the place of
`UsageReader`: `files_of`, `read` and `remarks` are all that `facts.py` knows, and `spark_reader.py` is one.

A week is read in one pass: rows are summed to account x application x user x day. A week of nothing but plain rows
goes the quick way of `plain_week.py`; any other is read by DuckDB, with the reason why rows are kept aside, and the
files are read again only for the rejected rows themselves. What is larger than `ingest.memory_mb` goes to disk.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from usage_pipeline.config import Settings, Source
from usage_pipeline.lib.contract import USAGE
from usage_pipeline.lib.lake import Lake, LakeError, LakeFile
from usage_pipeline.lib.plain_week import read_plain_week
from usage_pipeline.lib.sources import (
    PLACE,
    RAW,
    Mapping,
    SourceError,
    day_expression,
    first_line,
    mapped_columns,
    match_columns,
    open_files,
    open_source,
    reason_of,
    unreadable,
    verify_checksums,
)
from usage_pipeline.lib.sql import literal, load_sql, run_sql
from usage_pipeline.lib.weeks import folders_of, weeks_of

_WRITTEN = "was written while it was read; the next run reads it again"


@dataclass
class WeekRows:
    """What the files of a week hold. The two tables can be written until the reader turns to the next week.

    `write_facts` writes a Parquet file with a text in its metadata, `write_rejected` one without. `groups` counts rows
    and clicks by (reason or None, whether a duplicate); `rows_in_files` and `clicks_in_files` are counted apart from
    them, where a folder holds no other week. `file_rows` are rows by file, as footers say.
    """

    groups: dict[tuple[str | None, bool], tuple[int, int]]
    write_facts: Callable[[Path, str], None]
    write_rejected: Callable[[Path], None]
    set_aside: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    file_rows: dict[str, int] = field(default_factory=dict)
    rows_in_files: int | None = None
    clicks_in_files: int | None = None

    @property
    def rows_read(self) -> int:
        return sum(rows for rows, _ in self.groups.values())

    @property
    def kept(self) -> tuple[int, int]:
        """Rows and clicks that became facts."""
        return self.groups.get((None, False), (0, 0))

    @property
    def duplicates(self) -> tuple[int, int]:
        """Rows and clicks dropped because their event came before."""
        return self.groups.get((None, True), (0, 0))

    @property
    def reasons(self) -> dict[str, int]:
        """Rejected rows by reason."""
        found: dict[str, int] = {}
        for (reason, _), (rows, _) in self.groups.items():
            if reason is not None:
                found[reason] = found.get(reason, 0) + rows
        return found

    @property
    def clicks_rejected(self) -> int:
        return sum(clicks for (reason, _), (_, clicks) in self.groups.items() if reason is not None)


class UsageReader:
    """Reads weeks of the usage source; a plain partitioned set is pruned by week, anything else is read once.

    `workers` is how many readers work side by side: they share the cores and `ingest.memory_mb`.
    """

    def __init__(self, settings: Settings, workers: int = 1) -> None:
        self.settings = settings
        self.source = settings.sources.usage
        # why weeks were not read by the engine that is configured, counted
        self.remarks: Counter[str] = Counter()
        self.lake = Lake(settings)
        self.connection = self.lake.connect()
        self.connection.execute(f"SET memory_limit = '{settings.ingest.memory_mb // workers}MB'")
        self.connection.execute(f"SET temp_directory = {literal(settings.home / 'spill')}")
        if workers > 1:
            self.connection.execute(f"SET threads = {max(1, settings.ingest.cores // workers)}")
        if self.source.format == "parquet":
            # the order of rows means nothing, and their number in the file is told by the reader
            self.connection.execute("SET preserve_insertion_order = false")
        self._whole: list[LakeFile] | None = None

    def close(self) -> None:
        self.connection.close()

    def files_of(self, week: date) -> list[LakeFile]:
        """The files that hold the week. A source that is read whole has the same files for every week."""
        if self.source.partitioned:
            return self.lake.files_of_week(self.source, week)
        return self._open_whole()

    def read(self, week: date, files: list[LakeFile]) -> WeekRows:
        """The rows of a week in its files; a file that cannot be read is set aside, and the others go through.

        Raises LakeError where the store fails, SourceError where a source that is read whole cannot be mapped.
        """
        if not self.source.partitioned:
            return self._count(week, self.source, [], None)
        source = self.source.at(week)
        rows = self._read_plain(week, source, files)
        if rows is None or set(files) != set(self.files_of(week)):
            rows = self._read_carefully(week, source, files)
        return rows

    def _read_plain(self, week: date, source: Source, files: list[LakeFile]) -> WeekRows | None:
        """The quick way; None where it cannot judge."""
        if _weeks_beside(week, source):
            return None
        self.connection.execute("DROP TABLE IF EXISTS parts")

        def hand_on(part: pa.Table) -> None:
            self.connection.register("part", part)
            self.connection.execute("CREATE TEMP TABLE IF NOT EXISTS parts AS SELECT * FROM part LIMIT 0")
            self.connection.execute("INSERT INTO parts SELECT * FROM part")
            self.connection.unregister("part")

        found = read_plain_week(self.settings, source, self.lake, files, week, hand_on)
        if found is None:
            return None

        def write_facts(file: Path, manifest: str) -> None:
            if found.facts is None:
                self._copy(load_sql("ingest", "usage_parts"), file, {}, manifest)
            else:
                # no Arrow schema: readers get text and days, not the dictionaries that they are held in here
                with pq.ParquetWriter(file, found.facts.schema, compression="zstd", store_schema=False) as writer:
                    writer.write_table(found.facts)
                    writer.add_key_value_metadata({"manifest": manifest})

        def write_rejected(_: Path) -> None:
            raise AssertionError("a plain week has no rejected rows")

        if found.facts is None:
            counted = self.connection.execute("SELECT sum(source_rows), sum(clicks) FROM parts").fetchone()
        else:
            counted = (pc.sum(found.facts["source_rows"]).as_py(), pc.sum(found.facts["clicks"]).as_py())
        assert counted is not None
        return WeekRows(
            {(None, False): (int(counted[0] or 0), int(counted[1] or 0))},
            write_facts,
            write_rejected,
            notes=_ignored(found.ignored),
            file_rows=found.file_rows,
            rows_in_files=sum(found.file_rows.values()),
            clicks_in_files=found.clicks,
        )

    def _copy(self, query: str, file: Path, values: dict[str, Any], manifest: str) -> None:
        options = "FORMAT parquet, COMPRESSION zstd, KV_METADATA {manifest: $manifest}"
        run_sql(
            self.connection, f"COPY ({query}) TO $file ({options})", values | {"file": str(file), "manifest": manifest}
        )

    def _read_carefully(self, week: date, source: Source, files: list[LakeFile]) -> WeekRows:
        readable, aside, notes = self._sift(source, files)
        try:
            rows = self._read(week, source, readable)
        except duckdb.HTTPException as error:
            raise LakeError(f"{source.path}: {first_line(error)}") from error
        except duckdb.Error:
            # a footer can be sound and a page behind it broken: whose, only reading each file alone tells
            readable, broken, _ = self._sift(source, readable, lambda file: self._read(week, source, [file]))
            aside += broken
            rows = self._read(week, source, readable)
        if changed := set(files) - set(self.files_of(week)):
            aside += [{"key": file.key, "reason": _WRITTEN} for file in readable if file in changed]
            rows = self._read(week, source, [file for file in readable if file not in changed])
        rows.set_aside, rows.notes = aside, notes
        return rows

    # ---------------------------------------------------------------- files

    def _sift(
        self,
        source: Source,
        files: list[LakeFile],
        attempt: Callable[[LakeFile], Any] | None = None,
        *,
        with_checksums: bool = True,
    ) -> tuple[list[LakeFile], list[dict[str, str]], list[str]]:
        """Splits files by whether each can be read; those set aside come with the reason, the others with notes."""
        good, aside, notes = [], [], []
        ignored: dict[str, None] = {}
        for file in files:
            try:
                if attempt:
                    attempt(file)
                else:
                    mapping = self._inspect(source, file, with_checksums)
                    notes += mapping.notes
                    ignored |= dict.fromkeys(mapping.ignored)
                good.append(file)
            except duckdb.HTTPException as error:
                if "ETag" not in str(error):
                    # the store's fault, not the file's: the week is read again next time
                    raise LakeError(f"{file.key}: {first_line(error)}") from error
                aside.append({"key": file.key, "reason": _WRITTEN})
            except duckdb.Error as error:
                aside.append({"key": file.key, "reason": reason_of(error)})
            except SourceError as error:
                aside.append({"key": file.key, "reason": "; ".join(error.problems)})
        return good, aside, list(dict.fromkeys(notes)) + _ignored(list(ignored))

    def _inspect(self, source: Source, file: LakeFile, with_checksums: bool) -> Mapping:
        """Whether a file opens, has the columns and is what was written."""
        mapping = self._open(source, [file])
        if source.format == "parquet" and with_checksums:
            verify_checksums(self.lake, file, mapping.used)
        return mapping

    def _open(self, source: Source, files: list[LakeFile], *, with_place: bool = False) -> Mapping:
        """Makes the files the view of raw rows, and matches their columns."""
        open_files(self.connection, RAW, files, source.file_sets["files"], with_place=with_place)
        return match_columns(self.connection, source, USAGE)

    def _open_whole(self) -> list[LakeFile]:
        if self._whole is None:
            plain = self.source.query is None
            self._whole = open_source(self.connection, self.lake, "usage", self.source, with_place=plain)
            mapping = match_columns(self.connection, self.source, USAGE)
            self._define(f"TEMP TABLE source_usage AS {self._select(self.source, mapping, with_place=plain)}")
        return self._whole

    # ---------------------------------------------------------------- rows

    def _read(self, week: date, source: Source, files: list[LakeFile]) -> WeekRows:
        if not files:
            self._define(f"TEMP VIEW source_usage AS {_NOTHING}")
            return self._count(week, source, [], None)
        mapping = self._open(source, files)
        self._define(f"TEMP VIEW source_usage AS {self._select(source, mapping)}")
        return self._count(week, source, files, mapping)

    def _define(self, what: str) -> None:
        self.connection.execute("DROP VIEW IF EXISTS source_usage")
        self.connection.execute(f"CREATE {what}")

    def _select(self, source: Source, mapping: Mapping, *, with_place: bool = False) -> str:
        """SQL of the raw rows with our columns, their day, their place, and whether they came before."""
        day = day_expression(mapping, self.settings.timezone, source.partition_timezone)
        bad = f"{unreadable(mapping, USAGE.column('records_created'))} AS has_unreadable_records"
        file, row = PLACE if with_place else ("NULL::VARCHAR", "NULL::BIGINT")
        columns = ", ".join(mapped_columns(mapping, USAGE))
        rows = f"SELECT {columns}, {day} AS day, {bad}, {file} AS source_file, {row} AS source_row FROM {RAW}"
        if "event_id" not in mapping.expressions or not self._has_repeated(mapping):
            return f"SELECT *, FALSE AS is_duplicate FROM ({rows})"
        # rows that are merely equal are summed; only a key that comes again is a duplicate. All that is ours says which
        # row came first: whichever engine reads, and however often, it is the same one
        order = "day, account_id, application, user_id, event_time, clicks, records_created, source_file, source_row"
        again = f"event_id IS NOT NULL AND row_number() OVER (PARTITION BY event_id ORDER BY {order}) > 1"
        return f"SELECT *, {again} AS is_duplicate FROM ({rows})"

    def _has_repeated(self, mapping: Mapping) -> bool:
        """Looked up first: numbering all rows of a week by key costs far more than finding that none comes again."""
        key = mapping.expressions["event_id"]
        found = self.connection.execute(
            f"SELECT 1 FROM {RAW} WHERE {key} IS NOT NULL GROUP BY {key} HAVING count(*) > 1 LIMIT 1"
        ).fetchone()
        return found is not None

    def _count(self, week: date, source: Source, files: list[LakeFile], mapping: Mapping | None) -> WeekRows:
        values = self._values(week, source)
        counted = self._counted_sql("source_usage")
        run_sql(self.connection, f"CREATE OR REPLACE TEMP TABLE counted AS {counted}", values)
        rows = self._week_rows(source, files, values)
        if mapping is not None:
            self._count_files(rows, week, source, files, self._total)
        return rows

    @staticmethod
    def _counted_sql(rows: str) -> str:
        """SQL of the counted week, over rows of the source (a view, or a SELECT in brackets)."""
        judged = load_sql("ingest", "usage_rows").replace("source_usage", rows)
        return load_sql("ingest", "usage_counted").replace("usage_rows", f"({judged})")

    @staticmethod
    def _rejected_sql(rows: str) -> str:
        """SQL of the rejected rows, likewise."""
        judged = load_sql("ingest", "usage_rows").replace("source_usage", rows)
        return f"SELECT * FROM ({judged}) WHERE reason IS NOT NULL"

    def _week_rows(self, source: Source, files: list[LakeFile], values: dict[str, Any]) -> WeekRows:
        """What the table `counted` holds, whoever made it."""
        groups = self.connection.execute(
            "SELECT reason, is_duplicate, sum(source_rows), sum(clicks) FROM counted GROUP BY ALL"
        ).fetchall()

        def write_facts(file: Path, manifest: str) -> None:
            self._copy(load_sql("ingest", "usage_facts"), file, values, manifest)

        return WeekRows(
            {(reason, again): (int(n), int(clicks or 0)) for reason, again, n, clicks in groups},
            write_facts,
            lambda file: self._copy_rejected(file, source, files, values),
        )

    def _copy_rejected(self, file: Path, source: Source, files: list[LakeFile], values: dict[str, Any]) -> None:
        if files:
            with_place = self._select(source, self._open(source, files, with_place=True), with_place=True)
            self._define(f"TEMP VIEW source_usage AS {with_place}")
        rejected = self._rejected_sql("source_usage")
        run_sql(self.connection, f"COPY ({rejected}) TO $file (FORMAT parquet)", values | {"file": str(file)})

    def _count_files(
        self,
        rows: WeekRows,
        week: date,
        source: Source,
        files: list[LakeFile],
        total: Callable[[str], tuple[int, int]],
    ) -> None:
        """Counts rows and clicks of the files in another way, to be compared; `total` asks for both of all raw rows."""
        if source.format == "parquet":
            found = self.connection.execute(
                "SELECT file_name, num_rows FROM parquet_file_metadata($files)", {"files": [f.key for f in files]}
            ).fetchall()
            rows.file_rows = dict(found)
        if not _weeks_beside(week, source):
            counted, rows.clicks_in_files = total("sum(clicks)" if source.delivers("clicks") else "count(*)")
            rows.rows_in_files = sum(rows.file_rows.values()) if rows.file_rows else counted

    def _total(self, clicks: str) -> tuple[int, int]:
        found = self.connection.execute(f"SELECT count(*), {clicks} FROM source_usage").fetchone()
        assert found is not None
        return int(found[0]), int(found[1] or 0)

    def _values(self, week: date, source: Source) -> dict[str, Any]:
        beside = [*_weeks_beside(week, source), None, None]
        return {
            "week": week,
            "other_week": beside[0],
            "another_week": beside[1],
            "late_days": self.settings.completeness.late_days if source.partitioned else 0,
            "largest_count": self.settings.completeness.largest_count,
            "has_days": source.delivers("event_time"),
            "has_clicks": source.delivers("clicks"),
            "is_whole": not source.partitioned,
            "is_first_week": week == self.settings.window_start,
        }


def _weeks_beside(week: date, source: Source) -> list[date]:
    """The other weeks whose days can lie in the folders of a week: by calendar year, a folder can hold two."""
    if not source.partitioned:
        return []
    folders = folders_of(week, source.partition_calendar)
    return sorted({other for folder in folders for other in weeks_of(folder, source.partition_calendar)} - {week})


def _ignored(columns: list[str]) -> list[str]:
    return [f"columns that nothing maps: {', '.join(columns)}"] if columns else []


_CONTRACT = ", ".join(f"NULL::{column.type} AS {column.name}" for column in USAGE.columns)
_NOTHING = (
    f"SELECT {_CONTRACT}, NULL::DATE AS day, FALSE AS has_unreadable_records, NULL::VARCHAR AS source_file, "
    "NULL::BIGINT AS source_row, FALSE AS is_duplicate LIMIT 0"
)
