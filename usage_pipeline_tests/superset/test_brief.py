"""The account brief, as those who may read contacts and those who may not; against the raw files."""

import html
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import pytest
from usage_superset.page_addresses import nearest

from usage_pipeline.operations.local import LocalError, run_in_superset
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.servers import SupersetServer
from usage_pipeline_tests.support.superset_client import log_in
from usage_pipeline_tests.support.visitors import Visitor

pytestmark = pytest.mark.superset


@pytest.fixture(scope="module")
def accounts(demo: Demo) -> pd.DataFrame:
    return pd.read_csv(demo.folder / "lake" / "accounts.csv")


@pytest.mark.long
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


@pytest.mark.long
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


def briefs(superset: SupersetServer, demo: Demo, *arguments: str) -> list[str]:
    """What the command says."""
    said: list[str] = []
    run_in_superset(demo.settings.home, superset.folder, "briefs", list(arguments), said.append)
    return said


@pytest.mark.long
def test_the_command_writes_a_file_and_a_pdf_for_each_account_of_a_list(
    superset: SupersetServer, demo: Demo, accounts: pd.DataFrame, tmp_path: Path
) -> None:
    wanted = accounts["account_name"].head(3).tolist()
    (tmp_path / "names.txt").write_text("\n".join(wanted[1:]) + "\n\n", encoding="utf-8")
    out = tmp_path / "briefs"
    said = briefs(
        superset, demo, "--as", "viewer", "--out", str(out), "--list", str(tmp_path / "names.txt"), "--", wanted[0]
    )
    assert [line.split(": ", 1)[1] for line in said] == wanted
    pages = {file.stem: file.read_text(encoding="utf-8") for file in out.glob("*.html")}
    assert len(pages) == 3
    for name, page in zip(wanted, (pages[Path(line.split(": ")[0]).stem] for line in said), strict=True):
        assert f"<h1>{html.escape(name)}</h1>" in page
        assert not re.search(r"(href|src)=", page), "a file leads nowhere and loads nothing"
        assert ".tiles" in page, "its styles are in it"
    for pdf in out.glob("*.pdf"):
        assert 1 <= pdf.read_bytes().count(b"/Type /Page\n") <= 2
    assert len(list(out.glob("*.pdf"))) == 3
    assert all(file.stat().st_mode & 0o077 == 0 for file in out.iterdir()), "others on the machine read none"


@pytest.mark.soak
def test_the_command_has_the_rights_of_the_person_that_it_is_for(
    superset: SupersetServer, demo: Demo, accounts: pd.DataFrame, tmp_path: Path
) -> None:
    contacts = pd.read_parquet(demo.folder / "lake" / "contacts.parquet").dropna(subset=["email"])
    account = accounts[accounts["account_id"].isin(contacts["account_id"])].iloc[0]
    emails = contacts[contacts["account_id"] == account["account_id"]]["email"]
    found = {}
    for who in ("viewer", "manager"):
        options = ["--as", who, "--out", str(tmp_path / who), "--contacts", "--no-pdf", "--csm", account["owner"]]
        written = len(briefs(superset, demo, *options))
        assert written == (accounts["owner"] == account["owner"]).sum()
        text = "".join(file.read_text(encoding="utf-8") for file in (tmp_path / who).iterdir())
        found[who] = any(html.escape(email) in text for email in emails)
    assert found == {"viewer": False, "manager": True}
    for wrong, words in {
        ("--as", "nobody at all"): "may not log in",
        ("--as", "viewer", "--csm", "Nobody"): "there is no CSM 'Nobody'",
        ("--as", "viewer", "--list", str(tmp_path / "none")): "cannot be read",
        ("--as", "viewer"): "name accounts",
        ("--as", "viewer", "--no-pdf", "--", account["account_name"][:-1]): f"did you mean {account['account_name']}",
    }.items():
        with pytest.raises(LocalError, match=re.escape(words)):
            briefs(superset, demo, "--out", str(tmp_path / "wrong"), *wrong)
