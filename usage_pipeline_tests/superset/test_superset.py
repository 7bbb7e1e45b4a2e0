"""Superset for real: set-up twice, every page in a browser as a viewer, numbers against pandas, nobody sees contacts."""

import contextlib
import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlparse

import duckdb
import openpyxl
import pandas as pd
import pytest
import requests
from playwright.sync_api import TimeoutError as TooLate
from usage_superset.chart_queries import payload
from usage_superset.page_addresses import PAGES, address_of

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.operations.local import SUPERSET, LocalError, set_up_superset
from usage_pipeline.pages.dashboards import STATE_CHART
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.servers import SupersetServer, copy_superset
from usage_pipeline_tests.support.superset_client import (
    CHARTS,
    PERIOD,
    Client,
    charts_of,
    data_of,
    first_account,
    log_in,
    logged_in,
    open_dashboard,
    open_path,
    path_to,
    some_of_the_pages,
    wait_until_drawn,
)
from usage_pipeline_tests.support.visitors import Visitor

pytestmark = pytest.mark.superset

PERIOD_END = pd.Timestamp("2026-11-15")
LAST_4 = [pd.Timestamp("2026-10-19") + pd.Timedelta(days=7 * n) for n in range(4)]


@pytest.fixture(scope="module")
def viewer(superset: SupersetServer) -> Client:
    return Client(superset, "viewer")


@pytest.fixture(scope="module")
def admin(superset: SupersetServer) -> Client:
    return Client(superset, "admin")


# ---------------------------------------------------------------- set-up


def metadata_of(server: SupersetServer) -> dict[str, Any]:
    """Everything that set-up manages, as it lies in Superset's metadata, without the times of change."""
    connection = sqlite3.connect(server.folder / "superset" / "superset.db")
    queries = {
        "dashboards": "SELECT id, uuid, slug, position_json, json_metadata, published FROM dashboards ORDER BY id",
        "charts": "SELECT id, uuid, slice_name, viz_type, params FROM slices ORDER BY id",
        "datasets": "SELECT id, uuid, table_name, schema FROM tables ORDER BY id",
        "columns": "SELECT table_id, column_name, verbose_name, type FROM table_columns ORDER BY 1, 2",
        "metrics": "SELECT table_id, metric_name, expression FROM sql_metrics ORDER BY 1, 2",
        "databases": "SELECT id, uuid, database_name, allow_dml, allow_file_upload, allow_ctas, allow_cvas FROM dbs",
        "rights": "SELECT role_id, permission_view_id FROM ab_permission_view_role ORDER BY 1, 2",
        "people": "SELECT id, username FROM ab_user ORDER BY id",
    }
    found = {name: connection.execute(sql).fetchall() for name, sql in queries.items()}
    connection.close()
    return found


@pytest.mark.long
def test_setting_up_twice_gives_no_difference(superset: SupersetServer, demo: Demo) -> None:
    before = metadata_of(superset)
    lines: list[str] = []
    set_up_superset(demo.settings.home, superset.folder, only_if_changed=False, say=lines.append)
    assert metadata_of(superset) == before
    assert any(line.startswith(f"{len(CHARTS)} of {len(CHARTS)} charts answer") for line in lines)


@pytest.mark.long
def test_what_the_tree_does_not_hold_is_taken_away_again(superset: SupersetServer, demo: Demo) -> None:
    before = metadata_of(superset)
    # written at once or not at all: a lock left behind would stop the server
    connection = sqlite3.connect(superset.folder / "superset" / "superset.db", isolation_level=None)
    viewer_role = connection.execute("SELECT id FROM ab_role WHERE name = 'Usage viewer'").fetchone()[0]
    extra = connection.execute(
        "SELECT id FROM ab_permission_view WHERE id NOT IN "
        "(SELECT permission_view_id FROM ab_permission_view_role WHERE role_id = ?) LIMIT 1",
        [viewer_role],
    ).fetchone()[0]
    connection.execute(
        "INSERT INTO ab_permission_view_role (permission_view_id, role_id) VALUES (?, ?)", [extra, viewer_role]
    )
    connection.execute(
        "INSERT INTO slices (slice_name, viz_type, params, is_managed_externally, uuid, created_on, changed_on) "
        "VALUES ('old chart', 'table', '{}', 1, randomblob(16), current_timestamp, current_timestamp)"
    )
    connection.execute(
        "INSERT INTO slices (slice_name, viz_type, params, is_managed_externally, uuid, created_on, changed_on) "
        "VALUES ('somebody''s own chart', 'table', '{}', 0, randomblob(16), current_timestamp, current_timestamp)"
    )
    connection.close()
    set_up_superset(demo.settings.home, superset.folder, only_if_changed=False, say=print)
    after = metadata_of(superset)
    assert sorted(r[1:] for r in after["rights"]) == sorted(r[1:] for r in before["rights"])
    names = {row[2] for row in after["charts"]}
    assert "old chart" not in names
    assert "somebody's own chart" in names, "what people made themselves stays"


