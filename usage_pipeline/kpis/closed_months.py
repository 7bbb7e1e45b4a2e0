"""Months as they were reported: closed once, kept for good, and beside them what the same data say today, and why.

A month is closed by the first run after the moment of the monthly refresh that finds it complete and is published. Its
entry of history holds the sheet of all periods that end with it, and what it was computed from: files of each week,
deliveries of subscriptions and accounts, groups, and how each KPI was computed. What differs from that is why figures
differ.
"""

import json
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import GroupSettings, ScheduleSettings
from usage_pipeline.core.formatting import day
from usage_pipeline.core.sql import literal, load_sql, run_sql
from usage_pipeline.core.texts import number, text
from usage_pipeline.core.weeks import WEEK
from usage_pipeline.ingestion.deliveries import deliveries
from usage_pipeline.ingestion.facts import WeekManifest, read_manifests
from usage_pipeline.kpis.catalogue import Kpi, KpiCatalogue, Ratio, Sum
from usage_pipeline.publishing.history import (
    MONTHS,
    entries,
    kept_files,
    propose,
    readable_files,
    rows_to_keep,
)

MADE_OF = b"made_of"
# entities that are made of accounts, or of applications, and change with what is known of those
_MOVES = {"segment": "accounts", "region": "accounts", "CSM": "accounts", "application type": "applications"}
_OF_SUBSCRIPTIONS = ("is_subscribed", "seats", "annual_value", "usage_state", "is_at_risk", "change")
_UNKNOWN = "nothing that is on record has changed"


def closing_time(as_of: datetime, schedule: ScheduleSettings, month: date) -> datetime:
    """The moment from which a month (its first day) is closed: that of the monthly refresh in the month after."""
    minute, hour, day = (int(part) for part in schedule.monthly.split()[:3])
    after = (month + timedelta(days=31)).replace(day=day)
    return datetime(after.year, after.month, after.day, hour, minute, tzinfo=as_of.tzinfo)


def close_months(
    connection: duckdb.DuckDBPyConnection,
    home: DataHome,
    as_of: datetime,
    groups: GroupSettings,
    schedule: ScheduleSettings,
    catalogue: KpiCatalogue,
) -> list[date]:
    """Proposes the months that are due for history, each once; returns them. The caller holds history.

    Due is what is complete and came after the last one closed; where none was closed yet, the newest alone. A month
    that was withdrawn is due again.
    """
    complete = connection.execute(
        "SELECT reference_day FROM core.kpi_periods WHERE period = 'month' AND is_complete ORDER BY reference_day"
    ).fetchall()
    months = [month for (month,) in complete if closing_time(as_of, schedule, month) <= as_of]
    closed = [file.stem for file in kept_files(home.history_dir, MONTHS)]
    withdrawn = {entry.period for entry in entries(home.history_dir, [MONTHS]) if entry.is_withdrawn} - set(closed)
    newer = [month for month in months if f"{month:%Y-%m}" > closed[-1]] if closed else months[-1:]
    due = [month for month in months if month in newer or f"{month:%Y-%m}" in withdrawn]
    made_of = json.dumps(_made_of(home, groups, catalogue), sort_keys=True).encode()
    proposed = {}
    for month in due:
        rows = rows_to_keep(connection, as_of, load_sql("kpis", "closing_rows"), {"month": month})
        proposed[f"{month:%Y-%m}"] = rows.replace_schema_metadata((rows.schema.metadata or {}) | {MADE_OF: made_of})
    propose(home.history_dir, as_of, MONTHS, proposed)
    return due


def _made_of(home: DataHome, groups: GroupSettings, catalogue: KpiCatalogue) -> dict[str, Any]:
    """What the sheet is computed from, in short."""
    delivered = {name: deliveries(home.history_dir, name) for name in ("subscriptions", "accounts", "applications")}
    return {
        "weeks": {manifest.week: _week(manifest) for manifest in read_manifests(home.facts_dir).values()},
        "deliveries": {name: files[-1].name if files else None for name, files in delivered.items()},
        "groups": groups.model_dump(mode="json"),
        "computed": {entry.name: entry.computed.model_dump(mode="json") for entry in catalogue.entries},
        "titles": {kpi.title: kpi.name for kpi in catalogue.kpis},
    }


def _week(manifest: WeekManifest) -> dict[str, Any]:
    files = {file["key"]: str(file["etag"])[:12] for file in manifest.files}
    return {"files": files, "mapping": f"{manifest.version} {manifest.mapping}", "clicks": manifest.clicks}


