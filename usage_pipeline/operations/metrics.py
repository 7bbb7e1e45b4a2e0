"""Metrics for operators, in the text format of Prometheus: how fresh the data is, how runs went, what was left out.

Belongs here: what the status file, the builds and the mails say, as numbers. Does not: judging them (`monitors.py`),
and an HTTP server: node_exporter's textfile collector, or any other that reads such files, brings them to Prometheus.

Moments are timestamps, never ages: a file that nobody writes any more must not say that all is fresh. Counts are
gauges, since each file is made anew of what is on record now. No label holds a name of an account or a person.
"""

import sqlite3
from collections import Counter
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import MetricsSettings, Settings
from usage_pipeline.core.files import atomic_write
from usage_pipeline.notifications.alerts import open_incidents
from usage_pipeline.notifications.digest import read_round
from usage_pipeline.notifications.outbox import counts
from usage_pipeline.observability.monitors import status_rows
from usage_pipeline.publishing.builds import BuildStore

PREFIX = "usage_pipeline"
# who reads the file is another user, and nothing in it is confidential
_READABLE = 0o644
_COLORS = ("green", "amber", "red")
_CHECK_RESULTS = ("passed", "warns", "failed")


class MetricsError(Exception):
    """The metrics could not be made or written; the message names the file and the remedy."""


def metrics_path(home: DataHome, metrics: MetricsSettings) -> Path:
    """Where the file is: beside the status file, unless the configuration names another place."""
    return Path(metrics.file) if metrics.file else home.metrics_path


def write_metrics(settings: Settings) -> Path | None:
    """Replaces the file of metrics as a whole, where they are switched on; returns it, or None.

    Raises MetricsError where it cannot be written: the file of before stays.
    """
    if not settings.metrics.enabled:
        return None
    file = metrics_path(settings.home, settings.metrics)
    text = metrics_text(settings)
    try:
        with atomic_write(file) as tmp_path:
            tmp_path.write_bytes(text)
            if settings.metrics.file:
                tmp_path.chmod(_READABLE)
    except OSError as error:
        remedy = "check metrics.file, and that its folder may be written to"
        raise MetricsError(f"{file}: the metrics could not be written ({error}): {remedy}") from error
    return file


def metrics_text(settings: Settings) -> bytes:
    """All metrics as they are now, as text for Prometheus. Raises MetricsError where a file cannot be read."""
    home, registry = settings.home, CollectorRegistry()
    metrics = _Metrics(registry, ZoneInfo(settings.timezone))
    try:
        # one file for all, also where another run writes meanwhile
        status_path = home.status_path.resolve()
        metrics.status(status_path)
        metrics.runs(status_path)
        metrics.sources(status_path)
        metrics.builds(BuildStore(home.published_dir))
        metrics.mail(home.mail_dir)
        metrics.outbox(home.outbox_path)
    except (OSError, ValueError, KeyError, duckdb.Error, sqlite3.Error) as error:
        remedy = "`usage-pipeline refresh` writes the status file anew"
        raise MetricsError(f"{home.root}: the metrics cannot be made ({error}): {remedy}") from error
    return generate_latest(registry)


