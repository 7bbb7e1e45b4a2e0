"""What became of a lake, in plain Python: for oracles that know the rules (`docs/reading.md`) and not the reader.

Belongs here: driving ingest and reference of one configuration, and reading back what they wrote. Does not: an opinion
of what is right.
"""

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from usage_pipeline.config.settings import load_settings
from usage_pipeline.config.source_schemas import SOURCE_SCHEMAS
from usage_pipeline.core.weeks import weeks_between
from usage_pipeline.ingestion.facts import ingest_weeks, lake_oddities, read_manifests
from usage_pipeline.ingestion.reference import load_reference, take_delivery
from usage_pipeline.ingestion.source_check import check_sources


@dataclass
class UsageOutcome:
    """What became of usage.

    `facts` holds clicks by (folder's Monday, account, application, user, day); days and users may be None. `rejected`
    are rows by folder's Monday and reason, `duplicates` rows dropped by Monday, `quarantined` keys of files with the
    reason by Monday, `named` keys of files and folders that were not read, with the reason, `not_read` weeks that the
    way to the lake kept from being read, `unreadable` cells by Monday and column in rows that were kept.
    """

    facts: dict[tuple[date, str, str, str | None, date | None], int] = field(default_factory=dict)
    records: dict[tuple[date, str, str, str | None, date | None], int | None] = field(default_factory=dict)
    rejected: dict[date, dict[str, int]] = field(default_factory=dict)
    duplicates: dict[date, int] = field(default_factory=dict)
    quarantined: dict[date, dict[str, str]] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)
    not_read: dict[date, str] = field(default_factory=dict)
    unreadable: dict[date, dict[str, int]] = field(default_factory=dict)
    does_not_add_up: dict[date, str] = field(default_factory=dict)


@dataclass
class ReferenceOutcome:
    """What became of a reference source: rows of ours, rows kept aside (with `reason`), unreadable cells by column."""

    rows: list[dict[str, Any]]
    kept_aside: list[dict[str, Any]]
    unreadable: dict[str, int]
    notes: list[str]
    held_back: str | None


def read_usage(config: Path) -> UsageOutcome:
    """Ingests every week of the window of a configuration, as a refresh does."""
    settings = load_settings(config)
    weeks = list(weeks_between(settings.clock.window_start, settings.clock.running_week))
    ingested = ingest_weeks(settings, weeks, now=settings.as_of.isoformat(), run="probe")
    found = UsageOutcome(not_read=dict(ingested.not_read))
    for week, manifest in read_manifests(settings.home.facts_dir).items():
        found.rejected[week] = dict(manifest.rejected)
        found.duplicates[week] = manifest.duplicates
        found.quarantined[week] = {item["key"]: item["reason"] for item in manifest.quarantined}
        found.unreadable[week] = dict(manifest.unreadable)
        if manifest.lost:
            found.does_not_add_up[week] = manifest.lost
    found.named |= {item.key: item.reason for item in lake_oddities(settings.clock, settings.store, settings.sources)}
    files = [str(file) for file in sorted(settings.home.facts_dir.glob("week=*/facts.parquet"))]
    if files:
        rows = duckdb.sql(
            "SELECT week, account_id, application, user_id, day, clicks, records_created "
            f"FROM read_parquet({files!r}, hive_partitioning = false)"
        ).fetchall()
        for week, account, application, user, day, clicks, records in rows:
            key = (week, account, application, user, day)
            found.facts[key] = found.facts.get(key, 0) + clicks
            found.records[key] = records
    return found


def read_reference(config: Path, source: str) -> ReferenceOutcome:
    """Takes the delivery of one reference source (accounts, subscriptions ...) as a refresh does, and loads it."""
    settings, schema = load_settings(config), SOURCE_SCHEMAS[source]
    with duckdb.connect() as connection:
        connection.execute("CREATE SCHEMA ref; CREATE SCHEMA personal")
        delivery = take_delivery(settings, schema)
        loaded = load_reference(connection, schema, delivery)
        part = "personal" if source == "contacts" else "ref"
        rows, aside = (
            connection.sql(f"FROM {part}.{source}{suffix}").to_arrow_table().to_pylist() for suffix in ("", "_rejected")
        )
    notes = [*(delivery.mapping.notes if delivery.mapping else []), *loaded.notes]
    return ReferenceOutcome(rows, aside, dict(loaded.unreadable), notes, delivery.held_back)


def check(config: Path) -> list[str]:
    """Every line, note and problem that `sources check` prints."""
    report = check_sources(load_settings(config))
    return [*report.lines, *report.notes, *report.problems]
