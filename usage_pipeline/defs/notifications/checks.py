"""Checks on what was sent: nobody who has calls goes without."""

import dagster as dg

from usage_pipeline.config.settings import Settings
from usage_pipeline.defs.tables import warning
from usage_pipeline.notifications.digest import read_round
from usage_pipeline.notifications.outbox import counts


@dg.asset_check(asset="digests", name="every_owner_with_calls_was_written_to")
def every_owner_with_calls_was_written_to(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Each owner with calls has an address in mail.owners, and his mail was taken by the server."""
    if settings.mail.host is None:
        return warning(True, {"not_sent_because": "mail.host is not set"})
    last = read_round(settings.home.mail_dir).get("round", {})
    failed, unknown = last.get("failed", {}), last.get("without_address", [])
    metadata = {
        "failed": dg.MetadataValue.json(failed),
        "owners_without_address": dg.MetadataValue.json(unknown),
        "accounts_without_owner": last.get("accounts_without_owner", 0),
    }
    return warning(not failed and not unknown, metadata)


@dg.asset_check(asset="messages", name="no_message_was_given_up")
def no_message_was_given_up(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Each message to chat and webhooks was taken, or is tried again; `usage-pipeline notify outbox` lists others."""
    found = counts(settings.home.outbox_path)
    return warning(not found.get("failed"), {"failed": found.get("failed", 0), "waiting": found.get("waiting", 0)})


NOTIFICATION_CHECKS = [every_owner_with_calls_was_written_to, no_message_was_given_up]
