"""Checks on what came in: warnings, since a bad file must not hold back the good ones."""

import dagster as dg

from usage_pipeline.config import Settings
from usage_pipeline.lib.facts import read_manifests, vanished_weeks


@dg.asset_check(asset="usage_facts", name="no_file_was_set_aside")
def no_file_was_set_aside(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Every file of every week could be read; the week of one that could not is incomplete wherever it is shown."""
    aside = [item for manifest in read_manifests(settings.facts_dir).values() for item in manifest.set_aside]
    return dg.AssetCheckResult(
        passed=not aside, severity=dg.AssetCheckSeverity.WARN, metadata={"files": dg.MetadataValue.json(aside)}
    )


@dg.asset_check(asset="usage_facts", name="every_row_read_is_accounted_for")
def every_row_read_is_accounted_for(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Rows read = rows kept + rejected + dropped as duplicates, in every week."""
    manifests = read_manifests(settings.facts_dir).values()
    wrong = [m.week for m in manifests if m.rows_read != m.rows_kept + m.rows_rejected + m.duplicates]
    return dg.AssetCheckResult(passed=not wrong, metadata={"weeks": dg.MetadataValue.json(wrong)})


@dg.asset_check(asset="usage_facts", name="no_week_vanished_from_the_lake")
def no_week_vanished(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Every week of the window that was read once still has files; the facts of one that has none are kept."""
    vanished = [week.isoformat() for week in vanished_weeks(settings)]
    return dg.AssetCheckResult(
        passed=not vanished, severity=dg.AssetCheckSeverity.WARN, metadata={"weeks": dg.MetadataValue.json(vanished)}
    )


INGEST_CHECKS = [no_file_was_set_aside, every_row_read_is_accounted_for, no_week_vanished]
