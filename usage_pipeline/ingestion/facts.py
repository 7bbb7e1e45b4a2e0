"""Facts: the usage of a week, once and for all, in one Parquet file a week.

Grain: a row per week folder x account x application x user x day, with clicks and records: that gives exact distinct
users over any run of days, and week totals by mere sums. `week` is the folder's week, `week_start` the week of the
day itself: rows that came up to `late_days` late lie in the next folder and count under their own date.

A second run replaces the week's file with one atomic rename. What was read (the manifest) is part of the file, so
facts and manifest can never disagree, whenever a run is killed. Rejected rows go to the history. One run at a time.
Odd cases: without users `user_id` is NULL; without days `day` is NULL; people who were erased have a key of their own.
"""

import json
import queue
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from usage_pipeline.config.clock import Clock
from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import CompletenessSettings, Settings, Source, Sources, StoreSettings
from usage_pipeline.core.files import atomic_write
from usage_pipeline.core.locks import file_lock
from usage_pipeline.core.weeks import WEEK, weeks_between
from usage_pipeline.ingestion.lake import Lake, LakeError, LakeFile, Named, NotReadError
from usage_pipeline.ingestion.sources import SourceError
from usage_pipeline.ingestion.spark_reader import Cluster, SparkReader
from usage_pipeline.ingestion.usage_reader import UsageReader, WeekRows
from usage_pipeline.privacy.erased import Erased, forget_users, replace_users

MANIFEST_KEY = b"manifest"
# part of every manifest: raise it when facts of the same files would come out differently
FACTS_VERSION = 4


@dataclass
class WeekManifest:
    """What one week's facts were made of, and what became of every row.

    `rows_in_files` and `clicks_in_files` are counted in another way than the rest, where a folder holds one week only.
    """

    week: str
    files: list[dict[str, Any]]
    quarantined: list[dict[str, str]]
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
    # since version 3
    clicks_rejected: int = 0
    clicks_duplicates: int = 0
    rows_in_files: int | None = None
    clicks_in_files: int | None = None
    run: str = ""
    as_of_day: str | None = None
    # since version 4: cells of rows that are kept, by column
    unreadable: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, text: bytes) -> "WeekManifest":
        """A manifest of any version: facts that left the window are never read again, and stay."""
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in json.loads(text).items() if key in known})

    @property
    def rows_rejected(self) -> int:
        return sum(self.rejected.values())

    @property
    def bytes(self) -> int:
        return sum(file["size"] for file in self.files)

    @property
    def lost(self) -> str | None:
        """What does not add up, in words; None where every row and every click is accounted for."""
        rows = self.rows_kept + self.rows_rejected + self.duplicates
        if self.rows_read != rows:
            return f"{self.rows_read} rows were read, {rows} kept, rejected or dropped"
        if self.rows_in_files not in (None, self.rows_read):
            return f"the files hold {self.rows_in_files} rows, {self.rows_read} were read"
        clicks = self.clicks + self.clicks_rejected + self.clicks_duplicates
        if self.clicks_in_files not in (None, clicks):
            return f"the files hold {self.clicks_in_files} clicks, {clicks} were kept, rejected or dropped"
        return None


def facts_path(facts_dir: Path, week: date) -> Path:
    return facts_dir / f"week={week.isoformat()}" / "facts.parquet"


def read_manifests(facts_dir: Path, weeks: Iterable[date] | None = None) -> dict[date, WeekManifest]:
    """The manifests of the weeks that have facts, by Monday: of all, or of `weeks`."""
    manifests = {}
    wanted = facts_dir.glob("week=*/facts.parquet") if weeks is None else (facts_path(facts_dir, w) for w in weeks)
    for file in sorted(file for file in wanted if file.exists()):
        manifest = WeekManifest.read(pq.read_metadata(file).metadata[MANIFEST_KEY])
        manifests[date.fromisoformat(manifest.week)] = manifest
    return manifests


def mapping_fingerprint(source: Source, timezone: str, completeness: CompletenessSettings) -> str:
    """Changes whenever the same files would give other facts: a re-mapped column, another zone, another limit."""
    parts = source.model_dump(mode="json", exclude=_NO_PART_OF_FACTS) | {
        "timezone": timezone,
        "late_days": completeness.late_days,
        "largest_count": completeness.largest_count,
    }
    return json.dumps(parts, sort_keys=True)


