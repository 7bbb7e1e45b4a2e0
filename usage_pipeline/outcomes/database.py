"""The call list with what became of each row, in a DuckDB file of its own: made anew within seconds of an answer.

A build never changes, and an answer must not wait for the next one. So pages read the list from here: the rows of the
build that is shown, each with its status, and how useful each kind of reason was. After a rollback the rows are those
of the older build, and the answers are all there.

Layout as that of the status file: `outcomes/<number>-<random>/usage_outcomes.duckdb`, beside it the build and a digest
of what else it was made of; `outcomes/current` -> the newest (`core/numbered.py`). The same answers and the same build
are not written twice.

Belongs here: tables of outcomes. Does not: the rules (`answers.py`). Who recorded is in it, for those who read the form
too; no note is.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa

from usage_pipeline.config.clock import Clock
from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import OutcomeSettings
from usage_pipeline.core.formatting import day
from usage_pipeline.core.locks import LockTimeoutError, file_lock
from usage_pipeline.core.numbered import show_new
from usage_pipeline.core.sql import as_dicts, literal, load_sql, run_sql
from usage_pipeline.core.tables import OUTCOME_TABLES, TABLES, Column, Table
from usage_pipeline.core.texts import text
from usage_pipeline.core.weeks import WEEK
from usage_pipeline.outcomes.answers import Standing, Usefulness, latest, responses, standing, usefulness
from usage_pipeline.outcomes.records import Reason, Record, files_in, keep, kept_folder, read_records
from usage_pipeline.outcomes.records import Usefulness as Answer
from usage_pipeline.publishing.builds import BuildStore
from usage_pipeline.publishing.history import history_locked

_MADE_OF = "made_of"
_SECONDS_TO_WAIT = 60
_TYPES = {
    "BIGINT": pa.int64(),
    "BOOLEAN": pa.bool_(),
    "DOUBLE": pa.float64(),
    "TIMESTAMP": pa.timestamp("us"),
    "VARCHAR": pa.string(),
}
_STATUS = ("account_id", "call_status", "call_status_text", "outcome_at", "was_reached")
_ISSUED = "SELECT account_id, call_reasons, issued_as_of FROM shown.mart.call_list_history WHERE as_of_week = $week"
# lower than any: what was issued does not say how urgent each reason was
NO_PRIORITY = 9
_REASONS = "SELECT account_id, application_key, call_reason, reason_since, urgency_rank FROM shown.mart.call_reasons"


class OtherVersionError(duckdb.Error):
    """The build that is shown lacks a table or column that this version reads: it says so and the remedy."""


def outcomes_lock(outcomes_path: Path) -> Path:
    return outcomes_path.parent.parent / ".lock"


def build_of(outcomes_file: Path) -> str | None:
    """The build whose call list a file of outcomes answers; None where it does not say."""
    try:
        made_of = json.loads(outcomes_file.with_name(_MADE_OF).read_text(encoding="utf-8"))
        return str(made_of["build_id"])
    except (OSError, ValueError, KeyError):
        return None


def keep_records(home: DataHome, seconds: float) -> int:
    """Copies new records into history; returns how many. Raises LockTimeoutError where a run holds history."""
    if not files_in(home.feedback_dir):
        return 0
    with history_locked(home, seconds):
        return keep(home.feedback_dir, home.history_dir)


def renew_outcomes(home: DataHome, clock: Clock, outcomes: OutcomeSettings) -> bool:
    """Makes the file anew where a record, the build that is shown or the day is another; returns whether it was.

    Before the first build there is nothing to show. Raises LockTimeoutError where another is at it, and
    OtherVersionError where another version made the build: what is shown stays as it is.
    """
    build = BuildStore(home.published_dir).current()
    if build is None:
        return False
    # a run that holds history for long must not keep an answer from the pages: the next look copies it
    with suppress(LockTimeoutError):
        keep_records(home, 0)
    folder = home.outcomes_path.parent.parent
    with file_lock(outcomes_lock(home.outcomes_path), _SECONDS_TO_WAIT, what=str(folder), who="outcomes"):
        made_of = _made_of(home, clock, outcomes, build.build_id)
        written = home.outcomes_path.with_name(_MADE_OF)
        if home.outcomes_path.exists() and written.exists() and written.read_text(encoding="utf-8") == made_of:
            return False

        def write(made: Path) -> None:
            warehouse = (home.published_dir / build.build_id / "warehouse.duckdb").resolve()
            try:
                _write(made / home.outcomes_path.name, warehouse, home, clock, outcomes)
            except (duckdb.BinderException, duckdb.CatalogException) as error:
                raise OtherVersionError(
                    f"build {build.build_id} was made by another version and lacks what outcomes are shown with "
                    f"({str(error).splitlines()[0]}): outcomes stay as they were shown last, "
                    "and new ones are kept; refresh, or release the older build"
                ) from error
            (made / _MADE_OF).write_text(made_of, encoding="utf-8")

        show_new(folder, write)
    return True


def _made_of(home: DataHome, clock: Clock, outcomes: OutcomeSettings, build_id: str) -> str:
    """Of what the content depends on: the build by its id, and a digest of records by name and size, day and rules."""
    digest = hashlib.sha256(f"{clock.as_of_day} {clock.timezone} {outcomes!r}".encode())
    for table in OUTCOME_TABLES:
        digest.update(f"{table.full_name} {table.column_names}".encode())
    for folder in (home.feedback_dir, kept_folder(home.history_dir)):
        for file in files_in(folder):
            with suppress(FileNotFoundError):
                state = file.stat()
                digest.update(f"{file} {state.st_size} {state.st_mtime_ns}\n".encode())
    return json.dumps({"build_id": build_id, "digest": digest.hexdigest()})


def _write(file: Path, warehouse: Path, home: DataHome, clock: Clock, outcomes: OutcomeSettings) -> None:
    as_of_day = clock.as_of_day
    records = read_records(home.feedback_dir, home.history_dir)
    with duckdb.connect(str(file)) as connection:
        attach_shown(connection, warehouse)
        for schema in sorted({table.schema for table in OUTCOME_TABLES}):
            connection.execute(f"CREATE SCHEMA {schema}")
        owners = dict(connection.execute("SELECT account_id, owner FROM shown.mart.call_list").fetchall())
        reasons = shown_reasons(connection)
        standings = _standings(owners, reasons, records, as_of_day)
        rows = {
            "call_status": [_status_row(account, found) for account, found in standings.items()],
            "account_outcomes": [_outcome_row(record) for record in reversed(records)],
            "reason_usefulness": usefulness_rows(
                records, as_of_day, outcomes, {r.call_reason for rs in reasons.values() for r in rs}
            ),
            "csm_responses": _response_rows(owners, standings, records, as_of_day, outcomes),
        }
        for table in OUTCOME_TABLES:
            if table.name in rows:
                _insert(connection, table, rows[table.name])
        _insert_figures(connection, records, ZoneInfo(clock.timezone))
        connection.execute("DETACH shown")
        connection.execute("CHECKPOINT")


def _insert_figures(connection: duckdb.DuckDBPyConnection, records: list[Record], zone: ZoneInfo) -> None:
    """What tiles compare the list with: the one that was issued a week before, as it stood when it was issued."""
    newest = connection.execute("SELECT CAST(newest_week AS DATE) FROM shown.mart.build").fetchone()
    week = newest[0] - WEEK if newest and newest[0] else None
    of_account: dict[str, list[Record]] = {}
    for record in records:
        of_account.setdefault(record.account_id, []).append(record)
    before = [
        {
            "account_id": row["account_id"],
            "call_status": _status_when_issued(row, of_account.get(row["account_id"], []), zone),
        }
        for row in as_dicts(connection.execute(_ISSUED, {"week": week}))
    ]
    columns = [column for column in TABLES["call_figures"].columns if column.name in ("account_id", "call_status")]
    connection.register("before", pa.Table.from_pylist(before, schema=arrow_schema(columns)))
    sql = load_sql("outcomes", "call_figures")
    run_sql(connection, f"CREATE TABLE outcomes.call_figures AS {sql}", {"week": week})
    connection.unregister("before")


def _status_when_issued(row: dict[str, Any], records: list[Record], zone: ZoneInfo) -> str:
    issued = row["issued_as_of"].replace(tzinfo=zone)
    known = [record for record in records if record.recorded_at < issued]
    reasons = issued_reasons(row["call_reasons"], NO_PRIORITY)
    return standing(latest(known).get(row["account_id"]), reasons, row["issued_as_of"].date()).status


def standings_of(warehouse: Path, records: list[Record], as_of_day: date) -> dict[str, Standing]:
    """What became of each row of the call list of a build, by account."""
    with duckdb.connect() as connection:
        attach_shown(connection, warehouse)
        accounts = [row[0] for row in connection.execute("SELECT account_id FROM shown.mart.call_list").fetchall()]
        reasons = shown_reasons(connection)
    return _standings(accounts, reasons, records, as_of_day)


def attach_shown(connection: duckdb.DuckDBPyConnection, warehouse: Path) -> None:
    connection.execute(f"ATTACH {literal(warehouse)} AS shown (READ_ONLY)")


def _standings(
    accounts: Iterable[str], reasons: Mapping[str, list[Reason]], records: list[Record], as_of_day: date
) -> dict[str, Standing]:
    newest = latest(records)
    return {account: standing(newest.get(account), reasons.get(account, []), as_of_day) for account in accounts}


def issued_reasons(call_reasons: str | None, urgency_rank: int) -> list[Reason]:
    """The reasons of a row as it was issued: their kinds and applications, but not since when each held."""
    named = [part.partition(" / ") for part in (call_reasons or "").split(", ")]
    return [
        Reason(application_key=application, call_reason=kind, since=None, urgency_rank=urgency_rank)
        for kind, _, application in named
        if application
    ]


def shown_reasons(connection: duckdb.DuckDBPyConnection) -> dict[str, list[Reason]]:
    """By account, every reason of the build that is attached (`attach_shown`)."""
    found: dict[str, list[Reason]] = {}
    for row in as_dicts(connection.execute(_REASONS)):
        since = row["reason_since"].date() if row["reason_since"] else None
        reason = Reason(
            application_key=row["application_key"],
            call_reason=row["call_reason"],
            since=since,
            urgency_rank=row["urgency_rank"],
        )
        found.setdefault(row["account_id"], []).append(reason)
    return found


def _outcome_row(record: Record) -> dict[str, Any]:
    kinds = [reason.call_reason for reason in sorted(record.reasons, key=lambda reason: reason.urgency_rank)]
    return {
        "outcome_id": record.id,
        "account_id": record.account_id,
        "account": record.account,
        "owner": record.owner,
        "recorded_at": _utc(record.recorded_at),
        "recorded_by": record.recorded_by,
        "reached": record.was_reached,
        "outcome": _outcome_text(record),
        "answered_reasons": ", ".join(dict.fromkeys(kinds)),
        "usefulness": "; ".join(map(_usefulness_text, record.useful)),
        # the note itself was written for the form, which says so: no chart and no download has it
        "has_note": record.note is not None,
    }


def _outcome_text(record: Record) -> str:
    if record.status == "snoozed":
        until = record.snoozed_until
        return text("outcome.told.snoozed_until", day=day(until)) if until else text("call_status.snoozed")
    return text("outcome.told.done" if record.status == "done" else "outcome.told.kept")


def _usefulness_text(said: Answer) -> str:
    if said.is_useful:
        return text("outcome.told.useful", reason=said.call_reason)
    if not said.why_not:
        return text("outcome.told.not_useful", reason=said.call_reason)
    return text("outcome.told.not_useful_because", reason=said.call_reason, why=said.why_not)


def _insert(connection: duckdb.DuckDBPyConnection, table: Table, rows: list[dict[str, Any]]) -> None:
    is_status = table.name == "call_status"  # the rest of its columns are those of the build
    columns = [column for column in table.columns if not is_status or column.name in _STATUS]
    connection.register("given", pa.Table.from_pylist(rows, schema=arrow_schema(columns)))
    sql = load_sql("outcomes", table.name) if is_status else "SELECT * FROM given"
    connection.execute(f"CREATE TABLE {table.full_name} AS {sql}")
    connection.unregister("given")


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    """The types of columns of the catalogue in Arrow."""
    return pa.schema([(column.name, _TYPES[column.type]) for column in columns])


def _status_row(account_id: str, found: Standing) -> dict[str, Any]:
    return {
        "account_id": account_id,
        "call_status": found.status,
        "call_status_text": status_text(found),
        "outcome_at": _utc(found.record.recorded_at) if found.record else None,
        "was_reached": found.record.was_reached if found.record else None,
    }


def status_text(found: Standing) -> str:
    """A status as a page says it."""
    if found.record is None:
        return text("call_status.open")
    answered, until = day(found.record.recorded_at), found.record.snoozed_until
    if found.is_reopened:
        return text("call_status.open_again", day=answered)
    if found.status == "done":
        return text("call_status.done", day=answered)
    if found.status == "snoozed":
        return text("outcome.told.snoozed_until", day=day(until)) if until else text("call_status.snoozed")
    if found.record.status == "snoozed" and until:
        return text("call_status.was_snoozed", day=day(until))
    reached = {True: "reached", False: "not_reached", None: "seen"}[found.record.was_reached]
    return text(f"call_status.open_{reached}", day=answered)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=None)


def usefulness_rows(
    records: list[Record], as_of_day: date, outcomes: OutcomeSettings, listed: set[str]
) -> list[dict[str, Any]]:
    """A row a kind of reason that is on the list or was answered; without answers, shares are not known."""
    found = usefulness(records, as_of_day, outcomes)
    return [
        {
            "call_reason": kind,
            "reason_answers": found[kind].answers if kind in found else 0,
            "useful_answers": found[kind].useful if kind in found else 0,
            "useful_share": found[kind].share if kind in found else None,
            "useful_low": found[kind].low if kind in found else None,
            "useful_high": found[kind].high if kind in found else None,
            "is_moved_down": kind in found and found[kind].is_moved_down,
            "reason_effect": _effect(found.get(kind)),
            "why_not_useful": found[kind].why_not if kind in found else "",
        }
        for kind in sorted(listed | set(found))
    ]


def _effect(found: Usefulness | None) -> str:
    if found is None or not found.answers:
        return "no answer yet"
    return "one priority lower" if found.is_moved_down else "keeps its priority"


def _response_rows(
    owners: dict[str, str | None],
    standings: dict[str, Standing],
    records: list[Record],
    as_of_day: date,
    outcomes: OutcomeSettings,
) -> list[dict[str, Any]]:
    since = as_of_day - outcomes.window_weeks * WEEK
    return [
        {
            "owner": owner,
            "calls_listed": found.calls,
            "calls_answered": found.answered,
            "answered_share": found.share,
            "days_to_answer": found.median_days,
        }
        for owner, found in sorted(responses(owners, standings, records, since).items())
    ]
