"""Publish: the build that pages read, and the dashboards that read it.

`published_build` writes an immutable build and moves `current`; where nothing changed it writes nothing. What is kept
for good is kept with it, of what it shows. Each dashboard is an asset: it is there when every column that its charts
use is in the build.
"""

import hashlib
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import PublishSettings, Settings, Sources
from usage_pipeline.config.sql_values import sql_values
from usage_pipeline.core import made_of
from usage_pipeline.core.fingerprints import fingerprint
from usage_pipeline.core.formatting import as_text, day
from usage_pipeline.core.made_of_slices import slices_made
from usage_pipeline.core.sql import load_sql, run_sql
from usage_pipeline.core.tables import CONTACT_TABLES, OUTCOME_TABLES, TABLES, WAREHOUSE_TABLES
from usage_pipeline.defs.lineage import Step, column_lineage, deps_of
from usage_pipeline.defs.tables import OWNERS, POOL, code_of, code_version, count_rows, sql_table, table_metadata
from usage_pipeline.ingestion.deliveries import all_held_back, delivered_at
from usage_pipeline.observability.status import write_status
from usage_pipeline.outcomes.database import OtherVersionError, renew_outcomes
from usage_pipeline.pages.dashboards import Assets, chart_uuids, load_assets, missing_columns, schemas_of
from usage_pipeline.publishing.builds import Build, PublishError, store_of
from usage_pipeline.publishing.history import (
    KINDS,
    attach_pending,
    history_locked,
    newest_complete_week,
    pending_files,
    promote,
)
from usage_pipeline.publishing.kept_tables import keep_tables
from usage_pipeline.publishing.week_before import COLUMNS, SHOWN, both_weeks
from usage_pipeline.resources import Warehouse

CONTACTS = sql_table(
    "account_contacts",
    schema="personal",
    group="publish",
    description="People to call, with when they last came; published in a file of its own, for its role only.",
)


def _figures_asset(name: str, description: str) -> dg.AssetsDefinition:
    """An asset that replaces a table of what tiles say: now, and a week before."""
    sql = load_sql("defs/publish", name)

    @dg.asset(
        key=name,
        group_name="publish",
        kinds={"duckdb", "sql"},
        owners=OWNERS,
        deps=deps_of(
            name,
            Step(
                tables={f"mart.{name}": f"defs/publish/{name}"},
                reads=["core.weeks", *(f"mart.{table}" for table, _ in SHOWN.values())],
                passing=COLUMNS,
            ),
        ),
        pool=POOL,
        code_version=code_version(sql, code_of("publishing")),
        metadata=table_metadata(name),
        description=f"{description}\n\nGrain: {sql.splitlines()[0].removeprefix('-- grain: ')}",
    )
    def figures(
        context: dg.AssetExecutionContext, warehouse: Warehouse, settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[Any]:
        with history_locked(settings.home, settings.ingest.wait_seconds), warehouse.get_connection() as connection:
            week = newest_complete_week(connection)
            with both_weeks(connection, settings.home.history_dir, week) as before:
                connection.execute(f"CREATE OR REPLACE TABLE mart.{name} AS {sql}")
            rows = count_rows(connection, f"mart.{name}")
        context.log.info(f"compared with build {before}" if before else "no build of the week before is kept")
        return dg.MaterializeResult(
            metadata={"dagster/row_count": rows, "week_before": before or "none", **column_lineage(name)}
        )

    return figures


FIGURES = [
    _figures_asset("account_figures", "What tiles say of accounts as a whole, now and a week before."),
    _figures_asset("application_figures", "What tiles say of subscribed applications, now and a week before."),
]
_PUBLISHED = [table.full_name for table in (*WAREHOUSE_TABLES, *CONTACT_TABLES) if table.name != "build"]


def _held_back(history_dir: Path, sources: Sources) -> str:
    """What readers of every page have to know of reference data that is not the newest; empty where all is."""
    return "".join(
        f" Held back: {as_text(found.source)}; those of {day(delivered_at(found.in_force))} are shown."
        for found in all_held_back(history_dir, sources)
    )


def _contents(connection: duckdb.DuckDBPyConnection, run_id: str) -> dict[str, str]:
    """The fingerprint of every published table but `build`, which differs each time, and of the columns it promises."""
    found = {}
    for table in (*WAREHOUSE_TABLES, *CONTACT_TABLES):
        if table.name != "build":
            is_contacts = table in CONTACT_TABLES
            content = (
                fingerprint(connection, table.full_name)
                if is_contacts
                else made_of.content_of(connection, table.full_name, run_id)
            )
            found[table.name] = code_version(content, repr(table))
    return found


def _slices(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, Any]]:
    """The fingerprint of each slice of the published tables that are made slice by slice."""
    found = slices_made(connection, [table.full_name for table in WAREHOUSE_TABLES])
    return {
        table.name: {**found[table.full_name], "promised": code_version(repr(table))}
        for table in WAREHOUSE_TABLES
        if table.full_name in found
    }


