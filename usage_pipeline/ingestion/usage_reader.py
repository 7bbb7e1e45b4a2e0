"""The seam between engines: from the files of a week to the facts of a week.

Belongs here: reading the usage source, one week at a time, and saying of every file and every row what became of
it. Does not: which weeks are read and where facts are kept (`facts.py`). Another engine takes the place of
`UsageReader`: `files_of`, `read`, `look_again` and `remarks` are all that `facts.py` knows; `spark_reader.py` is one.

A week is read in one pass: rows are summed to account x application x user x day. A week of nothing but plain rows
goes the quick way of `plain_week.py`; any other is read by DuckDB from whole files nearby, with the reason why rows are
kept aside, and the files are read again only for the rejected rows themselves. What is larger than `ingest.memory_mb`
goes to disk. Files whose columns differ are converted each by its own types, and then put together.
"""

import re
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

from usage_pipeline.config.settings import Settings, Source
from usage_pipeline.config.source_schemas import USAGE
from usage_pipeline.core.sql import literal, load_sql, run_sql
from usage_pipeline.core.weeks import folders_of, weeks_of
from usage_pipeline.ingestion.cells import Reading
from usage_pipeline.ingestion.fast_path import read_fast_path
from usage_pipeline.ingestion.lake import WRITTEN, FileError, Lake, LakeFile, NotReadError, connect
from usage_pipeline.ingestion.sources import (
    PLACE,
    RAW,
    Columns,
    Mapping,
    Nearby,
    SourceError,
    columns_of_file,
    columns_of_files,
    first_line,
    mapped_columns,
    match_columns,
    open_source,
    quoted,
    reason_of,
    settle,
    verify_checksums,
    view_of,
)

# files from which on they are looked at together
_MANY = 8
_SMALL_BYTES = 200_000_000
# a view of raw rows with what its columns are
Part = tuple[str, Mapping]
_SHORT_WEEK, _LONG_WEEK = re.compile(r"/week=(\d)/"), re.compile(r"/week=\d\d/")
_DISK = ("No space left", "failed to offload", "Disk quota")


