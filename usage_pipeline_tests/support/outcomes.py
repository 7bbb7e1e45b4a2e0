"""Outcomes as Superset's form writes them, without Superset."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from usage_superset.outcome_records import write_record

MOMENT = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


def answer(account_id: str = "A1", **other: Any) -> dict[str, Any]:
    """What the form hands over, of an account with one reason."""
    reason = {"application_key": "permits", "call_reason": "inactive", "urgency_rank": 1, "since": "2026-10-19"}
    return {
        "recorded_by": "anna",
        "account_id": account_id,
        "account": f"Town of {account_id}",
        "owner": "Dana",
        "build_id": "00001-2026-11-22-abcdef01",
        "as_of": "2026-11-22T00:00:00+00:00",
        "week": "2026-11-09",
        "urgency_rank": 1,
        "reasons": [reason],
        "was_reached": True,
        "status": "done",
        "snoozed_until": None,
        "useful": [],
    } | other


def record(folder: Path, account_id: str = "A1", note: str = "", now: datetime = MOMENT, **other: Any) -> Path:
    """Writes a record; returns its file."""
    written = write_record(folder, answer(account_id, **other), note, now)
    return next(folder.glob(f"*-{written['id']}.json"))