def replace_reported(
    connection: duckdb.DuckDBPyConnection, home: DataHome, groups: GroupSettings, catalogue: KpiCatalogue
) -> None:
    """Replaces `mart.kpi_reported`: closed months as they were reported, beside what is computed of them now."""
    files = readable_files(home.history_dir, MONTHS)
    rows = f"({load_sql('kpis', 'closing_rows')})".replace("$month", "NULL")
    closed = f"SELECT *, CAST(NULL AS TIMESTAMP) AS issued_as_of FROM {rows} LIMIT 0"
    if files:
        closed = f"FROM read_parquet([{', '.join(literal(file) for file in files)}], union_by_name = true)"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE kpi_closed AS {closed}")
    connection.register("kpi_reasons", _reasons(connection, files, _made_of(home, groups, catalogue), catalogue))
    run_sql(connection, f"CREATE OR REPLACE TABLE mart.kpi_reported AS {load_sql('kpis', 'kpi_reported')}", {})
    connection.unregister("kpi_reasons")
    connection.execute("DROP TABLE kpi_closed")


def _reasons(
    connection: duckdb.DuckDBPyConnection, files: list[Path], now: dict[str, Any], catalogue: KpiCatalogue
) -> pa.Table:
    """Why figures of closed months may differ: a row a month x KPI (its title then and now) x period x entity type."""
    names = ("reference_month", "kpi_then", "kpi", "kpi_period", "entity_type", "why", "why_missing")
    rows: list[tuple[Any, ...]] = []
    kpis = {kpi.name: kpi for kpi in catalogue.kpis}
    delivered = text("revised.delivered.subscriptions")
    for file in files:
        then = json.loads(pq.read_metadata(file).metadata[MADE_OF])
        told = connection.execute(
            "SELECT DISTINCT kpi_period, reference_month, period_from, period_to, entity_type "
            f"FROM read_parquet({literal(file)}) ORDER BY ALL"
        ).fetchall()
        for title, name in then["titles"].items():
            kpi = kpis.get(name)
            for period, month, first, last, entity_type in told:
                why = list(_why(kpi, catalogue, then, now, (first.date(), last.date()), entity_type))
                is_missing = kpi and delivered not in why and _differ(then, now)
                missing = [*why, *([delivered] if is_missing else [])]
                texts = ["; ".join(notified_now) or _UNKNOWN for notified_now in (why, missing)]
                rows.append((month, title, kpi.title if kpi else title, period, entity_type, *texts))
    columns = zip(*rows, strict=True) if rows else [[] for _ in names]
    types = {"reference_month": pa.timestamp("us")}
    return pa.table({n: pa.array(list(c), types.get(n, pa.string())) for n, c in zip(names, columns, strict=True)})


def _differ(then: dict[str, Any], now: dict[str, Any], source: str = "subscriptions") -> bool:
    return bool(then["deliveries"][source] != now["deliveries"][source])


def _why(
    kpi: Kpi | None,
    catalogue: KpiCatalogue,
    then: dict[str, Any],
    now: dict[str, Any],
    span: tuple[date, date],
    entity_type: str,
) -> Iterator[str]:
    """What has changed of what a figure was computed from, a phrase each."""
    if kpi is None:
        yield text("revised.no_kpi")
        return
    names = [kpi.name]
    if isinstance(kpi.computed, Ratio):
        names += [kpi.computed.numerator, kpi.computed.denominator]
    if any(then["computed"].get(name) != now["computed"].get(name) for name in names):
        yield text("revised.computed")
    of_subscriptions = any(_is_of_subscriptions(entry.computed) for entry in catalogue.entries if entry.name in names)
    # states and growth look back beyond the period
    yield from _weeks_changed(then, now, date.min if of_subscriptions else span[0], span[1])
    if of_subscriptions and _differ(then, now):
        yield text("revised.delivered.subscriptions")
    source = _MOVES.get(entity_type)
    if source and _differ(then, now, source):
        yield text(f"revised.delivered.{source}")
    if entity_type.startswith("group of") and then["groups"] != now["groups"]:
        yield text("revised.groups")


def _is_of_subscriptions(computed: Any) -> bool:
    if isinstance(computed, Sum):
        return any(name in computed.expression for name in _OF_SUBSCRIPTIONS)
    return computed.kind in ("events", "stock")


def _weeks_changed(then: dict[str, Any], now: dict[str, Any], first: date, last: date) -> Iterator[str]:
    """Weeks of the span that were read again since, with what was different; the first three one by one."""
    told = []
    for week in sorted({*then["weeks"], *now["weeks"]}):
        monday = date.fromisoformat(week)
        before, after = then["weeks"].get(week), now["weeks"].get(week)
        if monday <= last and monday + WEEK > first and before != after:
            told.append(text("revised.week", day=day(monday), change=_week_change(before, after)))
    yield from told[:3]
    if len(told) > 3:
        yield text("revised.more_weeks", number=len(told) - 3)


def _week_change(before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    if before is None or after is None:
        return text("revised.late_week") if before is None else text("revised.gone_week")
    figures = {"now": number(after["clicks"]), "before": number(before["clicks"])}
    clicks = text("revised.clicks", **figures)
    if after["clicks"] == before["clicks"]:
        clicks = text("revised.same_clicks", now=figures["now"])
    if before["files"] == after["files"]:
        return text("revised.otherwise", clicks=clicks)
    corrected = any(after["files"].get(key) != etag for key, etag in before["files"].items())
    return text("revised.corrected" if corrected else "revised.late_files", clicks=clicks)
