"""Facts: the usage of a week, once and for all, in one Parquet file a week.

Grain: a row per week folder x account x application x user x week. Clicks and records stand in total and per day
of the week, NULL on a day without any row: that gives exact distinct users over any run of days, and week totals
by mere sums. `week` is the folder's week, `week_start` the week of the days themselves: rows that came up to
`late_days` late lie in the next folder and count under their own date.

A second run replaces the week's file with one atomic rename. What was read (the manifest) is part of the file, so
facts and manifest can never disagree, whenever a run is killed. Rejected rows go to the ledger.
Odd cases: without users `user_id` is NULL; without days only the totals are there.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from usage_pipeline.config import Settings, Source
from usage_pipeline.lib.contract import USAGE
from usage_pipeline.lib.lake import Lake, LakeError, LakeFile
from usage_pipeline.lib.sources import (
    RAW,
    Mapping,
    SourceError,
    day_expression,
    first_line,
    mapped_columns,
    match_columns,
    open_files,
    open_source,
)
from usage_pipeline.lib.sql import load_sql
from usage_pipeline.lib.weeks import folders_of, weeks_between, weeks_of

MANIFEST_KEY = b"manifest"
# part of every manifest: raise it when facts of the same files would come out differently
FACTS_VERSION = 2


@dataclass
class WeekManifest:
    """What one week's facts were made of."""

    week: str
    files: list[dict[str, Any]]
    set_aside: list[dict[str, str]]
    rows_read: int
    rows_kept: int
    rejected: dict[str, int]
    clicks: int
    rejected_file: str | None
    ingested_at: str
    seconds: float
    mapping: str
    version: int = FACTS_VERSION
    notes: list[str] = field(default_factory=list)
    # since version 2
    duplicates: int = 0

    @classmethod
    def read(cls, text: bytes) -> "WeekManifest":
        """A manifest of any version: facts that left the window are never read again, and stay."""
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in json.loads(text).items() if key in known})

    @property
    def rows_rejected(self) -> int:
        return sum(self.rejected.values())


@dataclass(frozen=True)
class WeekRows:
    """The rows of one week: facts, and rows kept aside with their reason."""

    facts: pa.Table
    rejected: pa.Table
    rows_read: int
    duplicates: int


def facts_path(facts_dir: Path, week: date) -> Path:
    return facts_dir / f"week={week.isoformat()}" / "facts.parquet"


def read_manifests(facts_dir: Path) -> dict[date, WeekManifest]:
    """The manifests of every week that has facts, by Monday."""
    manifests = {}
    for file in sorted(facts_dir.glob("week=*/facts.parquet")):
        metadata = pq.read_schema(file).metadata or {}
        manifest = WeekManifest.read(metadata[MANIFEST_KEY])
        manifests[date.fromisoformat(manifest.week)] = manifest
    return manifests


def mapping_fingerprint(source: Source, settings: Settings) -> str:
    """Changes whenever the same files would give other facts: a re-mapped column, another zone."""
    parts = [source.model_dump(mode="json"), settings.timezone, settings.completeness.late_days]
    return json.dumps(parts, sort_keys=True)


