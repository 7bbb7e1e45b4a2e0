"""Checks on what came in: a bad file must not hold back the good ones, a lost row holds back everything."""

from collections import Counter
from typing import Any

import dagster as dg
import duckdb

from usage_pipeline.config.settings import Settings
from usage_pipeline.config.source_schemas import REFERENCE, SourceSchema
from usage_pipeline.core import formatting as words
from usage_pipeline.core.weeks import WEEK
from usage_pipeline.defs.partitions import short_run_id
from usage_pipeline.defs.tables import warning
from usage_pipeline.ingestion.deliveries import read_held_back
from usage_pipeline.ingestion.facts import (
    facts_path,
    lake_oddities,
    made_otherwise,
    outdated_weeks,
    read_manifests,
    vanished_weeks,
)
from usage_pipeline.ingestion.fast_path import FACTS
from usage_pipeline.ingestion.lake import LakeError
from usage_pipeline.ingestion.sources import SourceError

_TYPES = {"date32[day]": "DATE", "string": "VARCHAR", "int64": "BIGINT"}
# files and folders that are told by name
_NAMED = 200
_COLUMNS = {name: _TYPES[str(kind)] for name, kind in FACTS.items()}


@dg.asset_check(asset="usage_facts", name="facts_schema", blocking=True)
def facts_schema(context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Columns and types, one row a key, and the sums of the manifest, in every week that this run has written."""
    problems = []
    with duckdb.connect() as connection:
        for week, manifest in read_manifests(settings.home.facts_dir).items():
            if manifest.run == short_run_id(context.run.run_id):
                found = _broken(connection, str(facts_path(settings.home.facts_dir, week)), manifest.clicks)
                problems += [f"{week}: {found}"] if found else []
    return dg.AssetCheckResult(passed=not problems, metadata={"problems": dg.MetadataValue.json(problems)})


def _broken(connection: duckdb.DuckDBPyConnection, file: str, clicks: int) -> str | None:
    rows = "read_parquet($file, hive_partitioning = false)"
    found = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE FROM {rows}", {"file": file}).fetchall()}
    if found != _COLUMNS:
        return f"has the columns {found}, expected {_COLUMNS}"
    key = "account_id, application, user_id, day"
    total = connection.execute(
        f"SELECT count(*), (SELECT count(*) FROM (SELECT DISTINCT {key} FROM {rows})), sum(clicks), min(clicks), "
        f"count(*) FILTER (WHERE account_id IS NULL OR application IS NULL) FROM {rows}",
        {"file": file},
    ).fetchone()
    assert total is not None
    rows_found, keys, clicks_found, smallest, without_key = total
    if rows_found != keys:
        return f"{rows_found - keys} rows have the account, application, user and day of another"
    if without_key or (smallest or 0) < 0:
        return "holds rows without account or application, or with negative clicks"
    if int(clicks_found or 0) != clicks:
        return f"holds {clicks_found} clicks, its manifest says {clicks}"
    return None


@dg.asset_check(asset="usage_facts", name="no_quarantined_file")
def no_quarantined_file(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Every file of every week could be read; the week of one that could not is incomplete wherever it is shown."""
    aside = [item for manifest in read_manifests(settings.home.facts_dir).values() for item in manifest.quarantined]
    return warning(not aside, {"files": dg.MetadataValue.json(aside)})


@dg.asset_check(asset="usage_facts", name="every_row_read_is_accounted_for", blocking=True)
def every_row_read_is_accounted_for(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Rows in the files = rows kept + rejected + dropped as duplicates, and the same for clicks, in every week."""
    manifests = read_manifests(settings.home.facts_dir).values()
    wrong = {m.week: m.lost for m in manifests if m.lost}
    compared = sum(m.clicks_in_files is not None for m in manifests)
    metadata: dict[str, Any] = {
        "weeks_wrong": dg.MetadataValue.json(wrong),
        "weeks_compared_with_their_files": compared,
    }
    return dg.AssetCheckResult(passed=not wrong, metadata=metadata)


@dg.asset_check(asset="usage_facts", name="few_rows_are_rejected")
def few_rows_are_rejected(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """In no week more than `completeness.rejected_warning_share` of the rows were rejected."""
    manifests = read_manifests(settings.home.facts_dir).values()
    limit = settings.completeness.rejected_warning_share
    above = {m.week: m.rejected for m in manifests if m.rows_rejected > limit * m.rows_read}
    total = sum(m.rows_rejected for m in manifests)
    return warning(not above, {"rows_rejected": total, "weeks_above": dg.MetadataValue.json(above)})


@dg.asset_check(asset="usage_facts", name="no_week_vanished_from_the_lake")
def no_week_vanished(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Every week of the window that was read once still has files; the facts of one that has none are kept."""
    vanished = [
        week.isoformat()
        for week in vanished_weeks(settings.home.facts_dir, settings.clock, settings.store, settings.sources)
    ]
    return warning(not vanished, {"weeks": dg.MetadataValue.json(vanished)})


def delivery_check(source: str) -> dg.AssetChecksDefinition:
    """A warning where the newest delivery of a reference source is not in force."""

    @dg.asset_check(
        asset=source,
        name=f"{source}_delivery_is_taken",
        description=f"The newest delivery of {words.as_text(source)} is in force: nothing is held back or missing.",
    )
    def check(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        held_back = read_held_back(settings.home.history_dir, settings.sources, source)
        return warning(held_back is None, {"held_back": str(held_back)} if held_back else {})

    return check


@dg.asset_check(asset="usage_facts", name="everything_in_the_lake_is_read")
def everything_is_read(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Nothing lies below the path of usage that is not read: files and folders that are not, each with the reason."""
    try:
        named = lake_oddities(settings.clock, settings.store, settings.sources)
    except LakeError as error:
        return warning(False, {"not_listed": str(error)})
    below = settings.sources.usage.path or ""
    listed = {item.key.removeprefix(below).lstrip("/"): item.reason for item in named[:_NAMED]}
    return warning(not named, {"not_read": len(named), "files_and_folders": dg.MetadataValue.json(listed)})


@dg.asset_check(asset="usage_facts", name="facts_are_of_what_the_lake_holds")
def facts_are_of_what_the_lake_holds(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """The facts of every week of the window are those of its files: none could not be read and stayed as it was."""
    try:
        behind = {str(week): why for week, why in outdated_weeks(settings).items()}
    except (LakeError, SourceError) as error:
        return warning(False, {"not_listed": str(error)})
    return warning(not behind, {"weeks": dg.MetadataValue.json(behind)})


@dg.asset_check(asset="usage_facts", name="facts_were_made_alike")
def facts_were_made_alike(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """All facts were made by the mapping, zone and calendar of today; those of weeks that cannot be read again are not.

    A longer `lookback_weeks` for one refresh reads weeks before the window again, where the lake still has them.
    """
    otherwise = made_otherwise(settings.home.facts_dir, settings.timezone, settings.sources, settings.completeness)
    remedy = "set lookback_weeks so that the window holds them, refresh once, and set it back"
    metadata: dict[str, Any] = {"weeks": dg.MetadataValue.json(otherwise)} | ({"remedy": remedy} if otherwise else {})
    return warning(not otherwise, metadata)


@dg.asset_check(asset="usage_facts", name="cells_can_be_read")
def cells_can_be_read(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """No cell of a row that is kept is empty merely because it could not be read."""
    unread: Counter[str] = Counter()
    for manifest in read_manifests(settings.home.facts_dir).values():
        unread.update(manifest.unreadable)
    return warning(not unread, {"cells": dg.MetadataValue.json(dict(unread))})


def reference_cells_check(schema: SourceSchema) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=schema.name,
        name=f"cells_of_{schema.name}_can_be_read",
        description="No row is kept aside, and no cell of a row that is kept is empty, because it could not be read.",
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        event = context.instance.get_latest_materialization_event(dg.AssetKey(schema.name))
        materialized = event.asset_materialization if event else None
        metadata = materialized.metadata if materialized else {}
        unread: Any = metadata["cells_unreadable"].value if "cells_unreadable" in metadata else {}
        rejected: Any = metadata["rows_rejected"].value if "rows_rejected" in metadata else {}
        aside = {reason: rows for reason, rows in (rejected or {}).items() if "cannot be read" in reason}
        told = {"cells": dg.MetadataValue.json(unread or {}), "rows_kept_aside": dg.MetadataValue.json(aside)}
        return warning(not unread and not aside, told)

    return check


@dg.asset_check(asset="usage_facts", name="no_row_is_dated_after_as_of")
def no_row_is_dated_after_as_of(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """No row of usage is dated after the day of as_of; those that are wait in the facts, and no page counts them."""
    files = [
        str(facts_path(settings.home.facts_dir, week))
        for week in read_manifests(settings.home.facts_dir)
        if week >= settings.clock.running_week - WEEK
    ]
    rows, clicks, first, last = 0, 0, None, None
    if files:
        with duckdb.connect() as connection:
            found = connection.execute(
                "SELECT coalesce(sum(source_rows), 0), coalesce(sum(clicks), 0), min(day), max(day) "
                "FROM read_parquet($files, hive_partitioning = false) WHERE coalesce(day, week_start) > $as_of_day",
                {"files": files, "as_of_day": settings.clock.as_of_day},
            ).fetchone()
        assert found is not None
        rows, clicks, first, last = found
    metadata = {"rows": int(rows), "clicks": int(clicks), "first_day": str(first), "last_day": str(last)}
    words = (
        f"{rows:,} rows ({clicks:,} clicks) are dated after {settings.clock.as_of_day}, the day of as_of; they are "
        "counted from their day on. If they are of today, see `timezone` and `partition_timezone`"
    )
    return warning(not rows, metadata, words if rows else None)


INGEST_CHECKS = [
    facts_schema,
    no_quarantined_file,
    every_row_read_is_accounted_for,
    few_rows_are_rejected,
    no_week_vanished,
    everything_is_read,
    facts_are_of_what_the_lake_holds,
    facts_were_made_alike,
    cells_can_be_read,
    *(reference_cells_check(schema) for schema in REFERENCE),
    *(delivery_check(schema.name) for schema in REFERENCE),
    no_row_is_dated_after_as_of,
]