@dataclass
class WeekRows:
    """What the files of a week hold. The two tables can be written until the reader turns to the next week.

    `write_facts` writes a Parquet file with a text in its metadata, `write_rejected` one without. `groups` counts rows
    and clicks by (reason or None, whether a duplicate); `rows_in_files` and `clicks_in_files` are counted apart from
    them, where a folder holds no other week. `file_rows` are rows by file, as footers say; `unreadable` counts cells of
    rows that are kept, by column.
    """

    groups: dict[tuple[str | None, bool], tuple[int, int]]
    write_facts: Callable[[Path, str], None]
    write_rejected: Callable[[Path], None]
    quarantined: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    file_rows: dict[str, int] = field(default_factory=dict)
    rows_in_files: int | None = None
    clicks_in_files: int | None = None
    unreadable: dict[str, int] = field(default_factory=dict)

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

    def __init__(self, settings: Settings, workers: int = 1, *, retries: bool = True) -> None:
        self.settings = settings
        self.source = settings.sources.usage
        # why weeks were not read by the engine that is configured, counted
        self.remarks: Counter[str] = Counter()
        self.lake = Lake(settings.store, retries=retries)
        self.nearby = Nearby(self.lake, settings.home.spill_dir)
        self.connection = connect()
        self.connection.execute(f"SET memory_limit = '{settings.ingest.memory_mb // workers}MB'")
        self.connection.execute(f"SET temp_directory = {literal(settings.home.spill_dir)}")
        if workers > 1:
            self.connection.execute(f"SET threads = {max(1, settings.ingest.cores // workers)}")
        if self.source.format == "parquet":
            # the order of rows means nothing, and their number in the file is told by the reader
            self.connection.execute("SET preserve_insertion_order = false")
        self._whole_files: list[LakeFile] | None = None
        self._whole: tuple[list[dict[str, str]], list[str]] | None = None
        # of the files nearby
        self._columns: dict[LakeFile, Columns] = {}
        self._mappings: dict[Columns, Mapping] = {}
        # files that were read into tables, and those
        self._gathered: list[LakeFile] | None = None
        self._parts: tuple[list[Part], list[str]] = ([], [])

    def close(self) -> None:
        self.connection.close()
        self.nearby.clear()

    def files_of(self, week: date) -> list[LakeFile]:
        """The files that hold the week. A source that is read whole has the same files for every week."""
        if self.source.partitioned:
            return self.lake.files_of_week(self.source, week).files
        if self._whole_files is None:
            shapes = self.source.file_sets.values()
            self._whole_files = sorted(f for shape in shapes for f in self.lake.files(shape.path, shape.format).files)
        return self._whole_files

    def read(self, week: date, files: list[LakeFile]) -> WeekRows:
        """The rows of a week in its files; a file that cannot be read is quarantined, and the others go through.

        Raises NotReadError where the way to a file is in trouble, LakeError where the store fails, SourceError where a
        source that is read whole cannot be mapped.
        """
        if not self.source.partitioned:
            return self._read_of_whole(week)
        self._forget()
        source = self.source.at(week)
        twice = spelled_twice(files)
        once = [file for file in files if file not in twice]
        rows = self._read_plain(week, source, once)
        is_right = rows is not None and rows.rows_in_files in (None, rows.rows_read)
        if rows is None or not is_right or set(files) != set(self.files_of(week)):
            rows = self._read_carefully(week, source, once)
        rows.quarantined += [{"key": file.key, "reason": reason} for file, reason in twice.items()]
        return rows

    def look_again(self, week: date, files: list[LakeFile], keys: set[str]) -> bool:
        """Whether one of the files with these keys, which were quarantined, can be read by now."""
        self._forget()
        twice = spelled_twice(files)
        suspects = [file for file in files if file.key in keys and file not in twice]
        source = self.source.at(week)
        readable, _, _ = self._sift(suspects, lambda file: self._inspect(source, file))
        return bool(self._sift(readable, lambda file: self._read(week, source, [file]))[0])

    def _forget(self) -> None:
        self.nearby.clear()
        self._columns, self._mappings, self._gathered = {}, {}, None

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

        found = read_fast_path(self.settings.completeness, source, self.lake, files, week, hand_on)
        if found is None:
            return None

        def write_facts(file: Path, manifest: str) -> None:
            if found.facts is None:
                self._copy(load_sql("ingestion", "usage_parts"), file, {}, manifest)
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
        self._inspect_together(source, files)
        readable, aside, notes = self._sift(files, lambda file: self._inspect(source, file))
        try:
            rows = self._read(week, source, readable)
        except duckdb.Error as error:
            if _is_ours(error):
                raise NotReadError(f"week {week}: {first_line(error)}") from error
            # a footer can be sound and a page behind it broken: whose, only reading each file alone tells
            readable, broken, _ = self._sift(readable, lambda file: self._read(week, source, [file]))
            aside += broken
            rows = self._read(week, source, readable)
        if rows.rows_in_files not in (None, rows.rows_read):
            readable, lying, _ = self._sift(readable, lambda file: self._count_alone(week, source, file))
            aside += lying
            rows = self._read(week, source, readable)
        if changed := set(files) - set(self.files_of(week)):
            aside += [{"key": file.key, "reason": WRITTEN} for file in readable if file in changed]
            rows = self._read(week, source, [file for file in readable if file not in changed])
        rows.quarantined, rows.notes = aside, list(dict.fromkeys([*notes, *rows.notes]))
        return rows

    def _count_alone(self, week: date, source: Source, file: LakeFile) -> None:
        """Raises SourceError where the footer of a file tells another number of rows than can be read."""
        rows = self._read(week, source, [file])
        if rows.rows_in_files not in (None, rows.rows_read):
            said = f"its footer says {rows.rows_in_files} rows, {rows.rows_read} can be read"
            raise SourceError([f"cannot be trusted: {said}; deliver it again"])

    # ---------------------------------------------------------------- files

    def _sift(
        self, files: list[LakeFile], attempt: Callable[[LakeFile], Any]
    ) -> tuple[list[LakeFile], list[dict[str, str]], list[str]]:
        """Splits files by whether each can be read; those quarantined come with the reason, the others with notes.

        Whatever a library says of one file is about that file: its bytes are all here.
        """
        good, aside, notes = [], [], []
        ignored: dict[str, None] = {}
        for file in files:
            try:
                found = attempt(file)
                if isinstance(found, Mapping):
                    notes += found.notes
                    ignored |= dict.fromkeys(found.ignored)
                good.append(file)
            except NotReadError:
                raise
            except FileError as error:
                aside.append({"key": file.key, "reason": str(error)})
            except SourceError as error:
                aside.append({"key": file.key, "reason": "; ".join(error.problems)})
            except Exception as error:
                if _is_ours(error):
                    raise NotReadError(f"{file.key}: {first_line(error)}") from error
                aside.append({"key": file.key, "reason": reason_of(error, self.nearby.known(file))})
        return good, aside, list(dict.fromkeys(notes)) + _ignored(list(ignored))

    def _inspect(self, source: Source, file: LakeFile, *, with_checksums: bool = True) -> Mapping:
        """Whether a file opens, has the columns and is what was written."""
        path, shape = self.nearby.path(file, source.format), source.file_sets["files"]
        columns = self._columns.get(file) or columns_of_file(self.connection, path, shape)
        if columns not in self._mappings:
            view_of(self.connection, RAW, [path], columns)
            self._mappings[columns] = match_columns(self.connection, source, USAGE, self._reading(source), RAW)
        mapping = self._mappings[columns]
        if source.format == "parquet" and with_checksums:
            verify_checksums(path, mapping.used)
        self._columns[file] = columns
        return mapping

    def _inspect_together(self, source: Source, files: list[LakeFile]) -> None:
        """Looks at the columns of many files at once, which costs far less; where one is broken, each is looked at."""
        if source.format != "parquet" or len(files) < _MANY:
            return
        try:
            paths = [self.nearby.path(file, source.format) for file in files]
            found = columns_of_files(self.connection, paths, source.file_sets["files"])
            self._columns = dict(zip(files, found, strict=True))
        except (duckdb.Error, FileError):
            return

    def _reading(self, source: Source) -> Reading:
        return Reading.of(self.settings.timezone, source)

    def _open(
        self, source: Source, files: list[LakeFile], week: date | None, *, with_place: bool = False
    ) -> tuple[list[Part], list[str]]:
        """Makes the files views of raw rows, one a kind of columns, with what their columns settle, and notes."""
        parts: list[Part] = []
        is_gathered = len(files) >= _MANY and sum(file.size for file in files) < _SMALL_BYTES
        if is_gathered and self._gathered == files:
            return self._parts
        groups = self._by_columns(files)
        opened = {columns: [self.nearby.path(f, source.format) for f in alike] for columns, alike in groups.items()}
        keys = self.nearby.key_of() if with_place or is_gathered else None
        for number, (columns, paths) in enumerate(opened.items()):
            view = f"{RAW}_{number}"
            mapping = self._mappings[columns]
            view_of(self.connection, view, paths, columns, keys)
            parts.append((self._gather(view, mapping) if is_gathered else view, mapping))
        mappings, notes = settle(self.connection, USAGE, parts, week if source.partitioned else None)
        found = [(view, mapping) for (view, _), mapping in zip(parts, mappings, strict=True)], notes
        if is_gathered:
            self._gathered, self._parts = files, found
        return found

    def _by_columns(self, files: list[LakeFile]) -> dict[Columns, list[LakeFile]]:
        """Files by the columns that they hold, in the order in which each kind comes first: a part is one kind."""
        groups: dict[Columns, list[LakeFile]] = {}
        for file in files:
            groups.setdefault(self._columns[file], []).append(file)
        return groups

    def _gather(self, view: str, mapping: Mapping) -> str:
        """Many small files as a table: each look at a view of them would open every file again."""
        table = f"{view}_gathered"
        columns = ", ".join([*(quoted(name) for name in mapping.used), *PLACE])
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT {columns} FROM {quoted(view)}")
        return table

    # ---------------------------------------------------------------- a source that is read whole

    def _read_of_whole(self, week: date) -> WeekRows:
        if self._whole is None:
            self._whole = self._open_whole()
        rows = self._count(week, self.source)
        rows.quarantined, rows.notes = list(self._whole[0]), list(self._whole[1])
        return rows

    def _open_whole(self) -> tuple[list[dict[str, str]], list[str]]:
        """Makes all rows of the source a table; returns files that were quarantined, and notes."""
        source = self.source
        if source.query is not None:
            open_source(self.connection, self.nearby, USAGE, source, self._reading(source))
            mapping = match_columns(self.connection, source, USAGE, self._reading(source))
            mappings, notes = settle(self.connection, USAGE, [(RAW, mapping)])
            self._define(f"TEMP TABLE source_usage AS {self._select([(RAW, mappings[0])])}")
            return [], [*mapping.notes, *notes, *_ignored(mapping.ignored)]
        readable, aside, notes = self._sift(self.files_of(date.min), lambda file: self._inspect(source, file))
        try:
            more = self._define_whole(readable)
        except duckdb.Error as error:
            if _is_ours(error):
                raise NotReadError(f"{source.path}: {first_line(error)}") from error
            readable, broken, _ = self._sift(readable, lambda file: self._define_whole([file]))
            aside += broken
            more = self._define_whole(readable)
        if not readable:
            problems = [f"sources.usage: {item['key']}: {item['reason']}" for item in aside]
            raise SourceError(problems or [f"sources.usage: {source.path}: holds no file that can be read"])
        return aside, list(dict.fromkeys([*notes, *more]))

    def _define_whole(self, files: list[LakeFile]) -> list[str]:
        parts, notes = self._open(self.source, files, None, with_place=True)
        self._define(f"TEMP TABLE source_usage AS {self._select(parts, with_place=True)}")
        return notes

    # ---------------------------------------------------------------- rows

    def _read(self, week: date, source: Source, files: list[LakeFile]) -> WeekRows:
        parts, notes = self._open(source, files, week)
        self._define(f"TEMP VIEW source_usage AS {self._select(parts)}")
        rows = self._count(week, source, files)
        rows.notes = notes
        return rows

    def _define(self, what: str) -> None:
        for kind in ("VIEW", "TABLE"):
            found = self.connection.execute(
                f"SELECT 1 FROM duckdb_{kind.lower()}s() WHERE {kind.lower()}_name = 'source_usage'"
            ).fetchone()
            if found:
                self.connection.execute(f"DROP {kind} source_usage")
        self.connection.execute(f"CREATE {what}")

    def _select(self, parts: list[Part], *, with_place: bool = False) -> str:
        """SQL of the raw rows with our columns, their day, their place, and whether they came before."""
        if not parts:
            return _NOTHING
        rows = " UNION ALL ".join(f"({self._select_part(*part, with_place=with_place)})" for part in parts)
        if not self._has_repeated(parts):
            return f"SELECT *, FALSE AS is_duplicate FROM ({rows})"
        # rows that are merely equal are summed; only a key that comes again is a duplicate. All that is ours says which
        # row came first: whichever engine reads, and however often, it is the same one
        order = "day, account_id, application, user_id, event_time, clicks, records_created, source_file, source_row"
        again = f"event_id IS NOT NULL AND row_number() OVER (PARTITION BY event_id ORDER BY {order}) > 1"
        return f"SELECT *, {again} AS is_duplicate FROM ({rows})"

    @staticmethod
    def _select_part(view: str, mapping: Mapping, *, with_place: bool) -> str:
        day = mapping.cell(USAGE.column("event_time")).day
        records = mapping.cell(USAGE.column("records_created")).unreadable
        user, event = (mapping.cell(USAGE.column(name)).unreadable for name in ("user_id", "event_id"))
        file, row = PLACE if with_place else ("NULL::VARCHAR", "NULL::BIGINT")
        columns = ", ".join(mapped_columns(mapping, USAGE))
        return (
            f"SELECT {columns}, {day} AS day, {records} AS has_unreadable_records, {user} AS has_unreadable_user, "
            f"{event} AS has_unreadable_event, "
            f"{file} AS source_file, {row} AS source_row FROM {quoted(view)}"
        )

    def _has_repeated(self, parts: list[Part]) -> bool:
        """Looked up first: numbering all rows of a week by key costs far more than finding that none comes again."""
        column = USAGE.column("event_id")
        keys = [
            f"SELECT {m.cell(column).value} AS key FROM {quoted(v)}" for v, m in parts if "event_id" in m.expressions
        ]
        if not keys:
            return False
        found = self.connection.execute(
            f"SELECT 1 FROM ({' UNION ALL '.join(keys)}) WHERE key IS NOT NULL GROUP BY key HAVING count(*) > 1 LIMIT 1"
        ).fetchone()
        return found is not None

    def _count(self, week: date, source: Source, files: list[LakeFile] | None = None) -> WeekRows:
        values = self._values(week, source)
        counted = self._counted_sql("source_usage")
        run_sql(self.connection, f"CREATE OR REPLACE TEMP TABLE counted AS {counted}", values)
        rows = self._week_rows(week, source, files or [], values)
        if files:
            self._count_files(rows, week, source, files, self._total)
        return rows

    @staticmethod
    def _counted_sql(rows: str) -> str:
        """SQL of the counted week, over rows of the source (a view, or a SELECT in brackets)."""
        judged = load_sql("ingestion", "usage_rows").replace("source_usage", rows)
        return load_sql("ingestion", "usage_counted").replace("usage_rows", f"({judged})")

    @staticmethod
    def _rejected_sql(rows: str) -> str:
        """SQL of the rejected rows, likewise."""
        judged = load_sql("ingestion", "usage_rows").replace("source_usage", rows)
        return f"SELECT * EXCLUDE (has_unreadable_user, has_unreadable_event) FROM ({judged}) WHERE reason IS NOT NULL"

    def _week_rows(self, week: date, source: Source, files: list[LakeFile], values: dict[str, Any]) -> WeekRows:
        """What the table `counted` holds, whoever made it."""
        groups = self.connection.execute(
            "SELECT reason, is_duplicate, sum(source_rows), sum(clicks) FROM counted GROUP BY ALL"
        ).fetchall()
        unread = self.connection.execute(
            "SELECT sum(unreadable_users), sum(unreadable_events) FROM counted "
            "WHERE reason IS NULL AND NOT is_duplicate"
        ).fetchone()
        assert unread is not None

        def write_facts(file: Path, manifest: str) -> None:
            self._copy(load_sql("ingestion", "usage_facts"), file, values, manifest)

        return WeekRows(
            {(reason, again): (int(n), int(clicks or 0)) for reason, again, n, clicks in groups},
            write_facts,
            lambda file: self._copy_rejected(file, week, source, files, values),
            unreadable={name: int(cells) for name, cells in zip(("user_id", "event_id"), unread, strict=True) if cells},
        )

    def _copy_rejected(
        self, file: Path, week: date, source: Source, files: list[LakeFile], values: dict[str, Any]
    ) -> None:
        if files:
            parts, _ = self._open(source, files, week, with_place=True)
            self._define(f"TEMP VIEW source_usage AS {self._select(parts, with_place=True)}")
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
            rows.file_rows = self.nearby.rows(self.connection, files)
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
            "is_first_week": week == self.settings.clock.window_start,
        }


