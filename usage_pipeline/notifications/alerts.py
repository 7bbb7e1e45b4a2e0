"""Alerts: the data team is told once when something is wrong, and once when it is over; nothing while it lasts.

An incident is one thing that was looked at (data, runs, servers, ...) being wrong, from the first look that found it so
to the first that found it well. `<home>/mail/incidents.json` holds those that are open, and through which channel each
was told: one that could not be told is told at the next look. Whoever looks says what at: a look at runs alone ends no
incident of a server.
"""

import json
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import MailSettings, NotifySettings, Settings
from usage_pipeline.core.files import atomic_write
from usage_pipeline.core.formatting import day_and_time
from usage_pipeline.core.locks import file_lock
from usage_pipeline.core.texts import text
from usage_pipeline.ingestion.deliveries import SOURCES
from usage_pipeline.notifications import mailer
from usage_pipeline.notifications.delivery import calm, channels_of, chat_content
from usage_pipeline.notifications.outbox import Message, opened, send_due
from usage_pipeline.observability.monitors import Finding, check_freshness, check_held_deliveries, check_runs
from usage_pipeline.publishing.builds import BuildStore

_SECONDS_TO_WAIT = 120
# what `look` looks at; each reference source by itself, so that a second one is told while the first is held back
LOOKED_AT = ("data", "runs", *SOURCES)
Say = Callable[[str], None]


def look(settings: Settings, now: datetime) -> list[Finding]:
    """What can be judged without the machine that all runs on: how new the data is, how runs went, what is held back.

    Of an installation whose first run has not ended there is nothing to judge yet.
    """
    if not settings.home.status_path.exists():
        return []
    data = check_freshness(settings.clock, settings.completeness, BuildStore(settings.home.published_dir))
    return [
        *data,
        *check_runs(settings.home.status_path, settings.clock, settings.schedule, now),
        *check_held_deliveries(settings.home.history_dir, settings.sources),
    ]


def raise_alerts(
    home: DataHome,
    mail: MailSettings,
    notify: NotifySettings,
    name: str,
    findings: Sequence[Finding],
    looked_at: Collection[str],
    now: datetime,
    say: Say,
) -> None:
    """Opens and ends incidents by what was found, and tells of each that was not told yet.

    Says what was told and what could not be. Raises LockTimeoutError where another process has been at it for minutes.
    """
    channels = _channels(name, mail) | _chat_channels(home, name, notify, now)
    if not channels:
        say(
            "nobody is told: the configuration names no mail.host with mail.alerts, no mail.webhook, "
            "and no notify.chat with alerts"
        )
        return
    folder = home.mail_dir
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    file = folder / "incidents.json"
    with file_lock(folder / "incidents.lock", _SECONDS_TO_WAIT, what="the incidents"):
        incidents: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
        _open_and_end(incidents, findings, looked_at, now)
        _keep(file, incidents)
        away: set[str] = set()
        for incident in incidents:
            for channel, tell in channels.items():
                state = _pending(incident, channel)
                if not state or _kind(channel) in away:
                    continue
                try:
                    tell(incident, state, _words(home.published_dir, mail, incident, state))
                    say(f"{incident['id']} {state}, told by {channel}")
                except mailer.RecipientError as error:
                    say(f"{incident['id']} could not be told by {channel}: {error}")
                    if not (error.is_final and _is_heard(incident, state)):
                        continue
                except mailer.DeliveryError as error:
                    say(f"{incident['id']} could not be told by {channel}: {error}")
                    away.add(_kind(channel))
                    continue
                incident["told"].setdefault(channel, []).append(state)
                _keep(file, incidents)
        # of what is over everybody knows, or nobody was ever told
        _keep(
            file, [i for i in incidents if i["ended_at"] is None or any(_pending(i, channel) for channel in channels)]
        )
    if home.outbox_path.exists():
        # at once, also where nothing else runs: `doctor --alert` is for when Dagster does not
        with opened(home.outbox_path) as outbox:
            send_due(outbox, channels_of(notify, name), lambda: datetime.now().astimezone(), say)


def open_incidents(mail_dir: Path) -> list[dict[str, Any]]:
    """Those that have begun and are not over, told or not."""
    file = mail_dir / "incidents.json"
    known: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    return [incident for incident in known if incident["ended_at"] is None]


def _open_and_end(
    incidents: list[dict[str, Any]], findings: Sequence[Finding], looked_at: Collection[str], now: datetime
) -> None:
    for about in looked_at:
        wrong = [f for f in findings if f.about == about and (f.level == "failed" or f.needs_alert)]
        known = next((i for i in incidents if i["about"] == about and i["ended_at"] is None), None)
        if wrong and known is None:
            incidents.append(
                {
                    "id": f"{about}-{now:%Y%m%d-%H%M%S}",
                    "about": about,
                    "opened_at": now.isoformat(timespec="seconds"),
                    "ended_at": None,
                    "level": "failed" if any(f.level == "failed" for f in wrong) else "warning",
                    "found": [{"words": f.words, "remedy": f.remedy} for f in wrong],
                    "told": {},
                }
            )
        elif known is not None and not wrong:
            known["ended_at"] = now.isoformat(timespec="seconds")


