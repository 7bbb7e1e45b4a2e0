"""Checks on usage: weeks look as usual, ids are known, and no click is lost between facts and pages."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

from usage_pipeline.config.settings import Settings
from usage_pipeline.core.weeks import WEEK, monday_of
from usage_pipeline.defs.tables import schema_check, warning
from usage_pipeline.resources import Warehouse

_SHOWN = 20


@dg.asset_check(asset="weeks", name="weeks_are_of_their_usual_size")
def weeks_are_of_their_usual_size(warehouse: Warehouse, settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """No week of the window collapsed or exploded against the weeks before, or lost many rows to rejection."""
    with warehouse.read() as connection:
        found = connection.execute(
            "SELECT CAST(week_start AS VARCHAR), week_status || ': ' || source_rows || ' rows' FROM core.weeks "
            "WHERE week_status IN ('far fewer rows than usual', 'far more rows than usual', 'many rows rejected') "
            "AND week_start >= $first ORDER BY week_start",
            {"first": settings.clock.window_start},
        ).fetchall()
    return warning(not found, {"weeks": dg.MetadataValue.json(dict(found))})


@dg.asset_check(asset="weeks", name="the_newest_week_has_arrived")
def the_newest_week_has_arrived(warehouse: Warehouse, settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """The newest complete week is the last one that has ended and settled."""
    expected = monday_of(settings.clock.as_of_day - WEEK - timedelta(days=settings.completeness.settle_days))
    with warehouse.read() as connection:
        found = connection.execute("SELECT max(week_start) FROM core.weeks WHERE is_complete").fetchone()
    newest = found[0] if found else None
    behind = (expected - newest) // WEEK if newest else None
    metadata = {"newest_complete_week": str(newest), "expected": str(expected), "weeks_behind": str(behind)}
    return warning(newest == expected, metadata)


def known_check(asset: str, key: str, source: str) -> dg.AssetChecksDefinition:
    """A check that the clicks of ids that the reference data does not know are few; such ids are kept and shown."""

    @dg.asset_check(
        asset=asset,
        name=f"{source}_are_known",
        description=f"Few clicks belong to {source} that no reference data knows; those are shown by their id.",
    )
    def check(warehouse: Warehouse, settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        if settings.sources.get(source) is None:
            return warning(True, {"not_compared": f"no source of {source} is configured"})
        with warehouse.read() as connection:
            rows = connection.execute(f"SELECT {key}, sum(clicks) FROM core.weekly_usage GROUP BY 1").fetchall()
            known = {row[0] for row in connection.execute(f"SELECT {key} FROM ref.{source}").fetchall()}
        unmatched = {name: int(clicks) for name, clicks in rows if name not in known}
        total = sum(int(clicks) for _, clicks in rows)
        share = sum(unmatched.values()) / total if total else 0.0
        most = dict(sorted(unmatched.items(), key=lambda item: -item[1])[:_SHOWN])
        return warning(
            share <= settings.completeness.unmatched_warning_share,
            {"unmatched": len(unmatched), "share_of_clicks": share, "most_clicks": dg.MetadataValue.json(most)},
        )

    return check


@dg.asset_check(asset="usage_by_week", name="no_click_is_lost_on_the_way_to_the_pages", blocking=True)
def no_click_is_lost(warehouse: Warehouse, settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Clicks in the facts = clicks in the warehouse = clicks in the mart, week by week."""
    with warehouse.read() as connection:
        wrong = lost_clicks(connection, settings.home.facts_dir, settings.clock.as_of_day)
        total = connection.execute("SELECT sum(clicks) FROM mart.usage_by_week").fetchone()
    metadata: dict[str, Any] = {
        "clicks": int(total[0] or 0) if total else 0,
        "weeks_wrong": dg.MetadataValue.json(wrong),
    }
    return dg.AssetCheckResult(passed=not wrong, metadata=metadata)


def lost_clicks(connection: duckdb.DuckDBPyConnection, facts_dir: Path, as_of_day: date) -> dict[str, dict[str, int]]:
    """Weeks (by date) whose clicks up to as_of differ between facts, warehouse and mart, with all three."""
    # facts of weeks that left the window stay in the warehouse as well: all three hold the same weeks
    rows = connection.execute(
        "SELECT CAST(week_start AS VARCHAR), sum(facts), sum(core), sum(mart) FROM ("
        "  SELECT week_start, clicks AS facts, 0 AS core, 0 AS mart FROM read_parquet($facts)"
        "  WHERE coalesce(day, week_start) <= $as_of_day"
        "  UNION ALL SELECT week_start, 0, clicks, 0 FROM core.weekly_usage"
        "  UNION ALL SELECT CAST(week_start AS DATE), 0, 0, clicks FROM mart.usage_by_week"
        ") GROUP BY week_start HAVING NOT (sum(facts) = sum(core) AND sum(core) = coalesce(sum(mart), 0)) ORDER BY 1",
        {"facts": f"{facts_dir}/week=*/facts.parquet", "as_of_day": as_of_day},
    ).fetchall()
    return {week: {"facts": int(a), "warehouse": int(b), "published": int(c or 0)} for week, a, b, c in rows}


USAGE_CHECKS = [
    weeks_are_of_their_usual_size,
    the_newest_week_has_arrived,
    known_check("account_names", "account_id", "accounts"),
    known_check("application_names", "application", "applications"),
    no_click_is_lost,
    *(schema_check(name) for name in ("usage_by_week", "user_weeks", "usage_by_period", "usage_changes")),
]
