"""What came of a call: /outcome/<account id>, a form of ours, and the answers that were given before.

Belongs here: who may, what the form asks, what of it is taken. Does not: how a record is written
(`outcome_records.py`).
The right is [can_record, Outcome] of `roles.yaml`, and the row is read as any chart reads it: who may not read the call
list, or not this row of it, records nothing. Superset's own token against forged requests stands in the form.

No script: it works on a telephone, and with scripts off. What people write is text on the page, and the note is on this
page only: in no dataset, no chart, no download, no mail.
"""

import hashlib
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flask import redirect, render_template, request
from flask_login import current_user

from usage_superset.build_cache import build_of_request
from usage_superset.display import date_format
from usage_superset.outcome_records import NOTE_LENGTH, STATUSES, WHY_NOT, records_of, write_record
from usage_superset.rows import rows_of
from usage_superset.texts import shown, slug, text

RIGHT = ("can_record", "Outcome")
_MOST_DAYS = 366
_REACHED = {"yes": True, "no": False, "": None}
# the renewal's date too: whoever snoozes until a day has it before them
_ROW = ["account_id", "account", "owner", "urgency", "urgency_rank", "reason", "renewal_date"]
_REASONS = ["application_key", "application", "call_reason", "reason", "reason_since", "urgency_rank"]


def add_outcomes(app: Any, folder: str) -> None:
    """Serves the form; records go to `folder`."""

    @app.route("/outcome/<path:account_id>", methods=["GET", "POST"])
    def outcome(account_id: str) -> Any:
        from superset import security_manager

        if not current_user.is_authenticated:
            return redirect(f"/login/?next={quote(request.path)}")
        if not (security_manager.is_admin() or security_manager.can_access(*RIGHT)):
            return text("outcome.refused"), 403, {"Content-Type": "text/plain"}
        row, reasons = _row_of(account_id)
        form = _Form(row, reasons)
        if request.method == "POST":
            answer, note = form.read(request.form)
            if answer is not None:
                write_record(Path(folder), answer, note, datetime.now(UTC))
                return redirect(f"/outcome/{quote(account_id, safe='')}?saved=1", 303)
        # whoever may not read of an account may not read what was said of it either
        is_open = row or rows_of("accounts_summary", ["account_id"], {"account_id": account_id})
        answers = [_told(record) for record in reversed(records_of(Path(folder), account_id))] if is_open else []
        page = render_template("outcome_form.html", **form.shown(), account_id=account_id, answers=answers)
        return page, 400 if form.problems else 200, {"Cache-Control": "no-store"}


