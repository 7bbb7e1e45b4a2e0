"""The call list: who is on it, why, how urgent and worth how much, against the tables read one row at a time."""

import re
from collections import defaultdict

import duckdb
import pandas as pd
import pytest

from usage_pipeline_tests.support.demo_home import Demo


@pytest.fixture(scope="module")
def warehouse(demo: Demo) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(str(demo.settings.home.warehouse_path), read_only=True)


@pytest.fixture(scope="module")
def calls(warehouse: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    return warehouse.execute("FROM mart.call_list ORDER BY rank").df()


@pytest.fixture(scope="module")
def reasons(warehouse: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    return warehouse.execute("FROM mart.call_reasons").df()


@pytest.fixture(scope="module")
def applications(warehouse: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    return warehouse.execute("FROM mart.subscription_overview").df()


AS_OF = pd.Timestamp("2026-11-22")
NEWEST = pd.Timestamp("2026-11-09")


def reasons_by_hand(demo: Demo, applications: pd.DataFrame) -> set[tuple[str, str, str]]:
    """What subscriptions and states alone give: notices as delivered, states as shown, renewals near."""
    found = set()
    for row in applications[
        applications["subscription_state"].isin(["active subscription", "notice received"])
    ].itertuples():
        account_application = (row.account_id, row.application_key)
        if row.subscription_state == "notice received":
            found.add((*account_application, "notice received"))
            continue
        words = {"inactive": "inactive", "low": "usage down", "never adopted": "never adopted"}
        if row.usage_state in words:
            found.add((*account_application, words[row.usage_state]))
        if pd.notna(row.renewal_date) and 0 <= (row.renewal_date - AS_OF).days <= 60:
            found.add((*account_application, "upcoming renewal"))
    return found


def test_every_notice_state_and_renewal_is_a_reason_and_nothing_else_of_the_kind(
    demo: Demo, reasons: pd.DataFrame, applications: pd.DataFrame
) -> None:
    kinds = ["notice received", "inactive", "usage down", "never adopted", "upcoming renewal"]
    of_kind = reasons[reasons["call_reason"].isin(kinds)]
    found = set(of_kind[["account_id", "application_key", "call_reason"]].itertuples(index=False, name=None))
    assert found == reasons_by_hand(demo, applications)
    assert {"notice received", "inactive", "never adopted", "upcoming renewal"} <= {kind for _, _, kind in found}


def test_no_state_stands_beside_a_day_of_use_that_it_denies(applications: pd.DataFrame) -> None:
    """'Never adopted' once stood beside a day of last use, and 'inactive' beside one of this week."""
    running = applications[applications["subscription_state"].isin(["active subscription", "notice received"])]
    never, silent = (running[running["usage_state"] == state] for state in ("never adopted", "inactive"))
    assert len(never) and len(silent)
    assert never["last_used_on"].isna().all()
    assert (silent["last_used_on"] < NEWEST - pd.Timedelta(weeks=3)).all()
    used = running.dropna(subset="last_used_on")
    assert (used["last_used_on"] >= used["start_date"]).all()


def test_notices_are_those_of_the_file_that_was_delivered(demo: Demo, reasons: pd.DataFrame) -> None:
    rows = pd.read_csv(demo.folder / "lake" / "subscriptions.csv", parse_dates=["notice_date", "end_date"])
    running = rows[rows["notice_date"].le(AS_OF) & ~rows["end_date"].lt(AS_OF) & rows["application"].notna()]
    found = reasons[reasons["call_reason"] == "notice received"]
    assert set(running["account_id"] + running["application"]) <= set(found["account_id"] + found["application_key"])
    days = dict(zip(running["account_id"] + running["application"], running["notice_date"], strict=True))
    for row in found.itertuples():
        if (day := days.get(row.account_id + row.application_key)) is not None:
            assert f"given on {day:%b %-d, %Y}" in row.reason
            assert row.reason_since == day
            assert row.news == ("new this week" if day >= NEWEST else "ongoing")


def test_what_has_ended_is_on_no_call_list(demo: Demo, calls: pd.DataFrame, reasons: pd.DataFrame) -> None:
    assert not set(calls["account_id"]) & set(demo.truth["ended_accounts"])
    cancelled = {
        (e["account_id"], e["application"]) for e in demo.truth["events"] if e["kind"] in ("cancelled", "completed")
    }
    named = set(reasons[["account_id", "application_key"]].itertuples(index=False, name=None))
    rows = pd.read_csv(demo.folder / "lake" / "subscriptions.csv", parse_dates=["end_date"])
    again = rows[~rows["end_date"].lt(AS_OF)]
    returned = set(again[["account_id", "application"]].itertuples(index=False, name=None))
    assert not (named & cancelled) - returned


def test_an_account_is_as_urgent_as_its_most_urgent_reason(calls: pd.DataFrame, reasons: pd.DataFrame) -> None:
    signs = reasons[reasons["call_reason"] != "upcoming renewal"]
    assert set(calls["account_id"]) == set(signs["account_id"])
    rank = reasons.groupby("account_id")["urgency_rank"].min()
    assert (calls.set_index("account_id")["urgency_rank"] == rank.reindex(calls["account_id"])).all()
    words = {1: "Urgent", 2: "This week", 3: "Watch"}
    assert (calls["urgency"] == calls["urgency_rank"].map(words)).all()
    new = (reasons["news"] == "new this week").groupby(reasons["account_id"]).any()
    assert ((calls.set_index("account_id")["news"] == "new this week") == new.reindex(calls["account_id"])).all()


def test_a_calm_renewal_is_no_call_and_stays_in_sight(calls: pd.DataFrame, reasons: pd.DataFrame) -> None:
    kinds = reasons.groupby("account_id")["call_reason"].agg(set)
    calm = set(kinds.index[kinds.map(lambda of_account: of_account == {"upcoming renewal"})])
    assert calm, "somebody renews and is well"
    assert not calm & set(calls["account_id"])
    assert set(reasons.loc[reasons["account_id"].isin(calm), "urgency"]) == {"Watch"}


def test_any_red_sign_is_urgent_where_the_account_renews_within_thirty_days(
    reasons: pd.DataFrame, applications: pd.DataFrame
) -> None:
    running = applications[applications["subscription_state"] == "active subscription"]
    days = (running["renewal_date"] - AS_OF).dt.days
    soon = running[days.between(0, 30)]
    deciding = set(soon["account_id"])
    assert set(reasons.loc[reasons["call_reason"] == "low health", "account_id"]) <= deciding
    renewing = set(soon[["account_id", "application_key"]].itertuples(index=False, name=None))
    red = reasons[~reasons["call_reason"].isin(["upcoming renewal", "low-usage risk", "one-person dependence"])]
    of_deciding = red[red["account_id"].isin(deciding)]
    assert len(of_deciding) and set(of_deciding["urgency"]) == {"Urgent"}
    # the renewal itself is urgent only where its own application, or the account as a whole, is in trouble
    troubled = set(red[["account_id", "application_key"]].itertuples(index=False, name=None))
    for row in reasons[reasons["call_reason"] == "upcoming renewal"].itertuples():
        own = (row.account_id, row.application_key)
        is_urgent = own in renewing and (own in troubled or (row.account_id, "all") in troubled)
        assert row.urgency == ("Urgent" if is_urgent else "Watch")


def test_arr_at_risk_is_that_of_the_reasons_of_the_accounts_own_priority(
    calls: pd.DataFrame, reasons: pd.DataFrame, applications: pd.DataFrame
) -> None:
    """Every reason's applications were added up once: 479,000 told where 146,600 were true."""
    owned = applications[applications["subscription_state"].isin(["active subscription", "notice received"])]
    signs = reasons[reasons["call_reason"] != "one-person dependence"]
    told_less = False
    for row in calls.itertuples():
        of_account = owned[owned["account_id"] == row.account_id]
        of_priority = signs[(signs["account_id"] == row.account_id) & (signs["urgency_rank"] == row.urgency_rank)]
        named = set(of_priority["application_key"])
        # that an application renews puts nothing at risk by itself
        others = signs[(signs["account_id"] == row.account_id) & (signs["call_reason"] != "upcoming renewal")]
        troubled = set(others["application_key"])
        named = named if "all" in troubled else named & troubled
        at_risk = of_account if "all" in named else of_account[of_account["application_key"].isin(named)]
        assert row.applications_at_risk == len(at_risk)
        value = at_risk["annual_value"].sum(min_count=1)
        assert row.arr_at_risk == pytest.approx(value) or (pd.isna(value) and pd.isna(row.arr_at_risk))
        told_less |= len(at_risk) < reasons.loc[reasons["account_id"] == row.account_id, "application_key"].nunique()
    assert told_less, "an account has reasons of several priorities"


def test_the_most_urgent_come_first_and_then_the_most_valuable_that_renew_soonest(calls: pd.DataFrame) -> None:
    assert list(calls["rank"]) == list(range(1, len(calls) + 1))
    ahead = calls["days_to_renewal"].fillna(180).clip(upper=180)
    order = calls.assign(weighted=-(calls["arr_at_risk"] * (2 - ahead / 180)).fillna(-1))[["urgency_rank", "weighted"]]
    assert order.round(6).equals(order.round(6).sort_values(["urgency_rank", "weighted"], kind="stable"))
    assert (ahead < 180).any()


def test_reasons_are_short_words_without_markup(calls: pd.DataFrame, reasons: pd.DataFrame) -> None:
    assert (calls["reason"].str.len() > 0).all() and calls["reason"].str.len().quantile(0.9) < 260
    for text in [*calls["reason"], *reasons["reason"]]:
        assert not re.search(r"<|None|nan|  |;\s*$", text), text


def test_the_date_of_the_next_renewal_stands_in_its_column_and_not_in_the_details(
    calls: pd.DataFrame, reasons: pd.DataFrame
) -> None:
    near = reasons[(reasons["call_reason"] == "upcoming renewal") & reasons["account_id"].isin(calls["account_id"])]
    dates = pd.to_datetime(near["reason"].str.removeprefix("renewal on "), format="%b %d, %Y")
    first = dates.groupby(near["account_id"]).min()
    assert len(first) and not calls["reason"].str.contains("renewal").any()
    shown = calls.set_index("account_id")["renewal_date"]
    assert all(shown[account] <= day for account, day in first.items())


def test_a_champion_who_left_is_a_reason_of_this_week_with_nobody_named(demo: Demo, reasons: pd.DataFrame) -> None:
    silent = reasons[reasons["call_reason"] == "champion silent"].set_index(["account_id", "application_key"])
    left = {(c["account_id"], c["application"]): c for c in demo.truth["champions_left"]}
    assert set(left) & set(silent.index), "one of those who left is found"
    for key, row in silent.iterrows():
        assert "-U0" not in row["reason"] and row["urgency"] in ("Urgent", "This week")
        if key in left:
            assert row["reason_since"] == pd.Timestamp(left[key]["first_week"])


def test_dependence_on_one_person_makes_no_call_by_itself(calls: pd.DataFrame, reasons: pd.DataFrame) -> None:
    depends = reasons[reasons["call_reason"] == "one-person dependence"]
    assert len(depends) and set(depends["urgency"]) == {"Watch"} and set(depends["news"]) == {"ongoing"}
    others = reasons[~reasons["call_reason"].isin(["one-person dependence", "upcoming renewal"])]
    assert set(depends["account_id"]) <= set(others["account_id"]) == set(calls["account_id"])
    keys = ["account_id", "application_key"]
    beside = reasons[reasons["call_reason"] != "one-person dependence"]
    assert set(depends[keys].itertuples(index=False, name=None)) <= set(beside[keys].itertuples(index=False, name=None))


def test_only_a_model_in_force_makes_a_call(warehouse: duckdb.DuckDBPyConnection, reasons: pd.DataFrame) -> None:
    """What a rule says, the drop and the state say already."""
    (by_rule,) = warehouse.execute("SELECT count(*) FROM mart.usage_risks WHERE method_in_force = 'rule'").fetchone()
    (by_model,) = warehouse.execute("SELECT count(*) FROM mart.usage_risks WHERE method_in_force = 'model'").fetchone()
    assert by_rule > 0, "the small demo gets the rule"
    assert reasons["call_reason"].str.startswith("likely").sum() == by_model


def test_renewals_are_those_of_the_file_that_was_delivered(
    demo: Demo, warehouse: duckdb.DuckDBPyConnection, reasons: pd.DataFrame
) -> None:
    shown = warehouse.execute("FROM mart.renewals").df()
    dates = ["start_date", "end_date", "notice_date", "renewal_date"]
    rows = pd.read_csv(demo.folder / "lake" / "subscriptions.csv", parse_dates=dates)
    expected: dict[tuple[str, pd.Timestamp], float] = defaultdict(float)
    apps: dict[tuple[str, pd.Timestamp], set[str]] = defaultdict(set)
    whole: set[tuple[str, pd.Timestamp]] = set()
    # the end of a whole account is the end of all of its applications
    gone = set(rows.loc[rows["application"].isna() & rows["end_date"].lt(AS_OF), "account_id"])
    for row in rows[~rows["account_id"].isin(gone)].itertuples():
        leaves = pd.notna(row.notice_date) and row.end_date < row.renewal_date
        runs = row.start_date <= AS_OF and not row.end_date < AS_OF and not leaves
        if runs and pd.notna(row.renewal_date) and 0 <= (row.renewal_date - AS_OF).days <= 180:
            expected[row.account_id, row.renewal_date] += 0 if pd.isna(row.annual_value) else row.annual_value
            apps[row.account_id, row.renewal_date] |= {row.application} if pd.notna(row.application) else set()
            whole |= {(row.account_id, row.renewal_date)} if pd.isna(row.application) else set()
    found = {(row.account_id, row.renewal_date): row for row in shown.itertuples()}
    assert found.keys() == expected.keys() and len(found) > 20
    signs = reasons[reasons["call_reason"] != "upcoming renewal"]
    for key, row in found.items():
        assert row.arr_renewing == pytest.approx(expected[key]) or (pd.isna(row.arr_renewing) and expected[key] == 0)
        assert row.applications_renewing == len(apps[key])
        assert row.days_to_renewal == (key[1] - AS_OF).days and row.renewal_week.dayofweek == 0
        of_account = signs[signs["account_id"] == key[0]]
        about = of_account[of_account["application_key"].isin(apps[key] | {"all"}) | (key in whole)]
        assert set(filter(None, row.reasons.split(", "))) == set(about["call_reason"])
        urgent = about["urgency_rank"].min()
        assert row.renewal_priority == {1: "Urgent", 2: "This week", 3: "Watch"}.get(urgent, "no reason to call")
        assert row.renewal_status in ("open", "notice received")


def test_the_list_is_on_record_as_it_was_issued(warehouse: duckdb.DuckDBPyConnection, calls: pd.DataFrame) -> None:
    issued = warehouse.execute("FROM mart.call_list_history ORDER BY rank").df()
    assert set(issued["as_of_week"]) == {NEWEST}
    for column in ("rank", "account_id", "urgency", "reason", "arr_at_risk", "health"):
        pd.testing.assert_series_equal(issued[column], calls[column], check_dtype=False)
    assert issued["call_reasons"].str.len().gt(0).all()
