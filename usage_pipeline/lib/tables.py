"""The tables that pages read: their grain, key and columns, written once.

The asset checks, Dagster's metadata, the check of a build before it is shown and the Superset datasets all take
their columns from here. One name means one thing and has one type in every table.

Does not belong here: how a table is computed (`defs/*/sql/`).
"""

from dataclasses import dataclass
from typing import Any

import duckdb


@dataclass(frozen=True)
class Column:
    """A column of a mart: DuckDB type, title on the pages, and what it means (with its unit)."""

    name: str
    type: str
    title: str
    description: str


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


def _catalogue(*columns: tuple[str, str, str, str]) -> dict[str, Column]:
    return {name: Column(name, kind, title, description) for name, kind, title, description in columns}


COLUMNS = _catalogue(
    ("about", "VARCHAR", "About", "Name of the application whose accounts it is about, or all applications"),
    ("account", "VARCHAR", "Account", "Name of the account; with its id where two share a name"),
    ("account_active_users", "BIGINT", "Active users of the account", "Different people of the account who used any application in the period; each counted once"),
    ("account_id", "VARCHAR", "Account id", "Key of the account"),
    ("account_page", "VARCHAR", "Page", "Link to the page of the account"),
    ("active_users", "BIGINT", "Active users", "Different people who used it; cannot be added up over weeks or applications"),
    ("against", "VARCHAR", "Against it", "The strongest number that makes the risk smaller, in words"),
    ("all_flag", "VARCHAR", "Flag of all", "What all accounts and applications did together in the week, where it is out of the ordinary"),
    ("annual_value", "DOUBLE", "Annual value", "Contract value a year, in US dollars"),
    ("application", "VARCHAR", "Application", "Name of the application"),
    ("application_flag", "VARCHAR", "Flag of the application", "What all accounts of the application did together in the week, where it is out of the ordinary"),
    ("application_key", "VARCHAR", "Application key", "Key of the application"),
    ("application_page", "VARCHAR", "Page", "Link to the page of the application"),
    ("application_type", "VARCHAR", "Application type", "Group of applications"),
    ("applications_concerned", "BIGINT", "Applications concerned", "Applications in contract that a reason is about; each counted once"),
    ("applications_ended", "BIGINT", "Ended", "Applications whose contract has ended"),
    ("applications_inactive", "BIGINT", "Inactive", "Applications in contract without use for four complete weeks or more"),
    ("applications_low", "BIGINT", "Low", "Applications in contract used far below their own usual"),
    ("applications_never_used", "BIGINT", "Never used", "Applications in contract without any use on record"),
    ("applications_notice", "BIGINT", "Notice given", "Applications in contract for which notice was given"),
    ("applications_owned", "BIGINT", "Applications owned", "Applications in contract on the day of as_of"),
    ("applications_used", "BIGINT", "Applications used", "Applications in contract used in the last four complete weeks"),
    ("as_of", "TIMESTAMP", "As of", "The moment the build looks at the data from"),
    ("as_of_week", "TIMESTAMP", "As of the week", "Monday of the week whose end the chance looks forward from"),
    ("auc", "DOUBLE", "AUC", "Chance that one to whom it happened was ranked above one to whom it did not; 50 % is chance"),
    ("average_precision", "DOUBLE", "Average precision", "Mean share of hits down the ranked list; the usual share is chance"),
    ("backtest", "VARCHAR", "Back-test", "Weeks of as-of that were tried, after learning from earlier ones only"),
    ("backtest_number", "BIGINT", "Back-test number", "1 is the oldest"),
    ("basis", "VARCHAR", "Basis", "as issued: said at the time; back-test: what would have been said"),
    ("breadth", "DOUBLE", "Breadth", "Applications used in the last four complete weeks as a share of those owned"),
    ("brier", "DOUBLE", "Brier score", "Mean squared distance of chance and outcome; smaller is better"),
    ("build_id", "VARCHAR", "Build", "Name of the build that the page shows"),
    ("calibration_error", "DOUBLE", "Calibration error", "Mean distance of chance and share that happened, over tenths; smaller is better"),
    ("call_reason", "VARCHAR", "Reason", "What kind of reason: notice, drop in use, state of use, risk, or renewal near"),
    ("came_back", "BOOLEAN", "Came back", "Used again within the last eight weeks, after being inactive"),
    ("cause", "VARCHAR", "Known cause", "What is known of it, from the file of known causes"),
    ("chance", "DOUBLE", "Chance", "Chance that it happens within the horizon; of a rule, the share of those it named in the past to whom it happened"),
    ("chance_in_words", "VARCHAR", "In words", "The chance as people say it"),
    ("chance_said", "DOUBLE", "Chance said", "Mean chance of the tenth"),
    ("change", "VARCHAR", "What changed", "new or back (used now, not the period before); lost to inactivity, lost to cancellation or completed (used the period before, not now)"),
    ("change_per_week", "DOUBLE", "Change, a week", "Observed less expected, a week"),
    ("change_share", "DOUBLE", "Change", "Change as a share of the usual level"),
    ("clicks", "BIGINT", "Clicks", "Clicks"),
    ("clicks_change", "BIGINT", "Change in clicks", "Clicks less those of the same weeks a year ago"),
    ("clicks_change_share", "DOUBLE", "Change in clicks, %", "Change in clicks as a share of last year's"),
    ("clicks_last_year", "BIGINT", "Clicks a year ago", "Clicks in the same ISO weeks a year ago; empty where that year is not on record"),
    ("clicks_outside_contract", "BIGINT", "Clicks outside the contract", "Clicks before a contract began or after it ended; they make nobody active"),
    ("clicks_per_week", "DOUBLE", "Clicks a week", "Clicks a complete week in contract"),
    ("clicks_per_week_before_end", "DOUBLE", "Clicks a week before the end", "Average clicks a week in the last 13 full weeks of the contract"),
    ("cohort", "VARCHAR", "Contract began in", "Quarter that the contract began in"),
    ("common_spread", "DOUBLE", "Common spread", "By what share all accounts err together in an ordinary week; one number, not to be added up"),
    ("contacts", "VARCHAR", "Contacts", "Link to the account's contacts, for those who may see them"),
    ("contestant", "VARCHAR", "Measure", "What ranks the risks: the models, the rule, or one simple number"),
    ("contract_days", "INTEGER", "Days in contract", "Days of the week that lie in the contract, 0 to 7"),
    ("contract_state", "VARCHAR", "Contract", "not started, in contract, notice given, ended, or no contract"),
    ("country", "VARCHAR", "Country", "ISO country code"),
    ("data_through", "TIMESTAMP", "Data through", "Sunday of the newest complete week"),
    ("days_silent_before_end", "BIGINT", "Silent before the end, days", "Days from the last use in contract to the last day of the contract, of whole accounts that ended"),
    ("days_to_renewal", "BIGINT", "Days to renewal", "Days from as_of to the next renewal"),
    ("definition", "VARCHAR", "What counts", "What is predicted, of whom, and within what time"),
    ("depth", "DOUBLE", "Depth", "Clicks a week for each active user, over the last four complete weeks"),
    ("direction", "VARCHAR", "Direction", "up or down"),
    ("email", "VARCHAR", "E-mail", "E-mail address"),
    ("end_date", "TIMESTAMP", "Ended on", "Last day in contract"),
    ("end_reason", "VARCHAR", "Why it ended", "cancelled or completed, as delivered"),
    ("events", "BIGINT", "Events", "To how many it happened; the same one counts in each week of as-of whose horizon holds it"),
    ("expected", "DOUBLE", "Expected", "Sum of the chances: how many it should happen to"),
    ("expected_clicks", "DOUBLE", "Expected clicks", "Clicks that the own level, the season of the application and the working days let expect, before the week was known"),
    ("expected_per_week", "DOUBLE", "Expected, a week", "What its own level, the application's accounts together and the working days let expect, a week"),
    ("first_week", "TIMESTAMP", "Since", "Monday of the week in which it began"),
    ("flag", "VARCHAR", "Flag", "What is out of the ordinary in the week: spike, drop-off, shift, decline"),
    ("flag_kind", "VARCHAR", "What", "spike, drop-off, new level, slow decline, or fewer users with as many records"),
    ("flag_state", "VARCHAR", "State", "new in the newest week, ongoing, or ended"),
    ("happened", "BIGINT", "Happened", "To how many it happened within the horizon"),
    ("has_returned", "BOOLEAN", "Returned", "In contract again after an earlier contract had ended"),
    ("horizon_days", "BIGINT", "Horizon, days", "Days looked forward"),
    ("in_force", "VARCHAR", "In force", "Marks the method that is used now"),
    ("is_complete", "BOOLEAN", "Complete week", "The week has ended and settled, and its data arrived whole"),
    ("is_contract_known", "BOOLEAN", "Contract known", "Subscriptions were delivered for the account"),
    ("is_in_contract", "BOOLEAN", "In contract", "In contract on the day of as_of"),
    ("is_in_reference", "BOOLEAN", "Known account", "The account stands in the accounts delivered"),
    ("is_inferred", "BOOLEAN", "Contract inferred", "No contract was delivered for this application; inferred from the account's, or from use"),
    ("is_new_reason", "BOOLEAN", "New reason", "It was not so a week ago"),
    ("is_ranked", "BOOLEAN", "Ranked", "In contract now, and with enough clicks in the period to be ranked"),
    ("is_running", "BOOLEAN", "Running week", "The week has not ended yet"),
    ("is_used", "BOOLEAN", "Used", "Used at least once in the period"),
    ("judged", "BIGINT", "Judged", "Chances given in the weeks of the back-test"),
    ("last_used_on", "TIMESTAMP", "Last used on", "Last day with any use"),
    ("last_week", "TIMESTAMP", "Until", "Monday of the last week in which it was seen"),
    ("learned_from", "TIMESTAMP", "Learned from", "First week of as-of that was learned from"),
    ("learned_until", "TIMESTAMP", "Learned until", "Last week of as-of whose outcome was known"),
    ("lift_of_top_tenth", "DOUBLE", "Lift of the top tenth", "How many times more often it happened in the riskiest tenth than in all"),
    ("listed", "BIGINT", "Listed", "How many risks were listed to look at"),
    ("listed_happened", "BIGINT", "Listed and happened", "To how many of the listed it happened"),
    ("listed_since", "TIMESTAMP", "Listed since", "Monday of the first week since which it has been listed without a break"),
    ("measure", "VARCHAR", "Measure", "What was counted: clicks, records or users"),
    ("method_in_force", "VARCHAR", "Method", "model, with its kind, or rule"),
    ("month_start", "TIMESTAMP", "Month", "First day of the calendar month"),
    ("months_since_start", "INTEGER", "Months since the start", "Calendar months since the contract began; whole months in contract only"),
    ("movement", "VARCHAR", "Movement", "riser, faller or steady: a change counts only above a relative and an absolute floor"),
    ("name", "VARCHAR", "Name", "Name of the person"),
    ("new_reasons", "VARCHAR", "What is new", "The reasons that were not there a week ago"),
    ("new_since_last_week", "VARCHAR", "New", "new where a reason was not there a week ago"),
    ("newest_week", "TIMESTAMP", "Newest complete week", "Monday of the newest complete week"),
    ("notice_date", "TIMESTAMP", "Notice given on", "Day that notice was given"),
    ("number", "BIGINT", "Number", "How many applications of accounts, accounts or users"),
    ("observed_per_week", "DOUBLE", "Observed, a week", "What came, a week, over the weeks that the flag is about"),
    ("others", "BIGINT", "Without an event", "Accounts or applications on record to which it never happened"),
    ("owner", "VARCHAR", "Owner", "Who looks after the account"),
    ("period", "VARCHAR", "Period", "Complete weeks up to the newest one; periods overlap and are never added up"),
    ("period_start", "TIMESTAMP", "Week or month", "First day of the week or month; only complete ones, each compared with the complete one before"),
    ("phone", "VARCHAR", "Phone", "Telephone number"),
    ("place", "BIGINT", "Place", "1 comes first: of the call list the most urgent, of a kind of risk the most value at risk"),
    ("precision_at_20", "DOUBLE", "Hits in the top 20", "Share of the 20 highest risks of a week to whom it happened"),
    ("probability", "DOUBLE", "Probability", "How likely as much or more would be if nothing had happened"),
    ("rank_in_application", "BIGINT", "Rank in application", "Rank by clicks a week among the accounts in contract for the application"),
    ("reason", "VARCHAR", "Why", "Up to three strongest reasons in words, with the account's own numbers"),
    ("reason_since", "TIMESTAMP", "Since", "Day since which the reason holds"),
    ("recall_at_20", "DOUBLE", "Found in the top 20", "Share of all to whom it happened that was among the 20 highest"),
    ("recent_clicks", "DOUBLE", "Recent clicks a week", "Average clicks a week in the last four complete weeks"),
    ("recent_of_usual", "VARCHAR", "Clicks a week, recent of usual", "Average clicks a week in the last four complete weeks, and in the last 26"),
    ("records_change", "BIGINT", "Change in records", "Records created less those of the same weeks a year ago"),
    ("records_change_share", "DOUBLE", "Change in records, %", "Change in records created as a share of last year's"),
    ("records_created", "BIGINT", "Records created", "Records created; empty where the source does not deliver them"),
    ("records_last_year", "BIGINT", "Records a year ago", "Records created in the same ISO weeks a year ago"),
    ("region", "VARCHAR", "Region", "Region of the account"),
    ("renewal_date", "TIMESTAMP", "Renewal", "Next renewal"),
    ("risk", "VARCHAR", "Risk", "What may happen, and within what time"),
    ("role", "VARCHAR", "Role", "Role of the person in the account"),
    ("scope", "VARCHAR", "Scope", "account: one account's application; application: all its accounts together"),
    ("scored", "BIGINT", "Scored", "Accounts or applications that were given a chance"),
    ("seats", "BIGINT", "Seats", "Seats sold"),
    ("segment", "VARCHAR", "Segment", "Kind of account"),
    ("sentence", "VARCHAR", "About this page", "What the page shows, through which week, as of which build"),
    ("share_happened", "DOUBLE", "Share that happened", "Share of the tenth to whom it happened"),
    ("share_high", "DOUBLE", "Share, at most", "Upper end of the 95 % interval of the share that happened"),
    ("share_low", "DOUBLE", "Share, at least", "Lower end of the 95 % interval of the share that happened"),
    ("signed_number", "BIGINT", "Number, lost below zero", "Number, with what was lost counted downwards"),
    ("spell_number", "INTEGER", "Contract number", "1 for the first contract of the application, 2 or more where it returned"),
    ("start_date", "TIMESTAMP", "In contract since", "First day in contract"),
    ("state", "VARCHAR", "State", "State or province code"),
    ("strength", "DOUBLE", "Strength", "Distance to what was expected, in standard deviations"),
    ("target", "VARCHAR", "Target", "low use, cancellation, or loss of the account"),
    ("tenth", "BIGINT", "Tenth", "1 holds the smallest chances, 10 the highest"),
    ("tier", "VARCHAR", "Tier", "strong: one in ten such flags of a week is false; listed: one series in a hundred; expected: a cause is known"),
    ("times_usual", "DOUBLE", "Times the usual", "Chance as a multiple of the mean chance of the week"),
    ("to_call", "VARCHAR", "To call", "Marks the first person to call"),
    ("trend_13_weeks", "DOUBLE", "Trend, 13 weeks", "Clicks a week of the last 13 full weeks against the 13 before"),
    ("trend_4_weeks", "DOUBLE", "Trend, 4 weeks", "Clicks a week of the last 4 full weeks against the 4 before; empty where those had too few"),
    ("trend_52_weeks", "DOUBLE", "Trend, 52 weeks", "Clicks a week of the last 52 full weeks against the 52 before"),
    ("unit", "VARCHAR", "What is counted", "application of an account, account, or user"),
    ("urgency", "VARCHAR", "Urgency", "call now, call soon, or keep in mind: what is new and certain comes first, and what renews soon moves up"),
    ("urgency_rank", "BIGINT", "Urgency, as a number", "1 call now, 2 call soon, 3 keep in mind"),
    ("usage_state", "VARCHAR", "Use", "never used, new, active, low or inactive; empty outside a contract"),
    ("usage_state_since", "TIMESTAMP", "Since", "Monday of the week since which this has been so"),
    ("use_before_end", "VARCHAR", "Use before the end", "When a whole account that ended was last used, and whether it was used afterwards"),
    ("user_id", "VARCHAR", "User id", "Key of the person"),
    ("user_key", "BIGINT", "User", "Opaque key of a person, good only for counting different people"),
    ("usual_clicks", "DOUBLE", "Usual clicks a week", "Median clicks a week of the weeks before"),
    ("usual_share", "DOUBLE", "Usual share", "Share of all to whom it happened"),
    ("value_at_risk", "DOUBLE", "Value at risk", "Chance x annual value, in US dollars"),
    ("value_concerned", "DOUBLE", "Value concerned", "Annual value of the applications concerned, in US dollars"),
    ("variance_clicks", "DOUBLE", "Variance of clicks", "Variance of the expected clicks; adds up over accounts, approximately"),
    ("version", "VARCHAR", "Version", "Month that the method was learned in, and what it depends on"),
    ("week_start", "TIMESTAMP", "Week", "Monday of the ISO week"),
    ("week_status", "VARCHAR", "State of the week", "complete, running, or why it does not count"),
    ("weeks_compared", "BIGINT", "Weeks compared", "Weeks in contract both now and a year ago, of the last 13"),
    ("weeks_in_contract", "BIGINT", "Weeks in contract", "Complete weeks of the period with seven days in contract"),
    ("weeks_in_state", "INTEGER", "Weeks so", "Number of complete weeks it has been so"),
    ("weeks_used", "BIGINT", "Weeks used", "Weeks in contract in which somebody came"),
    ("what_ended", "VARCHAR", "What ended", "whole account, or this application only"),
    ("what_happened", "VARCHAR", "What happened", "The flagged week in words"),
    ("why", "VARCHAR", "Why this method", "Which method is in force, and why, in words"),
)  # fmt: skip


