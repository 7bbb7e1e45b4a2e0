"""What stands behind one number: of an account, an application and a week, from the raw rows to the page.

Belongs here: finding it, read-only, in facts, history, warehouse and the published build. Does not: putting it into
sentences (`explain_words.py`), or working anything out anew: what is told is what the tables hold, beside sums of the
facts' own rows, which are the one thing that is added up here.
"""

from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import CompletenessSettings, Settings, Sources
from usage_pipeline.core.names import Named, resolve
from usage_pipeline.core.sql import as_dicts
from usage_pipeline.core.weeks import WEEK, monday_of
from usage_pipeline.ingestion.facts import WeekManifest, facts_path, read_manifests, settled_on
from usage_pipeline.ingestion.reference import NEVER_BEGAN
from usage_pipeline.publishing.builds import BuildStore

Row = dict[str, Any]
# what a page and the raw rows are compared by: title, and the column of `mart.usage_by_week`
COMPARED = {"clicks": "clicks", "records": "records_created", "users": "active_users"}
_FOREVER = date(9999, 12, 31)


class ExplainError(Exception):
    """Nothing can be explained; the message says why, and what could be."""


@dataclass
class Week:
    """A week (its Monday), and whether it may be judged by."""

    week_start: date
    status: str
    is_complete: bool
    settled_on: date
    manifest: WeekManifest | None


@dataclass
class Raw:
    """The facts of the week: a row is a day x user; `sums` of clicks, records and different users, None: not delivered.

    `rejected` are rows of the account that the history keeps, of any application. `rows_after_as_of` is how many
    rows of the week are dated after as_of, and not among `rows`: pages count them from their day on.
    """

    rows: list[Row]
    sums: dict[str, int | None]
    rejected: list[Row]
    rows_after_as_of: int = 0


@dataclass
class Subscription:
    """Rows as delivered, subscription periods made of them, and what they make of the week."""

    delivered: list[Row]
    subscription_periods: list[Row]
    is_known: bool
    days: int
    state: str


@dataclass
class Number:
    """The row of `mart.usage_by_week` in a build or in the warehouse; None where there is none."""

    row: Row | None
    agrees: dict[str, bool]

    @property
    def value(self) -> dict[str, int | None]:
        return {title: self.row[column] if self.row else None for title, column in COMPARED.items()}


@dataclass
class Shown:
    """The build that pages read, and what of the week's row is otherwise in the warehouse."""

    build_id: str | None
    as_of: str | None
    newest_week: str | None
    is_pinned: bool
    warehouse_build: str | None
    differences: dict[str, list[Any]]