def _weeks_beside(week: date, source: Source) -> list[date]:
    """The other weeks whose days can lie in the folders of a week: by calendar year, a folder can hold two."""
    if not source.partitioned:
        return []
    folders = folders_of(week, source.partition_calendar)
    return sorted({other for folder in folders for other in weeks_of(folder, source.partition_calendar)} - {week})


def spelled_twice(files: list[LakeFile]) -> dict[LakeFile, str]:
    """Files of `week=9` where there is a `week=09` too, with the reason: whether a week came twice cannot be told."""
    found = {}
    short = {file: match for file in files if (match := _SHORT_WEEK.search(file.key))}
    folders = {file.key[: match.end()] for file in files if (match := _LONG_WEEK.search(file.key))}
    for file, match in short.items():
        if f"{file.key[: match.start(1)]}0{match[1]}/" in folders:
            found[file] = (
                f"the week lies in week={match[1]} and in week=0{match[1]}: whether it was delivered twice cannot be "
                "told; move what belongs to it into one folder, and remove the other"
            )
    return found


def _is_ours(error: Exception) -> bool:
    """Whether a disk of ours is full: that says nothing of a file."""
    return any(words in str(error) for words in _DISK)


def _ignored(columns: list[str]) -> list[str]:
    return [f"columns that nothing maps: {', '.join(columns)}"] if columns else []


_SUBSCRIPTION = ", ".join(f"NULL::{column.type} AS {column.name}" for column in USAGE.columns)
_NOTHING = (
    f"SELECT {_SUBSCRIPTION}, NULL::DATE AS day, FALSE AS has_unreadable_records, FALSE AS has_unreadable_user, "
    "FALSE AS has_unreadable_event, "
    "NULL::VARCHAR AS source_file, NULL::BIGINT AS source_row, FALSE AS is_duplicate LIMIT 0"
)
