"""What chat and webhooks are told of the build that pages show: accounts that became Urgent, and each CSM's digest.

Belongs here: which message goes to which address, and its words. Does not: the outbox that they wait in (`outbox.py`),
handing over (`delivery.py`), and alerts, which are about the pipeline (`alerts.py`).

An account becomes Urgent where it was not at the last look, which the build before had. Nobody is told of one that is
done or snoozed; where it is Urgent still when that is over, it becomes Urgent then. The first look tells of nothing. An
account has one message a day and address, a digest one a week and address. No contact, user or CSM is named in what is
told of an account.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb

from usage_pipeline.config.settings import ChatSettings, NotifySettings, Settings, WebhookSettings
from usage_pipeline.core.formatting import day, money
from usage_pipeline.core.sql import as_dicts
from usage_pipeline.core.texts import counted, shown, text
from usage_pipeline.core.weeks import WEEK
from usage_pipeline.notifications.delivery import calm, channels_of, chat_content, webhook_content
from usage_pipeline.notifications.digest import Digest, handled_accounts, page_of, read_digests, why_not_now
from usage_pipeline.notifications.outbox import Message, Outbox, Say, counts, opened, send_due
from usage_pipeline.publishing.builds import Build, BuildStore

# accounts that stand in a digest to chat; the link leads to all of them
LISTED = 5
_URGENT = """
SELECT * FROM mart.call_list WHERE urgency = 'Urgent' ORDER BY rank
"""
_REASONS = """
SELECT
    account_id,
    call_reason AS reason,
    application,
    reason AS details,
    urgency AS priority,
    strftime(reason_since, '%Y-%m-%d') AS since
FROM mart.call_reasons
ORDER BY account_id, urgency_rank, call_reason, application
"""


@dataclass(frozen=True)
class Told:
    """What came of a build: accounts that became Urgent, messages added and taken, and what waits or failed."""

    not_told_because: str = ""
    became_urgent: int = 0
    added: int = 0
    taken: int = 0
    waiting: int = 0
    failed: int = 0


def utc_now() -> datetime:
    return datetime.now(UTC)


def tell_of_build(settings: Settings, say: Say, now: Callable[[], datetime] = utc_now) -> Told:
    """Writes what is to be told of the current build into the outbox, and sends what is due.

    Raises LockTimeoutError where another run is at it for minutes.
    """
    notify, path = settings.notify, settings.home.outbox_path
    if not notify.addresses:
        if path.exists():
            with opened(path) as outbox:
                outbox.forget_look()  # or all that became Urgent meanwhile would be told of at once
        return Told(not_told_because="notify names no address")
    store = BuildStore(settings.home.published_dir)
    reason = why_not_now(settings.clock, settings.completeness, store)
    became, added = 0, 0
    with opened(path) as outbox:
        if not reason and (build := store.current()) is not None:
            became, added = _add(outbox, settings, store, build, now())
        taken = send_due(outbox, channels_of(notify, settings.name), now, say)
    return Told(reason, became, added, taken, **counts(path))


def send_waiting(settings: Settings, say: Say, now: Callable[[], datetime] = utc_now) -> int:
    """Sends what is due; returns how many messages were taken. Raises LockTimeoutError."""
    path = settings.home.outbox_path
    if not counts(path).get("waiting"):
        return 0
    with opened(path) as outbox:
        return send_due(outbox, channels_of(settings.notify, settings.name), now, say)


def _add(outbox: Outbox, settings: Settings, store: BuildStore, build: Build, now: datetime) -> tuple[int, int]:
    """Adds what the build gives reason to; returns how many accounts became Urgent, and how many messages are new."""
    today = settings.clock.as_of_day
    handled = handled_accounts(settings.home, today, store, build)
    with duckdb.connect(str((store.path(build.build_id) / "warehouse.duckdb").resolve()), read_only=True) as connection:
        urgent = as_dicts(connection.execute(_URGENT))
        reasons = as_dicts(connection.execute(_REASONS))
    known = outbox.known_urgent()
    if known is None:
        became, remembered = [], {call["account_id"] for call in urgent}
    else:
        became = [c for c in urgent if c["account_id"] not in known and c["account_id"] not in handled]
        remembered = {c["account_id"] for c in urgent if c["account_id"] in known or c["account_id"] not in handled}
    messages = [
        message
        for call in became
        for message in _of_account(
            settings, build, call, [r for r in reasons if r["account_id"] == call["account_id"]], today, now
        )
    ]
    added = outbox.look(remembered, messages, now)
    digests, _ = read_digests(store, build, handled)
    return len(became), added + outbox.add(_of_digests(settings, digests), now)


def _concerns(target: ChatSettings | WebhookSettings, owner: str | None) -> bool:
    return not target.owners or owner in target.owners


# ---------------------------------------------------------------- an account


def _of_account(
    settings: Settings, build: Build, call: dict[str, Any], reasons: list[dict[str, Any]], today: date, now: datetime
) -> Iterator[Message]:
    def message(target: ChatSettings | WebhookSettings, content: str) -> Message:
        return Message("urgent", str(today), str(call["account_id"]), target.address, content)

    for chat in settings.notify.chat:
        if "urgent" in chat.tell and _concerns(chat, call["owner"]):
            yield message(chat, _account_text(settings, build, call))
    for hook in settings.notify.webhooks:
        if _concerns(hook, call["owner"]):
            data = account_data(settings, build, call, reasons)
            yield message(hook, webhook_content("account.urgent", now.isoformat(timespec="seconds"), data))


def _links(settings: Settings, account: str) -> dict[str, str]:
    """The account's page with its filter set, and the form that records what came of a call."""
    pages = str(settings.mail.pages_url)
    return {"account": page_of(pages, "account", account), "record_outcome": page_of(pages, "record", account)}


