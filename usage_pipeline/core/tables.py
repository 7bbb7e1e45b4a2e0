"""The tables that pages read: their grain, key and columns; and the catalogue of what every figure means.

The asset checks, Dagster's metadata, the check of a build before it is shown, the Superset datasets and the help
tabs all take their columns and metrics from `catalogue.yaml`, and what they are called and mean from the texts
(`column.<name>`, `metric.<table>.<name>`). One name means one thing and has one type in every table.

Does not belong here: how a table is computed (`defs/*/sql/`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import duckdb
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from usage_pipeline.core.texts import slug, text, texts

CATALOGUE = Path(__file__).with_name("catalogue.yaml")
Aggregation = Literal["additive", "semi_additive", "non_additive"]
_NUMBERS = ("BIGINT", "DOUBLE", "INTEGER")


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    text_id: str
    title: str = Field(min_length=1)
    description: str = Field(min_length=1)


class Column(_Entry):
    """A column of a mart: DuckDB type, title on the pages, what it means (with its unit), and what its values mean.

    `text_id` is the section of its texts.
    """

    type: Literal["BIGINT", "BOOLEAN", "DOUBLE", "INTEGER", "TIMESTAMP", "VARCHAR"]
    aggregation: Aggregation | None = None
    words: dict[str, str] = {}

    @model_validator(mode="after")
    def _numbers_say_whether_they_add_up(self) -> "Column":
        if (self.aggregation is None) == (self.type in _NUMBERS):
            raise ValueError("aggregation belongs to every number, and to nothing else")
        return self


class Metric(_Entry):
    """A figure computed over rows of a table: DuckDB expression, d3 number format, and what its values mean where it is a
    word.
    """

    expression: str = Field(min_length=1)
    format: str = Field(min_length=1)
    aggregation: Aggregation
    words: dict[str, str] = {}


E = TypeVar("E", bound=_Entry)


class CatalogueError(ValueError):
    """catalogue.yaml does not hold what it should; the message names the entry, the field and the remedy."""


def read_catalogue(
    file: Path = CATALOGUE, told: Mapping[str, str] | None = None
) -> tuple[dict[str, Column], dict[str, dict[str, Metric]]]:
    """Columns by name, and metrics by table and name; `told`: texts by id, of the language in force where none are given.

    Raises CatalogueError.
    """
    # the parser in C: every start reads it
    content = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    told = texts() if told is None else told
    columns = {
        name: _entry(Column, name, f"column.{name}", entry, told, file) for name, entry in content["columns"].items()
    }
    metrics = {
        table: {
            name: _entry(Metric, name, f"metric.{table}.{name}", entry, told, file) for name, entry in entries.items()
        }
        for table, entries in content["metrics"].items()
    }
    return columns, metrics


def _entry(kind: type[E], name: str, text_id: str, entry: dict[str, Any], told: Mapping[str, str], file: Path) -> E:
    wanted = {"title": f"{text_id}.title", "description": f"{text_id}.description"}
    if misplaced := sorted(wanted.keys() & entry.keys()):
        raise CatalogueError(f"{file.name}: {name}: {misplaced[0]}: texts stand in usage_pipeline/texts; move it there")
    words = {word: f"{text_id}.word.{slug(word)}" for word in entry.get("words", [])}
    if missing := [key for key in [*wanted.values(), *words.values()] if key not in told]:
        raise CatalogueError(f"{file.name}: {name}: there is no text {missing[0]}; add it to usage_pipeline/texts")
    filled: dict[str, Any] = {key: told[found] for key, found in wanted.items()}
    if words:
        filled["words"] = {word: told[found] for word, found in words.items()}
    try:
        return kind(name=name, text_id=text_id, **entry | filled)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the entry"
        raise CatalogueError(f"{file.name}: {name}: {where}: {first['msg']}") from error


COLUMNS, METRICS = read_catalogue()
# what holds for every page, in the order in which it is said
NOTE_IDS = tuple(f"help.note.{note}" for note in ("weeks", "empty_cells", "filters", "downloads"))
NOTES = tuple(text(note) for note in NOTE_IDS)


@dataclass(frozen=True)
class Table:
    """A table that is published: schema, what a row is, its key, its columns in order."""

    name: str
    row: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    schema: str = "mart"
    may_be_empty: bool = True

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


def _table(name: str, row: str, key: str, columns: str, *, schema: str = "mart", may_be_empty: bool = True) -> Table:
    return Table(name, row, tuple(key.split()), tuple(COLUMNS[c] for c in columns.split()), schema, may_be_empty)


_KEYS = "account_id account application_key application application_type segment region owner"
_CALL_LIST = (
    "rank urgency urgency_rank account_id account segment region owner reason news new_reasons "
    "applications_at_risk applications_owned arr_at_risk annual_value renewal_date days_to_renewal "
    "last_used_on health health_color health_change call_reason reason_in_short usage_trend"
)

TABLES = {
    table.name: table
    for table in (
        _table(
            "build",
            "the build itself",
            "build_id",
            "build_id as_of newest_week data_through sentence",
            may_be_empty=False,
        ),
        _table(
            "usage_by_week",
            "account x application x week: subscribed (zero where nobody came), used outside it, or used a year ago",
            "week_start account_id application_key",
            f"week_start {_KEYS} subscribed_days clicks records_created active_users clicks_last_year records_last_year "
            "expected_clicks variance_clicks common_spread is_complete is_running week_status anomaly application_anomaly platform_anomaly",
            may_be_empty=False,
        ),
        _table(
            "user_weeks",
            "user x application x week of use",
            "week_start application user_key",
            "week_start account application application_type segment region owner user_key is_complete is_running",
        ),
        _table(
            "usage_by_period",
            "account x application x period of complete weeks",
            "period account_id application_key",
            f"period {_KEYS} is_subscribed weeks_subscribed weeks_used clicks records_created clicks_per_week "
            "active_users account_active_users is_used is_ranked rank_in_application",
        ),
        _table(
            "usage_changes",
            "account x subscribed application now and a year ago: its last 13 complete weeks against last year's",
            "account_id application_key",
            f"{_KEYS} weeks_compared clicks clicks_last_year clicks_change clicks_change_share records_created "
            "records_last_year records_change records_change_share movement",
        ),
        _table(
            "subscription_overview",
            "account x application that was ever subscribed or ever used",
            "account_id application_key",
            f"{_KEYS} subscription_state is_inferred period_number has_returned start_date notice_date end_date "
            "days_to_end renewal_date days_to_renewal seats annual_value usage_state usage_state_since weeks_in_state "
            "last_used_on recent_clicks usual_clicks trend_4_weeks trend_13_weeks trend_52_weeks rank_in_application "
            "came_back clicks_outside_subscription reason usage_trend",
        ),
        _table(
            "ended_subscriptions",
            "account x application whose subscription has ended",
            "account_id application_key",
            f"{_KEYS} start_date end_date end_reason what_ended last_used_on clicks_per_week_before_end "
            "clicks_outside_subscription annual_value",
        ),
        _table(
            "accounts_summary",
            "an account",
            "account_id",
            "account_id account segment region country state owner subscription_state is_subscription_known start_date "
            "notice_date end_date end_reason applications_owned applications_used applications_never_used "
            "applications_low applications_inactive applications_ended applications_notice active_users breadth depth "
            "seats annual_value renewal_date days_to_renewal last_used_on days_silent_before_end use_before_end is_in_reference "
            "contacts usage_trend",
            may_be_empty=False,
        ),
        _table(
            "subscription_users",
            "account x subscribed application (or all applications of the account)",
            "account_id application_key",
            f"{_KEYS} usage_state weekly_active_users monthly_active_users stickiness seats seat_utilization "
            "regular_users regular_users_lost top_user_share depends_on_one has_champion champion_is_silent "
            "champion_last_used_on users_going_on what_of_users annual_value",
        ),
        _table(
            "onboarding",
            "account x application (or the whole account, subscribed as such) x subscription that began on record",
            "account_id application_key period_number",
            f"{_KEYS} period_number start_date end_date weeks_subscribed onboarding_state first_used_on "
            "days_to_first_use steady_week weeks_to_steady_use peers peers_days_to_first_use "
            "peers_weeks_to_steady_use reason annual_value",
        ),
        _table(
            "peers",
            "account x subscribed application (or all applications of the account) x measure",
            "account_id application_key peer_measure",
            f"{_KEYS} peer_measure peer_value peer_group peers percentile group_median why_no_percentile",
        ),
        _table(
            "expansion",
            "finding x account x application (or the whole account)",
            "account_id application_key expansion_kind",
            f"{_KEYS} expansion_kind reason peers peers_share peers_annual_value seats monthly_active_users "
            "seat_utilization annual_value renewal_date",
        ),
        _table(
            "growth",
            "account x application (or all of them) x week or month x what changed",
            "unit counted_by period_start account_id application_key change",
            f"unit counted_by period_start {_KEYS} change number signed_number",
        ),
        _table(
            "retention",
            "account x application x subscription x whole subscribed month since its start",
            "account_id application_key period_number months_since_start",
            f"{_KEYS} period_number cohort months_since_start month_start is_used",
        ),
        _table(
            "anomaly_weeks",
            "an anomalous week lately, in words",
            "week_start scope account application_key",
            f"week_start scope {_KEYS} measure anomaly_type direction confidence anomaly_status first_week last_week is_event_row observed_per_week "
            "expected_per_week change_per_week change_share p_value strength cause what_happened",
        ),
        _table(
            "anomaly_rates",
            "a measure that anomalies are looked for in",
            "measure",
            "measure is_calibrated weeks_counted account_weeks weeks_listed listed_share what_is_listed",
        ),
        _table(
            "platform_events",
            "an event: what all accounts, or all accounts of an application, did together, shown by its strongest week",
            "week_start about",
            "week_start first_week last_week about measure anomaly_type direction confidence observed_per_week expected_per_week change_per_week "
            "change_share strength cause what_happened",
        ),
        _table(
            "usage_risks",
            "a risk: target x account x application (or all applications of the account)",
            "target account_id application_key",
            f"target risk {_KEYS} rank probability probability_text risk_lift driver positive_signal recent_clicks usual_clicks "
            "recent_of_usual annual_value value_at_risk renewal_date days_to_renewal listed_since method_in_force as_of_week",
        ),
        _table(
            "risk_methods",
            "a target, and the method in force for it",
            "target",
            "target risk definition method_in_force why horizon_days positives negatives lift lift_low lift_high has_signal "
            "base_rate learned_from learned_until version scored listed expected",
        ),
        _table(
            "risk_backtest",
            "target x back-test x measure",
            "target backtest contestant",
            "target risk backtest contestant in_force judged positives base_rate average_precision auc precision_at_20 "
            "recall_at_20 top_decile_lift brier calibration_error",
        ),
        _table(
            "calibration_deciles",
            "target x back-test x decile of the probabilities",
            "target backtest_number decile",
            "target risk backtest_number decile judged mean_probability observed_share share_low share_high",
        ),
        _table(
            "predictions_vs_outcomes",
            "target x week of as-of, as issued or in the back-test",
            "basis target as_of_week",
            "basis target risk as_of_week scored expected outcomes listed listed_outcomes",
        ),
        _table(
            "account_health",
            "account x application (or the account as a whole) subscribed in the newest week",
            "account_id application_key",
            f"{_KEYS} health health_color health_before health_change biggest_factor health_reason health_arithmetic "
            "factors_not_known",
        ),
        _table(
            "health_factor_points",
            "account x application (or the account as a whole) x factor of health that is known",
            "account_id application_key factor",
            f"{_KEYS} factor measured_text factor_score weight_share points points_missing",
        ),
        _table(
            "health_backtest",
            "accounts or applications x days ahead x week of the score (or all) x color",
            "unit days_ahead quarter health_color",
            "unit days_ahead quarter health_color subjects churned churn_rate churn_rate_lower churn_rate_upper "
            "red_to_green red_to_green_lower red_to_green_upper health_signal",
        ),
        _table(
            "call_reasons",
            "a reason to call: kind x account x application (or the account as a whole)",
            "account_id application_key call_reason",
            f"{_KEYS} call_reason reason reason_since news urgency urgency_rank annual_value",
        ),
        _table(
            "call_list",
            "a subscribed account that there is a reason to call",
            "account_id",
            _CALL_LIST,
        ),
        _table(
            "renewals",
            "account x renewal date of the days ahead",
            "account_id renewal_date",
            "account_id account segment region owner renewal_date renewal_week days_to_renewal applications_renewing renewing "
            "arr_renewing renewal_status health health_color renewal_priority reasons churn_probability",
        ),
        _table(
            "call_list_history",
            "week x account on the call list that was issued for it",
            "as_of_week account_id",
            "as_of_week rank urgency urgency_rank account_id account segment region owner reason call_reasons news "
            "new_reasons applications_at_risk arr_at_risk annual_value renewal_date health health_color issued_as_of",
        ),
        _table(
            "account_figures",
            "week (the newest complete one, and the one before as it was shown) x account",
            "as_of_week account_id",
            "as_of_week is_newest_week account_id account segment region owner applications_owned applications_used "
            "annual_value health seats_taken seats_known arr_renewing_soon",
        ),
        _table(
            "application_figures",
            "week (the newest complete one, and the one before as it was shown) x account x application that was "
            "subscribed",
            "as_of_week account_id application_key",
            f"as_of_week is_newest_week {_KEYS} subscription_state usage_state annual_value low_usage_risks "
            "churn_risks",
        ),
        _table(
            "subscription_history",
            "account x application (or the whole account) x subscription: every one that was delivered, ended ones too",
            "account_id application_key period_number",
            f"{_KEYS} period_number start_date notice_date end_date end_reason subscription_state renewal_date seats "
            "annual_value",
        ),
        _table(
            "revenue_movements",
            "account x application (or the whole account) x month that has ended x movement of ARR",
            "month_start account_id application_key arr_movement",
            f"month_start {_KEYS} arr_movement arr_change",
        ),
        _table(
            "revenue_retention",
            "account x application (or the whole account) x month that has ended: its ARR, and that 12 months before",
            "month_start account_id application_key",
            f"month_start {_KEYS} starting_arr arr_contraction arr_churned arr_expansion arr_reactivated arr_joined arr "
            "subscriptions subscriptions_with_value",
        ),
        _table(
            "kpi_report",
            "KPI x entity x period x reference month",
            "kpi entity_type entity_key kpi_period reference_month",
            "kpi kpi_rank kpi_group kpi_unit number_format entity_type entity_key entity entity_group kpi_period "
            "reference_month reference period_from period_to is_complete_period value value_year_ago value_before "
            "active_accounts per_active_account change_is is_big_change big_change kpi_trend",
        ),
        _table(
            "kpi_months",
            "KPI x entity x complete month",
            "kpi entity_type entity_key month_start",
            "kpi kpi_rank kpi_group kpi_unit entity_type entity_key entity_no entity entity_group month_start value",
        ),
        _table(
            "kpi_reported",
            "KPI x entity x period that ends with a closed month",
            "kpi entity_type entity_key kpi_period reference_month",
            "kpi kpi_rank kpi_group kpi_unit number_format entity_type entity_key entity entity_group kpi_period "
            "reference_month reference closed_at value_reported year_ago_reported value is_revised why_revised",
        ),
        _table(
            "account_contacts",
            "a person in an account",
            "account_id user_id",
            "account_id account segment region owner user_id name email phone role to_call last_used_on",
            schema="personal",
        ),
        _table(
            "call_status",
            "an account on the call list of the build that is shown, with what became of it",
            "account_id",
            f"{_CALL_LIST} call_status call_status_text outcome_at was_reached",
            schema="outcomes",
        ),
        _table(
            "call_figures",
            "week (that of the list now, and the one before as it was issued) x account",
            "as_of_week account_id",
            "as_of_week is_newest_week account_id account segment region owner urgency news arr_at_risk call_status",
            schema="outcomes",
        ),
        _table(
            "account_outcomes",
            "an outcome that was recorded, newest first",
            "outcome_id",
            "outcome_id account_id account owner recorded_at recorded_by reached outcome answered_reasons usefulness "
            "has_note",
            schema="outcomes",
        ),
        _table(
            "reason_usefulness",
            "a kind of reason that is on the list, or was answered",
            "call_reason",
            "call_reason reason_answers useful_answers useful_share useful_low useful_high is_moved_down reason_effect why_not_useful",
            schema="outcomes",
        ),
        _table(
            "csm_responses",
            "a CSM with accounts to call, or with outcomes",
            "owner",
            "owner calls_listed calls_answered answered_share days_to_answer",
            schema="responses",
        ),
        _table(
            "health",
            "the state of everything, in a sentence",
            "written_at",
            "status_color summary health_sentence data_through as_of build_id shown_since last_run_at run_result failure checks_failed "
            "checks_warning files_quarantined rows_rejected weeks_wrong written_at",
            schema="status",
            may_be_empty=False,
        ),
        _table(
            "sources",
            "a source, delivered or not",
            "source",
            "source delivery newest ingested_at age_days read_at rows_kept rows_left_out held_back",
            schema="status",
            may_be_empty=False,
        ),
        _table(
            "runs",
            "a run",
            "run",
            "run run_kind run_weeks run_result started_at ended_at duration failure",
            schema="status",
        ),
        _table(
            "checks",
            "the last result of a check",
            "asset statement",
            "check_rank check_result asset statement found checked_at run",
            schema="status",
        ),
        _table(
            "reconciled_weeks",
            "a week of facts: what became of every row and click of its files",
            "week_start",
            "week_start reconciled files files_quarantined rows_read rows_kept rows_rejected rows_duplicate clicks_in_files "
            "clicks_kept clicks_rejected clicks_duplicates clicks_difference clicks_by_date clicks_published "
            "published_difference ingested_at",
            schema="status",
        ),
        _table(
            "rejected_rows",
            "a week and a reason for which rows were rejected",
            "week_start rejected_because",
            "week_start rejected_because rows_rejected share_of_rows kept_in",
            schema="status",
        ),
        _table(
            "quarantined_files",
            "a file that could not be read",
            "week_start file",
            "week_start file quarantined_because",
            schema="status",
        ),
        _table(
            "unmatched_ids",
            "what is in use and no reference data knows",
            "unmatched_kind",
            "unmatched_kind unmatched share_of_clicks examples",
            schema="status",
        ),
        _table(
            "builds",
            "a build that is kept",
            "build_id",
            "build_id build_state shown_since data_through as_of build_made_at",
            schema="status",
        ),
    )
}

WAREHOUSE_TABLES = tuple(t for t in TABLES.values() if t.schema == "mart")
CONTACT_TABLES = tuple(t for t in TABLES.values() if t.schema == "personal")
# of the status file, which is written after every run and part of no build
STATUS_TABLES = tuple(t for t in TABLES.values() if t.schema == "status")
# of the file of outcomes, which is made anew after every answer; how CSMs answer is for their head alone
OUTCOME_TABLES = tuple(t for t in TABLES.values() if t.schema in ("outcomes", "responses"))


@dataclass(frozen=True)
class Broken:
    """A table that does not keep its schema: the sentence, and some of the rows that break it."""

    problem: str
    rows: list[dict[str, Any]]


def schema_violation(
    connection: duckdb.DuckDBPyConnection, table: Table, slices: tuple[str, list[str]] | None = None
) -> Broken | None:
    """Whether a table has the columns, types and unique key that it promises; None where it does.

    `slices`: a column of the key and those of its values whose rows are looked at, as text; None: all rows.
    """
    name = table.full_name
    try:
        found = {row[0]: row[1] for row in connection.execute(f"DESCRIBE {name}").fetchall()}
    except duckdb.CatalogException:
        return Broken(f"{name} does not exist", [])
    wanted = {column.name: column.type for column in table.columns}
    if found != wanted:
        missing = [f"{n} {t}" for n, t in wanted.items() if n not in found]
        extra = [n for n in found if n not in wanted]
        other = [f"{n} is {found[n]}, not {t}" for n, t in wanted.items() if n in found and found[n] != t]
        parts = [f"missing: {', '.join(missing)}"] * bool(missing)
        parts += [f"not in the catalogue: {', '.join(extra)}"] * bool(extra)
        parts += [", ".join(other)] * bool(other)
        return Broken(f"columns of {name} are not those of core/tables.py: {'; '.join(parts)}", [])
    key = ", ".join(table.key)
    by, values = slices or ("", [])
    assert not slices or not values or by in table.key, f"{name} is cut by {by}, which its key does not hold"
    looked_at = f"{by} IN (SELECT CAST(unnest($values) AS {wanted[by]}))" if values else str(slices is None).upper()
    twice = connection.execute(
        f"SELECT {key}, count(*) AS times FROM {name} WHERE {looked_at} GROUP BY {key} "
        f"HAVING count(*) > 1 OR {' OR '.join(f'{k} IS NULL' for k in table.key)} LIMIT 10",
        {"values": values} if values else {},
    )
    names = [d[0] for d in twice.description]
    rows = [dict(zip(names, map(str, row), strict=True)) for row in twice.fetchall()]
    if rows and table.schema == "personal":
        # what a check says is read by people who may not see contacts
        return Broken(f"the key of {name} ({key}) is not unique or has gaps", [])
    if rows:
        return Broken(f"the key of {name} ({key}) is not unique or has gaps, for example {rows[0]}", rows)
    count = connection.execute(f"SELECT count(*) FROM {name}").fetchone()
    if count and count[0] == 0 and not table.may_be_empty:
        return Broken(f"{name} is empty", [])
    return None
