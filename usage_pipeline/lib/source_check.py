"""Looking at a configuration's sources before a run: what is there, what matches, and what is wrong.

Belongs here: reading as little as tells the truth (names of folders, footers, the folders around New Year) and
wording it. Nothing is written.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import date

import duckdb

from usage_pipeline.config import Settings, Source
from usage_pipeline.lib.contract import CONTRACTS, USAGE, SourceContract
from usage_pipeline.lib.lake import Lake, LakeError, LakeFile
from usage_pipeline.lib.sources import (
    RAW,
    Mapping,
    SourceError,
    day_expression,
    first_line,
    match_columns,
    open_files,
    open_source,
)
from usage_pipeline.lib.weeks import WeekFolder, folder_of, weeks_between, weeks_of

_AROUND_NEW_YEAR = (1, 52, 53)


@dataclass
class Report:
    """What was found (`lines`), what is worth knowing (`notes`), what must be mended (`problems`, with remedies)."""

    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def check_sources(settings: Settings) -> Report:
    """Checks every source of a configuration; a problem of one does not hide those of another."""
    report, lake = Report(), Lake(settings)
    report.lines.append(
        f"as of {settings.as_of_day}, weeks of {settings.window_start} to {settings.running_week} (the running week), "
        f"days cut in {settings.timezone}"
    )
    for name, contract in CONTRACTS.items():
        source = settings.sources.get(name)
        if source is None:
            report.lines.append(f"{name}: not configured; what it would tell is shown as not delivered")
            continue
        connection = lake.connect()
        try:
            if name == "usage" and source.partitioned:
                _check_weeks(report, settings, lake, source, connection)
            else:
                files = open_source(connection, lake, name, source)
                mapping = _report_columns(report, source, contract, connection, files)
                _check_groups(report, settings, contract, mapping, connection)
        except LakeError as error:
            report.problems.append(f"sources.{name}.path: {error}")
        except SourceError as error:
            report.problems += error.problems
        except duckdb.Error as error:
            report.problems.append(f"sources.{name}: cannot be read: {first_line(error)}")
        finally:
            connection.close()
    return report


def _report_columns(
    report: Report,
    source: Source,
    contract: SourceContract,
    connection: duckdb.DuckDBPyConnection,
    files: list[LakeFile],
) -> Mapping:
    mapping = match_columns(connection, source, contract)
    counted = connection.execute(f"SELECT count(*) FROM {RAW}").fetchone()
    rows = counted[0] if counted else 0
    name = contract.name
    report.lines.append(f"{name}: {len(files)} files, {rows:,} rows")
    matched = [f"{ours} from {mapping.expressions[ours]}" for ours in mapping.expressions]
    report.lines.append(f"  matched: {', '.join(matched)}")
    if mapping.ignored:
        report.lines.append(f"  ignored: {', '.join(mapping.ignored)}")
    absent = [c for c in contract.names if c not in mapping.expressions]
    if absent:
        report.lines.append(f"  not delivered: {', '.join(absent)}")
    report.notes += mapping.notes
    if rows == 0:
        report.problems.append(f"sources.{name}: the files hold no row; check the path")
    return mapping


def _check_groups(
    report: Report,
    settings: Settings,
    contract: SourceContract,
    mapping: Mapping,
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """Notes members of groups that the reference source does not list; usage or contracts may know them."""
    groups = settings.groups.model_dump().get(contract.name)
    if not groups:
        return
    key = mapping.expressions[contract.names[0]]
    known = {str(found) for (found,) in connection.execute(f"SELECT DISTINCT {key} FROM {RAW}").fetchall()}
    for group, members in groups.items():
        for member in members:
            if member not in known:
                report.notes.append(
                    f"groups.{contract.name}.{group}: sources.{contract.name} does not list '{member}'; where no other "
                    "source knows it either, the run stops at kpi_members: write its key, or take it out"
                )


def _check_weeks(
    report: Report, settings: Settings, lake: Lake, source: Source, connection: duckdb.DuckDBPyConnection
) -> None:
    assert source.path is not None
    folders = lake.week_folders(source.path)
    calendar = source.partition_calendar
    homeless = [str(folder) for folder in folders if not weeks_of(folder, calendar)]
    if homeless:
        report.problems.append(
            f"sources.usage.path: no day belongs to {', '.join(homeless)} under partition_calendar: {calendar}; "
            "remove the folders, or set the other calendar"
        )
    weeks = {week for folder in folders for week in weeks_of(folder, calendar)}
    if not weeks:
        return
    window = set(weeks_between(settings.window_start, settings.running_week))
    inside = sorted(weeks & window)
    report.lines.append(
        f"usage: {len(folders)} week folders, {min(weeks)} to {max(weeks)}; {len(inside)} weeks in the window are read"
    )
    missing = sorted(week for week in window if min(weeks) < week < max(weeks) and week not in weeks)
    if missing:
        report.notes.append(
            f"usage: {len(missing)} weeks within the window never arrived: {_some(missing)}; they are shown as unknown"
        )
    if not inside:
        report.problems.append(
            f"sources.usage.path: no week lies in the window {settings.window_start} to {settings.running_week}: "
            "set as_of to a day after the last week, or raise lookback_weeks"
        )
        return
    newest = [folder for folder in folders if inside[-1] in weeks_of(folder, calendar)]
    files = [file for folder in newest for file in lake.week_files(source.path, source.format, folder)]
    if not files:
        report.problems.append(f"sources.usage.path: {newest[-1]} holds no {source.format} file")
        return
    shape = source.file_sets["files"]
    open_files(connection, RAW, files, shape)
    report.lines.append(f"  looked into the newest, {newest[-1]}:")
    mapping = _report_columns(report, source, USAGE, connection, files)
    if source.delivers("event_time"):
        _check_calendar(report, settings, lake, source, connection, folders, mapping)


def _check_calendar(
    report: Report,
    settings: Settings,
    lake: Lake,
    source: Source,
    connection: duckdb.DuckDBPyConnection,
    folders: list[WeekFolder],
    mapping: Mapping,
) -> None:
    """Reads the days of the folders around New Year, where the two calendars differ, and compares."""
    assert source.path is not None
    fits: Counter[str] = Counter()
    day = day_expression(mapping, settings.timezone, source.partition_timezone)
    for folder in folders:
        if folder.week not in _AROUND_NEW_YEAR:
            continue
        files = lake.week_files(source.path, source.format, folder)
        if not files:
            continue
        open_files(connection, RAW, files, source.file_sets["files"])
        days = connection.execute(f"SELECT DISTINCT {day} FROM {RAW}").fetchall()
        for (found,) in days:
            by_iso, by_year = folder_of(found, "iso") == folder, folder_of(found, "calendar_year") == folder
            if found is not None and by_iso != by_year:
                fits["iso" if by_iso else "calendar_year"] += 1
    if not fits:
        report.lines.append(f"  partition calendar: {source.partition_calendar} (no folder around New Year tells)")
        return
    likely = fits.most_common(1)[0][0]
    if likely == source.partition_calendar:
        report.lines.append(f"  partition calendar: {likely}, as the days around New Year show")
    else:
        report.problems.append(
            f"sources.usage.partition_calendar: is {source.partition_calendar}, but {fits[likely]} days around "
            f"New Year lie where {likely} puts them; set partition_calendar: {likely}"
        )


def _some(weeks: list[date]) -> str:
    shown = ", ".join(week.isoformat() for week in weeks[:5])
    return shown + (f" and {len(weeks) - 5} more" if len(weeks) > 5 else "")
