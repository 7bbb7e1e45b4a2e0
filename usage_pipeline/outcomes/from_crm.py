"""Outcomes that a CRM delivered, as records like those of Superset's form: written to history once, and never changed.

A record answers the row of the call list that was issued last before it. What was on no list then answers nothing: the
first list that has the account shows it as new. A record is known by its account and moment, so that a CRM may deliver
the same outcomes every night; one that was changed comes with a later moment, and is another record.

Belongs here: from rows of `ref.crm_outcomes` to records. Does not: reading the delivery (`ingestion/reference.py`), nor
what follows from a record (`answers.py`).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb

from usage_pipeline.config.clock import Clock
from usage_pipeline.config.data_home import DataHome
from usage_pipeline.core.files import atomic_write, make_folder
from usage_pipeline.core.sql import as_dicts
from usage_pipeline.outcomes.database import NO_PRIORITY, attach_shown, issued_reasons, shown_reasons
from usage_pipeline.outcomes.records import Reason, Record, add_restored, kept_folder, read
from usage_pipeline.publishing.builds import BuildStore

RECORDED_BY = "CRM"
NO_BUILD = "before the first build nothing was issued that an outcome could answer"
AHEAD = "it was recorded after the moment that the run looks at the data from"
STRANGER = "no such account"
CHANGED = "another outcome of this account and moment was taken before; deliver a changed one with a later moment"

_ROWS = "SELECT * FROM ref.crm_outcomes ORDER BY recorded_at, account_id"
_ACCOUNTS = "SELECT account_id, account, owner FROM shown.mart.accounts_summary"
_ISSUED = (
    "SELECT account_id, as_of_week, issued_as_of, urgency_rank, call_reasons FROM shown.mart.call_list_history "
    "ORDER BY issued_as_of"
)


@dataclass(frozen=True)
class Taken:
    """What became of a delivery: records that are new, those that were there, and rows that were left, by reason."""

    new: int
    known: int
    left: dict[str, int]


@dataclass(frozen=True)
class _Shown:
    """What the build that is shown says: accounts, every issued row by account (oldest first), and reasons now.

    Moments are those of the clock in the configured zone.
    """

    build_id: str
    as_of: str
    week: str
    accounts: Mapping[str, Mapping[str, Any]]
    issued: Mapping[str, Sequence[Mapping[str, Any]]]
    first_issued: datetime
    reasons: Mapping[str, Sequence[Reason]]


def take_crm_outcomes(connection: duckdb.DuckDBPyConnection, home: DataHome, clock: Clock) -> Taken:
    """Writes the rows of `ref.crm_outcomes` that history does not have. The caller holds `DataHome.history_lock`."""
    rows = as_dicts(connection.execute(_ROWS))
    if not rows:
        return Taken(0, 0, {})
    shown = _shown(home)
    if shown is None:
        return Taken(0, 0, {NO_BUILD: len(rows)})
    folder, left, new, known = kept_folder(home.history_dir), Counter[str](), [], 0
    make_folder(folder)
    for row in rows:
        written = _record(row, shown, ZoneInfo(clock.timezone))
        file = folder / _name_of(written)
        if why := _left_because(row, written, shown, clock):
            left[why] += 1
        elif not file.exists():
            with atomic_write(file) as made:
                made.write_text(json.dumps(written, indent=1, ensure_ascii=False), encoding="utf-8")
            new.append(file.name)
        elif _says_the_same(file, written):
            known += 1
        else:
            left[CHANGED] += 1
    # they were never in Superset's folder, so nobody misses them there
    add_restored(home.history_dir, set(new))
    return Taken(len(new), known, dict(left))


def _shown(home: DataHome) -> _Shown | None:
    build = BuildStore(home.published_dir).current()
    if build is None:
        return None
    warehouse = (home.published_dir / build.build_id / "warehouse.duckdb").resolve()
    with duckdb.connect() as other:
        attach_shown(other, warehouse)
        accounts = as_dicts(other.execute(_ACCOUNTS))
        issued: dict[str, list[dict[str, Any]]] = {}
        first = datetime.fromisoformat(build.as_of).replace(tzinfo=None)
        for row in as_dicts(other.execute(_ISSUED)):
            issued.setdefault(row["account_id"], []).append(row)
            first = min(first, row["issued_as_of"])
        reasons = shown_reasons(other)
    return _Shown(
        build.build_id,
        build.as_of,
        build.newest_week,
        {row["account_id"]: row for row in accounts},
        issued,
        first,
        reasons,
    )


def _left_because(row: Mapping[str, Any], written: Mapping[str, Any], shown: _Shown, clock: Clock) -> str | None:
    if row["account_id"] not in shown.accounts:
        return STRANGER
    if row["recorded_at"] < shown.first_issued:
        return NO_BUILD
    return AHEAD if datetime.fromisoformat(written["recorded_at"]) > clock.as_of else None


def _record(row: Mapping[str, Any], shown: _Shown, zone: ZoneInfo) -> dict[str, Any]:
    account, local = row["account_id"], row["recorded_at"]
    moment = local.replace(tzinfo=zone).astimezone(UTC)
    # both are told by the clock of the configured zone
    issued = [i for i in shown.issued.get(account, []) if i["issued_as_of"] <= local]
    known = shown.accounts.get(account, {})
    reasons = _reasons(issued[-1], shown, local.date()) if issued else []
    kinds = list(dict.fromkeys(reason.call_reason for reason in reasons))
    is_snoozed = row["call_status"] == "snoozed" and row["snoozed_until"] is not None
    return {
        "schema": 1,
        "id": hashlib.sha256(f"crm\n{account}\n{moment.isoformat()}".encode()).hexdigest()[:32],
        "previous": "",
        "recorded_at": moment.isoformat(timespec="microseconds"),
        "recorded_by": row["recorded_by"] or RECORDED_BY,
        "account_id": account,
        "account": known.get("account") or account,
        "owner": known.get("owner"),
        "build_id": shown.build_id,
        "as_of": issued[-1]["issued_as_of"].replace(tzinfo=zone).isoformat() if issued else shown.as_of,
        "week": _day(issued[-1]["as_of_week"]) if issued else shown.week,
        "urgency_rank": issued[-1]["urgency_rank"] if issued else NO_PRIORITY,
        "reasons": [reason.model_dump(mode="json") for reason in reasons],
        "was_reached": row["was_reached"],
        "status": row["call_status"],
        "snoozed_until": _day(row["snoozed_until"]) if is_snoozed else None,
        "useful": [{"call_reason": kind, "is_useful": row["is_useful"], "why_not": None} for kind in kinds]
        if row["is_useful"] is not None
        else [],
        "note_digest": None,
        "note": None,
    }


def _reasons(issued: Mapping[str, Any], shown: _Shown, day: date) -> list[Reason]:
    """The reasons that were issued; since when and how urgent as the build says, where they held by that day."""
    now = {(r.application_key, r.call_reason): r for r in shown.reasons.get(issued["account_id"], [])}
    found = []
    for reason in issued_reasons(issued["call_reasons"], issued["urgency_rank"]):
        known = now.get((reason.application_key, reason.call_reason))
        held = known is not None and (known.since is None or known.since <= day)
        found.append(known if known is not None and held else reason)
    return found


def _day(value: date | datetime) -> str:
    return value.date().isoformat() if isinstance(value, datetime) else value.isoformat()


def _name_of(written: Mapping[str, Any]) -> str:
    moment = datetime.fromisoformat(written["recorded_at"])
    account = hashlib.sha256(written["account_id"].encode()).hexdigest()[:12]
    return f"{moment:%Y%m%dT%H%M%S%fZ}-{account}-{written['id']}.json"


def _says_the_same(file: Path, written: Mapping[str, Any]) -> bool:
    """Whether a record that was taken says what the CRM says now; what we made of it may be another by now."""
    before = read(file).record
    now = Record(**written)
    return before is not None and _said(before) == _said(now)


def _said(record: Record) -> tuple[Any, ...]:
    useful = {said.is_useful for said in record.useful}
    return record.status, record.snoozed_until, record.was_reached, record.recorded_by, useful