@dataclass
class Explanation:
    """Everything that is known of one number."""

    account: Named
    application: Named
    as_of_day: date
    week: Week
    raw: Raw
    subscription: Subscription
    page: Number
    warehouse: Number
    expected: Row | None
    anomalies: list[Row]
    anomalies_as_published: list[Row] | None
    state: Row | None
    state_now: Row | None
    risks: list[Row]
    scores_as_published: list[Row] | None
    shown: Shown
    has_users: bool
    has_records: bool
    has_days: bool
    newest_week: date | None
    limits: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def explain(
    connection: duckdb.DuckDBPyConnection, settings: Settings, account: str, application: str, day: date | None
) -> Explanation:
    """`connection` is the warehouse, opened read-only. Raises ExplainError, and UnclearNameError of names."""
    who = resolve("account", account, accounts_of(connection))
    what = resolve("application", application, applications_of(connection))
    newest = _one(connection, "SELECT max(week_start) AS week FROM core.weeks WHERE is_complete")
    week_start = monday_of(day) if day else (newest or {}).get("week")
    if week_start is None:
        raise ExplainError("there is no complete week yet: name a week, or see `usage-pipeline sources check`")
    key = {"account": who.key, "application": what.key, "week": week_start}
    usage = settings.sources.usage
    raw = _raw(connection, settings.home, settings.clock.as_of_day, settings.sources, key)
    sql = (
        "FROM mart.usage_by_week WHERE CAST(week_start AS DATE) = $week AND account_id = $account "
        "AND application_key = $application"
    )
    in_warehouse = _one(connection, sql, key)
    shown, on_page = _shown(connection, settings.home.published_dir, sql, key, in_warehouse)
    return Explanation(
        account=who,
        application=what,
        as_of_day=settings.clock.as_of_day,
        week=_week(connection, settings.home.facts_dir, settings.clock.running_week, settings.completeness, week_start),
        raw=raw,
        subscription=_subscription(connection, key),
        page=Number(on_page, _agreement(on_page, raw.sums)),
        warehouse=Number(in_warehouse, _agreement(in_warehouse, raw.sums)),
        expected=_one(
            connection,
            "SELECT expected.* FROM core.expected_usage AS expected INNER JOIN core.account_applications AS keys "
            "ON expected.account_application_id = keys.account_application_id WHERE keys.account_id = $account "
            "AND keys.application = $application AND expected.week_start = $week",
            key,
        ),
        anomalies=_anomalies(connection, key),
        anomalies_as_published=_issued(
            connection,
            settings.home.history_dir / "anomalies" / f"{week_start}.parquet",
            "account_id = $account AND application = $application OR scope = 'application' "
            "AND application = $application OR scope = 'all' ORDER BY scope, measure",
            {k: key[k] for k in ("account", "application")},
        ),
        state=_one(
            connection,
            "SELECT states.* FROM core.usage_states AS states INNER JOIN core.account_applications AS keys "
            "ON states.account_application_id = keys.account_application_id WHERE keys.account_id = $account "
            "AND keys.application = $application AND states.week_start = $week",
            key,
        ),
        state_now=_one(
            connection,
            "FROM mart.subscription_overview WHERE account_id = $account AND application_key = $application",
            {k: key[k] for k in ("account", "application")},
        ),
        risks=_risks(connection, key),
        scores_as_published=_issued(
            connection,
            settings.home.history_dir / "scores" / f"{week_start}.parquet",
            "account_id = $account AND (application = $application OR application IS NULL) ORDER BY target",
            {k: key[k] for k in ("account", "application")},
        ),
        shown=shown,
        has_users=usage.delivers("user_id"),
        has_records=usage.delivers("records_created"),
        has_days=usage.delivers("event_time"),
        newest_week=newest["week"] if newest else None,
        limits={name: getattr(settings.activity, name) for name in _LIMITS},
    )


_LIMITS = ("new_weeks", "inactive_weeks", "recent_weeks", "usual_weeks", "low_share", "low_floor_clicks")


# ---------------------------------------------------------------- names


def accounts_of(connection: duckdb.DuckDBPyConnection) -> list[Named]:
    """Every account that any source knows."""
    rows = connection.execute(
        "SELECT names.account_id, names.account, accounts.account_name FROM core.account_names AS names "
        "LEFT JOIN ref.accounts AS accounts ON names.account_id = accounts.account_id ORDER BY names.account"
    ).fetchall()
    return [Named(key, label, (name,) if name else ()) for key, label, name in rows]


def applications_of(connection: duckdb.DuckDBPyConnection) -> list[Named]:
    rows = connection.execute(
        "SELECT application_key, application FROM core.application_names ORDER BY application"
    ).fetchall()
    return [Named(key, label) for key, label in rows]


# ---------------------------------------------------------------- the week and its raw rows


def _week(
    connection: duckdb.DuckDBPyConnection,
    facts_dir: Path,
    running_week: date,
    completeness: CompletenessSettings,
    week: date,
) -> Week:
    row = _one(connection, "SELECT week_status, is_complete FROM core.weeks WHERE week_start = $week", {"week": week})
    manifest = read_manifests(facts_dir, [week]).get(week)
    if row is None:
        status = "has not begun" if week > running_week else "before the first week on record"
        return Week(week, status, False, settled_on(completeness, week), manifest)
    return Week(week, row["week_status"], row["is_complete"], settled_on(completeness, week), manifest)