class UsageReader:
    """Reads weeks of the usage source; a plain partitioned set is pruned by week, anything else is read once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.source = settings.sources.usage
        self.lake = Lake(settings)
        self.connection = self.lake.connect()
        self.connection.execute("SET preserve_insertion_order = false")
        self._whole: list[LakeFile] | None = None

    def close(self) -> None:
        self.connection.close()

    def files_of(self, week: date) -> list[LakeFile]:
        """The files that hold the week. A source that is read whole has the same files for every week."""
        if self.source.partitioned:
            assert self.source.path is not None
            folders = folders_of(week, self.source.partition_calendar)
            return [f for d in folders for f in self.lake.week_files(self.source.path, self.source.format, d)]
        return self._open_whole()

    def rows_of(self, week: date, files: list[LakeFile]) -> tuple[WeekRows, list[dict[str, str]], list[str]]:
        """Facts of a week from its files, the files set aside with the reason, and notes on the columns."""
        if not self.source.partitioned:
            return self._aggregate(week), [], []
        readable, aside = self._sift(files, self._open)
        try:
            rows, notes = self._rows_of_readable(week, readable)
        except duckdb.HTTPException as error:
            raise LakeError(f"{self.source.path}: {first_line(error)}") from error
        except duckdb.Error:
            # a footer can be sound and a page behind it broken: whose, only reading each file alone tells
            readable, broken = self._sift(readable, lambda alone: self._rows_of_readable(week, alone))
            aside += broken
            rows, notes = self._rows_of_readable(week, readable)
        return rows, aside, notes

    def _rows_of_readable(self, week: date, files: list[LakeFile]) -> tuple[WeekRows, list[str]]:
        if not files:
            return _no_rows(), []
        mapping = self._open(files)
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW source_usage AS {self._select(mapping)}")
        return self._aggregate(week), mapping.notes

    def _open_whole(self) -> list[LakeFile]:
        if self._whole is None:
            self._whole = open_source(self.connection, self.lake, "usage", self.source)
            mapping = match_columns(self.connection, self.source, USAGE)
            self.connection.execute(f"CREATE TEMP TABLE source_usage AS {self._select(mapping)}")
        return self._whole

    def _open(self, files: list[LakeFile]) -> Mapping:
        """Makes the files the view of raw rows, and matches their columns."""
        open_files(self.connection, RAW, files, self.source.file_sets["files"])
        return match_columns(self.connection, self.source, USAGE)

    def _sift(
        self, files: list[LakeFile], attempt: Callable[[list[LakeFile]], Any]
    ) -> tuple[list[LakeFile], list[dict[str, str]]]:
        """Splits files by whether `attempt` goes through for each alone; those set aside come with the reason."""
        good, aside = [], []
        for file in files:
            try:
                attempt([file])
                good.append(file)
            except duckdb.HTTPException as error:
                # the store's fault, not the file's: the week is read again next time
                raise LakeError(f"{file.key}: {first_line(error)}") from error
            except duckdb.Error as error:
                aside.append({"key": file.key, "reason": f"cannot be read: {first_line(error)}"})
            except SourceError as error:
                aside.append({"key": file.key, "reason": "; ".join(error.problems)})
        return good, aside

    def _select(self, mapping: Mapping) -> str:
        day = day_expression(mapping, self.settings.timezone, self.source.partition_timezone)
        columns = ", ".join(mapped_columns(mapping, USAGE))
        rows = f"SELECT {columns}, {day} AS day FROM {RAW}"
        if "event_id" not in mapping.expressions:
            return f"SELECT *, FALSE AS is_duplicate FROM ({rows})"
        # rows that are merely equal are summed; only a key that comes again is a duplicate
        again = "event_id IS NOT NULL AND row_number() OVER (PARTITION BY event_id ORDER BY day, account_id) > 1"
        return f"SELECT *, {again} AS is_duplicate FROM ({rows})"

    def _aggregate(self, week: date) -> WeekRows:
        source = self.source
        others: set[date] = set()
        if source.partitioned:
            for folder in folders_of(week, source.partition_calendar):
                others |= set(weeks_of(folder, source.partition_calendar)) - {week}
        values = {
            "week": week,
            "other_weeks": sorted(others),
            "late_days": self.settings.completeness.late_days if source.partitioned else 0,
            "has_days": source.delivers("event_time"),
            "has_clicks": source.delivers("clicks"),
            "is_whole": not source.partitioned,
            "is_first_week": week == self.settings.window_start,
        }
        self.connection.execute(load_sql("ingest", "usage_rows"), values)
        facts = self.connection.execute(load_sql("ingest", "usage_facts")).to_arrow_table()
        rejected = self.connection.execute("SELECT * FROM usage_rows WHERE reason IS NOT NULL").to_arrow_table()
        read = self.connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE is_duplicate AND reason IS NULL) FROM usage_rows"
        ).fetchone()
        self.connection.execute("DROP TABLE usage_rows")
        assert read is not None
        return WeekRows(facts, rejected, read[0], read[1])


def _no_rows() -> WeekRows:
    connection = duckdb.connect()
    schema = ", ".join(f"CAST(NULL AS {c.type}) AS {c.name}" for c in USAGE.columns)
    connection.execute(
        "CREATE TEMP TABLE usage_rows AS "
        f"SELECT DATE '2000-01-01' AS week, {schema}, CAST(NULL AS DATE) AS day, "
        "CAST(NULL AS VARCHAR) AS reason, FALSE AS is_duplicate LIMIT 0"
    )
    facts = connection.execute(load_sql("ingest", "usage_facts")).to_arrow_table()
    return WeekRows(facts, connection.execute("FROM usage_rows").to_arrow_table(), 0, 0)


def is_up_to_date(manifest: WeekManifest | None, files: list[LakeFile], fingerprint: str) -> bool:
    """Whether the facts of a week were made of exactly these files under this mapping."""
    if manifest is None:
        return False
    same_files = sorted((f["key"], f["etag"]) for f in manifest.files) == sorted((f.key, f.etag) for f in files)
    return same_files and manifest.mapping == fingerprint and manifest.version == FACTS_VERSION


def outdated_weeks(settings: Settings) -> dict[date, str]:
    """The weeks of the window whose facts are not those of the lake's files, with what is different.

    Lists the window's weeks and reads no file, except of a source that is read whole.
    """
    reader = UsageReader(settings)
    fingerprint, known = mapping_fingerprint(reader.source, settings), read_manifests(settings.facts_dir)
    found = {}
    try:
        for week in weeks_between(max(settings.window_start, settings.history_start), settings.running_week):
            files, manifest = reader.files_of(week), known.get(week)
            if not files or is_up_to_date(manifest, files, fingerprint):
                continue
            if manifest is None:
                found[week] = "new"
            elif manifest.mapping != fingerprint or manifest.version != FACTS_VERSION:
                found[week] = "read in another way"
            else:
                found[week] = "changed"
    finally:
        reader.close()
    return found


def vanished_weeks(settings: Settings) -> list[date]:
    """Weeks of the window that have facts and no file in the lake any more; their facts are kept."""
    source = settings.sources.usage
    if not source.partitioned or source.path is None:
        return []
    lake, vanished = Lake(settings), []
    for week in read_manifests(settings.facts_dir):
        if settings.window_start <= week <= settings.running_week:
            folders = folders_of(week, source.partition_calendar)
            if not any(lake.week_files(source.path, source.format, folder) for folder in folders):
                vanished.append(week)
    return vanished


def write_week(settings: Settings, week: date, rows: WeekRows, manifest: WeekManifest) -> None:
    """Replaces the facts of a week, manifest within, with one atomic rename; rejected rows go to the ledger first."""
    if rows.rejected.num_rows:
        folder = settings.ledger_dir / "rejected" / f"week={week.isoformat()}"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{manifest.ingested_at.replace(':', '')}-{uuid.uuid4().hex[:8]}.parquet"
        pq.write_table(rows.rejected, file)
        manifest.rejected_file = str(file.relative_to(settings.ledger_dir))
    target = facts_path(settings.facts_dir, week)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    metadata = {MANIFEST_KEY: json.dumps(asdict(manifest)).encode()}
    pq.write_table(rows.facts.replace_schema_metadata(metadata), unfinished, compression="zstd")
    unfinished.replace(target)


def ingest_weeks(
    settings: Settings, weeks: Iterable[date], *, now: str, progress: Callable[[str], None] = lambda _: None
) -> dict[date, WeekManifest | None]:
    """Brings the facts of `weeks` up to date: reads the weeks whose files changed, leaves the others alone.

    Weeks outside the look-back window are neither listed nor read. Returns the manifest of each week, None where
    the lake holds no file for it and no facts are kept. `now` is written as the time of ingest.

    Raises SourceError where a source that is read whole does not match its mapping, LakeError where it is not there.
    """
    reader = UsageReader(settings)
    fingerprint = mapping_fingerprint(reader.source, settings)
    known = read_manifests(settings.facts_dir)
    wanted = list(weeks)
    in_window = [week for week in wanted if settings.window_start <= week <= settings.running_week]
    if len(in_window) < len(wanted):
        progress(f"{len(wanted) - len(in_window)} weeks lie outside the look-back window and were left alone")
    skipped = empty = 0
    try:
        for number, week in enumerate(in_window, 1):
            started = time.perf_counter()
            files = reader.files_of(week)
            if not files:
                empty += 1
                continue
            if is_up_to_date(known.get(week), files, fingerprint):
                skipped += 1
                continue
            rows, aside, notes = reader.rows_of(week, files)
            manifest = WeekManifest(
                week=week.isoformat(),
                files=[asdict(file) for file in files],
                set_aside=aside,
                rows_read=rows.rows_read,
                rows_kept=rows.rows_read - rows.rejected.num_rows - rows.duplicates,
                rejected=_counts(rows.rejected),
                duplicates=rows.duplicates,
                clicks=sum(c or 0 for c in rows.facts.column("clicks").to_pylist()) if rows.facts.num_rows else 0,
                rejected_file=None,
                ingested_at=now,
                seconds=round(time.perf_counter() - started, 3),
                mapping=fingerprint,
                notes=notes,
            )
            write_week(settings, week, rows, manifest)
            known[week] = manifest
            if number % 13 == 0 or number == len(in_window):
                progress(f"week {week}: {rows.rows_read:,} rows, {number} of {len(in_window)} weeks")
    finally:
        reader.close()
    if skipped:
        progress(f"{skipped} of {len(in_window)} weeks had nothing new and were not read")
    if empty:
        progress(f"{empty} of {len(in_window)} weeks have no file in the lake")
    return {week: known.get(week) for week in wanted}


def _counts(rejected: pa.Table) -> dict[str, int]:
    return {item["values"]: item["counts"] for item in rejected.column("reason").value_counts().to_pylist()}
