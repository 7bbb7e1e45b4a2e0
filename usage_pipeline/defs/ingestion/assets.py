"""Ingest: from somebody else's lake to facts of ours, and reference data as delivered.

`usage_facts` is one Parquet file a week, partitioned by week; a second run reads only weeks whose files changed.
The reference assets are tables of the `ref` schema; every delivery stays in the history.
"""

from collections import Counter
from typing import Any

import dagster as dg

from usage_pipeline.config.settings import Settings
from usage_pipeline.config.source_schemas import CONTACTS, REFERENCE, SourceSchema
from usage_pipeline.defs.lineage import Step, deps_of
from usage_pipeline.defs.partitions import partition_weeks, short_run_id
from usage_pipeline.defs.tables import OWNERS, POOL, code_of
from usage_pipeline.ingestion.deliveries import NoDeliveryError
from usage_pipeline.ingestion.facts import FACTS_VERSION, WeekManifest, ingest_weeks
from usage_pipeline.ingestion.reference import Delivery, load_reference, take_delivery
from usage_pipeline.operations.data_home import clean
from usage_pipeline.privacy.encryption import PERSONAL, ContactsKeyError
from usage_pipeline.resources import Warehouse

_WHY = {
    "accounts": "Names, segments, regions and owners of the accounts.",
    "subscriptions": "Subscriptions: without them a cancelled application looks like a neglected one.",
    "contacts": "People to call; personal data, published apart and only for its role.",
    "applications": "Names and types of the applications.",
    "known_causes": "What is known of unusual weeks: their anomalies say so, instead of asking for a call.",
    "crm_outcomes": "What came of calls, as the CRM has it: it counts as what people recorded in the form.",
}


def usage_facts_asset(weeks: dg.WeeklyPartitionsDefinition) -> dg.AssetsDefinition:
    @dg.asset(
        key="usage_facts",
        group_name="ingestion",
        kinds={"parquet", "python"},
        owners=OWNERS,
        partitions_def=weeks,
        backfill_policy=dg.BackfillPolicy.single_run(),
        code_version=str(FACTS_VERSION),
    )
    def usage_facts(
        context: dg.AssetExecutionContext, warehouse: Warehouse, settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[Any]:
        """Who used what in which week, read from the lake once; only weeks of the window, only where files changed.

        One row: week folder x account x application x user x week.
        """
        warehouse.let_go()
        clean(settings.home, context.log.warning)
        asked = partition_weeks(context)
        ingested = ingest_weeks(
            settings,
            asked,
            now=settings.clock.as_of.isoformat(),
            run=short_run_id(context.run.run_id),
            progress=context.log.info,
        )
        manifests = ingested.manifests
        found = [manifest for manifest in manifests.values() if manifest]
        for line in [f"{item['key']}: {item['reason']}" for m in found for item in m.quarantined]:
            context.log.warning(f"quarantined: {line}")
        for note, count in Counter(note for m in found for note in m.notes).items():
            context.log.info(f"{note} ({count} weeks)")
        for week in asked:
            context.add_asset_metadata(_week_metadata(manifests[week]), partition_key=week.isoformat())
        not_read = {str(week): why for week, why in ingested.not_read.items()}
        return dg.MaterializeResult(
            metadata={
                "weeks_of_the_run": len(manifests),
                "weeks_not_read": dg.MetadataValue.json(not_read),
                **_totals(found),
            }
        )

    return usage_facts


def _totals(found: list[WeekManifest]) -> dict[str, Any]:
    """What the weeks of a run hold together."""
    reasons: Counter[str] = Counter()
    for manifest in found:
        reasons.update(manifest.rejected)
    return {
        "weeks_of_the_run_with_data": len(found),
        "rows_of_the_run": sum(m.rows_kept for m in found),
        "files_quarantined_in_the_run": sum(len(m.quarantined) for m in found),
        "rows_rejected_in_the_run": dg.MetadataValue.json(dict(reasons)),
    }


def _week_metadata(manifest: WeekManifest | None) -> dict[str, Any]:
    """What became of one week's files and rows, for its partition in the UI."""
    if manifest is None:
        return {"files": 0}
    return {
        "files": len(manifest.files),
        "files_quarantined": dg.MetadataValue.json(manifest.quarantined),
        "bytes": manifest.bytes,
        "rows_read": manifest.rows_read,
        "dagster/partition_row_count": manifest.rows_kept,
        "rows_rejected": dg.MetadataValue.json(manifest.rejected),
        "rows_dropped_as_duplicates": manifest.duplicates,
        "clicks": manifest.clicks,
        "seconds": manifest.seconds,
        "read_at": manifest.ingested_at,
        "rejected_rows": str(manifest.rejected_file or "none"),
        "notes": dg.MetadataValue.json(manifest.notes),
    }


def _newness(delivery: Delivery) -> str:
    if delivery.held_back:
        return "of the delivery before"
    return "a new delivery" if delivery.is_new else "unchanged"


def reference_asset(schema: SourceSchema) -> dg.AssetsDefinition:
    table = f"{PERSONAL if schema is CONTACTS else 'ref'}.{schema.name}"
    step = Step(python={table: schema.names, f"{table}_rejected": (*schema.names, "reason")})

    @dg.asset(
        key=schema.name,
        group_name="ingestion",
        kinds={"duckdb", "python"},
        owners=OWNERS,
        deps=deps_of(schema.name, step),
        pool=POOL,
        code_version=code_of("ingestion", "config"),
        description=f"{_WHY[schema.name]}\n\nOne row: {schema.grain}.",
    )
    def reference(
        context: dg.AssetExecutionContext, warehouse: Warehouse, settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[Any]:
        try:
            delivery = take_delivery(settings, schema)
            with warehouse.get_connection(with_contacts=schema is CONTACTS) as connection:
                loaded = load_reference(connection, schema, delivery)
        except (NoDeliveryError, ContactsKeyError) as error:
            # the one sentence is all there is to know: no traceback of ours beside it
            raise dg.Failure(str(error), allow_retries=False) from None
        if delivery.file is None:
            context.log.info("not delivered: no such source is configured")
        else:
            context.log.info(f"{loaded.rows:,} rows, {_newness(delivery)}")
        notes = [*(delivery.mapping.notes if delivery.mapping else []), *loaded.notes]
        if delivery.file is not None and delivery.rows == 0:
            notes.append(f"the delivery of {schema.name} holds no row: nothing is known of any; check the path")
        for note in [*([delivery.held_back] if delivery.held_back else []), *notes]:
            context.log.warning(note)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": loaded.rows,
                "is_delivered": delivery.file is not None,
                "is_new_delivery": delivery.is_new,
                "rows_delivered": delivery.rows,
                "rows_rejected": dg.MetadataValue.json(loaded.rejected),
                "cells_unreadable": dg.MetadataValue.json(loaded.unreadable),
                "held_back": delivery.held_back or "nothing",
                "notes": dg.MetadataValue.json(notes),
            }
        )

    return reference


def ingest_assets(weeks: dg.WeeklyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    return [usage_facts_asset(weeks), *(reference_asset(schema) for schema in REFERENCE)]