def _raw(connection: duckdb.DuckDBPyConnection, home: DataHome, as_of_day: date, sources: Sources, key: Row) -> Raw:
    # rows that came late lie in the folder beside
    folders = [key["week"] - WEEK, key["week"], key["week"] + WEEK]
    files = [str(path) for week in folders if (path := facts_path(home.facts_dir, week)).exists()]
    found: list[Row] = []
    if files:
        found = _all(
            connection,
            "SELECT day, user_id, clicks, records_created, source_rows, week AS folder "
            "FROM read_parquet($files, hive_partitioning = false) WHERE week_start = $week "
            "AND account_id = $account AND application = $application ORDER BY day, user_id, folder",
            key | {"files": files},
        )
    rows = [row for row in found if (row["day"] or key["week"]) <= as_of_day]
    usage = sources.usage
    records = [row["records_created"] for row in rows if row["records_created"] is not None]
    sums = {
        "clicks": sum(row["clicks"] for row in rows),
        "records": sum(records) if usage.delivers("records_created") else None,
        "users": len({row["user_id"] for row in rows} - {None}) if usage.delivers("user_id") else None,
    }
    return Raw(rows, sums, _rejected(connection, home, key, folders), len(found) - len(rows))


def _rejected(connection: duckdb.DuckDBPyConnection, home: DataHome, key: Row, folders: list[date]) -> list[Row]:
    """Rows of the account that were kept aside, in the week's folder, or of its days in the folders beside."""
    found: list[Row] = []
    for folder, manifest in read_manifests(home.facts_dir, folders).items():
        file = home.history_dir / (manifest.rejected_file or "")
        if manifest.rejected_file is None or not file.exists():
            continue
        found += _all(
            connection,
            "SELECT reason, application, user_id, day, clicks, source_file, source_row "
            "FROM read_parquet($file, hive_partitioning = false) WHERE account_id = $account "
            "AND ($folder = $week OR day BETWEEN $week AND $week + 6) ORDER BY source_file, source_row",
            {"file": str(file), "account": key["account"], "folder": folder, "week": key["week"]},
        )
    return found


# ---------------------------------------------------------------- the subscription


def _subscription(connection: duckdb.DuckDBPyConnection, key: Row) -> Subscription:
    account_application = {name: key[name] for name in ("account", "application")}
    delivered = _all(
        connection,
        "SELECT *, CASE WHEN end_date < start_date THEN $never_began END AS rejected FROM ref.subscriptions "
        "WHERE account_id = $account AND (application = $application OR application IS NULL) "
        "UNION ALL BY NAME "
        "SELECT * EXCLUDE (reason), reason AS rejected FROM ref.subscriptions_rejected WHERE reason <> $never_began "
        "AND account_id = $account AND (application = $application OR application IS NULL) "
        "ORDER BY start_date, application NULLS FIRST",
        account_application | {"never_began": NEVER_BEGAN},
    )
    subscription_periods = _all(
        connection,
        "SELECT periods.period_number, periods.basis, periods.start_date, "
        "nullif(periods.end_date, DATE '9999-12-31') AS end_date, periods.notice_date, periods.end_reason, "
        "periods.ended_with, periods.renewal_date, terms.seats, CAST(terms.annual_value AS DOUBLE) AS annual_value "
        "FROM core.subscription_periods AS periods "
        # what held at the end of the week, or nearest to it
        "LEFT JOIN core.subscription_terms AS terms ON periods.account_id = terms.account_id "
        "AND periods.application = terms.application AND least(greatest(CAST($week AS DATE) + 6, periods.start_date), "
        "periods.end_date) BETWEEN terms.start_date AND terms.end_date "
        "WHERE periods.account_id = $account AND periods.application = $application ORDER BY periods.period_number",
        key,
    )
    subscription_weeks = _one(
        connection,
        "SELECT weeks.subscribed_days, weeks.subscription_state FROM core.subscription_weeks AS weeks "
        "INNER JOIN core.account_applications AS keys ON weeks.account_application_id = keys.account_application_id "
        "WHERE keys.account_id = $account AND keys.application = $application AND weeks.week_start = $week",
        key,
    )
    known = _one(
        connection,
        "SELECT is_subscription_known FROM core.account_subscriptions WHERE account_id = $account",
        {"account": key["account"]},
    )
    return Subscription(
        delivered=delivered,
        subscription_periods=subscription_periods,
        is_known=bool(known and known["is_subscription_known"]),
        days=int(subscription_weeks["subscribed_days"]) if subscription_weeks else 0,
        state=str(subscription_weeks["subscription_state"])
        if subscription_weeks
        else _outside(subscription_periods, key["week"]),
    )


