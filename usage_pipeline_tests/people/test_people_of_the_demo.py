"""People, onboarding, peers and expansion of the demo: against its raw rows, and against what was planted."""

import duckdb
import pandas as pd
import pytest

from usage_pipeline_tests.support.demo_home import Demo

NEWEST = pd.Timestamp("2026-11-09")
KEYS = ["account_id", "application_key"]


def table(demo: Demo, name: str) -> pd.DataFrame:
    with duckdb.connect(str(demo.warehouse), read_only=True) as connection:
        return connection.execute(f"FROM mart.{name}").df()


@pytest.fixture(scope="module")
def users(demo: Demo) -> pd.DataFrame:
    found = table(demo, "subscription_users")
    return found[found["application_key"] != "all"].set_index(KEYS)


def test_users_seats_and_the_top_users_share_are_those_of_the_raw_rows(demo: Demo, users: pd.DataFrame) -> None:
    rows = demo.raw().rename(columns={"application": "application_key"})
    lately = rows[rows["week_start"].between(NEWEST - pd.Timedelta(weeks=3), NEWEST)]
    monthly = lately.groupby(KEYS)["user_id"].nunique().reindex(users.index).fillna(0)
    started = table(demo, "subscription_overview").set_index(KEYS)["start_date"].reindex(users.index)
    old = started < NEWEST - pd.Timedelta(weeks=13)
    assert old.sum() > 100
    assert (users["monthly_active_users"] == monthly)[old].all()
    quarter = rows[rows["week_start"].between(NEWEST - pd.Timedelta(weeks=12), NEWEST)]
    by_user = quarter.groupby([*KEYS, "user_id"])["clicks"].sum()
    share = (by_user.groupby(KEYS).max() / by_user.groupby(KEYS).sum()).reindex(users.index)
    pd.testing.assert_series_equal(users["top_user_share"][old], share[old], check_names=False)
    utilization = (users["monthly_active_users"] / users["seats"]).astype(float)
    pd.testing.assert_series_equal(users["seat_utilization"], utilization, check_names=False)


def test_seats_for_fewer_than_come_are_those_that_were_planted(demo: Demo, users: pd.DataFrame) -> None:
    planted = {(e["account_id"], e["application"]) for e in demo.truth["seats_overused"]}
    over = set(users.index[users["seat_utilization"] > 1])
    assert over and over <= planted
    used_up = table(demo, "expansion")
    used_up = used_up[used_up["expansion_kind"] == "seats used up"]
    new = set(users.index[users["usage_state"] == "new"])
    assert over - new <= set(used_up[KEYS].itertuples(index=False, name=None))


def test_champions_who_left_are_found_and_named_by_no_page(demo: Demo, users: pd.DataFrame) -> None:
    left = {(e["account_id"], e["application"]): e for e in demo.truth["champions_left"]}
    found = users[users["champion_is_silent"].astype(bool)]
    assert set(left) & set(found.index)
    for key in set(left) & set(found.index):
        assert found.loc[key, "champion_last_used_on"] < pd.Timestamp(left[key]["first_week"])
        assert found.loc[key, "users_going_on"] > 0
    published = " ".join(map(str, table(demo, "subscription_users").to_numpy().ravel()))
    assert not [e["user_id"] for e in left.values() if e["user_id"] in published]


def test_gaps_are_offered_to_nobody_who_has_it_and_sizes_make_the_groups(demo: Demo) -> None:
    gaps = table(demo, "expansion").query("expansion_kind == 'expansion gap'")
    overview = table(demo, "subscription_overview")
    has = overview[overview["subscription_state"].isin(["active subscription", "notice received"])]
    assert not set(gaps[KEYS].itertuples(index=False, name=None)) & set(has[KEYS].itertuples(index=False, name=None))
    assert table(demo, "peers")["peer_group"].dropna().str.contains("size").all()