# of a source: what facts do not depend on
_NO_PART_OF_FACTS = {"deliveries", "end_reasons", "call_statuses", "earlier"}


def difference(
    clock: Clock,
    completeness: CompletenessSettings,
    manifest: WeekManifest | None,
    files: list[LakeFile],
    source: Source,
    week: date,
) -> str | None:
    """What tells the facts of a week from what its files would give now; None where they are up to date.

    A week that was read before it was over is read once more when it has settled, changed or not: only then it is
    known to be whole.
    """
    if manifest is None:
        return "new"
    if (
        manifest.mapping != mapping_fingerprint(source.at(week), clock.timezone, completeness)
        or manifest.version != FACTS_VERSION
    ):
        return "read in another way"
    if sorted((f["key"], f["etag"]) for f in manifest.files) != sorted((f.key, f.etag) for f in files):
        return "changed"
    settled = settled_on(completeness, week)
    if manifest.as_of_day and date.fromisoformat(manifest.as_of_day) < settled <= clock.as_of_day:
        return "over since it was read"
    return None


def settled_on(completeness: CompletenessSettings, week: date) -> date:
    """The first day on which a week counts as whole."""
    return week + WEEK + timedelta(days=completeness.settle_days)


def newest_due_week(clock: Clock, completeness: CompletenessSettings) -> date:
    """The newest week that could be complete by `as_of`."""
    due = clock.running_week - WEEK
    while settled_on(completeness, due) > clock.as_of_day:
        due -= WEEK
    return due


def made_otherwise(
    facts_dir: Path, timezone: str, sources: Sources, completeness: CompletenessSettings
) -> dict[str, str]:
    """Weeks whose facts were made by another configuration than today's, with what differs.

    After an ingest these are weeks before the look-back window, and weeks whose files have left the lake.
    """
    found = {}
    for week, manifest in read_manifests(facts_dir).items():
        now = mapping_fingerprint(sources.usage.at(week), timezone, completeness)
        if manifest.mapping != now:
            found[manifest.week] = _differs(json.loads(manifest.mapping), json.loads(now))
    return found


def _differs(then: Any, now: dict[str, Any]) -> str:
    if not isinstance(then, dict):
        return "another version of the pipeline"
    told = []
    for key in sorted({*then, *now}):
        before, after = then.get(key), now.get(key)
        if key == "columns":
            old, new = dict(before or {}), dict(after or {})
            changed = [column for column in sorted({*old, *new}) if old.get(column) != new.get(column)]
            told += [f"columns.{c}: {_shown(old.get(c))}, now {_shown(new.get(c))}" for c in changed]
        elif key == "path" and before != after:
            # a path can be one of this machine, and is nobody's business on a page
            told.append("path: another place")
        elif before != after:
            told.append(f"{key}: {_shown(before)}, now {_shown(after)}")
    return "; ".join(told)


def _shown(value: Any) -> str:
    return "nothing" if value in (None, [], {}) else str(value.get("sql") if isinstance(value, dict) else value)


def outdated_weeks(settings: Settings) -> dict[date, str]:
    """The weeks of the window whose facts are not those of the lake's files, with what is different.

    Lists the window's weeks and reads no file.
    """
    reader, known = UsageReader(settings, retries=False), read_manifests(settings.home.facts_dir)
    found = {}
    try:
        for week in weeks_between(
            max(settings.clock.window_start, settings.clock.history_start), settings.clock.running_week
        ):
            files = reader.files_of(week)
            if files and (
                why := difference(settings.clock, settings.completeness, known.get(week), files, reader.source, week)
            ):
                found[week] = why
    finally:
        reader.close()
    return found


def vanished_weeks(facts_dir: Path, clock: Clock, store: StoreSettings, sources: Sources) -> list[date]:
    """Weeks of the window that have facts and no file in the lake any more; their facts are kept."""
    source = sources.usage
    if not source.partitioned:
        return []
    lake, vanished = Lake(store, retries=False), []
    for week in read_manifests(facts_dir):
        if clock.window_start <= week <= clock.running_week and not lake.files_of_week(source, week).files:
            vanished.append(week)
    return vanished