def _table(name: str, row: str, key: str, columns: str, *, schema: str = "mart", may_be_empty: bool = True) -> Table:
    return Table(name, row, tuple(key.split()), tuple(COLUMNS[c] for c in columns.split()), schema, may_be_empty)


_PAIR = "account_id account application_key application application_type segment region owner"

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
            "account x application x week: in contract (zero where nobody came), used outside it, or used a year ago",
            "week_start account_id application_key",
            f"week_start {_PAIR} contract_days clicks records_created active_users clicks_last_year records_last_year "
            "expected_clicks variance_clicks common_spread is_complete is_running week_status flag application_flag all_flag",
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
            f"period {_PAIR} is_in_contract weeks_in_contract weeks_used clicks records_created clicks_per_week "
            "active_users account_active_users is_used is_ranked rank_in_application account_page application_page contacts",
        ),
        _table(
            "usage_changes",
            "account x application in contract now and a year ago: its last 13 complete weeks against last year's",
            "account_id application_key",
            f"{_PAIR} weeks_compared clicks clicks_last_year clicks_change clicks_change_share records_created "
            "records_last_year records_change records_change_share movement account_page contacts",
        ),
        _table(
            "account_applications",
            "account x application that was ever in contract or ever used",
            "account_id application_key",
            f"{_PAIR} contract_state is_inferred spell_number has_returned start_date notice_date end_date "
            "renewal_date days_to_renewal seats annual_value usage_state usage_state_since weeks_in_state "
            "last_used_on recent_clicks usual_clicks trend_4_weeks trend_13_weeks trend_52_weeks rank_in_application "
            "came_back clicks_outside_contract reason account_page application_page contacts",
        ),
        _table(
            "ended_contracts",
            "account x application whose contract has ended",
            "account_id application_key",
            f"{_PAIR} start_date end_date end_reason what_ended last_used_on clicks_per_week_before_end "
            "clicks_outside_contract annual_value account_page",
        ),
        _table(
            "accounts_summary",
            "an account",
            "account_id",
            "account_id account segment region country state owner contract_state is_contract_known start_date "
            "notice_date end_date end_reason applications_owned applications_used applications_never_used "
            "applications_low applications_inactive applications_ended applications_notice active_users breadth depth "
            "annual_value renewal_date days_to_renewal last_used_on days_silent_before_end use_before_end is_in_reference "
            "account_page contacts",
            may_be_empty=False,
        ),
        _table(
            "growth",
            "account x application (or all of them) x week or month x what changed",
            "unit period period_start account_id application_key change",
            f"unit period period_start {_PAIR} change number signed_number",
        ),
        _table(
            "retention",
            "account x application x contract x whole month in contract since its start",
            "account_id application_key spell_number months_since_start",
            f"{_PAIR} spell_number cohort months_since_start month_start is_used",
        ),
        _table(
            "flagged_weeks",
            "a flagged week lately, in words",
            "week_start scope account application_key",
            f"week_start scope {_PAIR} measure flag_kind direction tier flag_state first_week last_week observed_per_week "
            "expected_per_week change_per_week change_share probability strength cause what_happened account_page",
        ),
        _table(
            "fleet_events",
            "a week in which all accounts, or all accounts of an application, did something together",
            "week_start about",
            "week_start about measure flag_kind direction tier observed_per_week expected_per_week change_per_week "
            "change_share strength cause what_happened",
        ),
        _table(
            "usage_risks",
            "a risk: target x account x application (or all applications of the account)",
            "target account_id application_key",
            f"target risk {_PAIR} place chance chance_in_words times_usual reason against recent_clicks usual_clicks "
            "recent_of_usual annual_value value_at_risk renewal_date days_to_renewal listed_since method_in_force as_of_week "
            "account_page contacts",
        ),
        _table(
            "risk_methods",
            "a target, and the method in force for it",
            "target",
            "target risk definition method_in_force why horizon_days events others usual_share learned_from learned_until "
            "version scored listed expected",
        ),
        _table(
            "risk_backtest",
            "target x back-test x measure",
            "target backtest contestant",
            "target risk backtest contestant in_force judged events usual_share average_precision auc precision_at_20 "
            "recall_at_20 lift_of_top_tenth brier calibration_error",
        ),
        _table(
            "risk_tenths",
            "target x back-test x tenth of the chances",
            "target backtest_number tenth",
            "target risk backtest_number tenth judged chance_said share_happened share_low share_high",
        ),
        _table(
            "said_and_happened",
            "target x week of as-of, as issued or in the back-test",
            "basis target as_of_week",
            "basis target risk as_of_week scored expected happened listed listed_happened",
        ),
        _table(
            "call_reasons",
            "a reason to call: kind x account x application (or the account as a whole)",
            "account_id application_key call_reason",
            f"{_PAIR} call_reason reason reason_since is_new_reason urgency_rank annual_value",
        ),
        _table(
            "call_list",
            "an account in contract that there is a reason to call",
            "account_id",
            "place urgency urgency_rank account_id account segment region owner reason new_since_last_week new_reasons "
            "applications_concerned applications_owned value_concerned annual_value renewal_date days_to_renewal "
            "last_used_on account_page contacts",
        ),
        _table(
            "contract_history",
            "account x application x contract: every contract that was delivered, ended ones too",
            "account_id application_key spell_number",
            f"{_PAIR} spell_number start_date notice_date end_date end_reason contract_state renewal_date seats "
            "annual_value",
        ),
        _table(
            "account_contacts",
            "a person in an account",
            "account_id user_id",
            "account_id account segment region owner user_id name email phone role to_call last_used_on",
            schema="personal",
        ),
    )
}

