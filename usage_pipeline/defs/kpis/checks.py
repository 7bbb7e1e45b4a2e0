"""Checks on the KPI sheet: what adds up does, no click is lost, and where there are no months it says why."""

import dagster as dg

from usage_pipeline.config.settings import Settings
from usage_pipeline.core.sql import as_dicts, load_sql, run_sql
from usage_pipeline.defs.tables import no_rows, schema_check, warning
from usage_pipeline.kpis.catalogue import read_kpis
from usage_pipeline.kpis.report import why_no_months
from usage_pipeline.resources import Warehouse


@dg.asset_check(asset="kpi_report", name="what_adds_up_adds_up", blocking=True)
def what_adds_up_adds_up(warehouse: Warehouse) -> dg.AssetCheckResult:
    """Accounts, segments, regions, owners, applications and types each give the value of all, for every such KPI.

    Subscriptions about whole accounts are of no application: to those sums they are added.
    """
    titles = [kpi.title for kpi in read_kpis().kpis if kpi.aggregation != "non_additive"]
    with warehouse.read() as connection:
        wrong = as_dicts(run_sql(connection, load_sql("defs/kpis", "kpi_partitions"), {"titles": titles}))
    rows = [{name: str(value) for name, value in row.items()} for row in wrong[:20]]
    return dg.AssetCheckResult(passed=not wrong, metadata={"wrong": dg.MetadataValue.json(rows)})


@dg.asset_check(asset="kpi_values", name="clicks_of_a_month_are_those_of_its_days", blocking=True)
def clicks_are_those_of_the_days(warehouse: Warehouse) -> dg.AssetCheckResult:
    """Clicks of all accounts in a complete month are those of the days of the facts."""
    return no_rows(warehouse, load_sql("defs/kpis", "kpi_lost_clicks"))


@dg.asset_check(asset="kpi_report", name="the_sheet_has_months")
def the_sheet_has_months(warehouse: Warehouse, settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """At least one month is complete; else the sheet holds weeks alone, and the reason stands here."""
    with warehouse.read() as connection:
        reason = why_no_months(connection, settings.sources)
    return warning(reason is None, {}, reason)


KPI_CHECKS = [
    what_adds_up_adds_up,
    clicks_are_those_of_the_days,
    the_sheet_has_months,
    schema_check("kpi_report"),
    schema_check("kpi_months"),
    schema_check("kpi_reported"),
]
