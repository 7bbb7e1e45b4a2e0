"""History: what was published, kept for good. One file a week (or month), never written twice, whatever is known later.

Belongs here: how an entry comes to be, is read, withdrawn and restored. Does not: what is in it (`anomalies.py`,
`risks.py`, `closed_months.py`).

An entry goes three steps, so that only what people saw is kept:

1. An asset proposes it: `<kind>/pending/<period>.parquet`, replaced by every run. Tables that tell of the past read it
   beside what is kept: they say what history will be if this run is published.
2. The publish puts it into the build's own folder, under the build's name: it is there exactly if the build is.
3. Once the build is shown, it is copied to `<kind>/<period>.parquet`. A run that was killed before that is made good by
   the next refresh, from the build. Of a build that is never shown (a rollback is pinned) nothing is kept.

`withdraw` moves an entry to `<kind>/withdrawn/`, with the reason beside it: nobody reads it there, its build cannot
bring it back, and a later build may issue the same period anew.

All of it is written under the lock of the folder (`DataHome.history_lock`), which is taken before that of the
warehouse.
"""

import getpass
import json
import os
import shutil
import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.core.files import atomic_write
from usage_pipeline.core.locks import file_lock
from usage_pipeline.core.weeks import monday_of
from usage_pipeline.publishing.builds import Build, BuildStore

ANOMALIES, SCORES, MONTHS, HEALTH, CALLS = "anomalies", "scores", "months", "health", "calls"
# kind: its folder
KINDS = {ANOMALIES: "anomalies", SCORES: "scores", MONTHS: "months", HEALTH: "health", CALLS: "calls"}
_METADATA = b"history"
_IN_BUILD = "history"


class HistoryError(Exception):
    """There is no such entry, or it cannot be moved; the message says what there is."""


@dataclass(frozen=True)
class Proposal:
    """What a run would keep of a period, if it is published."""

    period: str | None
    file: Path | None
    # False where the period was kept before, or there is none
    is_new: bool


@dataclass(frozen=True)
class Entry:
    """What is kept of a period: a week by its Monday, or a month as YYYY-MM."""

    kind: str
    period: str
    file: Path
    rows: int
    issued_as_of: datetime | None
    build_id: str | None
    withdrawn_at: str | None = None
    withdrawn_by: str = ""
    reason: str = ""

    @property
    def is_withdrawn(self) -> bool:
        return self.withdrawn_at is not None


def folder_of(history_dir: Path, kind: str) -> Path:
    return history_dir / KINDS[kind]


def history_locked(home: DataHome, seconds: float) -> AbstractContextManager[None]:
    """Keeps others from writing history. Raises LockTimeoutError where one does for longer than `seconds`. Whoever
    needs the warehouse too asks for it afterwards.
    """
    return file_lock(home.history_lock, seconds, what=str(home.history_dir), who="history")


# ---------------------------------------------------------------- reading


def kept_files(history_dir: Path, kind: str) -> list[Path]:
    """Every period's file that was published and not withdrawn, oldest first."""
    return sorted(folder_of(history_dir, kind).glob("*.parquet"))


def pending_files(history_dir: Path, kind: str) -> list[Path]:
    """What the last run proposed and is not kept yet, oldest first."""
    kept = {file.name for file in kept_files(history_dir, kind)}
    return sorted(f for f in (folder_of(history_dir, kind) / "pending").glob("*.parquet") if f.name not in kept)


def readable_files(history_dir: Path, kind: str) -> list[Path]:
    """History as it will be if this run is published, oldest first."""
    return sorted([*kept_files(history_dir, kind), *pending_files(history_dir, kind)], key=lambda file: file.name)


def rows_to_keep(connection: duckdb.DuckDBPyConnection, as_of: datetime, sql: str, values: dict[str, Any]) -> pa.Table:
    """The rows of a statement, each with the moment it was issued."""
    return connection.execute(
        f"SELECT *, CAST($as_of AS TIMESTAMP) AS issued_as_of FROM ({sql})",
        values | {"as_of": as_of.replace(tzinfo=None)},
    ).to_arrow_table()


# ---------------------------------------------------------------- from a run to history


def newest_complete_week(connection: duckdb.DuckDBPyConnection) -> date | None:
    """The week that an entry is issued for; None before one is complete."""
    found = connection.execute("SELECT max(week_start) FROM core.weeks WHERE is_complete").fetchone()
    week: date | None = found[0] if found else None
    return week


