"""What programs may ask, as functions: of the build that is shown, within the limits of who asks.

Belongs here: the questions, and what their answers rest on. Does not: opening files (`published.py`), which rows are
open to whom (`access.py`), HTTP (`web.py`), agents' tools (`agents.py`).

Nobody sends SQL: names of tables and columns are constants of the catalogue, values are bound. Every answer names its
build, the day that its data goes through, and the table behind each part. What is not delivered is None, never 0. An
account that is not open to a program is unknown to it, near names included.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, Literal

import duckdb
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from usage_pipeline.core.names import Named, UnclearNameError, UnknownNameError, meant, resolve
from usage_pipeline.core.sql import as_dicts, named_values
from usage_pipeline.core.tables import COLUMNS, METRICS, NOTES, TABLES, Column, Table
from usage_pipeline.core.weeks import monday_of
from usage_pipeline.kpis.catalogue import read_kpis
from usage_pipeline.kpis.selection import PERIODS
from usage_pipeline.serving.access import Access, rows_open_to
from usage_pipeline.serving.published import OpenBuild, Published

Row = dict[str, Any]
Period = Literal["month", "3 months", "6 months", "12 months", "year to date", "week"]
Status = Literal["open", "done", "snoozed", "all"]
assert set(Period.__args__) == set(PERIODS)  # type: ignore[attr-defined]
MOST_ROWS = 1000
# moments; every other TIMESTAMP of the tables is a day
MOMENTS = {"as_of", "issued_as_of", "outcome_at", "recorded_at"}
# names of the people who use the pages: behind the scope of contacts, as the contacts themselves
_OF_PEOPLE = {"account_outcomes": {"recorded_by"}}
# what came of a call, beside the row of the list
STATUS = ("call_status", "call_status_text", "outcome_at", "was_reached")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
# why a value is null: it is never 0 for want of data
_IN_NO_ROW = "not delivered, or not known yet"
_NOT_IN_SOME_ROWS = "not known of this row"
# part of an account: its table, and the order of its rows
ACCOUNT_PARTS = {
    "summary": ("accounts_summary", "account_id"),
    "call": ("call_list", "rank"),
    "call_reasons": ("call_reasons", "urgency_rank, application, call_reason"),
    "health": ("account_health", "application_key <> 'all', application_key"),
    "health_factors": (
        "health_factor_points",
        "application_key <> 'all', application_key, points_missing DESC, factor",
    ),
    "subscriptions": ("subscription_overview", "application_key"),
    "subscription_history": ("subscription_history", "application_key, period_number"),
    "usage": ("usage_by_week", "week_start DESC, application_key"),
    "users": ("subscription_users", "application_key"),
    "onboarding": ("onboarding", "application_key, period_number"),
    "peers": ("peers", "application_key, peer_measure"),
    "expansion": ("expansion", "application_key, expansion_kind"),
    "anomalies": ("anomaly_weeks", "week_start DESC, application_key, measure"),
    "risks": ("usage_risks", "target, application_key"),
    "renewals": ("renewals", "renewal_date"),
    "revenue": ("revenue_movements", "month_start DESC, application_key, arr_movement"),
    "calls_before": ("call_list_history", "as_of_week DESC"),
    "outcomes": ("account_outcomes", "recorded_at DESC, outcome_id"),
}
# parts of an explanation, each a part of the account
EXPLAIN_PARTS = (
    "usage",
    "anomalies",
    "subscriptions",
    "subscription_history",
    "call_reasons",
    "health",
    "health_factors",
    "risks",
)
CONTACTS = "account_contacts"
# leads from page to page
_OF_PAGES = {"accounts_summary": {"contacts"}}


class AskedWronglyError(Exception):
    """A filter or value is not known; the message says what is meant, or what there is."""


class NotFoundError(Exception):
    """There is no such account, application or week, or it is not open to who asks; with what comes near."""


class NotAllowedError(Exception):
    """The token lacks a scope; the message names it, and the remedy."""


def _as_written(value: Any) -> Any:
    """A day as it is written: a bare number would be taken for seconds since 1970."""
    if isinstance(value, date) or (isinstance(value, str) and _DAY.fullmatch(value)):
        return value
    raise ValueError("write a day as YYYY-MM-DD")


# a question asks for what a person could name: each name is looked up, and compared with all others where it is none
_LONGEST_NAME = 200
Word = Annotated[str, Field(min_length=1, max_length=_LONGEST_NAME)]
_MOST_WORDS = 100
Day = Annotated[date, BeforeValidator(_as_written, json_schema_input_type=date)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(_Asked):
    """Which rows of the answer are wanted."""

    limit: int = Field(100, ge=1, le=MOST_ROWS, description="rows of a page")
    offset: int = Field(0, ge=0, le=2**31, description="rows to leave out before it; `next_offset` says the next")


class AccountFilters(Page):
    """Filters of accounts, named as on the pages; several values of one: any of them."""

    csm: list[Word] = Field([], max_length=_MOST_WORDS, description="customer success managers, as the pages name them")
    segment: list[Word] = Field([], max_length=_MOST_WORDS, description="segments of accounts")
    region: list[Word] = Field([], max_length=_MOST_WORDS, description="regions of accounts")
    account: list[Word] = Field([], max_length=_MOST_WORDS, description="accounts, by id or name")


class Filters(AccountFilters):
    """Filters of accounts and applications."""

    application: list[Word] = Field([], max_length=_MOST_WORDS, description="applications, by key or name")


class CallListAsked(Filters):
    urgency: list[Literal["Urgent", "This week", "Watch"]] = Field(
        [], max_length=_MOST_WORDS, description="priorities; default: all"
    )
    week: Day | None = Field(None, description="any day of a past week: the list as it was issued; default: now")
    status: Status = Field("all", description="what came of the call; of the list of now only")


class AnomaliesAsked(Filters):
    confidence: list[Word] = Field([], max_length=_MOST_WORDS, description="such as high; default: all")
    since: Day | None = Field(None, description="anomalies that last until this day or longer")


class RenewalsAsked(Filters):
    within_days: int | None = Field(None, ge=0, le=10_000, description="days ahead; default: all that are listed")


class KpisAsked(Filters):
    period: Period = Field("month", description="what a figure is added up over")
    month: Day | None = Field(
        None, description="any day of the last month of the period (of the week); default: the newest complete one"
    )
    kpi: list[Word] = Field([], max_length=_MOST_WORDS, description="KPIs by title, such as Clicks")
    kpi_group: list[Word] = Field([], max_length=_MOST_WORDS, description="groups of KPIs, such as Usage")
    entity_type: list[Word] = Field(
        [], max_length=_MOST_WORDS, description="such as all, account, application, segment, region or CSM"
    )
    entity: list[Word] = Field([], max_length=_MOST_WORDS, description="entities by name, of any type")


class AccountAsked(_Asked):
    part: list[Word] = Field(
        [],
        max_length=_MOST_WORDS,
        description="parts that are wanted; default: all",
        json_schema_extra={"items": {"type": "string", "enum": list(ACCOUNT_PARTS)}},
    )
    weeks: int = Field(13, ge=1, le=160, description="weeks of usage, the newest first")


class ExplainAsked(_Asked):
    account: Word = Field(description="account, by id or name")
    application: Word | None = Field(None, description="application, by key or name; default: all of them")
    week: Day | None = Field(None, description="any day of the week; default: the newest complete week")


class DefinitionsAsked(_Asked):
    name: list[Word] = Field(
        [], max_length=_MOST_WORDS, description="columns, metrics or KPIs by name or title; default: all"
    )


@dataclass(frozen=True)
class BuildInfo:
    """What an answer rests on. data_through: the last day of the newest complete week."""

    build_id: str
    as_of: str
    newest_week: str | None
    data_through: str | None
    sentence: str


@dataclass(frozen=True)
class Part:
    """Rows of one table. total: those that the filters leave; rows: those of the page.

    null_because: why a column is null in some row; for a table without any row, of the name "rows".
    """

    table: Table
    columns: tuple[Column, ...]
    rows: list[Row]
    total: int
    null_because: dict[str, str] = field(default_factory=dict)

    def told(self) -> Row:
        """The rows, where they are from, and why some values are not there."""
        return {
            "source": self.table.full_name,
            "a_row_is": self.table.row,
            "total": self.total,
            "null_because": self.null_because,
            "rows": self.rows,
        }


@dataclass(frozen=True)
class Answer:
    """Parts by name (a list has one: `rows`), the build, what was understood, and what a reader has to know."""

    build: BuildInfo
    parts: dict[str, Part]
    asked: dict[str, Any]
    page: Page | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> Part:
        return self.parts["rows"]

    def head(self) -> Row:
        """What stands above the rows of every answer."""
        return {"build": asdict(self.build), "asked": self.asked, "notes": self.notes}

    def told_parts(self) -> dict[str, Row]:
        """Every part by name, with its rows and where they are from."""
        return {name: part.told() for name, part in self.parts.items()}

    def definitions(self) -> dict[str, str]:
        """What each column of the answer means."""
        columns = {column.name: column for part in self.parts.values() for column in part.columns}
        return {name: _meaning(column) for name, column in sorted(columns.items())}


class Reader:
    """One request of one program: one build, from its beginning to its end."""

    def __init__(self, published: Published, access: Access) -> None:
        self._published = published
        self.access = access
        self.build: OpenBuild = published.build()
        self.outcomes = published.outcomes(self.build)

    @cached_property
    def _cursor(self) -> duckdb.DuckDBPyConnection:
        return self.build.connection.cursor()

    # ------------------------------------------------------------ the questions

    def accounts(self, asked: Filters) -> Answer:
        """Accounts, by name; with an application: those that were ever subscribed to it or used it."""
        where = self._of_accounts(asked)
        if keys := self._application_keys(asked.application):
            where.add(
                "account_id IN (SELECT account_id FROM mart.subscription_overview "
                "WHERE application_key IN (SELECT unnest($applications)))",
                applications=keys,
            )
        return self._list("accounts_summary", where, "account, account_id", asked)

    def account(self, name: str, asked: AccountAsked) -> Answer:
        """Everything about one account but its contacts."""
        unknown = [part for part in asked.part if part not in ACCOUNT_PARTS]
        if unknown:
            raise AskedWronglyError(f"there is no part '{unknown[0]}'{meant(unknown[0], ACCOUNT_PARTS)}")
        who = self._account(name)
        parts = {}
        for part in asked.part or ACCOUNT_PARTS:
            table, order = ACCOUNT_PARTS[part]
            where = _Where("account_id = $account", account=who.key)
            if part == "usage":
                where.add("week_start > $after", after=self._newest_week() - timedelta(weeks=asked.weeks))
            parts[part] = self._part(table, where, order)
            if part == "call":
                parts[part] = self._with_status(parts[part])
        notes = self._notes_of_status() if "call" in parts else []
        return Answer(self.info(), parts, {"account": who.key, "account_name": who.label}, None, notes)

    def contacts(self, name: str) -> Answer:
        """The people to call of an account. Raises NotAllowedError without the scope of contacts."""
        self.contacts_allowed()
        who = self._account(name)
        table, where = TABLES[CONTACTS], _Where("account_id = $account", account=who.key)
        with self._published.contacts(self.build) as connection:
            # the account is open to the program, or it would be unknown above
            rows = _select(connection, table, table.columns, where, "to_call DESC, name, user_id")
        part = Part(table, table.columns, rows, len(rows), dict.fromkeys(_nulls(rows), _NOT_IN_SOME_ROWS))
        return Answer(self.info(), {"rows": part}, {"account": who.key, "account_name": who.label})

    def call_list(self, asked: CallListAsked) -> Answer:
        """Accounts to call, by priority; of a past week as it was issued."""
        where = self._of_accounts(asked)
        if asked.urgency:
            where.add("urgency IN (SELECT unnest($urgency))", urgency=list(asked.urgency))
        if asked.week is not None:
            return self._past_call_list(asked, asked.week, where)
        if keys := self._application_keys(asked.application):
            where.add(
                "account_id IN (SELECT account_id FROM mart.call_reasons "
                "WHERE application_key IN (SELECT unnest($applications)))",
                applications=keys,
            )
        if asked.status != "all":
            if self.outcomes.no_status:
                raise NotFoundError(f"calls cannot be picked by status: {self.outcomes.no_status}")
            where.add("account_id IN (SELECT unnest($with_status))", with_status=self._accounts_with(asked.status))
        answer = self._list("call_list", where, "rank", asked)
        parts = {"rows": self._with_status(answer.rows)}
        return Answer(answer.build, parts, answer.asked, asked, self._notes_of_status())

    def anomalies(self, asked: AnomaliesAsked) -> Answer:
        """Anomalous weeks lately, newest first, each in a sentence."""
        where = self._of_accounts(asked)
        if keys := self._application_keys(asked.application):
            where.add("application_key IN (SELECT unnest($applications))", applications=keys)
        if asked.confidence:
            self._must_be_known("confidence", asked.confidence, self._values("anomaly_weeks", "confidence"))
            where.add("confidence IN (SELECT unnest($confidence))", confidence=list(asked.confidence))
        if asked.since is not None:
            where.add("last_week + INTERVAL 6 DAY >= $since", since=asked.since)
        return self._list("anomaly_weeks", where, "week_start DESC, scope, account, application_key, measure", asked)

    def renewals(self, asked: RenewalsAsked) -> Answer:
        """Renewals of the days ahead, the next first."""
        where = self._of_accounts(asked)
        if keys := self._application_keys(asked.application):
            where.add(
                "(account_id, renewal_date) IN (SELECT (account_id, renewal_date) FROM mart.subscription_overview "
                "WHERE application_key IN (SELECT unnest($applications)))",
                applications=keys,
            )
        if asked.within_days is not None:
            where.add("days_to_renewal <= $within_days", within_days=asked.within_days)
        return self._list("renewals", where, "renewal_date, account, account_id", asked)

    def kpis(self, asked: KpisAsked) -> Answer:
        """KPIs of entities over one period that is complete, beside the period before and a year ago."""
        reference = self._reference(asked.period, asked.month)
        where = _Where("kpi_period = $kpi_period AND reference_month = $reference")
        where.values |= {"kpi_period": asked.period, "reference": reference}
        of_period = _Where(where.sql, **where.values)
        for column in ("kpi", "kpi_group", "entity_type", "entity"):
            if picked := getattr(asked, column):
                self._must_be_known(column.replace("_", " "), picked, self._values("kpi_report", column, of_period))
                where.add(f"{column} IN (SELECT unnest(${column}))", **{column: list(picked)})
        entities = {
            "CSM": self._known("csm", asked.csm),
            "segment": self._known("segment", asked.segment),
            "region": self._known("region", asked.region),
            "account": [self._account(name).key for name in asked.account],
            "application": self._application_keys(asked.application),
        }
        picked_entities = []
        for number, (kind, keys) in enumerate((kind, keys) for kind, keys in entities.items() if keys):
            picked_entities.append(f"(entity_type = '{kind}' AND entity_key IN (SELECT unnest($keys_{number})))")
            where.values[f"keys_{number}"] = keys
        if picked_entities:
            where.add(f"({' OR '.join(picked_entities)})")
        answer = self._list("kpi_report", where, "entity_type, lower(entity), entity_key, kpi_rank", asked)
        return Answer(answer.build, answer.parts, answer.asked | {"month": f"{reference:%Y-%m-%d}"}, asked)

    def explain(self, asked: ExplainAsked) -> Answer:
        """What stands behind the figures of an account (and application) in a week, and why it is where it is."""
        who = self._account(asked.account)
        what = self._application(asked.application) if asked.application else None
        week = self._week(asked.week)
        values: Row = {"account": who.key, "week": week}
        of_account, of_application = "account_id = $account", ""
        if what is not None:
            values["applications"] = [what.key, "all"]
            of_application = " AND application_key IN (SELECT unnest($applications))"
        both = f"{of_account}{of_application}"
        in_week = "CAST(first_week AS DATE) <= $week AND CAST(last_week AS DATE) >= $week"
        # what all accounts did together explains a week too; it is closed to limited programs
        of_all = "(account_id = $account OR account_id IS NULL)"
        conditions = dict.fromkeys(EXPLAIN_PARTS, both) | {
            "usage": f"{both} AND CAST(week_start AS DATE) = $week",
            "anomalies": f"{of_all}{of_application} AND {in_week}",
        }
        parts = {}
        for part, sql in conditions.items():
            table, order = ACCOUNT_PARTS[part]
            parts[part] = self._part(table, _Where(sql, **named_values(sql, values)), order)
        chosen = {"account": who.key, "application": what.key if what else None, "week": week.isoformat()}
        command = " ".join(["usage-pipeline explain", who.key, what.key if what else "APPLICATION", str(week)])
        notes = [
            "usage and anomalies are of the week; all other parts are as of the build",
            f"raw rows behind it are on the server alone: `{command}`",
        ]
        if not parts["usage"].rows:
            notes.append("no row of usage: there was no subscription in that week, and no use")
        return Answer(self.info(), parts, chosen, None, notes)

    def info(self) -> BuildInfo:
        """The build of this request."""
        (found,) = as_dicts(self._cursor.execute("FROM mart.build"))
        return BuildInfo(
            build_id=found["build_id"],
            as_of=found["as_of"].isoformat(),
            newest_week=_day(found["newest_week"]),
            data_through=_day(found["data_through"]),
            sentence=found["sentence"],
        )

    # ------------------------------------------------------------ filters

    def _of_accounts(self, asked: AccountFilters) -> "_Where":
        where = _Where("TRUE")
        for name, column in (("csm", "owner"), ("segment", "segment"), ("region", "region")):
            if values := self._known(name, getattr(asked, name)):
                where.add(f"{column} IN (SELECT unnest(${name}))", **{name: values})
        if asked.account:
            where.add(
                "account_id IN (SELECT unnest($accounts))", accounts=[self._account(one).key for one in asked.account]
            )
        return where

    def _known(self, name: str, wanted: Sequence[str]) -> list[str]:
        column = {"csm": "owner"}.get(name, name)
        if wanted:
            self._must_be_known(name, wanted, self._values("accounts_summary", column))
        return list(wanted)

    def _must_be_known(self, name: str, wanted: Iterable[str], known: list[str]) -> None:
        for value in wanted:
            if value not in known:
                raise AskedWronglyError(f"there is no {name} '{value}'{meant(value, known)}")

    def _values(self, table: str, column: str, where: "_Where | None" = None) -> list[str]:
        """The values of a column that are open to the program."""
        where = (where or _Where("TRUE")).within(self.access, TABLES[table])
        found = self._cursor.execute(
            f"SELECT DISTINCT {column} FROM {TABLES[table].full_name} WHERE {where.sql} "
            f"AND {column} IS NOT NULL ORDER BY 1",
            where.values,
        ).fetchall()
        return [str(value) for (value,) in found]

    def _account(self, name: str) -> Named:
        return self._named("account", name, "accounts_summary", "account_id", "account")

    def _application(self, name: str) -> Named:
        return self._named("application", name, "subscription_overview", "application_key", "application")

    def _application_keys(self, names: Sequence[str]) -> list[str]:
        return [self._application(name).key for name in names]

    def _named(self, kind: str, name: str, table: str, key: str, label: str) -> Named:
        if len(name) > _LONGEST_NAME:
            raise NotFoundError(f"there is no {kind} whose name has {len(name):,} characters")
        # most programs give the key: all names are read only where it is none
        for where in (_Where(f"{key} = $key", key=name), _Where("TRUE")):
            opened = where.within(self.access, TABLES[table])
            found = self._cursor.execute(
                f"SELECT DISTINCT {key}, {label} FROM {TABLES[table].full_name} WHERE {opened.sql} ORDER BY 2, 1",
                opened.values,
            ).fetchall()
            if found:
                break
        try:
            return resolve(kind, name, [Named(one, called) for one, called in found])
        except UnknownNameError as error:
            raise NotFoundError(str(error)) from error
        except UnclearNameError as error:
            raise AskedWronglyError(str(error)) from error

    def _week(self, day: date | None) -> date:
        """The week of a day that usage is on record of, or the newest complete one."""
        first, last, newest = self._one(
            "SELECT min(week_start), max(week_start), max(week_start) FILTER (is_complete) FROM mart.usage_by_week"
        )
        week = monday_of(day) if day else newest and newest.date()
        if week is None:
            raise NotFoundError("no week is complete yet: name one")
        if not first.date() <= week <= last.date():
            through = f"{first.date()} to {last.date()}"
            raise NotFoundError(f"no usage of the week of {week} is on record; there are weeks of {through}")
        return week

    def _reference(self, period: str, day: date | None) -> datetime:
        """The last month (or the week) of a period: the newest complete one, or that of a day."""
        found = self._cursor.execute(
            "SELECT DISTINCT reference_month FROM mart.kpi_report WHERE kpi_period = $kpi_period "
            "AND is_complete_period ORDER BY 1",
            {"kpi_period": period},
        ).fetchall()
        known: list[datetime] = [month for (month,) in found]
        if not known:
            raise NotFoundError(f"no {period} is complete yet")
        if day is None:
            return known[-1]
        for month in known:
            is_meant = (
                month.date() == monday_of(day)
                if period == "week"
                else (month.year, month.month) == (day.year, day.month)
            )
            if is_meant:
                return month
        through = f"{known[0]:%Y-%m-%d} to {known[-1]:%Y-%m-%d}"
        raise NotFoundError(f"no complete {period} ends with {day}; there are those that end with {through}")

    def _past_call_list(self, asked: CallListAsked, day: date, where: "_Where") -> Answer:
        if asked.application or asked.status != "all":
            raise AskedWronglyError("the list of a past week is not filtered by application or status: leave them out")
        weeks = [
            week.date()
            for (week,) in self._cursor.execute(
                "SELECT DISTINCT as_of_week FROM mart.call_list_history ORDER BY 1"
            ).fetchall()
        ]
        week = monday_of(day)
        if week not in weeks:
            through = f"those of {weeks[0]} to {weeks[-1]}" if weeks else "none yet"
            raise NotFoundError(f"no call list was issued for the week of {week}; there are {through}")
        where.add("CAST(as_of_week AS DATE) = $week", week=week)
        answer = self._list("call_list_history", where, "rank", asked)
        return Answer(
            answer.build,
            answer.parts,
            answer.asked | {"week": week.isoformat()},
            asked,
            ["as it was issued then, with who looked after an account then"],
        )

    # ------------------------------------------------------------ rows

    def _list(self, table: str, where: "_Where", order: str, asked: Page) -> Answer:
        part = self._part(table, where, order, asked)
        filters = asked.model_dump(mode="json", exclude={"limit", "offset"}, exclude_defaults=True)
        return Answer(self.info(), {"rows": part}, filters, asked)

    def _part(self, name: str, where: "_Where", order: str, page: Page | None = None) -> Part:
        """Rows of a table that are open to the program: every part of every answer is read here."""
        table = TABLES[name]
        where = where.within(self.access, table)
        columns = columns_of(name, with_people=self.access.has("contacts"))
        cursor: duckdb.DuckDBPyConnection | None = self._cursor
        if table.schema == "outcomes":
            cursor = self.outcomes.connection.cursor() if self.outcomes.connection else None
        if cursor is None:
            return Part(table, columns, [], 0, {"rows": self.outcomes.no_status})
        rows = _select(cursor, table, columns, where, order, page)
        total = len(rows)
        if page is not None:
            sql = f"SELECT count(*) FROM {table.full_name} WHERE {where.sql}"
            total = int((cursor.execute(sql, where.values).fetchone() or (0,))[0])
        return Part(table, columns, rows, total, self._null_because(table, rows))

    def _null_because(self, table: Table, rows: list[Row]) -> dict[str, str]:
        if table.schema != "mart":
            return dict.fromkeys(_nulls(rows), _NOT_IN_SOME_ROWS)
        if not rows:
            is_empty = self._published.is_without_value(self.build, table)
            return {"rows": _IN_NO_ROW} if is_empty else {}
        return {
            name: _IN_NO_ROW if self._published.is_without_value(self.build, table, name) else _NOT_IN_SOME_ROWS
            for name in _nulls(rows)
        }

    def _with_status(self, part: Part) -> Part:
        """Rows of the call list with what came of each; None where that is not known of this build."""
        found: dict[str, Row] = {}
        if not self.outcomes.no_status:
            accounts = [row["account_id"] for row in part.rows]
            where = _Where("account_id IN (SELECT unnest($accounts))", accounts=accounts)
            found = {row["account_id"]: row for row in self._part("call_status", where, "rank").rows}
        rows = [row | {name: found.get(row["account_id"], {}).get(name) for name in STATUS} for row in part.rows]
        why = {name: self.outcomes.no_status or _NOT_IN_SOME_ROWS for name in _nulls(rows) if name in STATUS}
        columns = (*part.columns, *(COLUMNS[name] for name in STATUS))
        return Part(part.table, columns, rows, part.total, part.null_because | why)

    def _notes_of_status(self) -> list[str]:
        return [f"what came of calls is not known: {self.outcomes.no_status}"] if self.outcomes.no_status else []

    def _accounts_with(self, status: str) -> list[str]:
        where = _Where("call_status = $status", status=status)
        return [row["account_id"] for row in self._part("call_status", where, "rank").rows]

    def _one(self, sql: str) -> Any:
        return self._cursor.execute(sql).fetchone()

    def _newest_week(self) -> datetime:
        newest: datetime | None = self._one("SELECT max(week_start) FROM mart.usage_by_week")[0]
        return newest or datetime.max

    def contacts_allowed(self) -> None:
        """Raises NotAllowedError without the scope of contacts."""
        if not self.access.has("contacts"):
            raise NotAllowedError(
                "contacts are personal data: the token needs the scope contacts "
                "(`usage-pipeline tokens add NAME --contacts`)"
            )

    def definitions(self, asked: DefinitionsAsked) -> Row:
        """What words mean, with the build whose words they are."""
        return {"build": asdict(self.info()), "asked": asked.model_dump(), "rows": definitions(asked)}


def columns_of(name: str, *, with_people: bool) -> tuple[Column, ...]:
    """The columns of a table that programs get; names of people who use the pages only with the scope of contacts."""
    hidden = _OF_PAGES.get(name, set()) | (set() if with_people else _OF_PEOPLE.get(name, set()))
    return tuple(column for column in TABLES[name].columns if column.name not in hidden)


def definitions(asked: DefinitionsAsked) -> list[Row]:
    """What columns, metrics and KPIs mean: kind, name, title, meaning, and whether it may be added up."""
    found = [
        {"kind": "column", "name": c.name, "title": c.title, "meaning": _meaning(c), "aggregation": c.aggregation}
        for c in COLUMNS.values()
    ]
    for table, metrics in METRICS.items():
        found += [
            {
                "kind": f"metric of {table}",
                "name": metric.name,
                "title": metric.title,
                "meaning": metric.description,
                "aggregation": metric.aggregation,
            }
            for metric in metrics.values()
        ]
    found += [
        {
            "kind": "KPI",
            "name": kpi.name,
            "title": kpi.title,
            "meaning": kpi.description,
            "aggregation": kpi.aggregation,
        }
        for kpi in read_kpis().kpis
    ]
    found += [
        {"kind": "note", "name": f"note_{number}", "title": "Note", "meaning": note, "aggregation": None}
        for number, note in enumerate(NOTES, 1)
    ]
    if not asked.name:
        return found
    known = [str(row[key]) for row in found for key in ("name", "title") if row[key]]
    low = {one.casefold() for one in known}
    for name in asked.name:
        if name.casefold() not in low:
            raise AskedWronglyError(f"nothing is called '{name}'{meant(name, known)}")
    wanted = {name.casefold() for name in asked.name}
    return [row for row in found if {str(row["name"]).casefold(), str(row["title"]).casefold()} & wanted]


class _Where:
    """A condition of constants, and the values that it binds."""

    def __init__(self, sql: str, **values: Any) -> None:
        self.sql = sql
        self.values: dict[str, Any] = dict(values)

    def add(self, sql: str, **values: Any) -> None:
        self.sql = f"{self.sql} AND {sql}"
        self.values |= values

    def within(self, access: Access, table: Table) -> "_Where":
        """The same, of the rows that are open to a program."""
        is_open, values = rows_open_to(access, table)
        return _Where(f"({self.sql}) AND ({is_open})", **self.values, **values)


def _select(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    columns: tuple[Column, ...],
    where: _Where,
    order: str,
    page: Page | None = None,
) -> list[Row]:
    named = ", ".join(column.name for column in columns)
    sql = f"SELECT {named} FROM {table.full_name} WHERE {where.sql} ORDER BY {order}"
    values = dict(where.values)
    if page is not None:
        sql += " LIMIT $page_limit OFFSET $page_offset"
        values |= {"page_limit": page.limit, "page_offset": page.offset}
    return [
        {name: _plain(name, value) for name, value in row.items()} for row in as_dicts(connection.execute(sql, values))
    ]


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat() if name in MOMENTS else value.date().isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _day(moment: datetime | None) -> str | None:
    return moment.date().isoformat() if moment else None


def _meaning(column: Column) -> str:
    words = "; ".join(f"{word}: {meaning}" for word, meaning in column.words.items())
    return f"{column.description.strip()}{f' ({words})' if words else ''}"


def _nulls(rows: list[Row]) -> list[str]:
    return [name for name in (rows[0] if rows else ()) if any(row[name] is None for row in rows)]
