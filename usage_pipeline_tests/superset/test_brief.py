"""The account brief, as those who may read contacts and those who may not; against the raw files."""

import html
import re
from typing import Any
from urllib.parse import quote

import pandas as pd
import pytest
from usage_superset.page_addresses import nearest

from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.servers import SupersetServer
from usage_pipeline_tests.support.superset_client import log_in
from usage_pipeline_tests.support.visitors import Visitor

pytestmark = pytest.mark.superset


@pytest.fixture(scope="module")
def accounts(demo: Demo) -> pd.DataFrame:
    return pd.read_csv(demo.folder / "lake" / "accounts.csv")


def test_the_brief_says_what_the_files_say(visitors: dict[str, Visitor], demo: Demo, accounts: pd.DataFrame) -> None:
    rows = pd.read_csv(demo.folder / "lake" / "subscriptions.csv", parse_dates=["start_date", "end_date"])
    today = pd.Timestamp("2026-11-22")
    running = rows[(rows["start_date"] <= today) & (rows["end_date"].isna() | (rows["end_date"] >= today))]
    arr = running.groupby("account_id")["annual_value"].sum()
    names = pd.read_csv(demo.folder / "lake" / "applications.csv").set_index("application")["application_name"]
    for account in accounts.itertuples():
        if account.account_id not in arr.index or account.account_id in demo.truth["ended_accounts"]:
            continue
        page = visitors["viewer"].get(f"/brief/{quote(account.account_name, safe='')}")
        assert page.status_code == 200
        text = html.unescape(re.sub(r"<[^>]+>", " ", page.text))
        assert account.account_name in text and f"${arr[account.account_id]:,.0f}" in text
        of_account = running[(running["account_id"] == account.account_id) & running["application"].notna()]
        assert all(names[application] in text for application in of_account["application"])
        assert "polyline" in page.text
        break


def test_contacts_are_on_it_for_their_role_and_where_they_are_asked_for(
    visitors: dict[str, Visitor], demo: Demo, accounts: pd.DataFrame
) -> None:
    contacts = pd.read_parquet(demo.folder / "lake" / "contacts.parquet")
    account = accounts[accounts["account_id"].isin(contacts["account_id"])].iloc[0]
    emails = set(contacts[contacts["account_id"] == account["account_id"]]["email"].dropna())
    address = f"/brief/{quote(account['account_name'], safe='')}"

    def found(who: str, path: str) -> set[str]:
        page = visitors[who].get(path)
        assert page.headers["Cache-Control"] == "no-store"
        return {email for email in emails if html.escape(email) in page.text}

    assert found("manager", f"{address}?contacts=1")
    assert not found("manager", address)
    assert not found("viewer", f"{address}?contacts=1")
    assert not found("analyst", f"{address}?contacts=1")
    assert visitors["nobody"].get(address).url.split("?")[0].endswith("/login/")
    assert visitors["viewer"].get("/brief/Nobody%20at%20all").status_code == 404


@pytest.mark.long
def test_it_opens_from_the_account_and_prints_on_two_pages_at_most(
    superset: SupersetServer, browser: Any, accounts: pd.DataFrame
) -> None:
    page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
    log_in(page, superset, "viewer")
    page.goto(f"{superset.url}/account/{quote(accounts['account_name'].iloc[0], safe='')}")
    page.wait_for_selector("text=Account brief")
    page.wait_for_url(re.compile("native_filters_key"))
    page.wait_for_timeout(1500)
    page.click("a:has-text('Account brief')")
    page.wait_for_selector("text=Among its peers")
    assert accounts["account_name"].iloc[0] in page.inner_text("h1")
    pages = page.pdf(format="Letter").count(b"/Type /Page\n")
    assert 1 <= pages <= 2
    page.context.close()


@pytest.mark.parametrize(
    ("given", "meant"), [("town of elkdal", "Town of Elkdale"), ("ELKDALE", "Town of Elkdale"), ("Elkdale Town", None)]
)
def test_a_wrong_name_is_told_what_was_meant(given: str, meant: str | None) -> None:
    near = nearest(given, ["Town of Elkdale", "City of Sandport", "Elk County"])
    assert (near[0] == meant) if meant else True
    assert nearest("", ["A"]) == [] and len(nearest("a", [f"a{n}" for n in range(50)])) <= 5