def propose_newest_week(
    connection: duckdb.DuckDBPyConnection, history_dir: Path, as_of: datetime, kind: str, sql: str
) -> Proposal:
    """Proposes the rows of `sql`, which names the newest complete week as $week, unless that week is kept.

    The caller holds `history_locked`.
    """
    week = newest_complete_week(connection)
    kept = folder_of(history_dir, kind) / f"{week}.parquet"
    if week is None or kept.exists():
        propose(history_dir, as_of, kind, {})
        return Proposal(str(week) if week else None, kept if week else None, is_new=False)
    rows = rows_to_keep(connection, as_of, sql, {"week": week})
    (file,) = propose(history_dir, as_of, kind, {str(week): rows})
    return Proposal(str(week), file, is_new=True)


def propose(history_dir: Path, as_of: datetime, kind: str, periods: dict[str, pa.Table]) -> list[Path]:
    """Replaces what is pending of a kind by the rows of some periods. The caller holds `history_locked`."""
    folder = folder_of(history_dir, kind) / "pending"
    files = [folder / f"{period}.parquet" for period in periods]
    for file, rows in zip(files, periods.values(), strict=True):
        _write(rows, file, {"as_of": as_of.isoformat()})
    for file in folder.glob("*.parquet"):
        if file not in files:
            file.unlink()
    return files


def attach_pending(history_dir: Path, build: Build, folder: Path) -> None:
    """Puts what is pending into the folder of a build that is being made, under the build's name."""
    for kind in KINDS:
        for file in pending_files(history_dir, kind):
            about = _about(file) | {"build": build.build_id}
            _write(pq.read_table(file), folder / _IN_BUILD / KINDS[kind] / file.name, about)


def promote(home: DataHome) -> list[Entry]:
    """Keeps what the build that is shown brought along, where it is not kept yet; returns what is new.

    Of a pinned build nothing is kept: it was rolled back to, and what it had to say was kept when it was new. The
    caller holds `history_locked`.
    """
    store = BuildStore(home.published_dir)
    build = store.current()
    if build is None or store.pinned is not None:
        return []
    found = []
    for kind, name in KINDS.items():
        for file in sorted((store.path(build.build_id) / _IN_BUILD / name).glob("*.parquet")):
            kept = folder_of(home.history_dir, kind) / file.name
            if kept.exists() or _was_withdrawn(home.history_dir, kind, file.stem, build.build_id):
                continue
            # copied: a volume of its own may hold the builds
            with atomic_write(kept) as tmp_path:
                shutil.copyfile(file, tmp_path)
            # or it would be proposed again where the entry is withdrawn
            (kept.parent / "pending" / kept.name).unlink(missing_ok=True)
            found.append(_entry(kind, kept))
    return found


def _was_withdrawn(history_dir: Path, kind: str, period: str, build_id: str) -> bool:
    return any(entry.build_id == build_id for entry in _withdrawn(history_dir, kind) if entry.period == period)


def _write(rows: pa.Table, file: Path, about: dict[str, Any]) -> None:
    metadata = (rows.schema.metadata or {}) | {_METADATA: json.dumps(about, sort_keys=True).encode()}
    with atomic_write(file) as tmp_path:
        pq.write_table(rows.replace_schema_metadata(metadata), tmp_path, compression="zstd")


def build_of(file: Path) -> str | None:
    """The build that showed an entry; None for one that is only proposed."""
    build: str | None = _about(file).get("build")
    return build