@pytest.mark.soak
def test_charts_that_are_newer_than_the_build_keep_no_deployment_from_its_pages(
    superset: SupersetServer, demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USAGE_SUPERSET_ASSETS", str(tmp_path / "assets"))
    for kind in ("databases", "datasets"):
        shutil.copytree(SUPERSET / "assets" / kind, tmp_path / "assets" / kind)
    (tmp_path / "assets" / "charts").mkdir()
    for chart in ("retention_by_cohort.yaml", "users_per_week.yaml"):
        shutil.copy(SUPERSET / "assets" / "charts" / chart, tmp_path / "assets" / "charts")
    copy_superset(superset.folder, tmp_path / "run")
    settings = demo.settings.model_copy(update={"home": DataHome(tmp_path / "home")})
    shutil.copytree(
        demo.settings.home.status_path.parent.parent, settings.home.status_path.parent.parent, symlinks=True
    )
    build = settings.home.published_dir / "current"
    shutil.copytree(demo.settings.home.published_dir / "current", build)
    (build / "warehouse.duckdb").chmod(0o600)
    with duckdb.connect(str(build / "warehouse.duckdb")) as connection:
        connection.execute("DROP TABLE mart.retention")
    for name, value in {
        "PRODUCTION": "1",
        "HTTPS": "0",
        "PROXY_COUNT": "0",
        "ALLOWED_HOSTS": "x",
        "ALLOW_SQLITE": "1",
    }.items():
        monkeypatch.setenv(f"USAGE_{name}", value)
    lines: list[str] = []
    set_up_superset(settings.home, tmp_path / "run", only_if_changed=False, say=lines.append)
    assert lines[-1] == "where a chart is newer than the build, it works after the next refresh"
    (tmp_path / "assets" / "charts" / "users_per_week.yaml").unlink()
    with pytest.raises(LocalError, match="0 of 1 charts answer"):
        set_up_superset(settings.home, tmp_path / "run", only_if_changed=False, say=print)


def test_databases_allow_no_writing(superset: SupersetServer) -> None:
    assert {row[3:] for row in metadata_of(superset)["databases"]} == {(0, 0, 0, 0)}


# ---------------------------------------------------------------- numbers


def subscribed_weeks(demo: Demo) -> pd.DataFrame:
    """Pairs and weeks of the last four in full subscription, worked out by hand from the subscriptions as delivered."""
    lake = demo.folder / "lake"
    rows = pd.read_csv(lake / "subscriptions.csv", parse_dates=["start_date", "end_date"])
    rows["end_date"] = rows["end_date"].fillna(pd.Timestamp("2100-01-01"))
    whole = rows[rows["application"].isna()].set_index("account_id")
    single = rows[rows["application"].notna()].sort_values(["account_id", "application", "start_date"])
    # a renewal begins on the day after: both rows are one subscription
    begins = single["start_date"] != single.groupby(["account_id", "application"])["end_date"].shift() + pd.Timedelta(
        days=1
    )
    of_subscription = single.groupby(["account_id", "application", begins.cumsum()])
    single = of_subscription.agg({"start_date": "min", "end_date": "max"}).reset_index()
    found = []
    for row in single.itertuples():
        start = max(row.start_date, whole.at[row.account_id, "start_date"])
        end = min(row.end_date, whole.at[row.account_id, "end_date"])
        found.append((row.account_id, row.application, start, end))
    raw = demo.raw()
    unknown = raw[~raw["account_id"].isin(rows["account_id"])]
    first = unknown.groupby(["account_id", "application"])["event_time"].min().dt.normalize()
    found += [(a, p, start, pd.Timestamp("2100-01-01")) for (a, p), start in first.items()]
    weeks = [
        (account, application, week, end >= pd.Timestamp("2026-11-22"))
        for account, application, start, end in found
        for week in LAST_4
        if start <= week and end >= week + pd.Timedelta(days=6)
    ]
    return pd.DataFrame(weeks, columns=["account_id", "application", "week_start", "is_subscribed"])


@pytest.fixture(scope="module")
def last_4(demo: Demo) -> pd.DataFrame:
    """Clicks of every account x application and week in full subscription of the last four weeks, zero where nobody came."""
    clicks = demo.raw().groupby(["account_id", "application", "week_start"], as_index=False)["clicks"].sum()
    return subscribed_weeks(demo).merge(clicks, how="left").fillna({"clicks": 0})


def test_1_clicks_of_the_period(viewer: Client, last_4: pd.DataFrame) -> None:
    assert data_of(viewer, "clicks_in_period", PERIOD).iloc[0, 0] == last_4["clicks"].sum()


def test_2_accounts_in_subscription_and_using(viewer: Client, last_4: pd.DataFrame) -> None:
    now = last_4[last_4["is_subscribed"]]
    assert data_of(viewer, "accounts_subscribed", PERIOD).iloc[0, 0] == now["account_id"].nunique()
    assert data_of(viewer, "accounts_using", PERIOD).iloc[0, 0] == now[now["clicks"] > 0]["account_id"].nunique()


def test_3_top_and_bottom_accounts(viewer: Client, demo: Demo, last_4: pd.DataFrame) -> None:
    account_applications = (
        last_4[last_4["is_subscribed"]].groupby(["account_id", "application"])["clicks"].agg(["sum", "count"])
    )
    account_applications = account_applications[account_applications["sum"] >= 1]
    per_week = (account_applications["sum"] / account_applications["count"]).groupby("account_id").sum()
    names = pd.read_csv(demo.folder / "lake" / "accounts.csv").set_index("account_id")["account_name"]
    expected = per_week.rename(index=names).round(6)
    for chart, ascending in (("top_accounts", False), ("bottom_accounts", True)):
        shown = data_of(viewer, chart, PERIOD)
        assert list(shown["clicks_week"].round(6)) == list(expected.sort_values(ascending=ascending))
        assert (shown.set_index("account")["clicks_week"].round(6) == expected.reindex(shown["account"])).all()


def test_4_clicks_a_week_by_application(viewer: Client, demo: Demo) -> None:
    raw = demo.raw()
    complete = raw[raw["week_start"] <= PERIOD_END]
    names = pd.read_csv(demo.folder / "lake" / "applications.csv").set_index("application")["application_name"]
    expected = complete.groupby(["week_start", complete["application"].map(names)])["clicks"].sum()
    shown = data_of(viewer, "clicks_by_application")
    shown["week_start"] = pd.to_datetime(shown["week_start"], unit="ms")
    found = shown.set_index(["week_start", "application"])["clicks_sum"].dropna()
    assert (found == expected.reindex(found.index).fillna(0)).all()
    assert found.sum() == expected.sum()


def test_5_active_users_a_week(viewer: Client, demo: Demo) -> None:
    raw = demo.raw()
    complete = raw[raw["week_start"] <= PERIOD_END]
    expected = complete.groupby("week_start")["user_id"].nunique()
    shown = data_of(viewer, "users_per_week")
    shown["week_start"] = pd.to_datetime(shown["week_start"], unit="ms")
    assert shown.set_index("week_start")["users"].sort_index().to_dict() == expected.to_dict()


def test_6_records_against_last_year(viewer: Client, demo: Demo) -> None:
    raw = demo.raw()
    records = raw.groupby("week_start")["records_created"].sum()
    shown = data_of(viewer, "records_against_last_year")
    shown["week_start"] = pd.to_datetime(shown["week_start"], unit="ms")
    shown = shown.set_index("week_start")
    assert (shown["records_sum"] == records.reindex(shown.index)).all()
    with_last_year = shown["records_last_year_sum"].dropna()
    assert len(with_last_year) == 52
    before = records.reindex(with_last_year.index - pd.Timedelta(days=364))
    assert list(with_last_year) == list(before)


def test_7_never_used_and_ended_as_planted(viewer: Client, demo: Demo) -> None:
    planted = {(e["account_id"], e["application"]) for e in demo.truth["events"] if e["kind"] == "never_used"}
    assert data_of(viewer, "count_never_used")["never_used"].iloc[-1] >= len(planted)
    accounts = pd.read_csv(demo.folder / "lake" / "accounts.csv").set_index("account_id")["account_name"]
    ended = data_of(viewer, "ended_subscriptions")
    whole = set(ended[ended["what_ended"] == "whole account"]["account"])
    assert whole == set(accounts.loc[demo.truth["ended_accounts"]])
    neglected = data_of(viewer, "neglected_applications")
    assert len(neglected) and not whole & set(neglected["account"])


# ---------------------------------------------------------------- pages


@pytest.fixture
def page(superset: SupersetServer, browser: Any) -> Iterator[Any]:
    """A page logged in as a viewer; at its end, no other host must have been reached."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    opened = context.new_page()
    reached: list[str] = []
    opened.on("requestfinished", lambda request: reached.append(request.url))
    log_in(opened, superset, "viewer")
    yield opened
    context.close()
    outside = [u for u in reached if not u.startswith((superset.url, "data:", "blob:"))]
    assert outside == [], "no request leaves the machine"


@pytest.mark.parametrize("slug", some_of_the_pages("call-list", "account", "low-inactive", "changes"))
@pytest.mark.sample("call-list")
def test_every_chart_of_the_page_is_drawn_without_an_error(superset: SupersetServer, page: Any, slug: str) -> None:
    open_dashboard(page, superset, slug)
    tabs = page.locator("[role=tab]")
    text, drawn, without_rows = "", [], 0
    for place in range(max(tabs.count(), 1)):
        if tabs.count():
            tabs.nth(place).click()
            wait_until_drawn(page)
        text += page.inner_text("body")
        assert page.locator(".ant-alert-error, [data-test=error-message]").count() == 0
        without_rows += page.locator("text=No results were returned >> visible=true").count()
        drawn += page.evaluate(
            "[...document.querySelectorAll('.dashboard-chart')].filter(c => c.offsetParent && "
            "!c.closest('[data-test-chart-name=\"State of the data\"]')).map(c => "
            "!!c.querySelector('canvas, table tbody tr, .header-line, .superset-legacy-chart-big-number'))"
        )
    for word in ("Unexpected error", "Data error", "Network error", "See more", "does not exist", "Error:"):
        assert word not in text
    # the line on top stands on every tab, without a title
    wanted = [chart for chart in charts_of(slug) if chart["uuid"] != STATE_CHART]
    for chart in wanted:
        assert chart["slice_name"] in text
    assert len(drawn) == len(wanted)
    # a list without a row says so instead of drawing a table
    assert without_rows >= drawn.count(False)
    assert "Nov 15, 2026" in text, "data through stands on every page"


def test_the_number_on_the_page_is_the_number_of_the_raw_data(
    superset: SupersetServer, page: Any, last_4: pd.DataFrame
) -> None:
    open_dashboard(page, superset, "applications-accounts")
    assert f"{int(last_4['clicks'].sum()):,}" in page.inner_text("body")


@pytest.mark.long
def test_a_click_on_a_cell_filters_the_page(
    superset: SupersetServer, page: Any, demo: Demo, last_4: pd.DataFrame
) -> None:
    open_dashboard(page, superset, "applications-accounts")
    page.locator("td", has_text=re.compile("^Utilities$")).first.click()
    wait_until_drawn(page)
    types = pd.read_csv(demo.folder / "lake" / "applications.csv").set_index("application")["application_type"]
    utilities = last_4[last_4["application"].map(types) == "Utilities"]
    shown = page.inner_text("body")
    assert f"{int(utilities['clicks'].sum()):,}" in shown
    assert f"{int(last_4['clicks'].sum()):,}" not in shown


@pytest.mark.long
def test_a_viewer_gets_no_contact_on_any_way(superset: SupersetServer, page: Any, demo: Demo, admin: Client) -> None:
    viewer = Client(superset, "viewer")
    contacts = pd.read_parquet(demo.folder / "lake" / "contacts.parquet")
    people = CHARTS["people"]
    dataset = admin.charts()[people["slice_name"]]
    answers = [
        viewer.post("/api/v1/chart/data", payload(people["params"], dataset)),
        viewer.get(f"/api/v1/dataset/{dataset}"),
        viewer.get(f"/api/v1/datasource/table/{dataset}/column/email/values/"),
        viewer.get(f"/datasource/samples?datasource_type=table&datasource_id={dataset}"),
        viewer.get("/api/v1/dashboard/contacts"),
        viewer.get("/api/v1/dashboard/contacts/datasets"),
        viewer.get("/api/v1/dashboard/contacts/charts"),
        viewer.post("/api/v1/sqllab/execute/", {"database_id": 2, "sql": "SELECT * FROM personal.account_contacts"}),
    ]
    for answer in answers:
        assert answer.status_code in (401, 403, 404, 405, 400), f"{answer.url}: {answer.status_code}"
        assert not any(email in answer.text for email in contacts["email"].head(50))
    listed = json.dumps(viewer.get("/api/v1/dashboard/?q=(page_size:100)").json())
    assert "Adoption and risk" in listed
    assert '"Contacts"' not in listed
    page.goto(f"{superset.url}/superset/dashboard/contacts/")
    page.wait_for_timeout(3000)
    assert not any(email in page.content() for email in contacts["email"])


@pytest.mark.long
def test_who_may_see_contacts_comes_to_those_of_the_account_by_its_link(
    superset: SupersetServer, browser: Any, demo: Demo
) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    log_in(page, superset, "manager")
    account = first_account(demo)
    open_path(page, superset, path_to("account", demo))
    page.goto(superset.url + page.locator("a", has_text=re.compile("^contacts$")).first.get_attribute("href"))
    page.wait_for_selector("text=Contacts of the account")
    wait_until_drawn(page)
    accounts = pd.read_csv(demo.folder / "lake" / "accounts.csv").set_index("account_name")["account_id"]
    contacts = pd.read_parquet(demo.folder / "lake" / "contacts.parquet")
    own = contacts[contacts["account_id"] == accounts[account]]
    shown = page.inner_text("body")
    assert all(email in shown for email in own["email"].head(20))
    others = contacts[contacts["account_id"] != accounts[account]]
    assert not any(email in shown for email in others["email"])
    context.close()


@pytest.mark.long
def test_the_search_of_a_table_finds_names_and_no_words_of_links(
    superset: SupersetServer, page: Any, demo: Demo
) -> None:
    """Before: *href* found every row. Superset's cleaning of HTML still has to see that the cell is a link."""
    open_dashboard(page, superset, "call-list")
    table = page.locator("[data-test-chart-name='Accounts to call, by priority']")
    links = table.locator("tbody a[href^='/a/']")
    rows, name = links.count(), links.first.inner_text()
    assert rows > 1
    box = table.locator("input[placeholder*=records]")
    for word, found in (("href", 0), ("title", 0), (name, 1)):
        box.fill(word)
        page.wait_for_timeout(700)  # the table waits for the end of typing
        assert links.count() == found, word
    links.first.click()
    page.wait_for_url(re.compile("/superset/dashboard/account/"))
    assert name in unquote(page.url)


@pytest.mark.long
@pytest.mark.parametrize(("who", "may_see"), [("manager", True), ("viewer", False)])
def test_whom_to_phone_stands_below_the_name_for_who_may_see_contacts(
    superset: SupersetServer, browser: Any, demo: Demo, who: str, may_see: bool
) -> None:
    account = pd.read_csv(demo.folder / "lake" / "accounts.csv").iloc[0]
    people = pd.read_parquet(demo.folder / "lake" / "contacts.parquet")
    primary = people[(people["account_id"] == account["account_id"]) & people["is_primary"]].iloc[0]
    page = logged_in(browser, superset, who)
    # the first page of a Superset that has just been set up takes its time
    with page.expect_response(
        lambda answer: "/page-names/" in answer.url and answer.json()["account"], timeout=120_000
    ) as asked:
        open_path(page, superset, f"/account/{quote(account['account_name'], safe='')}")
    told, line = asked.value.json()["contact"], page.locator("#MARKDOWN-frame .usage-contact")
    if may_see:
        assert (told["name"], told["phone"], told["email"]) == (primary["name"], primary["phone"], primary["email"])
        assert line.inner_text().startswith(f"Primary contact: {primary['name']}, ")
        assert page.locator(f"a[href='tel:{primary['phone'].replace('-', '')}']").inner_text() == primary["phone"]
    else:
        assert told is None
        assert line.count() == 0
        assert primary["name"] not in page.content()
    page.context.close()


@pytest.mark.long
def test_a_page_is_headed_by_the_name_that_is_chosen_and_says_how_its_tiles_changed(
    superset: SupersetServer, page: Any, demo: Demo
) -> None:
    """The heading follows the filter: a name that is not chosen any more would be a wrong one."""
    accounts = pd.read_csv(demo.folder / "lake" / "accounts.csv")["account_name"]
    for slug, name in (("account", accounts.iloc[0]), ("application", "Permits")):
        page.goto(f"{superset.url}/{slug}/{quote(name, safe='')}")
        page.wait_for_function("name => document.title === name", arg=name, timeout=30_000)
        assert page.inner_text("#MARKDOWN-frame h1") == name
    page.goto(f"{superset.url}/account/{quote(accounts.iloc[0], safe='')}")
    page.wait_for_function("name => document.title === name", arg=accounts.iloc[0], timeout=30_000)
    page.locator(".ant-select", has_text=accounts.iloc[0]).first.click()
    page.keyboard.type(accounts.iloc[1])
    page.locator(".ant-select-item-option", has_text=accounts.iloc[1]).first.click()
    page.locator("button", has_text="Apply").first.click()
    page.wait_for_function("name => document.title === name", arg=accounts.iloc[1], timeout=30_000)
    assert page.inner_text("#MARKDOWN-frame h1") == accounts.iloc[1]
    wait_until_drawn(page)
    assert page.locator("[data-test-chart-name='ARR'] .subheader-line").inner_text() == "no week before yet"
    page.goto(f"{superset.url}/superset/dashboard/call-list/")
    page.wait_for_function("document.title === 'Call list'", timeout=30_000)


@pytest.mark.long
def test_the_first_screen_of_the_call_list_holds_eight_rows(superset: SupersetServer, browser: Any) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    log_in(page, superset, "viewer")
    open_dashboard(page, superset, "call-list")
    rows = page.locator("[data-test-chart-name='Accounts to call, by priority'] tbody tr").all()
    boxes = [row.bounding_box() for row in rows]
    # of those that reach into what is seen of the table, and of the window
    scrolled = page.locator("[data-test-chart-name='Accounts to call, by priority'] tbody").first
    seen = scrolled.evaluate("e => e.closest('div').getBoundingClientRect().bottom")
    whole = [box for box in boxes if box and box["y"] + box["height"] <= min(900, seen)]
    assert len(whole) >= min(8, len(rows))
    context.close()


# ---------------------------------------------------------------- what is taken away


def choose(page: Any, path: list[str]) -> None:
    """Walks through a menu that is open: over the first entries, and a click on the last."""
    *over, last = path
    item = page.locator(".ant-dropdown-menu-item >> visible=true", has_text=last).last
    for _ in range(6):
        for entry in over:
            page.locator(".ant-dropdown-menu-submenu-title >> visible=true", has_text=entry).last.hover()
        page.wait_for_timeout(700)  # while it slides into its place it may lose a click
        with contextlib.suppress(TooLate):
            item.click(timeout=8_000)
            return
        # a menu that was still opening does not see where the mouse stands, or shuts again
        page.mouse.move(5, 5)
    raise AssertionError(f"the menu never offered {' > '.join(path)}")


def download(page: Any, opens: Any, path: list[str], folder: Path) -> Path:
    opens.click()
    with page.expect_download(timeout=120_000) as started:
        choose(page, path)
    file = folder / started.value.suggested_filename
    started.value.save_as(file)
    page.keyboard.press("Escape")
    page.mouse.click(700, 5)
    return file


@pytest.mark.long
def test_downloads_hold_all_rows_that_the_filters_leave_and_no_html(
    superset: SupersetServer, page: Any, demo: Demo, tmp_path: Path
) -> None:
    open_dashboard(page, superset, "call-list", "?native_filters=" + quote(filter_of("owner", "Ana Ruiz")))
    holder = page.locator(".dashboard-component-chart-holder", has_text="Accounts to call, by priority").last
    menu = holder.locator("[aria-label='More Options']").last
    csv = pd.read_csv(download(page, menu, ["Download", "CSV"], tmp_path))
    book = download(page, menu, ["Download", "Excel"], tmp_path)
    xlsx = pd.read_excel(book, sheet_name="Data")
    image = download(page, menu, ["Download", "image"], tmp_path)
    with duckdb.connect(str(demo.settings.home.warehouse_path), read_only=True) as connection:
        rows = connection.execute(
            "FROM mart.call_list WHERE owner = 'Ana Ruiz' AND urgency != 'Watch' ORDER BY rank"
        ).df()
    with duckdb.connect(str(demo.warehouse), read_only=True) as connection:
        (sentence,) = connection.execute("SELECT sentence FROM mart.build").fetchall()[0]
    assert len(rows) > 1
    for found in (csv, xlsx):
        assert list(found["Account"]) == list(rows["account"])
        assert list(found["Details"]) == list(rows["reason_in_short"])
        assert found["ARR at risk"].fillna(0).sum() == rows["arr_at_risk"].fillna(0).sum()
        assert not found.astype(str).apply(lambda column: column.str.contains("<")).any().any()
    assert image.stat().st_size > 10_000
    about, data = openpyxl.load_workbook(book)
    assert about["A1"].value == "Accounts to call, by priority"
    said = [(row[0].value, row[1].value) for row in about.iter_rows(min_row=3) if row[0].value]
    assert ("Filter", "CSM is one of Ana Ruiz") in said
    assert ("Rows", str(len(rows))) in said
    assert ("Data", sentence) in said
    titles = [cell.value for cell in data[1]]
    assert [what for what, _ in said][-len(titles) :] == titles, "every column is explained"
    worth = data.cell(2, 1 + titles.index("ARR at risk"))
    assert worth.number_format == '"$"#,##0'
    assert data.freeze_panes == "A2"


@pytest.mark.parametrize("name", ["Town of Elkdale, NY", "O'Brien's Landing!", "Nord/Süd (A1) & more?"])
def test_an_address_holds_a_name_whatever_the_name(name: str) -> None:
    address = urlparse(address_of("account", {"account": [name]}))
    assert address.path == "/superset/dashboard/account/"
    quoted = name.replace("!", "!!").replace("'", "!'")
    (chosen,) = parse_qs(address.query)["native_filters"]
    assert f"(col:account,op:IN,val:!('{quoted}'))" in chosen


def test_a_name_leads_to_its_page_and_a_wrong_one_to_those_that_were_meant(
    superset: SupersetServer, visitors: dict[str, Visitor], demo: Demo
) -> None:
    viewer, name = visitors["viewer"], first_account(demo)

    def ask(path: str) -> requests.Response:
        return viewer.session.get(f"{superset.url}{path}", allow_redirects=False, timeout=60)

    for path in (f"/account/{quote(name)}", "/application/Permits", "/call-list/Ana%20Ruiz"):
        assert ask(path).headers["Location"] == address_of(
            path.split("/")[1], {PAGES[path.split("/")[1]]: [unquote(path.split("/")[2])]}
        )
    wrong = ask(f"/account/{quote(name[:-1])}")
    assert wrong.status_code == 404 and "Did you mean" in wrong.text
    assert f'href="/account/{quote(name)}"' in wrong.text
    assert ask("/application/Nothing%20like%20it").status_code == 404
    assert "role <b>Usage viewer with contacts</b>" in ask(f"/contacts/{quote(name)}").text
    assert ask(f"/record/{quote(name)}").headers["Location"].startswith("/outcome/")
    nobody = requests.get(f"{superset.url}/account/{quote(name[:-1])}", allow_redirects=False, timeout=60)
    assert nobody.headers["Location"].startswith("/login/?next="), "names are for those who are logged in"


@pytest.mark.long
def test_filters_go_along_to_the_next_page_and_the_own_csm_is_remembered(superset: SupersetServer, page: Any) -> None:
    page.goto(f"{superset.url}/superset/dashboard/call-list/?native_filters={quote(filter_of('owner', 'Ana Ruiz'))}")
    page.wait_for_selector(".grid-container")
    wait_until_drawn(page)
    page.locator("a", has_text=re.compile("^Changes in usage$")).first.click()
    page.wait_for_url(re.compile("/superset/dashboard/changes/"))
    page.wait_for_selector(".grid-container")
    wait_until_drawn(page)
    assert "Ana Ruiz" in page.inner_text("body")
    page.goto(f"{superset.url}/my-csm/")
    page.locator("a", has_text=re.compile("^Ben Okafor$")).click()
    page.wait_for_selector(".grid-container")
    page.goto(f"{superset.url}/superset/welcome/")
    page.wait_for_url(re.compile("native_filters"))
    page.wait_for_selector(".grid-container")
    wait_until_drawn(page)
    assert "Ben Okafor" in page.inner_text("body")


@pytest.mark.long
@pytest.mark.parametrize("slug", ["call-list", "account", "changes"])
def test_on_a_telephone_charts_fill_the_row_and_titles_are_whole(
    superset: SupersetServer, page: Any, slug: str
) -> None:
    page.set_viewport_size({"width": 390, "height": 4200})
    page.goto(f"{superset.url}/superset/dashboard/{slug}/")
    # a busy machine takes a while until the first chart begins to load
    page.wait_for_selector(".dashboard-chart canvas")
    wait_until_drawn(page)
    widths = page.evaluate(
        "[...document.querySelectorAll('[data-test-viz-type^=echarts] canvas, [data-test-viz-type=mixed_timeseries] "
        "canvas')].filter(c => c.offsetParent).map(c => c.offsetWidth)"
    )
    assert widths and min(widths) > 250, widths
    tables = page.evaluate(
        "[...document.querySelectorAll('[data-test-viz-type=table] .superset-chart-table')].filter(t => t.offsetParent && "
        "!t.closest('[data-test-chart-name=\"State of the data\"]')).map(t => t.offsetWidth)"
    )
    assert min(tables) > 250, tables
    cut = page.evaluate(
        "[...document.querySelectorAll('[data-test=slice-header] .header-title')].filter(t => t.offsetParent && "
        "t.scrollWidth > t.clientWidth + 1).map(t => t.textContent)"
    )
    assert cut == []


@pytest.mark.long
def test_the_whole_page_is_taken_away_as_an_image_and_as_pdf(
    superset: SupersetServer, page: Any, tmp_path: Path
) -> None:
    open_dashboard(page, superset, "call-list")
    menu = page.locator("[aria-label='Menu actions trigger']").first
    pdf = download(page, menu, ["Download", "PDF"], tmp_path)
    assert pdf.read_bytes()[:4] == b"%PDF" and pdf.stat().st_size > 20_000
    open_dashboard(page, superset, "call-list")
    image = download(page, menu, ["Download", "mage"], tmp_path)
    assert image.suffix in (".jpg", ".jpeg", ".png") and image.stat().st_size > 20_000


def filter_of(column: str, value: str) -> str:
    """A filter as Superset writes it into an address, in Rison."""
    key = f"NATIVE_FILTER-{column}"
    return (
        f"({key}:(extraFormData:(filters:!((col:{column},op:IN,val:!('{value}')))),"
        f"filterState:(value:!('{value}')),id:{key},ownState:()))"
    )


def test_after_logging_in_the_call_list_is_the_first_page_and_leads_to_the_account(
    superset: SupersetServer, page: Any, demo: Demo
) -> None:
    assert page.url.startswith(f"{superset.url}/superset/dashboard/call-list/")
    with duckdb.connect(str(demo.settings.home.warehouse_path), read_only=True) as connection:
        first, second = connection.execute("SELECT account FROM mart.call_list ORDER BY rank LIMIT 2").fetchall()
    open_dashboard(page, superset, "call-list")
    row = page.locator("tr", has=page.locator("td", has_text=second[0])).first
    page.goto(superset.url + row.locator("a", has_text=second[0]).get_attribute("href"))
    page.wait_for_selector("text=Applications, subscriptions and use")
    page.set_viewport_size({"width": 1400, "height": 4200})
    wait_until_drawn(page)
    shown = page.inner_text(".grid-container")
    assert second[0] in shown and first[0] not in shown


def test_nobody_sees_anything_without_logging_in(superset: SupersetServer) -> None:
    nobody = Client(superset, None)
    body = payload(CHARTS["anomalies_per_week"]["params"], 1)
    assert nobody.post("/api/v1/chart/data", body).status_code in (401, 403)
    # the list answers those without an account with an empty one
    assert nobody.get("/api/v1/dashboard/").json().get("result", []) == []
    assert "/login" in nobody.get("/superset/dashboard/changes/").url


def test_the_server_does_not_start_without_its_secret(tmp_path: Path) -> None:
    import subprocess

    from usage_pipeline.operations.local import SUPERSET_PYTHON

    done = subprocess.run(
        [str(SUPERSET_PYTHON), str(SUPERSET / "superset_config.py")],
        env={"PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "SUPERSET_SECRET_KEY is not set" in done.stderr
    assert "USAGE_PUBLISHED is not set" in done.stderr
    assert "USAGE_STATUS is not set" in done.stderr


@pytest.mark.long
def test_duckdb_behind_superset_reads_no_file_of_the_machine(superset: SupersetServer, demo: Demo) -> None:
    """What the connection of superset_config.py allows, tried with Superset's own driver."""
    import os
    import subprocess

    from usage_pipeline.operations.local import SUPERSET_PYTHON, superset_environment

    code = (
        "import sqlalchemy as sa, superset_config as c\n"
        "u, p = c.DB_CONNECTION_MUTATOR(sa.engine.make_url('duckdb:///usage_warehouse'), {})\n"
        "with sa.create_engine(u, **p).connect() as x:\n"
        "    assert x.execute(sa.text('SELECT count(*) FROM mart.usage_by_week')).scalar() > 0\n"
        "    for q in (\"FROM read_csv('/etc/passwd')\", \"FROM read_text('/etc/passwd')\", \"FROM glob('/*')\",\n"
        "              \"COPY mart.build TO '/tmp/x.csv'\", \"ATTACH '/tmp/x.duckdb'\", 'SET enable_external_access = true',\n"
        "              'INSTALL httpfs', 'CREATE TABLE t AS SELECT 1', 'DELETE FROM mart.build'):\n"
        "        try:\n"
        "            x.execute(sa.text(q)); print('ALLOWED', q)\n"
        "        except Exception as e: print('refused', type(e).__name__)\n"
    )
    environment = os.environ | superset_environment(demo.settings.home, superset.folder) | {"PYTHONPATH": str(SUPERSET)}
    done = subprocess.run(
        [str(SUPERSET_PYTHON), "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "ALLOWED" not in done.stdout
    assert done.stdout.count("refused") == 9