def _pending(incident: dict[str, Any], channel: str) -> str:
    """The state that a channel still has to hear; of an incident that was over before it could be told, none."""
    told = incident["told"].get(channel, [])
    if incident["ended_at"] is None:
        return "" if "open" in told else "open"
    return "over" if told == ["open"] else ""


def _is_heard(incident: dict[str, Any], state: str) -> bool:
    """Whether anybody was told: then a mailbox that is not there is given up, else it is the only hope."""
    return any(state in told for told in incident["told"].values())


def _keep(file: Path, incidents: list[dict[str, Any]]) -> None:
    with atomic_write(file) as tmp_path:
        tmp_path.write_text(json.dumps(incidents, indent=1, ensure_ascii=False), encoding="utf-8")


# ---------------------------------------------------------------- telling


def _channels(name: str, mail: MailSettings) -> dict[str, Callable[[dict[str, Any], str, list[str]], None]]:
    """What tells of an incident and its state in words, by name: each address is a channel of its own, told and tried
    again by itself.
    """
    found: dict[str, Callable[[dict[str, Any], str, list[str]], None]] = {}
    for address in mail.alerts if mail.host else []:
        found[f"mail to {address}"] = partial(_mail, address, name, mail)
    if mail.webhook:
        found["webhook"] = partial(_webhook, name, mail)
    return found


def _chat_channels(
    home: DataHome, name: str, notify: NotifySettings, now: datetime
) -> dict[str, Callable[[dict[str, Any], str, list[str]], None]]:
    """The same for chat: told is what lies in the outbox, which tries again."""

    def put(address: str, incident: dict[str, Any], state: str, words: list[str]) -> None:
        content = chat_content(calm(_title(name, incident, state)), [calm(line) for line in words])
        with opened(home.outbox_path) as outbox:
            outbox.add([Message("alert", incident["id"], state, address, content)], now)

    told = [target.address for target in notify.chat if "alerts" in target.tell]
    return {f"chat of {address}": partial(put, address) for address in told}


def _kind(channel: str) -> str:
    """What is away where a channel is: one mail server takes all mail."""
    return channel.partition(" ")[0]


def _mail(address: str, name: str, mail: MailSettings, incident: dict[str, Any], state: str, words: list[str]) -> None:
    body = "\n\n".join(words) + "\n"
    mailer.send(mail, mailer.message(mail, address, _title(name, incident, state), body))


def _webhook(name: str, mail: MailSettings, incident: dict[str, Any], state: str, words: list[str]) -> None:
    assert mail.webhook is not None
    body = {
        "text": "\n".join([_title(name, incident, state), *words]),
        "level": "ok" if state == "over" else incident["level"],
        "incident": incident["id"],
        "state": state,
        "about": incident["about"],
        "since": incident["opened_at"],
        "installation": name,
    }
    mailer.post_json(mail.webhook.get_secret_value(), json.dumps(body).encode(), mail.timeout_seconds)


def _title(name: str, incident: dict[str, Any], state: str) -> str:
    if state == "over":
        return text("alert.title_over", name=name, about=incident["about"])
    words = mailer.one_line(incident["found"][0]["words"])[:120]
    return text("alert.title", name=name, about=incident["about"], words=words)


def _words(published_dir: Path, mail: MailSettings, incident: dict[str, Any], state: str) -> list[str]:
    since = day_and_time(datetime.fromisoformat(incident["opened_at"]))
    if state == "over":
        until = day_and_time(datetime.fromisoformat(incident["ended_at"]))
        lines = [text("alert.over", until=until, since=since), *(found["words"] for found in incident["found"])]
    else:
        lines = [text("alert.noticed", since=since)]
        for found in incident["found"]:
            lines.append(text("alert.what_is_wrong", words=found["words"]))
            if found["remedy"]:
                lines.append(text("alert.what_to_do", remedy=found["remedy"]))
    lines.append(_what_stands(published_dir))
    if mail.pages_url:
        lines.append(text("alert.more", page=f"{mail.pages_url}/superset/dashboard/health/"))
    return [*lines, text("alert.incident", id=incident["id"])]


def _what_stands(published_dir: Path) -> str:
    store = BuildStore(published_dir)
    build = store.current()
    if build is None:
        return text("alert.no_numbers")
    return text("alert.pages_show", build=build.build_id, week=build.newest_week)
