"""KPIs: figures of a catalogue, for every entity and period, each beside a year ago and the period before.

Belongs here: the assets. Does not: what a KPI is (`usage_pipeline/kpis.yaml`), nor how it is computed
(`kpis/report.py`). A second run makes the values and the sheet of those periods again that read something else than the
last time, and replaces the other tables as a whole.
"""

from datetime import date
from typing import Any

import dagster as dg

from usage_pipeline.config.settings import Settings
from usage_pipeline.core.made_of_slices import Slices
from usage_pipeline.core.sql import load_sql
from usage_pipeline.core.tables import TABLES
from usage_pipeline.defs.lineage import Step, column_lineage, deps_of
from usage_pipeline.defs.tables import (
    OWNERS,
    POOL,
    Cut,
    code_of,
    count_rows,
    keep_or_make,
    keep_or_make_slices_of,
    sql_table,
    table_metadata,
)
from usage_pipeline.kpis import catalogue as catalogue
from usage_pipeline.kpis import closed_months as closing
from usage_pipeline.kpis import report as steps
from usage_pipeline.publishing.builds import BuildStore
from usage_pipeline.publishing.history import MONTHS, entries, history_locked, promote
from usage_pipeline.resources import Warehouse

# the files that tell a closed month from what is computed of it now
_MADE_OF = ("usage_facts", "subscriptions", "accounts", "applications")
# what the values of a period read of single months and weeks alone
_VALUES_READ = {
    "core.monthly_users": "month_start",
    "core.weekly_users": "week_start",
    "core.growth_events": "period_start",
    "core.usage_states": "week_start",
    "core.score_snapshots": "as_of_week",
    # told apart by month in `kpi_terms` and `kpi_subscribed`
    "core.subscription_terms": None,
    "core.subscription_periods": None,
    "core.kpi_base_periods": None,
    "core.kpi_periods": None,
    # they number what the others name: no value holds such a number
    "core.weekly_usage": None,
    "core.account_applications": None,
    "ref.subscriptions": None,
}
# what the rows of a reference month read of the values; months that are not complete are only told of
_SHEET_READS = {"core.kpi_values": "period_no", "core.kpi_periods": None, "core.months": None}