def _about(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((pq.read_metadata(file).metadata or {}).get(_METADATA, b"{}"))
    return found


# ---------------------------------------------------------------- listing, withdrawing, restoring


def entries(history_dir: Path, kinds: Iterable[str] = tuple(KINDS)) -> list[Entry]:
    """Every entry, withdrawn ones too: by kind, oldest period first."""
    found = []
    for kind in kinds:
        of_kind = [_entry(kind, file) for file in kept_files(history_dir, kind)] + _withdrawn(history_dir, kind)
        found += sorted(of_kind, key=lambda entry: (entry.period, entry.withdrawn_at or "~"))
    return found


def _entry(kind: str, file: Path, **withdrawn: str) -> Entry:
    about = _about(file)
    as_of = datetime.fromisoformat(about["as_of"]) if "as_of" in about else None
    period = file.name.split(".")[0]
    return Entry(kind, period, file, pq.read_metadata(file).num_rows, as_of, about.get("build"), **withdrawn)


def _withdrawn(history_dir: Path, kind: str) -> list[Entry]:
    found = []
    for file in sorted((folder_of(history_dir, kind) / "withdrawn").glob("*.parquet")):
        why = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        found.append(
            _entry(kind, file, withdrawn_at=why["withdrawn_at"], withdrawn_by=why["withdrawn_by"], reason=why["reason"])
        )
    return found


def parse_period(kind: str, text: str) -> str:
    """The period of a kind that a person means: any day of the week, or the month. Raises HistoryError."""
    if kind not in KINDS:
        raise HistoryError(f"there is no history of '{kind}': it is one of {', '.join(KINDS)}")
    try:
        if kind == MONTHS:
            return f"{date.fromisoformat(f'{text[:7]}-01'):%Y-%m}"
        return str(monday_of(date.fromisoformat(text)))
    except ValueError as error:
        wanted = "a month: write it as YYYY-MM" if kind == MONTHS else "a day: write it as YYYY-MM-DD"
        raise HistoryError(f"'{text}' is not {wanted}") from error


def withdraw(
    home: DataHome, wait_seconds: float, kind: str, text: str, reason: str, now: datetime | None = None
) -> Entry:
    """Takes an entry out of what is read; it is kept with the reason, and can be restored.

    Raises HistoryError where there is no such entry or no reason is given, LockTimeoutError where a run holds history.
    """
    period, why = parse_period(kind, text), " ".join(reason.split())
    if not why:
        raise HistoryError("say why, with --reason: whoever misses the entry later will ask")
    with history_locked(home, wait_seconds):
        file = folder_of(home.history_dir, kind) / f"{period}.parquet"
        if not file.exists():
            raise HistoryError(_not_kept(home.history_dir, kind, period))
        moment = (now or datetime.now(UTC)).astimezone(UTC)
        moved = file.parent / "withdrawn" / f"{period}.{moment:%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:6]}.parquet"
        about = {
            "reason": why,
            "withdrawn_at": moment.isoformat(timespec="seconds"),
            "withdrawn_by": _os_user(),
            "build": _about(file).get("build"),
        }
        # before the entry: one without a reason would be read by nobody and explained by nothing
        with atomic_write(moved.with_suffix(".json")) as tmp_path:
            tmp_path.write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
        file.rename(moved)
        (file.parent / "pending" / file.name).unlink(missing_ok=True)
        _forget_what_was_made_of_it(home, kind, period)
        return next(entry for entry in _withdrawn(home.history_dir, kind) if entry.file == moved)


def restore(home: DataHome, wait_seconds: float, kind: str, text: str) -> Entry:
    """Puts the entry of a period that was withdrawn last back where it is read.

    Raises HistoryError where none was withdrawn, or another has taken its place; LockTimeoutError as `withdraw`.
    """
    period = parse_period(kind, text)
    with history_locked(home, wait_seconds):
        found = [entry for entry in _withdrawn(home.history_dir, kind) if entry.period == period]
        kept = folder_of(home.history_dir, kind) / f"{period}.parquet"
        if not found:
            raise HistoryError(f"nothing of {kind} of {period} was withdrawn; `usage-pipeline history list` has all")
        if kept.exists():
            raise HistoryError(f"{kind} of {period} were issued anew since: withdraw that entry first")
        last = max(found, key=lambda entry: entry.file.name)
        last.file.rename(kept)
        last.file.with_suffix(".json").unlink()
        _forget_what_was_made_of_it(home, kind, period)
        return _entry(kind, kept)


def interrupted_withdrawals(history_dir: Path) -> list[Path]:
    """Reasons without their entry: what a command that was killed left. The caller holds `history_locked`."""
    found = history_dir.glob("*/withdrawn/*.json")
    return sorted(file for file in found if not file.with_suffix(".parquet").exists())


def _forget_what_was_made_of_it(home: DataHome, kind: str, period: str) -> None:
    """The workbook of a month, and the stamp by which a refresh would find that nothing changed."""
    (home.root / "inputs").unlink(missing_ok=True)
    if kind == MONTHS:
        shutil.rmtree(home.published_dir / "kpi-sheets" / period, ignore_errors=True)


def _not_kept(history_dir: Path, kind: str, period: str) -> str:
    gone = [entry for entry in _withdrawn(history_dir, kind) if entry.period == period]
    if gone:
        last = gone[-1]
        return f"{kind} of {period} were withdrawn by {last.withdrawn_by} on {last.withdrawn_at}: {last.reason}"
    kept = [file.stem for file in kept_files(history_dir, kind)]
    known = f"kept are {kept[0]} to {kept[-1]} ({len(kept)})" if kept else "nothing of that kind is kept yet"
    return f"nothing is kept of {kind} of {period}: {known}"


def _os_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return f"user {os.getuid()}"
