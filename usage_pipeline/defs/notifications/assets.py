"""What is sent when a build is published: mails, messages to chat and webhooks, files for a CRM."""

from dataclasses import asdict
from typing import Any

import dagster as dg

from usage_pipeline.config.settings import Settings
from usage_pipeline.crm.files import write_crm_files
from usage_pipeline.defs.tables import OWNERS
from usage_pipeline.notifications.digest import send_digests
from usage_pipeline.notifications.messages import tell_of_build


@dg.asset(key="digests", group_name="notifications", kinds={"email", "python"}, owners=OWNERS, deps=["published_build"])
def digests(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[Any]:
    """To each owner of accounts, once a week: whom of his accounts to call, and why, by e-mail.

    A mail that could not be sent fails nothing: the check warns, and an hourly look tries again.
    """
    done = send_digests(settings, context.log.info)
    if done.not_sent_because:
        context.log.info(f"nothing is sent: {done.not_sent_because}")
        return dg.MaterializeResult(metadata={"not_sent_because": done.not_sent_because})
    context.log.info(f"{len(done.sent)} sent, {len(done.sent_before)} were sent before, {len(done.failed)} failed")
    return dg.MaterializeResult(
        metadata={
            "week": done.week,
            "sent": dg.MetadataValue.json(done.sent),
            "sent_before": dg.MetadataValue.json(done.sent_before),
            "failed": dg.MetadataValue.json(done.failed),
            "owners_without_address": dg.MetadataValue.json(done.without_address),
            "accounts_without_owner": done.accounts_without_owner,
        }
    )


@dg.asset(
    key="messages", group_name="notifications", kinds={"chat", "webhook"}, owners=OWNERS, deps=["published_build"]
)
def messages(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[Any]:
    """To chat and webhooks: each account that became Urgent, once a day, and each CSM's digest, once a week.

    A message that is not taken fails nothing: it waits in the outbox, which the sensor of that name sends.
    """
    told = tell_of_build(settings, context.log.info)
    if told.not_told_because:
        context.log.info(f"nothing is told of this build: {told.not_told_because}")
    return dg.MaterializeResult(metadata=asdict(told))


@dg.asset(
    key="crm_files", group_name="notifications", kinds={"csv", "parquet"}, owners=OWNERS, deps=["published_build"]
)
def crm_files(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[Any]:
    """Accounts and calls of the published build as files for a CRM, all rows and those that changed.

    A build is delivered once; without `crm_files.target` nothing is written.
    """
    done = write_crm_files(settings)
    if done.not_written_because:
        context.log.info(f"nothing is written: {done.not_written_because}")
        return dg.MaterializeResult(metadata={"not_written_because": done.not_written_because})
    return dg.MaterializeResult(
        metadata={
            "build": done.build_id,
            "rows": dg.MetadataValue.json(done.rows),
            "changed_rows": dg.MetadataValue.json(done.changed),
        }
    )