def _through(build: Build) -> date:
    return date.fromisoformat(build.newest_week) + WEEK - timedelta(days=1)


def account_data(
    settings: Settings, build: Build, call: dict[str, Any], reasons: list[dict[str, Any]]
) -> dict[str, Any]:
    """What a webhook is told of an account; amounts a year, in `currency`, null where they are not known."""
    renewal = call["renewal_date"]
    return {
        "installation": settings.name,
        "build": build.build_id,
        "data_through": str(_through(build)),
        "account_id": call["account_id"],
        "account": call["account"],
        "segment": call["segment"],
        "region": call["region"],
        "priority": call["urgency"],
        "details": call["reason"],
        "reasons": [{key: value for key, value in reason.items() if key != "account_id"} for reason in reasons],
        "arr_at_risk": call["arr_at_risk"],
        "arr": call["annual_value"],
        "currency": settings.currency.code,
        "renewal_date": f"{renewal:%Y-%m-%d}" if renewal is not None else None,
        "links": _links(settings, call["account"]),
    }


def _account_text(settings: Settings, build: Build, call: dict[str, Any]) -> str:
    links, renewal = _links(settings, call["account"]), call["renewal_date"]
    value = _value(call)
    return chat_content(
        text("chat.urgent", account=calm(call["account"])),
        [
            calm(call["reason"]),
            value if renewal is None else text("chat.renews", value=value, day=day(renewal)),
            f"[{text('chat.account')}]({links['account']}), [{text('chat.record')}]({links['record_outcome']})",
            text("chat.source", name=calm(settings.name), day=day(_through(build))),
        ],
    )


def _value(call: dict[str, Any]) -> str:
    if call["arr_at_risk"] is not None:
        return text("call.at_risk", amount=money(call["arr_at_risk"]))
    if call["annual_value"] is not None:
        return text("call.arr_of_account", amount=money(call["annual_value"]))
    return text("call.value_not_known")


# ---------------------------------------------------------------- a digest


def _of_digests(settings: Settings, digests: list[Digest]) -> Iterator[Message]:
    for digest in digests:
        for chat in settings.notify.chat:
            if "digest" in chat.tell and _concerns(chat, digest.owner):
                content = _digest_text(settings, digest)
                yield Message("digest", str(digest.week), digest.owner, chat.address, content)


def _digest_text(settings: Settings, digest: Digest) -> str:
    paragraphs = []
    for call in digest.calls[:LISTED]:
        links = _links(settings, call["account"])
        urgency = shown("urgency", call["urgency"])
        paragraphs.append(
            f"{urgency}: [{calm(call['account'])}]({links['account']}): "
            f"{calm(call['reason_in_short'] or '')}, {_value(call)}. "
            f"[{text('chat.record')}]({links['record_outcome']})"
        )
    further = len(digest.calls) - LISTED
    call_list = f"[{text('frame.link.call_list')}]({page_of(str(settings.mail.pages_url), 'call-list', digest.owner)})"
    paragraphs += [
        text("chat.more", accounts=counted("count.accounts", further), link=call_list) if further > 0 else call_list,
        text("chat.source", name=calm(settings.name), day=day(digest.through)),
    ]
    return chat_content(f"{calm(digest.owner)}: {digest.subject}", paragraphs)


# ---------------------------------------------------------------- a test


def send_test(notify: NotifySettings, name: str, variable: str, now: Callable[[], datetime] = utc_now) -> None:
    """Sends a message that says it is a test to one address. Raises NotTakenError."""
    at, words = now().isoformat(timespec="seconds"), text("chat.test", name=name)
    is_chat = any(target.address == variable for target in notify.chat)
    content = (
        chat_content(text("chat.test_title", name=calm(name)), [calm(words)])
        if is_chat
        else webhook_content("test", at, {"text": words})
    )
    channels_of(notify, name)[variable].deliver(f"test/{at}/{variable}", content)