class _Form:
    """What is asked about a row, and what is taken of what was sent."""

    def __init__(self, row: dict[str, Any] | None, reasons: list[dict[str, Any]]) -> None:
        self.row, self.reasons = row, reasons
        self.kinds = list(dict.fromkeys(reason["call_reason"] for reason in reasons))
        self.problems: list[str] = []
        self.given: Any = {}
        # of the row as it is seen: another build may be shown before the form comes back
        self.seen = hashlib.sha256(json.dumps([row, reasons], sort_keys=True).encode()).hexdigest()[:24]
        today = datetime.now(UTC).date()
        self.first_day, self.last_day = today + timedelta(days=1), today + timedelta(days=_MOST_DAYS)

    def shown(self) -> dict[str, Any]:
        from flask_wtf.csrf import generate_csrf

        renewal = self.row and self.row["renewal_date"]
        return {
            **{name: getattr(self, name) for name in ("row", "reasons", "kinds", "problems", "given", "seen")},
            "renews": date.fromisoformat(renewal).strftime(date_format()) if renewal else "",
            "first_day": self.first_day.isoformat(),
            "last_day": self.last_day.isoformat(),
            "token": generate_csrf(),
            "why_not": WHY_NOT,
            "note_length": NOTE_LENGTH,
            "saved": request.method == "GET" and "saved" in request.args,
        }

    def read(self, given: Any) -> tuple[dict[str, Any] | None, str]:
        """The answer and the note; None where there are problems, which are said on the page."""
        self.given = given
        if self.row is None:
            self.problems.append(text("outcome.problem.not_listed"))
            return None, ""
        if given.get("seen") != self.seen:
            self.problems.append(text("outcome.problem.changed"))
        status, until, note = given.get("status", ""), self._day(given.get("until", "")), _clean(given.get("note", ""))
        if status not in STATUSES or given.get("reached", "") not in _REACHED:
            self.problems.append(text("outcome.problem.no_status"))
        if until is not None and not self.first_day <= until <= self.last_day:
            self.problems.append(text("outcome.problem.until"))
        if len(note) > NOTE_LENGTH:
            self.problems.append(text("outcome.problem.note", most=NOTE_LENGTH))
        useful = [self._usefulness(kind) for kind in self.kinds]
        if self.problems:
            return None, ""
        return self._answer(self.row, status, until, [item for item in useful if item]), note

    def _answer(
        self, row: dict[str, Any], status: str, until: date | None, useful: list[dict[str, Any]]
    ) -> dict[str, Any]:
        build = Path(build_of_request())
        about = json.loads((build / "build.json").read_text(encoding="utf-8"))
        kept = ("application_key", "call_reason", "urgency_rank")
        return {
            "recorded_by": current_user.username,
            "account_id": row["account_id"],
            "account": row["account"],
            "owner": row["owner"],
            "build_id": build.name,
            "as_of": about["as_of"],
            "week": about["newest_week"],
            "urgency_rank": row["urgency_rank"],
            "reasons": [{**{n: r[n] for n in kept}, "since": r["reason_since"]} for r in self.reasons],
            "was_reached": _REACHED[self.given.get("reached", "")],
            "status": status,
            "snoozed_until": until.isoformat() if until and status == "snoozed" else None,
            "useful": useful,
        }

    def _usefulness(self, kind: str) -> dict[str, Any] | None:
        said, why = self.given.get(f"useful {kind}", ""), self.given.get(f"why {kind}", "")
        if said not in ("yes", "no", "") or why not in ("", *WHY_NOT):
            self.problems.append(text("outcome.problem.not_offered"))
        if said not in ("yes", "no"):
            return None
        return {"call_reason": kind, "is_useful": said == "yes", "why_not": why or None if said == "no" else None}

    def _day(self, given: str) -> date | None:
        try:
            return date.fromisoformat(given) if given else None
        except ValueError:
            self.problems.append(text("outcome.problem.day"))
            return None


def _clean(text: str) -> str:
    """A note without characters that are not seen, but for ends of lines."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join("".join(c for c in line if c.isprintable() or c == "\t") for line in lines).strip()


def _told(record: dict[str, Any]) -> dict[str, Any]:
    """A record as the page shows it."""
    status, until = record.get("status"), record.get("snoozed_until")
    told = status if status in ("done", "snoozed") else "kept"
    day = date.fromisoformat(until).strftime(date_format()) if until else ""
    what = text(f"outcome.told.{told}_until", day=day) if until else text(f"outcome.told.{told}")
    reached = record.get("was_reached")
    what += "" if reached is None else text("outcome.told.reached" if reached else "outcome.told.not_reached")
    useful = [_usefulness_told(item) for item in record.get("useful", [])]
    note = record.get("note")
    note = note["text"] if note else text("outcome.told.note_erased") if record.get("note_digest") else ""
    moment = datetime.fromisoformat(record["recorded_at"]).strftime(f"{date_format()} %H:%M UTC")
    return {"what": what, "when": moment, "who": record.get("recorded_by"), "useful": useful, "note": note}


def _usefulness_told(item: dict[str, Any]) -> str:
    if item["is_useful"]:
        return text("outcome.told.useful", reason=shown("call_reason", item["call_reason"]))
    why = item.get("why_not")
    if not why:
        return text("outcome.told.not_useful", reason=shown("call_reason", item["call_reason"]))
    told = text(f"word.why_not.{slug(why)}") if why in WHY_NOT else why
    return text("outcome.told.not_useful_because", reason=shown("call_reason", item["call_reason"]), why=told)


# ---------------------------------------------------------------- the row, as a chart would read it


def _row_of(account_id: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """The row of the call list that this user may read of an account, and its reasons; None where there is none."""
    rows = rows_of("call_list", _ROW, {"account_id": account_id})
    if not rows:
        return None, []
    reasons = rows_of("call_reasons", _REASONS, {"account_id": account_id})
    return rows[0], sorted(reasons, key=lambda r: (r["urgency_rank"], r["call_reason"], r["application_key"]))
