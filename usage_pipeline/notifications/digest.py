"""The weekly digest: to each owner of accounts, whom of his accounts to call, as a mail and as a workbook.

Belongs here: which rows go to whom, how they are worded and drawn, what was sent. Does not: making the list
(`defs/outreach`), nor the connection (`mailer.py`). Rows are those of the build that pages show; the database of
contacts is never opened here.

Of a week an owner gets one mail, whatever runs come after: `<home>/mail/digests/<week>.json` holds who was sent to.
It is written after the server has taken a mail, so a run that is killed between the two sends that one again: twice is
a nuisance, never is a customer nobody calls. The second has the same Message-ID, by which many programs show it once.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import jinja2
from markupsafe import Markup

from usage_pipeline.config.clock import Clock
from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import CompletenessSettings, MailSettings, Settings
from usage_pipeline.core.files import atomic_write
from usage_pipeline.core.formatting import day, money
from usage_pipeline.core.locks import file_lock
from usage_pipeline.core.sql import as_dicts
from usage_pipeline.core.texts import counted, language, shown, text
from usage_pipeline.core.weeks import WEEK
from usage_pipeline.ingestion.facts import newest_due_week
from usage_pipeline.notifications import mailer
from usage_pipeline.outcomes.database import standings_of
from usage_pipeline.outcomes.records import read_records
from usage_pipeline.publishing.builds import Build, BuildStore

# accounts that stand in the mail itself; all of them are in the workbook
LISTED = 20
_SECONDS_TO_WAIT = 600
_NOWHERE = "usage.invalid"
_XLSX = ("application", "vnd.openxmlformats-officedocument.spreadsheetml.sheet")
# columns of the workbook, with their width in characters
_COLUMNS = {
    "account": 34,
    "urgency": 14,
    "news": 14,
    "reason": 80,
    "new_reasons": 34,
    "arr_at_risk": 14,
    "applications_at_risk": 14,
    "annual_value": 14,
    "renewal_date": 13,
    "days_to_renewal": 10,
    "last_used_on": 13,
    "segment": 18,
    "region": 18,
    "page": 50,
}
_COLOURS = {"Urgent": "#b3261e", "This week": "#8a5300", "Watch": "#4a5866"}


class DigestError(Exception):
    """There is no digest to write; the message says why."""


@dataclass(frozen=True)
class Digest:
    """What one owner is told."""

    owner: str
    week: date
    through: date
    build_id: str
    calls: list[dict[str, Any]]

    def count(self, urgency: str) -> int:
        return sum(call["urgency"] == urgency for call in self.calls)

    @property
    def new(self) -> int:
        return sum(call["news"] == "new this week" for call in self.calls)

    @property
    def subject(self) -> str:
        urgent = self.count("Urgent")
        told = text("digest.urgent", number=urgent) if urgent else text("digest.none_urgent")
        accounts = counted("count.accounts", len(self.calls))
        return text("digest.subject", week=self.week.isocalendar().week, accounts=accounts, urgent=told)


@dataclass
class Round:
    """What came of one round of digests."""

    week: str = ""
    not_sent_because: str = ""
    sent: list[str] = field(default_factory=list)
    sent_before: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    # the address of each of those whose mailbox is not known: asking again is of no use until it is another one
    refused: dict[str, str] = field(default_factory=dict)
    without_address: list[str] = field(default_factory=list)
    accounts_without_owner: int = 0


# ---------------------------------------------------------------- what is in it


def read_digests(store: BuildStore, build: Build, handled: Collection[str] = frozenset()) -> tuple[list[Digest], int]:
    """A digest for each owner with calls, by name; and the accounts on the list that have no owner.

    `handled`: accounts that are done or snoozed, which nobody is told of again.
    """
    week = date.fromisoformat(build.newest_week)
    file = (store.path(build.build_id) / "warehouse.duckdb").resolve()
    with duckdb.connect(str(file), read_only=True) as connection:
        calls = as_dicts(connection.execute("SELECT * FROM mart.call_list ORDER BY rank"))
    by_owner: dict[str, list[dict[str, Any]]] = {}
    for call in calls:
        if call["account_id"] not in handled:
            by_owner.setdefault(call["owner"] or "", []).append(call)
    nobodys = by_owner.pop("", [])
    through = week + WEEK - timedelta(days=1)
    found = [Digest(owner, week, through, build.build_id, by_owner[owner]) for owner in sorted(by_owner)]
    return found, len(nobodys)


def handled_accounts(home: DataHome, as_of_day: date, store: BuildStore, build: Build) -> set[str]:
    """Accounts on the list of a build that are done or snoozed, and have no new reason."""
    records = read_records(home.feedback_dir, home.history_dir)
    warehouse = (store.path(build.build_id) / "warehouse.duckdb").resolve()
    found = standings_of(warehouse, records, as_of_day)
    return {account for account, standing in found.items() if standing.status != "open"}


def page_of(pages_url: str, page: str, name: str) -> str:
    """The short address of a page with its filter set (superset/usage_superset/page_links.py)."""
    return f"{pages_url}/{page}/{quote(name, safe='')}"


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))
    made = jinja2.Environment(
        loader=loader,
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "day": day,
        "counted": lambda number, name: counted(f"count.{name}", number),
        "money": money,
        "one_line": mailer.one_line,
    }
    return made


def write(mail: MailSettings, name: str, digest: Digest, to: str) -> EmailMessage:
    """The mail: text, HTML and the workbook."""
    pages = str(mail.pages_url)
    calls = [call | {"page": page_of(pages, "account", call["account"])} for call in digest.calls]
    values = {
        "digest": digest,
        "calls": calls[:LISTED],
        "further": len(calls) - LISTED,
        "colours": _COLOURS,
        "shown": shown,
        "name": name,
        "list_page": page_of(pages, "call-list", digest.owner),
        "health_page": f"{pages}/superset/dashboard/health/",
    }
    plain = _templates().get_template("digest.txt").render(values, text=text)
    html = _templates().get_template("digest.html").render(values, text=_html, language=language())
    key = hashlib.sha256(f"{name} {digest.week} {digest.owner} {to}".encode()).hexdigest()[:24]
    made = mailer.message(mail, to, digest.subject, plain, html, message_id=f"calls-{digest.week}-{key}")
    main, sub = _XLSX
    made.add_attachment(workbook(digest, calls), maintype=main, subtype=sub, filename=f"calls-{digest.week}.xlsx")
    return made


def _html(name: str, /, **values: object) -> Markup:
    """A text for a template of HTML: texts are ours and may stand as they are, values are escaped."""
    return Markup(text(name)).format(**values) if values else Markup(text(name))  # noqa: S704 - of the catalogue


def _shown(column: str, value: str) -> str:
    if column != "new_reasons":
        return shown(column, value)
    return ", ".join(shown("call_reason", reason) for reason in value.split(", "))


def workbook(digest: Digest, calls: list[dict[str, Any]]) -> bytes:
    """Every call of the owner, a row an account; texts are texts, whatever they begin with."""
    import xlsxwriter

    made = BytesIO()
    with xlsxwriter.Workbook(made, {"in_memory": True}) as book:
        book.set_properties({"title": digest.subject})
        head = book.add_format({"bold": True, "bg_color": "#1B6CA8", "font_color": "#FFFFFF", "text_wrap": True})
        plain = book.add_format({"valign": "top", "text_wrap": True})
        number = book.add_format({"valign": "top", "num_format": "#,##0"})
        moment = book.add_format({"valign": "top", "num_format": "d mmm yyyy", "align": "left"})
        page = book.add_worksheet(text("digest.workbook.sheet"))
        page.set_landscape()
        page.set_paper(9)  # A4
        page.fit_to_pages(1, 0)
        page.freeze_panes(1, 1)
        page.repeat_rows(0)
        for place, (name, width) in enumerate(_COLUMNS.items()):
            page.set_column(place, place, width)
            page.write_string(0, place, text(f"digest.workbook.head.{name}"), head)
            for row, call in enumerate(calls, 1):
                value = call[name]
                if isinstance(value, datetime):
                    page.write_datetime(row, place, value, moment)
                elif isinstance(value, int | float):
                    page.write_number(row, place, value, number)
                elif value:
                    page.write_string(row, place, _shown(name, str(value)), plain)
        page.autofilter(0, 0, len(calls), len(_COLUMNS) - 1)
        left = text("workbook.source", day=day(digest.through), build=digest.build_id)
        page.set_footer(f"&L{left}&R{text('workbook.page_of', page='&P', pages='&N')}")
    return made.getvalue()


def preview(home: DataHome, as_of_day: date, mail: MailSettings, name: str, owner: str, folder: Path) -> list[Path]:
    """Writes what an owner would be sent, and sends nothing. Raises DigestError where there is nothing to write."""
    store = BuildStore(home.published_dir)
    build = store.current()
    missing = [f"mail.{key}" for key in ("from_address", "pages_url") if getattr(mail, key) is None]
    if missing:
        raise DigestError(f"{' and '.join(missing)}: missing; add it to the configuration (no mail.host is needed)")
    if build is None:
        raise DigestError("nothing is published yet: run `usage-pipeline refresh` first")
    digests, _ = read_digests(store, build, handled_accounts(home, as_of_day, store, build))
    found = next((digest for digest in digests if digest.owner == owner), None)
    if found is None:
        known = ", ".join(digest.owner for digest in digests) or "nobody"
        raise DigestError(f"there is nobody to call for '{owner}', who would be sent nothing; {known} would be")
    made = write(mail, name, found, mail.recipients.get(owner, f"no-address-yet@{_NOWHERE}"))
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"calls-{found.week}"
    parts = {".eml": made.as_bytes(policy=SMTP)}
    for part in made.walk():
        kind = {"text/plain": ".txt", "text/html": ".html", "/".join(_XLSX): ".xlsx"}.get(part.get_content_type())
        if kind:
            content = part.get_content()
            parts[kind] = content if isinstance(content, bytes) else content.encode()
    for kind, content in parts.items():
        (folder / f"{stem}{kind}").write_bytes(content)
    return sorted(folder / f"{stem}{kind}" for kind in parts)


# ---------------------------------------------------------------- sending it


def why_not(clock: Clock, completeness: CompletenessSettings, mail: MailSettings, store: BuildStore) -> str:
    """Why no digest may go out by mail now; empty where it may."""
    if mail.host is None:
        return "mail.host is not set: nobody is written to"
    return why_not_now(clock, completeness, store)


def why_not_now(clock: Clock, completeness: CompletenessSettings, store: BuildStore) -> str:
    """Why nobody may be told of the numbers on pages now, by whatever way; empty where they may."""
    build = store.current()
    if build is None:
        return "nothing is published yet"
    if store.pinned is not None:
        return f"a rollback holds build {store.pinned}: nothing is sent of numbers that somebody took back"
    due = newest_due_week(clock, completeness)
    if date.fromisoformat(build.newest_week) < due:
        return (
            f"data is complete through the week of {build.newest_week}, and that of {due} is due: nothing old is sent"
        )
    return ""


def sent_file(mail_dir: Path, week: str) -> Path:
    return mail_dir / "digests" / f"{week}.json"


def read_round(mail_dir: Path) -> dict[str, Any]:
    """What is remembered of the newest week: `sent` by owner, and what came of the last round (`round`)."""
    files = sorted((mail_dir / "digests").glob("*.json"))
    found: dict[str, Any] = json.loads(files[-1].read_text(encoding="utf-8")) if files else {}
    return found


def worth_another_try(
    home: DataHome, clock: Clock, completeness: CompletenessSettings, mail: MailSettings
) -> list[str]:
    """Owners whose digest of the newest week could not be sent, and may be now."""
    if why_not(clock, completeness, mail, BuildStore(home.published_dir)):
        return []
    last = read_round(home.mail_dir).get("round", {})
    refused, recipients = last.get("refused", {}), mail.recipients
    failed = last.get("failed", {})
    return [owner for owner in failed if refused.get(owner) != recipients.get(owner, refused.get(owner))]


def send_digests(settings: Settings, say: Callable[[str], None], now: Callable[[], datetime] = datetime.now) -> Round:
    """Sends what was not sent yet of the newest week, and remembers it. Raises LockTimeoutError where another run is
    at it.
    """
    store = BuildStore(settings.home.published_dir)
    if reason := why_not(settings.clock, settings.completeness, settings.mail, store):
        return Round(not_sent_because=reason)
    build = store.current()
    assert build is not None
    with _remembered(settings.home.mail_dir, build.newest_week) as memory:
        digests, nobodys = read_digests(
            store, build, handled_accounts(settings.home, settings.clock.as_of_day, store, build)
        )
        done = Round(week=build.newest_week, accounts_without_owner=nobodys)
        away = ""
        for digest in digests:
            to = settings.mail.recipients.get(digest.owner)
            if to is None:
                done.without_address.append(digest.owner)
            elif digest.owner in memory["sent"]:
                done.sent_before.append(digest.owner)
            elif away:
                done.failed[digest.owner] = away
            else:
                try:
                    mailer.send(settings.mail, write(settings.mail, settings.name, digest, to))
                except mailer.RecipientError as error:
                    done.failed[digest.owner] = str(error)
                    if error.is_final:
                        done.refused[digest.owner] = to
                except mailer.DeliveryError as error:
                    # what is wrong with the server is wrong for everybody: nobody waits for it twenty times
                    away = done.failed[digest.owner] = str(error)
                else:
                    done.sent.append(digest.owner)
                    memory["sent"][digest.owner] = {
                        "to": to,
                        "at": now().isoformat(timespec="seconds"),
                        "build": digest.build_id,
                        "calls": len(digest.calls),
                    }
                    _keep(settings.home.mail_dir, build.newest_week, memory)
                    say(f"{digest.owner}: {digest.subject}")
        if len(done.refused) > 1 and not done.sent and not done.sent_before:
            done.refused = {}  # a server that knows nobody is the wrong one, or set up wrongly
        memory["round"] = asdict(done)
    for owner, reason in done.failed.items():
        say(f"{owner} was not sent to: {reason}")
    return done


@contextmanager
def _remembered(mail_dir: Path, week: str) -> Iterator[dict[str, Any]]:
    """What is remembered of a week, one run at a time; kept when the body ends."""
    mail_dir.mkdir(parents=True, exist_ok=True)
    mail_dir.chmod(0o700)  # addresses, and who was told what
    with file_lock(mail_dir / "digests.lock", _SECONDS_TO_WAIT, what="the digests"):
        file = sent_file(mail_dir, week)
        memory: dict[str, Any] = {"week": week, "sent": {}, "round": {}}
        if file.exists():
            memory = json.loads(file.read_text(encoding="utf-8"))
        yield memory
        _keep(mail_dir, week, memory)


def _keep(mail_dir: Path, week: str, memory: dict[str, Any]) -> None:
    with atomic_write(sent_file(mail_dir, week)) as tmp_path:
        tmp_path.write_text(json.dumps(memory, indent=1, ensure_ascii=False), encoding="utf-8")
