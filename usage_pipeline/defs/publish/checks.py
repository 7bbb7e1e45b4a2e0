"""Checks before and after a publish."""

import dagster as dg

from usage_pipeline.config.settings import Settings
from usage_pipeline.defs.tables import schema_check, warning
from usage_pipeline.publishing.builds import store_of


@dg.asset_check(asset="published_build", name="the_newest_build_is_shown")
def the_newest_build_is_shown(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Pages read the newest build; a rollback that is still pinned is told here."""
    store = store_of(settings.home, settings.publish)
    builds, current = store.builds(), store.current()
    newest = builds[-1].build_id if builds else None
    shown = current.build_id if current else None
    metadata = {"shown": str(shown), "newest": str(newest), "pinned": str(store.pinned)}
    return warning(shown is not None and shown == newest, metadata)


PUBLISH_CHECKS = [
    *(schema_check(name) for name in ("account_contacts", "account_figures", "application_figures")),
    the_newest_build_is_shown,
]