def lake_oddities(clock: Clock, store: StoreSettings, sources: Sources) -> list[Named]:
    """What lies below the path of usage and is not read, each with the reason: of week folders, those of the window."""
    source, lake = sources.usage, Lake(store, retries=False)
    if not source.partitioned:
        return [item for shape in source.file_sets.values() for item in lake.files(shape.path, shape.format).named]
    assert source.path is not None
    named = lake.beside_the_weeks(source.path, source.partition_calendar)
    for week in weeks_between(clock.window_start, clock.running_week):
        named += lake.files_of_week(source, week).named
    return list(dict.fromkeys(named))


def _write_week(home: DataHome, rows: WeekRows, manifest: WeekManifest) -> None:
    """Replaces the facts of a week, manifest within, with one atomic rename; rejected rows go to the history first."""
    week, erased = f"week={manifest.week}", Erased.read(home.root)
    if manifest.rejected:
        name = f"{manifest.ingested_at.replace(':', '')}-{uuid.uuid4().hex[:8]}.parquet"
        rejected = home.history_dir / "rejected" / week / name
        with atomic_write(rejected) as tmp_path:
            rows.write_rejected(tmp_path)
            forget_users(tmp_path, erased)
        manifest.rejected_file = str(rejected.relative_to(home.history_dir))
    target = home.facts_dir / week / "facts.parquet"
    for left in target.parent.glob(f".*{target.name}.*"):
        left.unlink()  # of a run that was killed: nobody else writes while this one does
    with atomic_write(target) as tmp_path:
        rows.write_facts(tmp_path, json.dumps(vars(manifest)))
        replace_users(tmp_path, erased)


def facts_lock(facts_dir: Path) -> Path:
    """Held by whoever writes facts or rejected rows, or wants them to stand still."""
    return facts_dir / ".lock"


@dataclass
class Ingested:
    """The manifest of each week that was asked for, and why weeks could not be read, whose facts are as before."""

    manifests: dict[date, WeekManifest | None]
    not_read: dict[date, str] = field(default_factory=dict)


def ingest_weeks(
    settings: Settings,
    weeks: Iterable[date],
    *,
    now: str,
    run: str = "",
    progress: Callable[[str], None] = lambda _: None,
) -> Ingested:
    """Brings the facts of `weeks` up to date: reads the weeks whose files changed, leaves the others alone.

    Weeks outside the look-back window are neither listed nor read. The manifest of a week is None where the lake holds
    no file for it and no facts are kept. A week that cannot be read for a reason that may go away keeps its facts.
    `now` is written as the time of ingest, `run` as who did it.

    Raises SourceError where a source that is read whole does not match its mapping, LakeError where the lake is not
    there or nothing of it could be read, LockTimeoutError where another run reads for longer than
    `ingest.wait_seconds`.
    """
    wanted, not_read = list(weeks), dict[date, str]()
    with file_lock(
        facts_lock(settings.home.facts_dir),
        settings.ingest.wait_seconds,
        what=str(settings.home.facts_dir),
        who=run,
        progress=progress,
    ):
        known = read_manifests(settings.home.facts_dir, wanted)
        in_window = [week for week in wanted if settings.clock.window_start <= week <= settings.clock.running_week]
        if len(in_window) < len(wanted):
            progress(f"{len(wanted) - len(in_window)} weeks lie outside the look-back window and were left alone")
        for week, found in _ingest_side_by_side(settings, in_window, known, now, run, progress):
            if isinstance(found, WeekManifest):
                known[week] = found
            else:
                not_read[week] = str(found)
    if not_read and not any(settings.home.facts_dir.glob("week=*/facts.parquet")):
        # nothing is there and nothing came: no run can go on from that
        raise LakeError(next(iter(not_read.values())))
    return Ingested({week: known.get(week) for week in wanted}, not_read)


