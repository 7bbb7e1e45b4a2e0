"""The status file: what happened in the last runs, failed ones too, in a DuckDB file of its own.

It says what the published builds cannot: that a run failed, which check failed, how old the data is, what was
rejected. It is made anew after every run, whole, and put in place with one rename.

Tables: `runs` (a row a run), `checks` (a row the last result of a check), `builds` (a row a build kept),
`weeks` (a row a week of facts, with what became of every row and click), `set_aside` (a row a file that could not be
read), `rejected` (a row a week and reason, with the file of the ledger that keeps the rows).
"""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa

from usage_pipeline.config import Settings
from usage_pipeline.lib.builds import BuildStore
from usage_pipeline.lib.facts import read_manifests
from usage_pipeline.lib.sql import literal

_RUNS_SHOWN = 50


def write_status(settings: Settings, instance: dg.DagsterInstance) -> None:
    """Replaces the status file with what the instance, the facts and the builds say now."""
    path = settings.status_path
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{uuid.uuid4().hex}.duckdb")
    connection = duckdb.connect(str(unfinished))
    try:
        for name, (schema, rows) in _tables(settings, instance).items():
            table = pa.Table.from_pylist(rows, schema=schema)
            connection.register("rows", table)
            connection.execute(f"CREATE TABLE {name} AS SELECT * FROM rows")
            connection.unregister("rows")
        connection.execute("CHECKPOINT")
    finally:
        connection.close()
    unfinished.replace(path)


def _schema(**columns: Any) -> pa.Schema:
    return pa.schema(list(columns.items()))


def _tables(settings: Settings, instance: dg.DagsterInstance) -> dict[str, tuple[pa.Schema, list[dict[str, Any]]]]:
    text, time, number, truth = pa.string(), pa.timestamp("us"), pa.int64(), pa.bool_()
    return {
        "runs": (
            _schema(run_id=text, job=text, status=text, started_at=time, ended_at=time, error=text),
            _runs(instance),
        ),
        "checks": (
            _schema(
                asset=text, check_name=text, passed=truth, severity=text, description=text, found=text, run_id=text,
                at=time,
            ),
            _checks(instance),
        ),
        "builds": (
            _schema(build_id=text, as_of=text, newest_week=text, is_current=truth, is_pinned=truth),
            _builds(settings),
        ),
        "weeks": (
            _schema(
                week=text, files=number, bytes=number, files_set_aside=number, rows_read=number, rows_kept=number,
                rows_rejected=number, duplicates=number, clicks_in_files=number, clicks=number, clicks_rejected=number,
                clicks_duplicates=number, clicks_by_date=number, clicks_published=number, lost=text,
                ingested_at=text, run=text, seconds=pa.float64(),
            ),
            _weeks(settings),
        ),
        "set_aside": (_schema(week=text, file=text, reason=text), _set_aside(settings)),
        "rejected": (_schema(week=text, reason=text, rows=number, kept_in=text), _rejected(settings)),
    }  # fmt: skip


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None) if seconds else None


def _runs(instance: dg.DagsterInstance) -> list[dict[str, Any]]:
    return [
        {
            "run_id": record.dagster_run.run_id,
            "job": record.dagster_run.job_name,
            "status": record.dagster_run.status.value,
            "started_at": _moment(record.start_time),
            "ended_at": _moment(record.end_time),
            "error": _first_error(instance, record.dagster_run),
        }
        for record in instance.get_run_records(limit=_RUNS_SHOWN)
    ]


def _first_error(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
    if run.status != dg.DagsterRunStatus.FAILURE:
        return None
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = entry.dagster_event
        if event is not None and event.step_failure_data.error is not None:
            error = event.step_failure_data.error
            cause = error.cause or error
            return f"{event.step_key}: {cause.message.strip()}"
    return "the run failed before a step did; see its log in the Dagster UI"


def _checks(instance: dg.DagsterInstance) -> list[dict[str, Any]]:
    """The last result of every check, over the runs shown."""
    latest: dict[tuple[str, str], dict[str, Any]] = {}
    for record in reversed(instance.get_run_records(limit=_RUNS_SHOWN)):
        for entry in instance.all_logs(record.dagster_run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
            event = entry.dagster_event
            if event is None:
                continue
            result = event.asset_check_evaluation_data
            latest[result.asset_key.to_user_string(), result.check_name] = {
                "asset": result.asset_key.to_user_string(),
                "check_name": result.check_name,
                "passed": result.passed,
                "severity": result.severity.value,
                "description": result.description,
                "found": json.dumps({key: value.value for key, value in result.metadata.items()}, default=str),
                "run_id": record.dagster_run.run_id,
                "at": _moment(entry.timestamp),
            }
    return list(latest.values())


def _builds(settings: Settings) -> list[dict[str, Any]]:
    store = BuildStore(settings.published_dir)
    current = store.current()
    return [
        {
            "build_id": build.build_id,
            "as_of": build.as_of,
            "newest_week": build.newest_week,
            "is_current": current is not None and build.build_id == current.build_id,
            "is_pinned": build.build_id == store.pinned,
        }
        for build in store.builds()
    ]


def _weeks(settings: Settings) -> list[dict[str, Any]]:
    by_date, published = _clicks_by_date(settings)
    return [
        {
            "week": manifest.week,
            "files": len(manifest.files),
            "bytes": manifest.bytes,
            "files_set_aside": len(manifest.set_aside),
            "rows_read": manifest.rows_read,
            "rows_kept": manifest.rows_kept,
            "rows_rejected": manifest.rows_rejected,
            "duplicates": manifest.duplicates,
            "clicks_in_files": manifest.clicks_in_files,
            "clicks": manifest.clicks,
            "clicks_rejected": manifest.clicks_rejected,
            "clicks_duplicates": manifest.clicks_duplicates,
            # by the date of use: rows can come late into the folder of the next week
            "clicks_by_date": by_date.get(manifest.week),
            "clicks_published": published.get(manifest.week),
            "lost": manifest.lost,
            "ingested_at": manifest.ingested_at,
            "run": manifest.run,
            "seconds": manifest.seconds,
        }
        for manifest in read_manifests(settings.facts_dir).values()
    ]


def _clicks_by_date(settings: Settings) -> tuple[dict[str, int], dict[str, int]]:
    """Clicks by week of the date, in the facts and in the build that pages read."""
    with duckdb.connect() as connection:
        if not read_manifests(settings.facts_dir):
            return {}, {}
        query = "SELECT CAST(CAST(week_start AS DATE) AS VARCHAR), CAST(sum(clicks) AS BIGINT) FROM {} GROUP BY 1"
        facts = f"read_parquet({literal(settings.facts_dir / 'week=*' / 'facts.parquet')})"
        by_date = dict(connection.execute(query.format(facts)).fetchall())
        build = settings.published_dir / "current" / "warehouse.duckdb"
        if not build.exists():
            return by_date, {}
        connection.execute(f"ATTACH {literal(build.resolve())} AS build (READ_ONLY)")
        return by_date, dict(connection.execute(query.format("build.mart.usage_by_week")).fetchall())


def _set_aside(settings: Settings) -> list[dict[str, Any]]:
    manifests = read_manifests(settings.facts_dir).values()
    return [{"week": m.week, "file": a["key"], "reason": a["reason"]} for m in manifests for a in m.set_aside]


def _rejected(settings: Settings) -> list[dict[str, Any]]:
    return [
        {"week": manifest.week, "reason": reason, "rows": rows, "kept_in": manifest.rejected_file}
        for manifest in read_manifests(settings.facts_dir).values()
        for reason, rows in manifest.rejected.items()
    ]
