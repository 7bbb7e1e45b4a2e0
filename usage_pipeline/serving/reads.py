"""What programs may ask, as functions: of the build that is shown, within the limits of who asks.

Belongs here: the questions, and what their answers rest on. Does not: opening files (`published.py`), which rows are
open to whom (`access.py`), HTTP (`web.py`), agents' tools (`agents.py`).

Nobody sends SQL: names of tables and columns are constants of the catalogue, values are bound. Every answer names its
build, the day that its data goes through, and the table behind each part. What is not delivered is None, never 0. An
account that is not open to a program is unknown to it, near names included.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any

import duckdb

from usage_pipeline.core.names import Named, UnclearNameError, UnknownNameError, meant, resolve
from usage_pipeline.core.sql import as_dicts, named_values
from usage_pipeline.core.tables import COLUMNS, METRICS, NOTES, TABLES, Column, Table
from usage_pipeline.core.weeks import monday_of
from usage_pipeline.kpis.catalogue import read_kpis
from usage_pipeline.serving import null_reasons
from usage_pipeline.serving.access import LIMITS, Access, columns_closed_to, rows_open_to
from usage_pipeline.serving.asked import (
    LONGEST_NAME,
    AccountAsked,
    AccountFilters,
    AnomaliesAsked,
    Asked,
    AskedWronglyError,
    CallListAsked,
    DefinitionsAsked,
    ExplainAsked,
    Filters,
    KpisAsked,
    OfAccount,
    Page,
    RenewalsAsked,
)
from usage_pipeline.serving.parts import ACCOUNT_PARTS, EXPLAIN_PARTS
from usage_pipeline.serving.published import NotServedError, OpenBuild, Published

Row = dict[str, Any]
# moments, kept in UTC; of every other TIMESTAMP of the tables only its day is told
MOMENTS = {"outcome_at", "recorded_at"}
# names of the people who use the pages: behind the scope of contacts, as the contacts themselves
_OF_PEOPLE = {"account_outcomes": {"recorded_by"}}
# what came of a call, beside the row of the list
STATUS = ("call_status", "call_status_text", "outcome_at", "was_reached")
CONTACTS = "account_contacts"
# types of entities of the KPI sheet, by the filter that names them
_ENTITY_TYPES = {
    "csm": "CSM",
    "segment": "segment",
    "region": "region",
    "account": "account",
    "application": "application",
}
_NO_ROW_FITS = "no row fits all filters together: leave one out, or name other values"
# leads from page to page
_OF_PAGES = {"accounts_summary": {"contacts"}}


class NotFoundError(Exception):
    """There is no such account, application or week, or it is not open to who asks; with what comes near."""


class NotAllowedError(Exception):
    """The token lacks a scope; the message names it, and the remedy."""


@dataclass(frozen=True)
class BuildInfo:
    """What an answer rests on. as_of: with its offset from UTC; data_through: last day of the newest complete week."""

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

    def account(self, asked: AccountAsked) -> Answer:
        """Everything about one account but its contacts."""
        unknown = [part for part in asked.part if part not in ACCOUNT_PARTS]
        if unknown:
            raise AskedWronglyError(f"there is no part '{unknown[0]}'{meant(unknown[0], ACCOUNT_PARTS)}")
        who = self._account(asked.account)
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

    def contacts(self, asked: OfAccount) -> Answer:
        """The people to call of an account. Raises NotAllowedError without the scope of contacts."""
        self.contacts_allowed()
        who = self._account(asked.account)
        table, where = TABLES[CONTACTS], _Where("account_id = $account", account=who.key)
        with self._published.contacts(self.build) as connection:
            # the account is open to the program, or it would be unknown above
            rows = _select(connection, table, table.columns, where, "to_call DESC, name, user_id")
        part = Part(table, table.columns, rows, len(rows), _why_null(rows))
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
                raise NotServedError(f"calls cannot be picked by status: {self.outcomes.no_status}")
            where.add("account_id IN (SELECT unnest($with_status))", with_status=self._accounts_with(asked.status))
        answer = self._list("call_list", where, "rank", asked)
        parts = {"rows": self._with_status(answer.rows)}
        return Answer(answer.build, parts, answer.asked, asked, [*self._notes_of_status(), *answer.notes])

    def anomalies(self, asked: AnomaliesAsked) -> Answer:
        """Anomalous weeks lately, newest first, each in a sentence."""
        where = self._of_accounts(asked)
        if keys := self._application_keys(asked.application):
            where.add("application_key IN (SELECT unnest($applications))", applications=keys)
        if asked.confidence:
            confidence = _meant("confidence", asked.confidence, self.values("anomaly_weeks", "confidence"))
            where.add("confidence IN (SELECT unnest($confidence))", confidence=confidence)
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
        answer = self._list("renewals", where, "renewal_date, account, account_id", asked)
        return replace(answer, notes=[self._renewals_known(), *answer.notes])

    def kpis(self, asked: KpisAsked) -> Answer:
        """KPIs of entities over one period that is complete, beside the period before and a year ago."""
        reference = self._reference(asked.period, asked.month)
        types, where = self._of_entities(asked)
        if asked.kpi:
            titles = self.values("kpi_report", "kpi")
            keys = {kpi.name: kpi.title for kpi in read_kpis().kpis if kpi.title in titles}
            kpis = _meant("kpi", asked.kpi, {title: title for title in titles} | keys)
            where.add("kpi IN (SELECT unnest($kpis))", kpis=kpis)
        if asked.kpi_group:
            groups = _meant("kpi group", asked.kpi_group, self.values("kpi_report", "kpi_group"))
            where.add("kpi_group IN (SELECT unnest($kpi_groups))", kpi_groups=groups)
        if asked.entity:
            known = [*self.values("kpi_report", "entity"), *self.values("kpi_report", "entity_key")]
            entities = _meant("entity", asked.entity, known)
            where.add("(entity IN (SELECT unnest($entities)) OR entity_key IN (SELECT unnest($entities)))")
            where.values["entities"] = entities
        of_any_period = _Where(where.sql, **where.values)
        where.add("kpi_period = $kpi_period AND reference_month = $reference")
        where.values |= {"kpi_period": asked.period, "reference": reference}
        answer = self._list("kpi_report", where, "entity_type, lower(entity), entity_key, kpi_rank", asked)
        chosen = answer.asked | {"month": f"{reference:%Y-%m-%d}"} | ({"entity_type": types} if types else {})
        notes = answer.notes if answer.rows.total else self._why_no_kpis(asked, types, of_any_period)
        return replace(answer, asked=chosen, notes=notes)

    def _of_entities(self, asked: KpisAsked) -> tuple[list[str], "_Where"]:
        """Types of entities that are meant, and the condition: what lies within all filters that name entities.

        A row is about one entity. Accounts lie within all filters of accounts together; a CSM, a segment, a region or
        an application within the filter that names it, where there is no other.
        """
        named = {
            "csm": self._known("csm", asked.csm),
            "segment": self._known("segment", asked.segment),
            "region": self._known("region", asked.region),
            "account": [self._account(name).key for name in asked.account],
            "application": self._application_keys(asked.application),
        }
        named = {name: keys for name, keys in named.items() if keys}
        types = []
        if asked.entity_type:
            types = _meant("entity type", asked.entity_type, self.values("kpi_report", "entity_type"))
        where = _Where("TRUE")
        if named:
            types = types or ([_ENTITY_TYPES[name] for name in named] if len(named) == 1 else ["account"])
            within = [] if "application" in named else [self._accounts_of_kpis(where, named)]
            if len(named) == 1:
                ((name, keys),) = named.items()
                within.append("(entity_type = $named_type AND entity_key IN (SELECT unnest($named_keys)))")
                where.values |= {"named_type": _ENTITY_TYPES[name], "named_keys": keys}
            where.add(f"({' OR '.join(within) or 'FALSE'})")
        if types:
            where.add("entity_type IN (SELECT unnest($entity_types))", entity_types=types)
        return types, where

    def _accounts_of_kpis(self, where: "_Where", named: dict[str, list[str]]) -> str:
        columns = {"csm": "owner", "account": "account_id"}
        conditions = [f"{columns.get(name, name)} IN (SELECT unnest($of_{name}))" for name in named]
        where.values |= {f"of_{name}": keys for name, keys in named.items()}
        accounts = f"SELECT account_id FROM mart.accounts_summary WHERE {' AND '.join(conditions)}"
        return f"(entity_type = 'account' AND entity_key IN ({accounts}))"

    def _why_no_kpis(self, asked: KpisAsked, types: list[str], of_any_period: "_Where") -> list[str]:
        """What a reader has to know of a sheet without a row."""
        periods = self.values("kpi_report", "kpi_period", of_any_period)
        if periods and asked.period not in periods:
            about = f"entities of type {', '.join(types)}" if types else "what was asked"
            return [f"the sheet has no figure of {about} by {asked.period}; it has by {', '.join(periods)}"]
        filters = [name for name in _ENTITY_TYPES if getattr(asked, name)]
        if "application" in filters and len(filters) > 1:
            of_both = "a row of the sheet is about an account or an application, never about both"
            return [f"{of_both}: ask for one, or for the part usage of an account"]
        alone = {_ENTITY_TYPES[name] for name in filters} if len(filters) == 1 else set()
        left = alone if "application" in filters else alone | {"account"}
        if filters and not left & set(types):
            named, wanted = " and ".join(filters), ", ".join(types)
            return [f"filtered by {named} there are entities of type {', '.join(sorted(left))}, none of type {wanted}"]
        return [_NO_ROW_FITS]

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
            as_of=self.build.as_of,
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
        return _meant(name, wanted, self.values("accounts_summary", column)) if wanted else []

    def values(self, table: str, column: str, where: "_Where | None" = None) -> list[str]:
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
        if len(name) > LONGEST_NAME:
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
        notes = ["as it was issued then, with who looked after an account then", *answer.notes]
        return replace(answer, asked=answer.asked | {"week": week.isoformat()}, notes=notes)

    # ------------------------------------------------------------ rows

    def _list(self, table: str, where: "_Where", order: str, asked: Page) -> Answer:
        part = self._part(table, where, order, asked)
        filters = asked.filters()
        notes = []
        if filters and not part.total and not part.null_because:
            notes = [_NO_ROW_FITS]
        elif part.total <= asked.offset and part.total:
            notes = [f"offset {asked.offset:,} is behind the last row: there are {part.total:,}"]
        return Answer(self.info(), {"rows": part}, filters, asked, notes)

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
        closed = columns_closed_to(self.access, table)
        rows = _select(cursor, table, columns, where, order, page, closed)
        total = len(rows)
        if page is not None:
            sql = f"SELECT count(*) FROM {table.full_name} WHERE {where.sql}"
            total = int((cursor.execute(sql, where.values).fetchone() or (0,))[0])
        why = dict.fromkeys(closed, null_reasons.OF_ALL_ACCOUNTS) if rows else {}
        return Part(table, columns, rows, total, self._null_because(table, rows) | why)

    def _null_because(self, table: Table, rows: list[Row]) -> dict[str, str]:
        if table.schema != "mart":
            return _why_null(rows)
        if not rows:
            is_empty = self._published.is_without_value(self.build, table)
            return {"rows": null_reasons.NO_ROW} if is_empty else {}
        empty = {name for name in _nulls(rows) if self._published.is_without_value(self.build, table, name)}
        return _why_null(rows, empty)

    def _with_status(self, part: Part) -> Part:
        """Rows of the call list with what came of each; None where that is not known of this build."""
        found: dict[str, Row] = {}
        if not self.outcomes.no_status:
            accounts = [row["account_id"] for row in part.rows]
            where = _Where("account_id IN (SELECT unnest($accounts))", accounts=accounts)
            found = {row["account_id"]: row for row in self._part("call_status", where, "rank").rows}
        rows = [row | {name: found.get(row["account_id"], {}).get(name) for name in STATUS} for row in part.rows]
        why = {name: self.outcomes.no_status or reason for name, reason in _why_null(rows).items() if name in STATUS}
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
        rows, notes = definitions(asked)
        shown = rows[asked.offset : asked.offset + asked.limit]
        after = asked.offset + len(shown)
        return {
            "build": asdict(self.info()),
            "asked": asked.filters(),
            "notes": notes,
            "next_offset": after if shown and after < len(rows) else None,
            "total": len(rows),
            "rows": shown,
        }

    def shown_build(self, _: Asked) -> Row:
        """Which build is shown."""
        return asdict(self.info())

    def _renewals_known(self) -> str:
        through, setting = self.build.renewals_through, "`calls.renewal_horizon_days`"
        if through:
            return f"renewals are listed through {through}: the setting {setting} says how far ahead"
        return f"renewals are listed as far ahead as the setting {setting} says, no further"


def limits_of_no_account(published: Published, limits: Mapping[str, Iterable[str]]) -> list[str]:
    """Values of limits that no account of the build has, each in a sentence with what comes near.

    Raises NotServedError where there is no build.
    """
    reader, found = Reader(published, Access("operator")), []
    for column, values in limits.items():
        known = reader.values("accounts_summary", column)
        unknown = [value for value in values if value not in known]
        found += [f"no account has the {LIMITS[column]} '{value}'{meant(value, known)}" for value in unknown]
    return found


def columns_of(name: str, *, with_people: bool) -> tuple[Column, ...]:
    """The columns of a table that programs get; names of people who use the pages only with the scope of contacts."""
    hidden = _OF_PAGES.get(name, set()) | (set() if with_people else _OF_PEOPLE.get(name, set()))
    return tuple(column for column in TABLES[name].columns if column.name not in hidden)


def definitions(asked: DefinitionsAsked) -> tuple[list[Row], list[str]]:
    """What columns, metrics and KPIs mean (kind, name, title, meaning, whether it may be added up), and notes.

    A name that is none is told in a note beside the others. Raises AskedWronglyError where all are none.
    """
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
        return found, []
    known = [str(row[key]) for row in found for key in ("name", "title") if row[key]]
    low = {one.casefold() for one in known}
    notes = [f"nothing is called '{one}'{meant(one, known)}" for one in asked.name if one.casefold() not in low]
    if len(notes) == len(asked.name):
        raise AskedWronglyError("; ".join(notes))
    wanted = {name.casefold() for name in asked.name}
    return [row for row in found if {str(row["name"]).casefold(), str(row["title"]).casefold()} & wanted], notes


def _meant(name: str, wanted: Sequence[str], known: Iterable[str] | Mapping[str, str]) -> list[str]:
    """The values that are meant, in any case; of a mapping, what its keys stand for. Raises AskedWronglyError."""
    words = dict(known) if isinstance(known, Mapping) else {word: word for word in known}
    folded = {word.casefold(): value for word, value in words.items()}
    found = []
    for word in wanted:
        value = words.get(word, folded.get(word.strip().casefold()))
        if value is None:
            raise AskedWronglyError(f"there is no {name} '{word}'{meant(word, words)}")
        found.append(value)
    return found


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
    closed: frozenset[str] = frozenset(),
) -> list[Row]:
    named = ", ".join(f"NULL AS {one.name}" if one.name in closed else one.name for one in columns)
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
        return f"{value.isoformat()}Z" if name in MOMENTS else value.date().isoformat()
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


def _why_null(rows: list[Row], in_every_row: Collection[str] = ()) -> dict[str, str]:
    return {name: null_reasons.why_null(name, in_every_row=name in in_every_row) for name in _nulls(rows)}