@dg.asset(
    key="kpi_members",
    group_name="kpis",
    kinds={"duckdb", "sql"},
    owners=OWNERS,
    deps=deps_of(
        "kpi_members",
        Step(tables={"core.kpi_members": "kpis/kpi_members"}, passing={"kpi_groups": steps.GROUP_COLUMNS}),
    ),
    pool=POOL,
    code_version=code_of("kpis", "defs/kpis"),
)
def kpi_members(
    context: dg.AssetExecutionContext, warehouse: Warehouse, settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[Any]:
    """What the sheet is about, from one account to all, applications and types, and the groups of the configuration.

    One row: entity x account, or entity x application, that belongs to it.
    """
    with warehouse.get_connection() as connection:
        try:
            keep_or_make(
                context,
                connection,
                settings,
                lambda: steps.replace_members(connection, settings.groups),
                {"groups": settings.groups.model_dump()},
            )
        except steps.GroupError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        counts = dict(
            connection.execute(
                "SELECT entity_type, count(DISTINCT entity_no) FROM core.kpi_members GROUP BY entity_type ORDER BY 1"
            ).fetchall()
        )
        rows = count_rows(connection, "core.kpi_members")
    metadata: dict[str, Any] = {"dagster/row_count": rows, "entities": dg.MetadataValue.json(counts)}
    return dg.MaterializeResult(metadata=metadata | column_lineage("kpi_members"))


@dg.asset(
    key="kpi_values",
    group_name="kpis",
    kinds={"duckdb", "python"},
    owners=OWNERS,
    deps=deps_of(
        "kpi_values",
        Step(
            # the catalogue names the columns of values
            python={"core.kpi_values": (), "core.kpi_account_level": ("kpi", "calendar", "nth", "value")},
            runs=["kpis/kpi_value_slices", *(f"kpis/{name}" for name in steps.VALUE_QUERIES)],
            reads=["core.kpi_members", "core.kpi_base_periods", "core.kpi_periods"],
            checks=["defs/kpis/kpi_lost_clicks"],
        ),
    ),
    pool=POOL,
    code_version=code_of("kpis", "defs/kpis"),
)
def kpi_values(
    context: dg.AssetExecutionContext, warehouse: Warehouse, settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[Any]:
    """Every KPI of every entity and period: what cannot be added up is counted anew for each period.

    One row: entity x period in which it was subscribed or used; a column a KPI.
    """
    with warehouse.get_connection() as connection:
        try:
            kpis = catalogue.read_kpis()
            with steps.work_tables(connection):
                keep_or_make_slices_of(
                    context,
                    connection,
                    settings,
                    Slices(
                        "core.kpi_values",
                        "period_no",
                        load_sql("kpis", "kpi_value_slices"),
                        _VALUES_READ,
                        lambda: steps.make_terms(connection),
                    ),
                    lambda periods: steps.replace_values(connection, settings, kpis, periods),
                    {"kpis": repr(kpis), "delivered": catalogue.delivered(settings.sources)},
                )
        except catalogue.KpiError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        rows = count_rows(connection, "core.kpi_values")
    return dg.MaterializeResult(metadata={"dagster/row_count": rows})


@dg.asset(
    key="kpi_report",
    group_name="kpis",
    kinds={"duckdb", "python"},
    owners=OWNERS,
    deps=deps_of(
        "kpi_report",
        Step(
            python={"mart.kpi_report": TABLES["kpi_report"].column_names},
            runs=["kpis/kpi_rows", "kpis/kpi_histories", "kpis/kpi_report", "kpis/kpi_report_slices"],
            reads=["core.kpi_periods", "core.months"],
            checks=["defs/kpis/kpi_partitions"],
        ),
    ),
    pool=POOL,
    code_version=code_of("kpis", "defs/kpis"),
    metadata=table_metadata("kpi_report"),
)
def kpi_report(
    context: dg.AssetExecutionContext, warehouse: Warehouse, settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[Any]:
    """The KPI sheet: every KPI beside its value a year ago and in the period before, with what is a big change.

    One row: KPI x entity x period x reference month.
    """
    with warehouse.get_connection() as connection:
        kpis = catalogue.read_kpis()
        keep_or_make_slices_of(
            context,
            connection,
            settings,
            Slices("mart.kpi_report", "reference_month", load_sql("kpis", "kpi_report_slices"), _SHEET_READS),
            lambda months: steps.replace_sheet(connection, kpis, months),
            {"kpis": repr(kpis), **steps.values_of_sheet()},
        )
        rows = count_rows(connection, "mart.kpi_report")
        big = count_rows(connection, "mart.kpi_report WHERE is_big_change")
        periods = dict(
            connection.execute(
                "SELECT period, count(*) FROM core.kpi_periods WHERE is_complete GROUP BY period, place ORDER BY place"
            ).fetchall()
        )
        months = steps.why_no_months(connection, settings.sources)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": rows,
            "big_changes": big,
            "complete_periods": dg.MetadataValue.json(periods),
            **({"no_months": months} if months else {}),
        }
    )


@dg.asset(
    key="closed_months",
    group_name="kpis",
    kinds={"parquet", "python"},
    owners=OWNERS,
    deps=deps_of("closed_months", Step(runs=["kpis/closing_rows"], reads=["core.kpi_periods", *_MADE_OF])),
    pool=POOL,
)
def closed_months(
    context: dg.AssetExecutionContext, warehouse: Warehouse, settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[Any]:
    """The sheet of each month as it was when the month was closed, kept for good once it is published.

    One file: a month; written once, by the first run after the monthly refresh is due that finds it complete.
    """
    with history_locked(settings.home, settings.ingest.wait_seconds):
        promote(settings.home)
        with warehouse.read() as connection:
            proposed = closing.close_months(
                connection,
                settings.home,
                settings.clock.as_of,
                settings.groups,
                settings.schedule,
                catalogue.read_kpis(),
            )
            months = [f"{month:%Y-%m}" for month in proposed]
    context.log.info(f"closed once they are published: {', '.join(months) or 'nothing is due'}")
    return dg.MaterializeResult(metadata={"closed_now": dg.MetadataValue.json(months)})


@dg.asset(
    key="kpi_reported",
    group_name="kpis",
    kinds={"duckdb", "python"},
    owners=OWNERS,
    deps=deps_of(
        "kpi_reported",
        Step(
            python={"mart.kpi_reported": TABLES["kpi_reported"].column_names},
            runs=["kpis/closing_rows", "kpis/kpi_reported"],
            reads=["closed_months", *_MADE_OF],
        ),
    ),
    pool=POOL,
    code_version=code_of("kpis", "defs/kpis"),
    metadata=table_metadata("kpi_reported"),
)
def kpi_reported(warehouse: Warehouse, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[Any]:
    """Closed months as they were reported, beside what is computed of them now, and why that differs.

    One row: KPI x entity x period that ends with a closed month.
    """
    with warehouse.get_connection() as connection:
        closing.replace_reported(connection, settings.home, settings.groups, catalogue.read_kpis())
        rows = count_rows(connection, "mart.kpi_reported")
        restated = count_rows(connection, "mart.kpi_reported WHERE is_revised")
    return dg.MaterializeResult(metadata={"dagster/row_count": rows, "restated": restated})


@dg.asset(
    key="kpi_workbook",
    group_name="kpis",
    kinds={"excel", "python"},
    owners=OWNERS,
    deps=["published_build", "closed_months"],
)
def kpi_workbook(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[Any]:
    """The KPI sheet of the newest closed month to take away: a workbook and a picture of each KPI, beside the builds.

    Made once a month, from the first build after the month was closed; pages offer it as /kpi-sheets/newest.
    """
    closed = [entry for entry in entries(settings.home.history_dir, [MONTHS]) if not entry.is_withdrawn]
    if not closed:
        return dg.MaterializeResult(metadata={"closed": "no month is closed yet"})
    month = closed[-1].period
    folder = settings.home.published_dir / "kpi-sheets" / month
    file = folder / f"kpi-sheet-{month}.xlsx"
    is_new = not file.exists()
    if is_new:
        # matplotlib takes a second to load: only where something is drawn
        from usage_pipeline.kpis.selection import Selection, read_selection
        from usage_pipeline.kpis.workbook import write_charts, write_workbook

        store = BuildStore(settings.home.published_dir)
        # the build that closed it, else the one that pages read; never one that nobody has seen
        wanted_build = {build.build_id: build for build in store.builds()}.get(closed[-1].build_id or "")
        shown = wanted_build or store.current()
        assert shown is not None
        wanted = Selection(month=date.fromisoformat(f"{month}-01"))
        sheet = read_selection(store.path(shown.build_id), wanted)
        write_charts(sheet, folder)
        write_workbook(sheet, file)
    context.log.info(f"{file} {'written' if is_new else 'was written before'}")
    return dg.MaterializeResult(metadata={"file": dg.MetadataValue.path(str(file)), "is_new": is_new})


KPI_TABLES = [
    sql_table(
        "kpi_base_periods",
        schema="core",
        group="kpis",
        description="The weeks and months that periods are made of: complete ones, and the month that runs.",
    ),
    sql_table(
        "kpi_periods",
        schema="core",
        group="kpis",
        description="Week, month, 3, 6 and 12 months and year to date, with the period a year ago and the one before.",
    ),
    kpi_members,
    kpi_values,
    kpi_report,
    closed_months,
    kpi_reported,
    kpi_workbook,
    sql_table(
        "kpi_months",
        schema="mart",
        group="kpis",
        description="The single months of the sheet, for lines over two years that no filter of a period cuts.",
        cut=Cut("month_start", "kpi_month_slices", {"mart.kpi_report": "reference_month", "core.months": None}),
    ),
]