def _ingest_side_by_side(
    settings: Settings,
    weeks: list[date],
    known: dict[date, WeekManifest],
    now: str,
    run: str,
    progress: Callable[[str], None],
) -> Iterator[tuple[date, WeekManifest | NotReadError]]:
    """The new manifests of the weeks that had to be read, or why not; every worker has a reader of its own."""
    opened = _open_readers(settings, len(weeks))
    readers: queue.SimpleQueue[UsageReader] = queue.SimpleQueue()
    for reader in opened:
        readers.put(reader)

    def one(week: date) -> WeekManifest | NotReadError | str:
        reader = readers.get()
        try:
            return _ingest_week(reader, week, known.get(week), now, run)
        except NotReadError as error:
            return error
        finally:
            readers.put(reader)

    started, read, rows = time.perf_counter(), 0, 0
    skipped: Counter[str] = Counter()
    pool = ThreadPoolExecutor(len(opened))
    try:
        for number, (week, found) in enumerate(zip(weeks, pool.map(one, weeks), strict=True), 1):
            if isinstance(found, str):
                skipped[found] += 1
                continue
            yield week, found
            if isinstance(found, NotReadError):
                progress(f"week {week} was not read, and stays as it was: {found}; the next run reads it")
                continue
            read, rows = read + 1, rows + found.rows_read
            if read % 13 == 0 or number == len(weeks):
                left = (time.perf_counter() - started) / number * (len(weeks) - number)
                estimate = f", about {left:.0f} s to go" if number < len(weeks) else ""
                progress(f"week {week}: {number} of {len(weeks)} weeks, {rows:,} rows read{estimate}")
    finally:
        pool.shutdown(cancel_futures=True)
        for reader in opened:
            reader.close()
    for why, count in sum((reader.remarks for reader in opened), Counter[str]()).items():
        progress(f"{count} weeks were left to the embedded engine: {why}")
    for why, count in skipped.items():
        progress(f"{count} of {len(weeks)} weeks {why}")


def _open_readers(settings: Settings, weeks: int) -> Sequence[UsageReader]:
    """A reader for each week that is read at the same time, of the engine that is configured."""
    if settings.ingest.engine == "spark" and (spark := settings.ingest.spark):
        cluster, side_by_side = Cluster(spark), min(spark.weeks_at_once, weeks or 1)
        return [SparkReader(settings, side_by_side, cluster) for _ in range(side_by_side)]
    # of a source that is read whole, every reader would hold all of it
    side_by_side = min(settings.ingest.cores, weeks or 1) if settings.sources.usage.partitioned else 1
    return [UsageReader(settings, side_by_side) for _ in range(side_by_side)]


def _ingest_week(
    reader: UsageReader, week: date, before: WeekManifest | None, now: str, run: str
) -> WeekManifest | str:
    """Reads one week and writes its facts; or says why there was nothing to do. Raises NotReadError."""
    started = time.perf_counter()
    files = reader.files_of(week)
    if not files:
        return "have no file in the lake any more; their facts are kept" if before else "have no file in the lake"
    settings = reader.settings
    if before and difference(settings.clock, settings.completeness, before, files, reader.source, week) is None:
        keys = {item["key"] for item in before.quarantined}
        if not keys:
            return "had nothing new and were not read"
        if not reader.source.partitioned or not reader.look_again(week, files, keys):
            return "have quarantined files, which are as they were"
    rows = _read_week(reader, week, files, before)
    manifest = WeekManifest(
        week=week.isoformat(),
        files=[vars(file) | {"rows": rows.file_rows.get(file.key)} for file in files],
        quarantined=rows.quarantined,
        rows_read=rows.rows_read,
        rows_kept=rows.kept[0],
        rejected=rows.reasons,
        duplicates=rows.duplicates[0],
        clicks=rows.kept[1],
        clicks_rejected=rows.clicks_rejected,
        clicks_duplicates=rows.duplicates[1],
        rows_in_files=rows.rows_in_files,
        clicks_in_files=rows.clicks_in_files,
        rejected_file=None,
        ingested_at=now,
        seconds=round(time.perf_counter() - started, 3),
        mapping=mapping_fingerprint(reader.source.at(week), settings.timezone, settings.completeness),
        notes=rows.notes,
        run=run,
        as_of_day=settings.clock.as_of_day.isoformat(),
        unreadable=rows.unreadable,
    )
    _write_week(settings.home, rows, manifest)
    return manifest


def _read_week(reader: UsageReader, week: date, files: list[LakeFile], before: WeekManifest | None) -> WeekRows:
    """The rows of a week. Of a source that is read whole, a file that cannot be read may hold rows of any week: weeks
    that were whole stay as they were. Raises NotReadError."""
    if reader.source.partitioned:
        return reader.read(week, files)
    was_whole = before is not None and not before.quarantined
    try:
        rows = reader.read(week, files)
    except (SourceError, LakeError) as error:
        if was_whole:
            raise NotReadError(str(error)) from error
        raise
    if rows.quarantined and was_whole:
        listed = "; ".join(f"{item['key']}: {item['reason']}" for item in rows.quarantined)
        raise NotReadError(listed)
    return rows