def _fingerprint(contents: dict[str, str], history_dir: Path, as_of: datetime, sources: Sources) -> str:
    """Of all that a build shows: equal content is not published twice."""
    # only pages that read another column of `build` need another build
    build = repr(TABLES["build"].column_names)
    parts = (as_of.isoformat(), _held_back(history_dir, sources), build, *sorted(contents.items()))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@dg.asset(
    group_name="publish",
    kinds={"duckdb", "python"},
    owners=OWNERS,
    deps=deps_of(
        "published_build",
        Step(
            tables={"mart.build": "defs/publish/build"},
            # snapshots: what they propose goes into the build, and is kept once it is shown
            reads=[
                *_PUBLISHED,
                "anomaly_snapshots",
                "score_snapshots",
                "closed_months",
                "health_snapshots",
                "call_snapshots",
            ],
        ),
    ),
    pool=POOL,
    # a refresh a week, and half a day for it to be mended
    freshness_policy=dg.FreshnessPolicy.time_window(
        warn_window=timedelta(days=7, hours=12), fail_window=timedelta(days=9)
    ),
    code_version=code_of("publishing", "defs/publish"),
)
def published_build(
    context: dg.AssetExecutionContext, warehouse: Warehouse, settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[Any]:
    """The build that pages read: checked, immutable, put in place with one rename; the last ones are kept.

    A build that does not pass its checks is not shown, and the one before stays up. Anomalies, scores and closed months
    are kept for good of a build that is shown, and of no other.
    """
    store = store_of(settings.home, settings.publish)
    with warehouse.locked():
        for line in store.finish():
            context.log.warning(line)
    if problem := store.pin_problem:
        context.log.warning(problem)
    _keep_what_is_shown(context, settings.home, settings.publish, settings.ingest.wait_seconds)
    is_something_to_keep = any(pending_files(settings.home.history_dir, kind) for kind in KINDS)
    with warehouse.get_connection(with_contacts=True) as connection:
        contents = _contents(connection, context.run_id)
        fingerprint = _fingerprint(contents, settings.home.history_dir, settings.clock.as_of, settings.sources)
        current = store.current()
        if current and current.fingerprint == fingerprint and not is_something_to_keep:
            context.log.info(f"nothing changed: build {current.build_id} stays")
            return dg.MaterializeResult(metadata={"build": current.build_id, "is_new": False})
        build_id = store.next_id(settings.clock.as_of.isoformat(), fingerprint)
        values = sql_values(settings) | {
            "build_id": build_id,
            "name": settings.name,
            "held_back": _held_back(settings.home.history_dir, settings.sources),
            "as_of_time": settings.clock.as_of.replace(tzinfo=None),
        }
        run_sql(connection, f"CREATE OR REPLACE TABLE mart.build AS {load_sql('defs/publish', 'build')}", values)
        origin = made_of.origin_of(connection)
        slices = _slices(connection)
        found = connection.execute("SELECT strftime(newest_week, '%Y-%m-%d') FROM mart.build").fetchone()
    assert found is not None
    through = settings.clock.as_of_day + timedelta(days=settings.calls.renewal_horizon_days)
    as_of = settings.clock.as_of.isoformat()
    build = Build(build_id, as_of, found[0], fingerprint, {}, contents, origin, through.isoformat(), slices)
    try:
        with history_locked(settings.home, settings.ingest.wait_seconds), warehouse.locked():
            build = store.publish(
                settings.home.warehouse_path, build, partial(attach_pending, settings.home.history_dir, build)
            )
    except PublishError as error:
        raise dg.Failure(
            f"build {build_id} is not shown, {current.build_id if current else 'nothing'} stays: {error}",
            metadata={"problems": dg.MetadataValue.json(error.problems)},
            allow_retries=False,
        ) from error
    _keep_what_is_shown(context, settings.home, settings.publish, settings.ingest.wait_seconds)
    pinned = store.pinned
    context.log.info(f"build {build_id}" + (f" written; {pinned} is pinned and stays shown" if pinned else " is shown"))
    return dg.MaterializeResult(
        metadata={
            "build": build_id,
            "is_new": True,
            "is_shown": pinned is None,
            "newest_week": build.newest_week,
            "rows": dg.MetadataValue.json(build.rows),
        }
    )


def _keep_what_is_shown(
    context: dg.AssetExecutionContext, home: DataHome, publish: PublishSettings, wait_seconds: float
) -> None:
    with history_locked(home, wait_seconds):
        for entry in promote(home):
            context.log.info(f"{entry.kind} of {entry.period} are kept, as build {entry.build_id} shows them")
        if kept := keep_tables(home, publish):
            context.log.info(f"the small tables of build {kept.name} are kept")


def dashboard_asset(dashboard: dict[str, Any], assets: Assets) -> dg.AssetsDefinition:
    slug = str(dashboard["slug"])

    @dg.asset(
        key=f"{slug.replace('-', '_')}_dashboard",
        group_name="dashboards",
        kinds={"superset"},
        owners=OWNERS,
        deps=["published_build"],
        description=f"{dashboard['description']}\n\nSuperset: /superset/dashboard/{slug}/",
    )
    def dashboard_in_superset(
        context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[Any]:
        store = store_of(settings.home, settings.publish)
        current = store.current()
        if current is None:
            raise dg.Failure("there is no build yet: materialise published_build first", allow_retries=False)
        build, status = store.path(current.build_id), settings.home.status_path
        schemas = schemas_of(dashboard, assets)
        # of a run that is under way; it is written again when the run has ended
        if "status" in schemas and not _is_newer(status, build / "build.json"):
            write_status(settings.home, settings.clock, settings.sources, context.instance)
        if schemas & {table.schema for table in OUTCOME_TABLES}:
            try:
                renew_outcomes(settings.home, settings.clock, settings.outcomes)
            except OtherVersionError as error:
                # an older build that is held: its pages go on with what was shown
                context.log.warning(str(error))
        missing = missing_columns(dashboard, assets, build, status, settings.home.outcomes_path)
        if missing and "status" in schemas:
            # another version may have written it
            write_status(settings.home, settings.clock, settings.sources, context.instance)
            missing = missing_columns(dashboard, assets, build, status, settings.home.outcomes_path)
        if missing:
            raise dg.Failure(
                f"build {current.build_id} or a file beside it lacks what the charts of {slug} use: "
                f"{', '.join(missing)}",
                allow_retries=False,
            )
        charts = chart_uuids(dashboard)
        context.log.info(f"all columns of {len(charts)} charts are in build {current.build_id}")
        return dg.MaterializeResult(metadata={"charts": len(charts), "build": current.build_id})

    return dashboard_in_superset


def _is_newer(file: Path, other: Path) -> bool:
    return file.exists() and file.stat().st_mtime_ns > other.stat().st_mtime_ns


def publish_assets() -> list[dg.AssetsDefinition]:
    assets, _ = load_assets()
    return [CONTACTS, *FIGURES, published_build, *(dashboard_asset(d, assets) for d in assets.dashboards.values())]