class _Metrics:
    """Gauges of one registry; a metric of which nothing is known yet is not there, so that alerts on absence work."""

    def __init__(self, registry: CollectorRegistry, zone: ZoneInfo) -> None:
        self.registry = registry
        self.zone = zone

    def _gauge(self, name: str, said: str, value: float | None) -> None:
        if value is not None:
            Gauge(f"{PREFIX}_{name}", said, registry=self.registry).set(value)

    def _gauges(self, name: str, said: str, label: str, values: Mapping[str, float | None]) -> None:
        known = {key: value for key, value in values.items() if value is not None}
        if known:
            gauge = Gauge(f"{PREFIX}_{name}", said, [label], registry=self.registry)
            for key, value in known.items():
                gauge.labels(key).set(value)

    def _seconds(self, moment: datetime | None) -> float | None:
        """Seconds since 1970 of a moment in the configured zone, as the status file has them."""
        return None if moment is None else moment.replace(tzinfo=moment.tzinfo or self.zone).timestamp()

    def status(self, status_path: Path) -> None:
        for row in status_rows(status_path, "FROM status.health"):
            # the view draws the color; what it was made of is the word
            color = status_rows(status_path, "SELECT status_color FROM written.health")[0]["status_color"]
            colors = {name: float(name == color) for name in _COLORS}
            self._gauges("status", "1 for the color of the data status", "color", colors)
            self._gauge(
                "status_written_timestamp_seconds", "when the status was gathered", self._seconds(row["written_at"])
            )
            self._gauge("files_quarantined", "files of usage that could not be read", row["files_quarantined"])
            self._gauge("weeks_not_reconciled", "weeks whose clicks are not those of the files", row["weeks_wrong"])
        checks = Counter(row["check_result"] for row in status_rows(status_path, "FROM status.checks"))
        if status_path.exists():
            counted = {result: float(checks[result]) for result in _CHECK_RESULTS}
            self._gauges("checks", "checks by their last result", "result", counted)
        rejected = status_rows(
            status_path,
            "SELECT rejected_because, CAST(sum(rows_rejected) AS BIGINT) AS rows FROM status.rejected_rows GROUP BY 1",
        )
        by_reason = {row["rejected_because"]: row["rows"] for row in rejected}
        self._gauges("rows_rejected", "rows of usage rejected, all weeks", "reason", by_reason)

    def runs(self, status_path: Path) -> None:
        """Of each kind of run the last that ended, the last that succeeded, and how many failed since."""
        rows = status_rows(
            status_path,
            "SELECT run_kind, run_result, started_at, ended_at FROM status.runs "
            "WHERE run_result IN ('succeeded', 'failed', 'cancelled') ORDER BY ended_at DESC",
        )
        kinds: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            kinds.setdefault(row["run_kind"], []).append(row)
        good = {kind: [r for r in ended if r["run_result"] == "succeeded"] for kind, ended in kinds.items()}
        for name, said, values in (
            ("success", "1 where the last run succeeded", _of(kinds, lambda r: r[0]["run_result"] == "succeeded")),
            ("duration_seconds", "how long the last run took", _of(kinds, lambda r: self._took(r[0]))),
            ("end_timestamp_seconds", "when the last run ended", _of(kinds, lambda r: self._seconds(r[0]["ended_at"]))),
        ):
            self._gauges(f"last_run_{name}", said, "kind", values)
        self._gauges(
            "last_successful_run_timestamp_seconds",
            "when the last run that succeeded ended",
            "kind",
            _of(good, lambda r: self._seconds(r[0]["ended_at"]) if r else None),
        )
        self._gauges(
            "runs_failed_in_a_row",
            "runs that failed since the last that succeeded",
            "kind",
            _of(kinds, _failed_in_a_row),
        )

    def _took(self, run: dict[str, Any]) -> float | None:
        start, end = self._seconds(run["started_at"]), self._seconds(run["ended_at"])
        return None if start is None or end is None else end - start

    def sources(self, status_path: Path) -> None:
        rows = status_rows(status_path, "FROM status.sources")
        rows = [row for row in rows if row["delivery"] != "not delivered"]
        self._gauges("source_rows", "rows kept of each source", "source", {r["source"]: r["rows_kept"] for r in rows})
        self._gauges(
            "source_ingested_timestamp_seconds",
            "when the newest delivery was taken in",
            "source",
            {row["source"]: self._seconds(row["ingested_at"]) for row in rows},
        )
        self._gauges(
            "source_held_back",
            "1 where a delivery is held back",
            "source",
            {row["source"]: float(row["delivery"] == "held back") for row in rows},
        )

    def builds(self, store: BuildStore) -> None:
        self._gauge("builds_kept", "published builds that are there", len(store.builds()))
        shown = store.current()
        if shown is None:
            return
        self._gauges("build_info", "1 for the build that pages read", "build", {shown.build_id: 1})
        through = date.fromisoformat(shown.newest_week) + timedelta(days=7)
        self._gauge(
            "data_through_timestamp_seconds",
            "end of the newest complete week on the pages",
            self._seconds(datetime.combine(through, time())),
        )
        as_of = self._seconds(datetime.fromisoformat(shown.as_of))
        self._gauge("build_as_of_timestamp_seconds", "the moment that the build looks at the data from", as_of)
        made = (store.path(shown.build_id) / "build.json").stat().st_mtime
        self._gauge("build_made_timestamp_seconds", "when the build was made", made)
        self._gauge("build_pinned", "1 while a rollback holds an older build", float(store.pinned is not None))
        self._gauges("published_rows", "rows of each published table", "table", dict(shown.rows))

    def mail(self, mail_dir: Path) -> None:
        last = read_round(mail_dir).get("round", {})
        for name, said, key in (
            ("digests_failed", "digests of the last round that could not be sent", "failed"),
            ("digest_owners_without_address", "CSMs with calls and without an address", "without_address"),
        ):
            self._gauge(name, said, len(last[key]) if key in last else None)
        self._gauge("incidents_open", "incidents that are open", len(open_incidents(mail_dir)))

    def outbox(self, path: Path) -> None:
        found = counts(path)
        self._gauge("messages_waiting", "messages to chat and webhooks that are tried again", found.get("waiting"))
        self._gauge("messages_failed", "messages to chat and webhooks that are given up", found.get("failed"))


def _of(kinds: Mapping[str, list[dict[str, Any]]], value: Any) -> dict[str, float | None]:
    return {kind: value(runs) for kind, runs in kinds.items()}


def _failed_in_a_row(runs: list[dict[str, Any]]) -> int:
    """`runs`: those that ended, newest first; one that was cancelled neither counts nor ends the row."""
    results = [run["run_result"] for run in runs if run["run_result"] != "cancelled"]
    return next((at for at, result in enumerate(results) if result == "succeeded"), len(results))
