"""Checks on what came in: a bad file must not hold back the good ones, a lost row holds back everything."""

from typing import Any

import dagster as dg
import duckdb

from usage_pipeline.config import Settings
from usage_pipeline.defs.partitions import run_name
from usage_pipeline.defs.tables import warning
from usage_pipeline.lib.facts import facts_path, read_manifests, vanished_weeks
from usage_pipeline.lib.plain_week import FACTS
from usage_pipeline.lib.weeks import WEEK

_TYPES = {"date32[day]": "DATE", "string": "VARCHAR", "int64": "BIGINT"}
_COLUMNS = {name: _TYPES[str(kind)] for name, kind in FACTS.items()}


@dg.asset_check(asset="usage_facts", name="facts_keep_their_contract", blocking=True)
def facts_keep_their_contract(
    context: dg.AssetCheckExecutionContext, settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """Columns and types, one row a key, and the sums of the manifest, in every week that this run has written."""
    problems = []
    with duckdb.connect() as connection:
        for week, manifest in read_manifests(settings.facts_dir).items():
            if manifest.run == run_name(context.run.run_id):
                found = _broken(connection, str(facts_path(settings.facts_dir, week)), manifest.clicks)
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


@dg.asset_check(asset="usage_facts", name="no_file_was_set_aside")
def no_file_was_set_aside(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Every file of every week could be read; the week of one that could not is incomplete wherever it is shown."""
    aside = [item for manifest in read_manifests(settings.facts_dir).values() for item in manifest.set_aside]
    return warning(not aside, {"files": dg.MetadataValue.json(aside)})


@dg.asset_check(asset="usage_facts", name="every_row_read_is_accounted_for", blocking=True)
def every_row_read_is_accounted_for(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Rows in the files = rows kept + rejected + dropped as duplicates, and the same for clicks, in every week."""
    manifests = read_manifests(settings.facts_dir).values()
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
    manifests = read_manifests(settings.facts_dir).values()
    limit = settings.completeness.rejected_warning_share
    above = {m.week: m.rejected for m in manifests if m.rows_rejected > limit * m.rows_read}
    total = sum(m.rows_rejected for m in manifests)
    return warning(not above, {"rows_rejected": total, "weeks_above": dg.MetadataValue.json(above)})


@dg.asset_check(asset="usage_facts", name="no_week_vanished_from_the_lake")
def no_week_vanished(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Every week of the window that was read once still has files; the facts of one that has none are kept."""
    vanished = [week.isoformat() for week in vanished_weeks(settings)]
    return warning(not vanished, {"weeks": dg.MetadataValue.json(vanished)})


@dg.asset_check(asset="usage_facts", name="no_row_is_dated_after_as_of")
def no_row_is_dated_after_as_of(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """No row of usage is dated after the day of as_of; those that are wait in the facts, and no page counts them."""
    files = [
        str(facts_path(settings.facts_dir, week))
        for week in read_manifests(settings.facts_dir)
        if week >= settings.running_week - WEEK
    ]
    rows, clicks, first, last = 0, 0, None, None
    if files:
        with duckdb.connect() as connection:
            found = connection.execute(
                "SELECT coalesce(sum(source_rows), 0), coalesce(sum(clicks), 0), min(day), max(day) "
                "FROM read_parquet($files, hive_partitioning = false) WHERE coalesce(day, week_start) > $as_of_day",
                {"files": files, "as_of_day": settings.as_of_day},
            ).fetchone()
        assert found is not None
        rows, clicks, first, last = found
    metadata = {"rows": int(rows), "clicks": int(clicks), "first_day": str(first), "last_day": str(last)}
    words = (
        f"{rows:,} rows ({clicks:,} clicks) are dated after {settings.as_of_day}, the day of as_of; they are counted "
        "from their day on. If they are of today, see `timezone` and `partition_timezone`"
    )
    return warning(not rows, metadata, words if rows else None)


INGEST_CHECKS = [
    facts_keep_their_contract,
    no_file_was_set_aside,
    every_row_read_is_accounted_for,
    few_rows_are_rejected,
    no_week_vanished,
    no_row_is_dated_after_as_of,
]
