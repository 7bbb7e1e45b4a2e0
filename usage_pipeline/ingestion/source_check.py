"""Looking at a configuration's sources before a run: what is there, what matches, how it reads, and what is wrong.

Belongs here: reading as little as tells the truth (names of folders, some weeks of usage, reference sources whole) and
wording it. Nothing is written. Of contacts no value is ever shown.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta

import duckdb

from usage_pipeline.config.settings import Settings, Source
from usage_pipeline.config.source_schemas import CONTACTS, SOURCE_SCHEMAS, USAGE, SourceColumn, SourceSchema
from usage_pipeline.core.weeks import WeekFolder, folder_of, weeks_between, weeks_of
from usage_pipeline.ingestion import cells
from usage_pipeline.ingestion.cells import Reading
from usage_pipeline.ingestion.lake import Lake, LakeError, LakeFile, Named, connect
from usage_pipeline.ingestion.reference import DECIDING, placed_rows
from usage_pipeline.ingestion.sources import (
    RAW,
    Mapping,
    Nearby,
    SourceError,
    first_line,
    match_columns,
    open_files,
    open_source,
    settle,
)
from usage_pipeline.ingestion.usage_reader import spelled_twice
from usage_pipeline.privacy.encryption import contacts_key

_AROUND_NEW_YEAR = (1, 52, 53)
_SHOWN = 3
# folders of the window up to which all are looked into; of more, so many beside the newest and those around New Year
_FEW = 13
_SAMPLED = 4
# of the rows with something in a column, those that cannot be read, from which on it is no longer a matter of some
_MOST = 0.5


@dataclass
class Report:
    """What was found (`lines`), what is worth knowing (`notes`), what must be mended (`problems`, with remedies)."""

    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def check_sources(settings: Settings) -> Report:
    """Checks every source of a configuration; a problem of one does not hide those of another."""
    report, clock = Report(), settings.clock
    report.lines.append(
        f"as of {clock.as_of_day}, weeks of {clock.window_start} to {clock.running_week} (the running week), "
        f"days cut in {clock.timezone}"
    )
    for name, schema in SOURCE_SCHEMAS.items():
        source = settings.sources.get(name)
        if source is None:
            report.lines.append(f"{name}: not configured; what it would tell is shown as not delivered")
        else:
            _SourceCheck(report, settings, schema, source).run()
    return report


class _SourceCheck:
    """The check of one source: files nearby and a connection, as long as it takes."""

    def __init__(self, report: Report, settings: Settings, schema: SourceSchema, source: Source) -> None:
        self.report, self.settings, self.schema, self.source = report, settings, schema, source
        self.lake = Lake(settings.store, retries=False)
        is_secret = schema is CONTACTS and contacts_key() is not None
        self.nearby = Nearby(self.lake, settings.home.spill_dir, keeps_in_memory=is_secret)
        self.connection = connect()

    def run(self) -> None:
        name = self.schema.name
        try:
            if name == "usage" and self.source.partitioned:
                self._check_weeks()
            else:
                reading = self._reading()
                listing = open_source(self.connection, self.nearby, self.schema, self.source, reading)
                self._named(listing.named)
                self._groups(self._columns(len(listing.files)))
        except LakeError as error:
            self.report.problems.append(f"sources.{name}.path: {error}")
        except SourceError as error:
            self.report.problems += error.problems
        except duckdb.Error as error:
            self.report.problems.append(f"sources.{name}: cannot be read: {first_line(error)}")
        finally:
            self.connection.close()
            self.nearby.clear()

    def _reading(self) -> Reading:
        return Reading.of(self.settings.timezone, self.source, self.settings.currency)

    # ---------------------------------------------------------------- any source

    def _columns(self, files: int) -> Mapping:
        """What matches in the rows that are open, how it reads, and what of it does not."""
        name, report = self.schema.name, self.report
        mapping = match_columns(self.connection, self.source, self.schema, self._reading())
        (mapping,), notes = settle(self.connection, self.schema, [(RAW, mapping)])
        counted = self.connection.execute(f"SELECT count(*) FROM {RAW}").fetchone()
        rows = counted[0] if counted else 0
        report.lines.append(f"{name}: {files} files, {rows:,} rows")
        matched = [f"{ours} from {mapping.expressions[ours]}" for ours in mapping.expressions]
        report.lines.append(f"  matched: {', '.join(matched)}")
        if mapping.ignored:
            report.lines.append(f"  ignored: {', '.join(mapping.ignored)}")
        absent = [c for c in self.schema.names if c not in mapping.expressions]
        if absent:
            report.lines.append(f"  not delivered: {', '.join(absent)}")
        report.notes += [*mapping.notes, *notes]
        if rows == 0:
            report.problems.append(f"sources.{name}: the files hold no row; check the path")
            return mapping
        for column in self.schema.columns:
            if column.name in mapping.expressions:
                self._cells(mapping, column, rows)
        self._repeated(mapping)
        return mapping

    def _repeated(self, mapping: Mapping) -> None:
        """Notes rows of which another one counts already."""
        found = self.connection.execute(
            f"SELECT count(*) FILTER (WHERE place > 1) FROM ({placed_rows(self.connection, mapping, self.schema)}) "
            f"WHERE {self.schema.columns[0].name} IS NOT NULL"
        ).fetchone()
        if found and found[0]:
            self.report.notes.append(
                f"sources.{self.schema.name}: {found[0]:,} rows are there once more, or have the key of another row; "
                "one of them counts, the others are kept aside"
            )

    def _cells(self, mapping: Mapping, column: SourceColumn, rows: int) -> None:
        """How a column reads: a few values, how many are empty, and how many cannot be read."""
        key, cell = f"sources.{self.schema.name}.columns.{column.name}", mapping.cell(column)
        value = f"CAST({cell.value} AS VARCHAR)"
        given = f"CAST({cell.given} AS VARCHAR)"
        judged = f"SELECT {value} AS value, {cell.unreadable} AS is_unread, {given} AS given FROM {RAW}"
        found = self.connection.execute(
            "SELECT count(value), count(*) FILTER (WHERE is_unread), "
            "count(*) FILTER (WHERE NOT is_unread AND value IS NULL), min(given) FILTER (WHERE is_unread) "
            f"FROM ({judged})"
        ).fetchone()
        assert found is not None
        read, unread, empty, example = found
        if self.schema.name != "contacts":
            shown = self.connection.execute(
                f"SELECT DISTINCT given, value FROM (SELECT {given} AS given, {value} AS value "
                f"FROM {RAW}) WHERE value IS NOT NULL ORDER BY ALL LIMIT {_SHOWN}"
            ).fetchall()
            told = ", ".join(_shown(given, value) for given, value in shown) or "nothing"
            self.report.lines.append(f"  {column.name}: {told}" + (f" ({empty:,} of {rows:,} empty)" if empty else ""))
        if unread:
            hidden = "" if self.schema.name == "contacts" else f", such as '{example}'"
            sentence = (
                f"{key}: {unread:,} of {rows:,} values cannot be read{hidden}; {_what_becomes(self.schema, column)}"
            )
            is_all = unread >= _MOST * (unread + read)
            (self.report.problems if is_all and column.name in self.schema.needed else self.report.notes).append(
                sentence + ("; map another column, or an expression" if is_all else "")
            )
        if column.required and empty > _MOST * rows:
            self.report.problems.append(
                f"{key}: is empty in {empty:,} of {rows:,} rows, which count for nothing; map another column"
            )
        self._suspect_words(key, cell)

    def _suspect_words(self, key: str, cell: cells.Cell) -> None:
        if not cell.is_text:
            return
        words = ", ".join(f"'{word}'" for word in cells.SUSPECT_WORDS)
        found = self.connection.execute(
            f"SELECT given, count(*) FROM (SELECT {cell.given} AS given FROM {RAW}) WHERE lower(given) IN ({words}) "
            "GROUP BY 1 ORDER BY 2 DESC LIMIT 3"
        ).fetchall()
        for word, rows in found:
            self.report.notes.append(
                f"{key}: {rows:,} values are '{word}' and are taken as they stand; if that means that there is "
                f"nothing, list it under sources.{self.schema.name}.null_values"
            )

    def _named(self, named: list[Named]) -> None:
        for item in named[:10]:
            self.report.notes.append(f"sources.{self.schema.name}: not read: {item.key}: {item.reason}")
        if len(named) > 10:
            self.report.notes.append(f"sources.{self.schema.name}: not read: {len(named) - 10} more like these")

    def _groups(self, mapping: Mapping) -> None:
        """Notes members of groups that the reference source does not list; usage or subscriptions may know them."""
        name = self.schema.name
        groups = self.settings.groups.model_dump().get(name)
        if not groups:
            return
        key = mapping.cell(self.schema.columns[0]).value
        known = {str(found) for (found,) in self.connection.execute(f"SELECT DISTINCT {key} FROM {RAW}").fetchall()}
        for group, members in groups.items():
            for member in members:
                if member not in known:
                    self.report.notes.append(
                        f"groups.{name}.{group}: sources.{name} does not list '{member}'; where no other "
                        "source knows it either, the run stops at kpi_members: write its key, or take it out"
                    )

    # ---------------------------------------------------------------- usage in week folders

    def _check_weeks(self) -> None:
        source, report, clock = self.source, self.report, self.settings.clock
        assert source.path is not None
        folders, calendar = self.lake.week_folders(source.path), source.partition_calendar
        self._named(self.lake.beside_the_weeks(source.path, calendar))
        homeless = [str(folder) for folder in folders if not weeks_of(folder, calendar)]
        if homeless:
            report.problems.append(
                f"sources.usage.path: no day belongs to {', '.join(homeless)} under partition_calendar: {calendar}; "
                "rename the folders, set the other calendar, or, where event_time is mapped, say partitioned: false"
            )
        weeks = {week for folder in folders for week in weeks_of(folder, calendar)}
        if not weeks:
            return
        window = set(weeks_between(clock.window_start, clock.running_week))
        inside = sorted(weeks & window)
        report.lines.append(
            f"usage: {len(folders)} week folders, {min(weeks)} to {max(weeks)}; {len(inside)} weeks in the window are "
            "read"
        )
        missing = sorted(week for week in window if min(weeks) < week < max(weeks) and week not in weeks)
        if missing:
            report.notes.append(
                f"usage: {len(missing)} weeks within the window never arrived: {_some(missing)}; they are shown as "
                "unknown"
            )
        if not inside:
            report.problems.append(
                f"sources.usage.path: no week lies in the window {clock.window_start} to {clock.running_week}: "
                "set as_of to a day after the last week, or raise lookback_weeks"
            )
            return
        self._check_names(inside)
        self._check_files(folders, inside)

    def _check_names(self, weeks: list[date]) -> None:
        """What of every week of the window is not read, by names alone."""
        for week in weeks:
            listing = self.lake.files_of_week(self.source, week)
            self._named(listing.named)
            for file, why in spelled_twice(listing.files).items():
                self.report.problems.append(f"sources.usage: {file.key} is quarantined by a run: {why}")

    def _check_files(self, folders: list[WeekFolder], inside: list[date]) -> None:
        """Looks into the newest week, and into the days of some others."""
        source, report = self.source, self.report
        in_window = [folder for folder in folders if set(weeks_of(folder, source.partition_calendar)) & set(inside)]
        newest = [folder for folder in in_window if inside[-1] in weeks_of(folder, source.partition_calendar)][-1]
        days: dict[WeekFolder, Counter[date]] = {}
        around = [f for f in folders if f.week in _AROUND_NEW_YEAR and weeks_of(f, source.partition_calendar)]
        wanted = dict.fromkeys([newest, *_sample(in_window), *around])
        for folder in wanted:
            files = self._readable(folder, told=folder == newest)
            if files and folder == newest:
                report.lines.append(f"  looked into the newest, {newest}:")
                self._columns(len(files))
            if files and source.delivers("event_time"):
                days[folder] = self._days(folder)
        if days:
            self._check_folders(days)
            self._check_calendar(days)

    def _readable(self, folder: WeekFolder, *, told: bool) -> list[LakeFile]:
        """Opens the files of a week that can be read together as raw rows; those that cannot are told."""
        source, problems = self.source, self.report.problems
        assert source.path is not None
        listing = self.lake.week_files(source.path, source.format, folder)
        if not listing.files and told:
            problems.append(f"sources.usage.path: {folder} holds no {source.format} file")
        source_then = source.at(weeks_of(folder, source.partition_calendar)[0])
        twice = spelled_twice(listing.files)
        files = [file for file in listing.files if file not in twice]
        good, wrong = open_files(self.connection, self.nearby, self._match(source_then), source, files)
        for file, why in wrong:
            problems.append(f"sources.usage: {file.key} is quarantined by a run, and its week is incomplete: {why}")
        return good

    def _match(self, source: Source) -> Callable[[str], Mapping]:
        reading = Reading.of(self.settings.timezone, self.source)
        return lambda view: match_columns(self.connection, source, USAGE, reading, view)

    def _days(self, folder: WeekFolder) -> Counter[date]:
        week = weeks_of(folder, self.source.partition_calendar)[0]
        mapping = self._match(self.source.at(week))(RAW)
        (mapping,), _ = settle(self.connection, USAGE, [(RAW, mapping)], week)
        day = mapping.cell(USAGE.column("event_time")).day
        rows = self.connection.execute(f"SELECT {day} AS day, count(*) FROM {RAW} GROUP BY 1").fetchall()
        return Counter({found: count for found, count in rows if found is not None})

    def _check_folders(self, days: dict[WeekFolder, Counter[date]]) -> None:
        """Compares days with the folders that they lie in: most must lie in the week that the folder names."""
        calendar, late = self.source.partition_calendar, timedelta(days=self.settings.completeness.late_days)
        outside = inside = 0
        for folder, counted in days.items():
            for day, rows in counted.items():
                near = any(week - late <= day <= week + timedelta(days=6) + late for week in weeks_of(folder, calendar))
                inside, outside = inside + rows * near, outside + rows * (not near)
        if outside <= 0.05 * (inside + outside):
            return
        share = outside / (inside + outside)
        sunday = sum(
            rows for folder, counted in days.items() for day, rows in counted.items() if _is_sunday_week(day, folder)
        )
        hint = ""
        if sunday > inside and sunday > _MOST * (inside + outside):
            hint = " (they fit weeks that begin on Sunday, strftime %U)"
        elif (moved := _other_zone(days, calendar)) is not None:
            hint = f" (most lie {moved})"
        self.report.problems.append(
            f"sources.usage.path: {share:.0%} of the rows looked at do not lie in the week that their folder "
            f"names{hint}; a run rejects them. Say partitioned: false, so that days alone decide and every file below "
            "the path is read; or, where folders follow the other calendar or another zone, set partition_calendar or "
            "partition_timezone"
        )

    def _check_calendar(self, days: dict[WeekFolder, Counter[date]]) -> None:
        """Compares the days of the folders around New Year, where the two calendars differ."""
        fits: Counter[str] = Counter()
        for folder, counted in days.items():
            for found in counted if folder.week in _AROUND_NEW_YEAR else ():
                by_iso, by_year = folder_of(found, "iso") == folder, folder_of(found, "calendar_year") == folder
                if by_iso != by_year:
                    fits["iso" if by_iso else "calendar_year"] += 1
        configured = self.source.partition_calendar
        if not fits:
            self.report.lines.append(f"  partition calendar: {configured} (no folder around New Year tells)")
            return
        likely = fits.most_common(1)[0][0]
        if likely == configured:
            self.report.lines.append(f"  partition calendar: {likely}, as the days around New Year show")
        else:
            self.report.problems.append(
                f"sources.usage.partition_calendar: is {configured}, but {fits[likely]} days around "
                f"New Year lie where {likely} puts them; set partition_calendar: {likely}"
            )


def _sample(folders: list[WeekFolder]) -> list[WeekFolder]:
    if len(folders) <= _FEW:
        return folders
    return [folders[number * (len(folders) - 1) // _SAMPLED] for number in range(_SAMPLED)]


def _is_sunday_week(day: date, folder: WeekFolder) -> bool:
    return day.year == folder.year and int(day.strftime("%U")) == folder.week


def _other_zone(days: dict[WeekFolder, Counter[date]], calendar: str) -> str | None:
    """How many whole weeks away most rows lie, as weeks that are numbered in another way would make them."""
    away: Counter[int] = Counter()
    for folder, counted in days.items():
        weeks = weeks_of(folder, "iso" if calendar == "iso" else "calendar_year")
        for day, rows in counted.items():
            away[(day - weeks[0]).days // 7] += rows
    weeks_away, rows = away.most_common(1)[0]
    if weeks_away == 0 or rows <= _MOST * sum(away.values()):
        return None
    return f"{abs(weeks_away)} weeks {'before' if weeks_away < 0 else 'after'} it"


def _shown(given: str, value: str) -> str:
    """A value as it stands, and as it reads where that is something else."""
    value = value.removesuffix(" 00:00:00")
    return f"'{given[:40]}'" if given == value else f"'{given[:40]}' read as {value[:40]}"


def _what_becomes(schema: SourceSchema, column: SourceColumn) -> str:
    if schema.name == "usage":
        return "such cells are empty" if column.name == "user_id" else "such rows are rejected"
    decides = column.required or column.name in DECIDING.get(schema.name, ())
    return "such rows are kept aside" if decides else "such cells are empty"


def _some(weeks: list[date]) -> str:
    shown = ", ".join(week.isoformat() for week in weeks[:5])
    return shown + (f" and {len(weeks) - 5} more" if len(weeks) > 5 else "")