WAREHOUSE_TABLES = tuple(t for t in TABLES.values() if t.schema == "mart")
CONTACT_TABLES = tuple(t for t in TABLES.values() if t.schema == "personal")


@dataclass(frozen=True)
class Broken:
    """A table that does not keep its contract: the sentence, and some of the rows that break it."""

    problem: str
    rows: list[dict[str, Any]]


def broken_contract(connection: duckdb.DuckDBPyConnection, table: Table) -> Broken | None:
    """Whether a table has the columns, types and unique key that it promises; None where it does."""
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
        return Broken(f"columns of {name} are not those of lib/tables.py: {'; '.join(parts)}", [])
    key = ", ".join(table.key)
    twice = connection.execute(
        f"SELECT {key}, count(*) AS times FROM {name} GROUP BY {key} "
        f"HAVING count(*) > 1 OR {' OR '.join(f'{k} IS NULL' for k in table.key)} LIMIT 10"
    )
    names = [d[0] for d in twice.description]
    rows = [dict(zip(names, map(str, row), strict=True)) for row in twice.fetchall()]
    if rows:
        return Broken(f"the key of {name} ({key}) is not unique or has gaps, for example {rows[0]}", rows)
    count = connection.execute(f"SELECT count(*) FROM {name}").fetchone()
    if count and count[0] == 0 and not table.may_be_empty:
        return Broken(f"{name} is empty", [])
    return None