def _outside(subscription_periods: list[Row], week: date) -> str:
    """What a week without a row in the subscription weeks is: it lies outside every subscription period, or outside
    the weeks on record.
    """
    sunday = week + timedelta(days=6)
    if not subscription_periods:
        return "no subscription"
    if all(subscription_period["start_date"] > sunday for subscription_period in subscription_periods):
        return "not started"
    if all((subscription_period["end_date"] or _FOREVER) < week for subscription_period in subscription_periods):
        return "ended"
    if any(
        subscription_period["start_date"] <= sunday and (subscription_period["end_date"] or _FOREVER) >= week
        for subscription_period in subscription_periods
    ):
        return "not on record"
    return "between two subscriptions"


# ---------------------------------------------------------------- anomalies, risks, the page


def _anomalies(connection: duckdb.DuckDBPyConnection, key: Row) -> list[Row]:
    """Anomalies that touch the number, with their sentence where a page lists them."""
    return _all(
        connection,
        "SELECT anomalies.*, listed.what_happened FROM core.anomalies AS anomalies "
        "LEFT JOIN mart.anomaly_weeks AS listed "
        "ON anomalies.scope = listed.scope AND anomalies.measure = listed.measure "
        "AND anomalies.week_start = CAST(listed.week_start AS DATE) "
        "AND coalesce(anomalies.account_id, '') = coalesce(listed.account_id, '') "
        "AND coalesce(anomalies.application, 'all') = listed.application_key "
        "WHERE anomalies.week_start = $week AND (anomalies.scope = 'all' OR anomalies.application = $application "
        "AND (anomalies.scope = 'application' OR anomalies.account_id = $account)) "
        "ORDER BY anomalies.scope, anomalies.measure",
        key,
    )


def _risks(connection: duckdb.DuckDBPyConnection, key: Row) -> list[Row]:
    """Probabilities of the application and of the whole account as of the week; there are some of the newest week
    only.
    """
    return _all(
        connection,
        "SELECT scores.*, methods.title, methods.why FROM core.risk_scores AS scores "
        "INNER JOIN core.risk_methods AS methods ON scores.target = methods.target "
        "WHERE scores.as_of_week = $week AND scores.account_id = $account "
        "AND (scores.application = $application OR scores.application IS NULL) ORDER BY scores.target",
        key,
    )


def _issued(connection: duckdb.DuckDBPyConnection, file: Path, where: str, values: Row) -> list[Row] | None:
    """Rows of the history as they were said; None where nothing was said of that week."""
    if not file.exists():
        return None
    return _all(connection, f"FROM read_parquet($file) WHERE {where}", values | {"file": str(file)})


def _shown(
    connection: duckdb.DuckDBPyConnection, published_dir: Path, sql: str, key: Row, in_warehouse: Row | None
) -> tuple[Shown, Row | None]:
    """The build that pages read with its row, and where the warehouse says otherwise."""
    store = BuildStore(published_dir)
    build = store.current()
    written = _one(connection, "SELECT build_id FROM mart.build")
    if build is None:
        return Shown(None, None, None, False, written["build_id"] if written else None, {}), None
    # the link is resolved once: a refresh may move it while this reads
    file = store.path(build.build_id) / "warehouse.duckdb"
    with duckdb.connect(str(file), read_only=True) as published:
        row = _one(published, sql, key)
    before, now = row or {}, in_warehouse or {}
    differences = {
        name: [before.get(name), now.get(name)] for name in {**before, **now} if before.get(name) != now.get(name)
    }
    shown = Shown(
        build_id=build.build_id,
        as_of=build.as_of,
        newest_week=build.newest_week,
        is_pinned=build.build_id == store.pinned,
        warehouse_build=written["build_id"] if written else None,
        differences=differences,
    )
    return shown, row


def _agreement(row: Row | None, sums: dict[str, int | None]) -> dict[str, bool]:
    """Whether a page's number is the sum of the raw rows; no number, or none known, agrees with no rows."""
    told = {title: row[column] if row else None for title, column in COMPARED.items()}
    return {title: (told[title] or 0) == (sums[title] or 0) for title in COMPARED}


# ---------------------------------------------------------------- reading


def _all(connection: duckdb.DuckDBPyConnection, sql: str, values: Row | None = None) -> list[Row]:
    return as_dicts(connection.execute(sql, values or {}))


def _one(connection: duckdb.DuckDBPyConnection, sql: str, values: Row | None = None) -> Row | None:
    rows = _all(connection, sql, values)
    return rows[0] if rows else None
