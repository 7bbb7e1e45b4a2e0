"""The data status: the rows of the status file, gathered from Dagster, the facts, the history and the builds.

Belongs here: what is known of the last runs and of what came in, a function a table of `STATUS_TABLES`. Does not: the
file that holds it (`status.py`), and how things are worded (`plain_words.py`).

All of it is told of failed runs as well, so nothing here takes for granted that anything can be read: what cannot is
said in the one sentence that everybody reads. Times are those of the configured zone. No row holds personal data:
users are counted, and named nowhere.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from usage_pipeline.config.clock import Clock
from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import Sources
from usage_pipeline.config.source_schemas import REFERENCE
from usage_pipeline.core import formatting as words
from usage_pipeline.core.sql import load_sql, run_sql
from usage_pipeline.core.texts import counted, shown, text
from usage_pipeline.ingestion.deliveries import HeldBack, all_held_back, delivered_at, deliveries
from usage_pipeline.ingestion.facts import WeekManifest, facts_path, read_manifests
from usage_pipeline.privacy.encryption import attach
from usage_pipeline.publishing.builds import Build, BuildStore

Rows = list[dict[str, Any]]
RUNS_SHOWN = 50
REFRESH = "refresh"
# the asset whose run brings new numbers to the pages
_PUBLISHED = dg.AssetKey("published_build")
_UNDER_WAY = {"running", "starting", "waiting"}
_CHECK_RESULTS = {"failed": 0, "warns": 1, "passed": 2}


@dataclass
class Health:
    """Everything that is known now, a property a table, gathered when it is asked for.

    `health` is asked for last: its sentence is about the others, and about what could not be read for them.
    """

    home: DataHome
    clock: Clock
    configured: Sources
    instance: dg.DagsterInstance
    problems: list[str] = field(default_factory=list)

    # ---------------------------------------------------------------- what the tables are made of

    @cached_property
    def records(self) -> list[dg.RunRecord]:
        """The last runs, and the last refreshes, which many small runs may have come after; newest first."""
        filters = (None, dg.RunsFilter(job_name=REFRESH))
        found = [r for only in filters for r in self.instance.get_run_records(only, limit=RUNS_SHOWN)]
        return sorted({r.storage_id: r for r in found}.values(), key=lambda r: r.storage_id, reverse=True)

    @cached_property
    def manifests(self) -> dict[date, WeekManifest]:
        with self._told("the facts cannot be read"):
            return read_manifests(self.home.facts_dir)
        return {}

    @cached_property
    def store(self) -> BuildStore:
        return BuildStore(self.home.published_dir)

    @cached_property
    def shown(self) -> Build | None:
        return self.store.current()

    @cached_property
    def shown_since(self) -> datetime | None:
        return self._moment(self.store.link.lstat().st_mtime) if self.shown else None

    @cached_property
    def last_publishing(self) -> dict[str, Any] | None:
        """The last run that ended and was to bring new numbers; a table that somebody made by hand is none."""
        return next((row for row in self.runs if row["ended_at"] and row["run_kind"] == REFRESH), None)

    @cached_property
    def has_failed(self) -> bool:
        last = self.last_publishing
        return last is not None and last["run_result"] != "succeeded"

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Lets the rest be written where a part cannot be read, and remembers it for the sentence."""
        try:
            yield
        except (duckdb.Error, OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
            first = str(error).strip().splitlines() or [type(error).__name__]
            self.problems.append(f"{what}: {words.without_values(first[0])}")

    def _moment(self, seconds: float | None) -> datetime | None:
        """A time of the machine's clock in the configured zone."""
        if not seconds:
            return None
        return datetime.fromtimestamp(seconds, UTC).astimezone(ZoneInfo(self.clock.timezone)).replace(tzinfo=None)

    def _local(self, moment: str) -> datetime:
        """A time as facts and builds write it, in the configured zone."""
        found = datetime.fromisoformat(moment)
        return found.astimezone(ZoneInfo(self.clock.timezone)).replace(tzinfo=None) if found.tzinfo else found

    # ---------------------------------------------------------------- runs and checks

    @cached_property
    def runs(self) -> Rows:
        return [self._run(record) for record in self.records]

    def _run(self, record: dg.RunRecord) -> dict[str, Any]:
        run = record.dagster_run
        took = record.end_time - record.start_time if record.end_time and record.start_time else None
        return {
            "run": run.run_id[:8],
            "run_kind": _kind_of(run),
            "run_weeks": _weeks_asked(run.tags),
            "run_result": words.RUN_RESULTS[run.status.value],
            "started_at": self._moment(record.start_time),
            "ended_at": self._moment(record.end_time),
            "duration": words.duration(took),
            "failure": self._cause(run),
        }

    def _cause(self, run: dg.DagsterRun) -> str:
        if run.status != dg.DagsterRunStatus.FAILURE:
            return ""
        for entry in self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
            event = entry.dagster_event
            error = event.step_failure_data.error if event is not None else None
            if event is not None and error is not None:
                # a step's own error is wrapped; a failure that we raise is not, and its cause says less
                said = error if error.cls_name == "Failure" or error.cause is None else error.cause
                message = self._without_places(said.message)
                return words.cause_of_failure(str(event.step_key), said.cls_name or "error", message)
        return "the run failed before a step did; see its log in the Dagster UI"

    @cached_property
    def evaluations(self) -> dict[tuple[str, str], tuple[Any, float, str]]:
        """The last result of every check over the runs shown, with its time and run."""
        latest: dict[tuple[str, str], tuple[Any, float, str]] = {}
        for record in reversed(self.records):
            run_id = record.dagster_run.run_id
            for entry in self.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
                if entry.dagster_event is not None:
                    result = entry.dagster_event.asset_check_evaluation_data
                    key = (result.asset_key.to_user_string(), result.check_name)
                    latest[key] = (result, entry.timestamp, run_id)
        return latest

    @cached_property
    def checks(self) -> Rows:
        rows = []
        for (asset, name), (result, at, run_id) in self.evaluations.items():
            holds_back = result.severity == dg.AssetCheckSeverity.ERROR
            said = "passed" if result.passed else "failed" if holds_back else "warns"
            found = words.found_as_text({key: value.value for key, value in result.metadata.items()})
            rows.append(
                {
                    "check_rank": _CHECK_RESULTS[said],
                    "check_result": said,
                    "asset": words.as_text(asset),
                    "statement": words.as_text(name),
                    "found": words.shortened(self._without_places(found)),
                    "checked_at": self._moment(at),
                    "run": run_id[:8],
                }
            )
        return rows

    # ---------------------------------------------------------------- what came in

    @cached_property
    def sources(self) -> Rows:
        return [self._usage(), *(self._reference(schema.name) for schema in REFERENCE)]

    def _usage(self) -> dict[str, Any]:
        with_rows = [manifest for manifest in self.manifests.values() if manifest.rows_kept]
        left_out = [(reason, rows) for m in self.manifests.values() for reason, rows in m.rejected.items()]
        aside = sum(len(m.quarantined) for m in self.manifests.values())
        parts = [counted("status.count.rows_rejected", sum(rows for _, rows in left_out))] * bool(left_out)
        parts += [counted("status.count.quarantined", aside)] * bool(aside)
        unread = sum(cells for m in self.manifests.values() for cells in m.unreadable.values())
        parts += [counted("status.count.cells_unread", unread)] * bool(unread)
        newest = max((_monday(m.week) for m in with_rows), default=None)
        return {
            "source": "usage",
            "delivery": "delivered" if with_rows else "nothing taken in yet",
            "newest": text("status.week_of", day=words.day(newest)) if newest else None,
            "ingested_at": max((self._local(m.ingested_at) for m in with_rows), default=None),
            "read_at": self._read_at("usage_facts"),
            "rows_kept": sum(m.rows_kept for m in with_rows),
            "rows_left_out": ", ".join(parts),
        }

    def _reference(self, name: str) -> dict[str, Any]:
        if self.configured.get(name) is None:
            return {"source": words.as_text(name), "delivery": "not delivered"}
        files, held_back = deliveries(self.home.history_dir, name), self.held_back.get(name)
        delivery = "delivered" if files else "nothing taken in yet"
        row: dict[str, Any] = {
            "source": words.as_text(name),
            "delivery": "held back" if held_back else delivery,
            "read_at": self._read_at(name),
            "held_back": self._without_places(str(held_back)) if held_back else None,
        }
        with self._told(f"the newest delivery of {words.as_text(name)} cannot be read"):
            if files:
                taken = delivered_at(files[-1])
                row |= {"newest": text("status.delivery_of", day=words.day(taken)), "ingested_at": taken}
                row["rows_kept"] = pq.read_metadata(files[-1]).num_rows
        materialized = self._materialized(name)
        if materialized is not None and "rows_rejected" in materialized.metadata:
            rejected: Any = materialized.metadata["rows_rejected"].value or {}
            left_out = [f"{rows:,} x {reason}" for reason, rows in rejected.items()]
            unread: Any = materialized.metadata["cells_unreadable"].value or {}
            left_out += [f"{cells:,} x {column} cannot be read and is empty" for column, cells in unread.items()]
            row["rows_left_out"] = ", ".join(left_out)
            row["rows_kept"] = row.get("rows_kept", 0) - sum(rejected.values())
        return row

    @cached_property
    def held_back(self) -> dict[str, HeldBack]:
        """What is held back of reference sources, by source."""
        with self._told("what is held back cannot be read"):
            return {held_back.source: held_back for held_back in all_held_back(self.home.history_dir, self.configured)}
        return {}

    def _event(self, asset: str) -> dg.EventLogEntry | None:
        return self.instance.get_latest_materialization_event(dg.AssetKey(asset))

    def _read_at(self, asset: str) -> datetime | None:
        event = self._event(asset)
        return self._moment(event.timestamp) if event else None

    def _materialized(self, asset: str) -> dg.AssetMaterialization | None:
        event = self._event(asset)
        return event.asset_materialization if event else None

    @cached_property
    def reconciled_weeks(self) -> Rows:
        by_date, published = self._clicks_by_date(), self._clicks_published()
        weeks = [self._week(monday, m, by_date, published) for monday, m in self.manifests.items()]
        only_late = sorted(by_date.keys() - self.manifests.keys())
        return [*(self._week_of_late_rows(monday, by_date, published) for monday in only_late), *weeks]

    def _week_of_late_rows(self, monday: date, by_date: dict[date, int], published: dict[date, int]) -> dict[str, Any]:
        """A week without a folder of its own: all that is known of it lies in the folders beside."""
        missing = by_date[monday] - published.get(monday, 0)
        of_files = ("files", "files_quarantined", "rows_read", "rows_kept", "rows_rejected", "rows_duplicate")
        of_clicks = ("clicks_in_files", "clicks_kept", "clicks_rejected", "clicks_duplicates", "clicks_difference")
        return {
            "week_start": datetime.combine(monday, time()),
            "reconciled": self._why_not_on_the_pages if missing else "yes; only late rows, from the folder beside",
            **dict.fromkeys((*of_files, *of_clicks), 0),
            "clicks_by_date": by_date[monday],
            "clicks_published": published.get(monday, 0),
            "published_difference": missing,
            "ingested_at": None,
        }

    def _week(
        self, monday: date, manifest: WeekManifest, by_date: dict[date, int], published: dict[date, int]
    ) -> dict[str, Any]:
        there = manifest.clicks + manifest.clicks_rejected + manifest.clicks_duplicates
        in_files, dated = manifest.clicks_in_files, by_date.get(monday, 0)
        missing = dated - published.get(monday, 0)
        return {
            "week_start": _monday(manifest.week),
            "reconciled": self._reconciled(manifest, missing),
            "files": len(manifest.files),
            "files_quarantined": len(manifest.quarantined),
            "rows_read": manifest.rows_read,
            "rows_kept": manifest.rows_kept,
            "rows_rejected": manifest.rows_rejected,
            "rows_duplicate": manifest.duplicates,
            "clicks_in_files": in_files,
            "clicks_kept": manifest.clicks,
            "clicks_rejected": manifest.clicks_rejected,
            "clicks_duplicates": manifest.clicks_duplicates,
            "clicks_difference": None if in_files is None else in_files - there,
            "clicks_by_date": dated,
            "clicks_published": published.get(monday, 0),
            "published_difference": missing,
            "ingested_at": self._local(manifest.ingested_at),
        }

    def _reconciled(self, manifest: WeekManifest, missing: int) -> str:
        if manifest.lost:
            return f"{text('status.reconciled.no')} {manifest.lost}"
        if missing:
            return self._why_not_on_the_pages
        notes = [counted("status.count.files_quarantined", len(manifest.quarantined))] * bool(manifest.quarantined)
        notes += [text("status.reconciled.two_weeks")] * (manifest.clicks_in_files is None)
        return "; ".join([text("status.reconciled.yes"), *notes])

    @cached_property
    def _why_not_on_the_pages(self) -> str:
        if self.shown is None:
            return text("status.reconciled.nothing_published")
        if self.store.pinned:
            return text("status.reconciled.build_held")
        if self.has_failed:
            return text("status.reconciled.run_failed")
        if self.runs and self.runs[0]["run_result"] in _UNDER_WAY:
            return text("status.reconciled.under_way")
        return f"{text('status.reconciled.no')} {text('status.reconciled.differ')}"

    def _clicks_by_date(self) -> dict[date, int]:
        """Clicks of the facts up to as_of by week of the day: rows can come late, into the folder of the next week."""
        files = [str(facts_path(self.home.facts_dir, week)) for week in self.manifests]
        with self._told("the facts cannot be added up"), duckdb.connect() as connection:
            if files:
                sql = (
                    "SELECT CAST(week_start AS DATE), CAST(sum(clicks) AS BIGINT) FROM read_parquet($files) "
                    "WHERE coalesce(day, week_start) <= $until GROUP BY 1"
                )
                return dict(connection.execute(sql, {"files": files, "until": self._counted_until}).fetchall())
        return {}

    @property
    def _counted_until(self) -> date:
        """The last day that the pages count: later rows wait in the facts until their day has come."""
        return self._local(self.shown.as_of).date() if self.shown else self.clock.as_of_day

    def _clicks_published(self) -> dict[date, int]:
        if self.shown is None:
            return {}
        with self._told("the build that is shown cannot be read"), duckdb.connect() as connection:
            self._attach(connection, "warehouse")
            sql = (
                "SELECT CAST(week_start AS DATE), CAST(sum(clicks) AS BIGINT) FROM build.mart.usage_by_week GROUP BY 1"
            )
            return {week: clicks or 0 for week, clicks in connection.execute(sql).fetchall()}
        return {}

    def _attach(self, connection: duckdb.DuckDBPyConnection, stem: str) -> None:
        path = (self.home.published_dir / "current" / f"{stem}.duckdb").resolve()
        attach(connection, path, "build")

    @cached_property
    def rejected_rows(self) -> Rows:
        return [
            {
                "week_start": _monday(manifest.week),
                "rejected_because": reason,
                "rows_rejected": rows,
                "share_of_rows": rows / manifest.rows_read if manifest.rows_read else None,
                "kept_in": f"{self.home.history_dir.name}/{manifest.rejected_file}",
            }
            for manifest in self.manifests.values()
            for reason, rows in manifest.rejected.items()
        ]

    @cached_property
    def quarantined_files(self) -> Rows:
        return [
            {
                "week_start": _monday(manifest.week),
                "file": self._without_places(item["key"]),
                "quarantined_because": words.shortened(words.without_values(self._without_places(item["reason"]))),
            }
            for manifest in self.manifests.values()
            for item in manifest.quarantined
        ]

    def _without_places(self, text: str) -> str:
        """A text without the places of the lake and of the data home: long, the same everywhere, nobody's business."""
        for place in (self.configured.usage.path, str(self.home.root)):
            text = text.replace(f"{place.rstrip('/')}/", "") if place else text
        sources = [self.configured.get(schema.name) for schema in REFERENCE]
        for place in [shape.path for source in sources if source for shape in source.file_sets.values()]:
            text = text.replace(place, place.rstrip("/").rpartition("/")[2])
        return text

    @cached_property
    def unmatched_ids(self) -> Rows:
        """Accounts and applications as their checks found them; users against the contacts of the build shown."""
        rows: Rows = []
        for kind, asset in (("accounts", "account_names"), ("applications", "application_names")):
            result, *_ = self.evaluations.get((asset, f"{kind}_are_known"), (None,))
            if result is None:
                continue
            found = {key: value.value for key, value in result.metadata.items()}
            most = [f"{name} ({clicks:,} clicks)" for name, clicks in found.get("most_clicks", {}).items()]
            rows.append(
                {
                    "unmatched_kind": kind,
                    "unmatched": found.get("unmatched"),
                    "share_of_clicks": found.get("share_of_clicks"),
                    "examples": words.shortened(words.without_values(", ".join(most)))
                    or found.get("not_compared", "all are known"),
                }
            )
        with self._told("users cannot be compared with contacts"):
            rows.append(self._unmatched_users())
        return rows

    def _unmatched_users(self) -> dict[str, Any]:
        row: dict[str, Any] = {"unmatched_kind": "users"}
        files = [str(facts_path(self.home.facts_dir, week)) for week in self.manifests]
        if self.configured.contacts is None or self.shown is None or not files:
            return row | {"examples": "nothing to compare: contacts or users are not delivered yet"}
        values = {"files": files, "as_of_day": self._counted_until}
        with duckdb.connect() as connection:
            self._attach(connection, "contacts")
            found = run_sql(connection, load_sql("observability", "unmatched_users"), values).fetchone()
        users, unknown, clicks, share = found or (0, 0, 0, None)
        if not users:
            return row | {"examples": "users are not delivered"}
        said = f"{unknown:,} of {users:,} users are no contact of their account; they made {int(clicks):,} clicks"
        return row | {
            "unmatched": unknown,
            "share_of_clicks": share or 0.0,
            "examples": said if unknown else "all are known",
        }

    # ---------------------------------------------------------------- what is shown

    @cached_property
    def builds(self) -> Rows:
        # a publish can take away the oldest while it is looked at
        with self._told("the builds cannot be listed"):
            return [self._build(build) for build in self.store.builds()]
        return []

    def _build(self, build: Build) -> dict[str, Any]:
        return {
            "build_id": build.build_id,
            "build_state": self._build_state(build),
            "shown_since": self.shown_since if self._is_shown(build) else None,
            "data_through": _sunday(build.newest_week),
            "as_of": self._local(build.as_of),
            "build_made_at": self._moment((self.store.path(build.build_id) / "build.json").stat().st_mtime),
        }

    def _is_shown(self, build: Build) -> bool:
        return self.shown is not None and self.shown.build_id == build.build_id

    def _build_state(self, build: Build) -> str:
        if not self._is_shown(build):
            return "kept"
        return "shown, held by a rollback" if self.store.pinned else "shown"

    @cached_property
    def health(self) -> Rows:
        last = self.last_publishing or {}
        wrong = [row for row in self.reconciled_weeks if row["reconciled"].startswith(text("status.reconciled.no"))]
        counts = {
            "checks_failed": sum(row["check_result"] == "failed" for row in self.checks),
            "checks_warning": sum(row["check_result"] == "warns" for row in self.checks),
            "files_quarantined": len(self.quarantined_files),
            "rows_rejected": sum(row["rows_rejected"] for row in self.rejected_rows),
            "weeks_wrong": len(wrong),
        }
        if self.store.pin_problem:
            self.problems.append(self._without_places(self.store.pin_problem))
        status_color, summary = self._summary(counts)
        return [
            {
                "status_color": status_color,
                "summary": summary,
                "health_sentence": self._sentence(counts),
                "data_through": _sunday(self.shown.newest_week) if self.shown else None,
                "as_of": self._local(self.shown.as_of) if self.shown else None,
                "build_id": self.shown.build_id if self.shown else None,
                "shown_since": self.shown_since,
                "last_run_at": last.get("ended_at"),
                "run_result": last.get("run_result"),
                "failure": last.get("failure"),
                **counts,
                "written_at": self._moment(datetime.now(UTC).timestamp()),
            }
        ]

    def _summary(self, counts: dict[str, int]) -> tuple[str, str]:
        """The status color, and what it means."""
        if self.shown is None:
            return "red", text("status.summary.nothing_published")
        if self.has_failed:
            return "red", text("status.summary.run_failed")
        if counts["weeks_wrong"]:
            return "red", text("status.summary.clicks_lost")
        if self.store.pinned:
            return "amber", text("status.summary.build_held")
        if self.held_back:
            return "amber", text("status.summary.delivery_held_back")
        if self.problems:
            return "amber", text("status.summary.unreadable")
        if counts["checks_failed"] or counts["checks_warning"] or counts["files_quarantined"]:
            return "amber", text("status.summary.with_warnings")
        return "green", text("status.summary.all_well", day=words.day(self._local(self.shown.as_of)))

    def _sentence(self, counts: dict[str, int]) -> str:
        parts = [self._what_is_shown(), self._what_ran(), self._what_was_found(counts), *self._what_is_held_back()]
        parts += [f"{problem[0].upper()}{problem[1:]}." for problem in self.problems]
        parts.append(text("status.times", timezone=self.clock.timezone))
        return " ".join(parts)

    def _what_is_shown(self) -> str:
        if self.shown is None or self.shown_since is None:
            return text("status.no_numbers")
        held = ""
        if self.store.pinned and self.builds:
            held = text("status.held", build=self.builds[-1]["build_id"])
        as_of = self._local(self.shown.as_of)
        return text(
            "status.shown",
            through=words.day(_sunday(self.shown.newest_week)),
            as_of=words.day_and_time(as_of),
            build=self.shown.build_id,
            since=words.day_and_time(self.shown_since),
            held=held,
        )

    def _what_ran(self) -> str:
        last = self.last_publishing
        if last is None:
            return text("status.no_run")
        cause = ""
        if self.has_failed and last["failure"]:
            cause = text("status.cause", failure=words.shortened(last["failure"], 300).rstrip("."))
        ended = words.day_and_time(last["ended_at"])
        said = text("status.last_run", result=shown("run_result", last["run_result"]), ended=ended, cause=cause)
        if not self.has_failed or self.shown_since is None:
            return said
        return f"{said} {text('status.stay', since=words.day_and_time(self.shown_since))}"

    def _what_is_held_back(self) -> list[str]:
        found = [(words.as_text(name), self._without_places(str(held))) for name, held in self.held_back.items()]
        return [f"{name[0].upper()}{name[1:]}: {said}." for name, said in found]

    def _what_was_found(self, counts: dict[str, int]) -> str:
        failed = counted("status.count.checks_failed", counts["checks_failed"])
        warns = counted("status.count.warn", counts["checks_warning"])
        aside = counted("status.count.files_quarantined", counts["files_quarantined"])
        return text("status.found", failed=f"{failed[0].upper()}{failed[1:]}", warns=warns, quarantined=aside)


def _kind_of(run: dg.DagsterRun) -> str:
    """What a run is for: a refresh brings new numbers, also one that somebody started by hand over chosen assets."""
    if run.asset_selection or run.asset_check_selection:
        return REFRESH if _PUBLISHED in (run.asset_selection or ()) else "single tables"
    return REFRESH if run.job_name.startswith("__") else words.as_text(run.job_name)


def _monday(week: str) -> datetime:
    return datetime.combine(date.fromisoformat(week), time())


def _sunday(week: str) -> datetime:
    return _monday(week) + timedelta(days=6)


def _weeks_asked(tags: Mapping[str, str]) -> str | None:
    """The weeks that a run was asked for, from its tags; None where it has none."""
    one = tags.get("dagster/partition")
    first, last = (tags.get(f"dagster/asset_partition_range_{end}", one) for end in ("start", "end"))
    if not first or not last:
        return None
    return words.weeks_as_text(_monday(first), _monday(last))
