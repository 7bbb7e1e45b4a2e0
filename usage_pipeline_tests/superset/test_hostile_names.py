"""Names that want to be HTML, links, formulas or scripts, from the lake to pages in Chromium, downloads and mails.

Whoever names an account, an application, an owner or a cause in another system writes on everybody's pages here.
"""

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import duckdb
import openpyxl
import pandas as pd
import pytest
from usage_superset.chart_queries import payload
from usage_superset.downloads import as_whole_numbers
from usage_superset.html_cells import LINKS, as_stored, as_text, cell, drawn, link

from usage_pipeline.config.settings import load_settings
from usage_pipeline.demo.lake import write_demo_lake
from usage_pipeline.notifications.digest import read_digests, write
from usage_pipeline.observability.status import write_status
from usage_pipeline.publishing.builds import BuildStore
from usage_pipeline_tests.support.demo_home import DEMO_AS_OF, Demo
from usage_pipeline_tests.support.refreshes import run_refresh
from usage_pipeline_tests.support.servers import SupersetServer, serve_superset
from usage_pipeline_tests.support.superset_client import (
    ALL_SLUGS,
    CHARTS,
    listed,
    log_in,
    some_of_the_pages,
    wait_until_drawn,
)
from usage_pipeline_tests.support.visitors import Visitor, ask_for

pytestmark = pytest.mark.superset("hostile")

# with a number each, so that no two are one
HOSTILE = [
    "<img src=x-{n} onerror=\"document.title='pwned'\">",
    '<a href="//evil.example/{n}">open</a>',
    '<a href="@evil.example/{n}">open</a>',
    '<a href="javascript:document.title=`pwned{n}`">open</a>',
    '<a href="/account/Another%20{n}">open</a>',
    '=HYPERLINK("http://evil.example/{n}","open")',
    "http://evil.example/{n}",
    "<svg/onload=document.title='pwned'>{n}",
    "javascript:document.title='pwned'//{n}",
    "{{{{ {n} }}}}<b>bold</b>",
    "R<D & Co. <3 {n}",
]
# a name may be a link; what begins so is one that was drawn
OUR_TAG = link("x", "account", "x").split("=")[0]
PATHS = re.compile(r"/([apcr]|go)/[A-Za-z0-9._~%, -]*|/(d|my-csm|brief)/")


def hostile(count: int, start: int = 0) -> list[str]:
    return [HOSTILE[n % len(HOSTILE)].format(n=start + n) for n in range(count)]


@pytest.fixture(scope="module")
def hostile_demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A demo whose every name, but the ids, was given by an attacker."""
    folder = tmp_path_factory.mktemp("hostile")
    write_demo_lake(folder, DEMO_AS_OF, accounts=44, seed=7)
    lake = folder / "lake"
    for file, columns in (
        ("accounts.csv", ["account_name", "segment", "region", "owner"]),
        ("applications.csv", ["application_name", "application_type"]),
        ("known_causes.csv", ["cause"]),
    ):
        rows = pd.read_csv(lake / file, dtype=str, keep_default_na=False)
        for place, column in enumerate(columns):
            known = sorted(rows[column].unique())
            rows[column] = rows[column].map(dict(zip(known, hostile(len(known), 1000 * place), strict=True)))
        rows.to_csv(lake / file, index=False)
    people = pd.read_parquet(lake / "contacts.parquet")
    for place, column in enumerate(("name", "role", "email")):
        people[column] = hostile(len(people), 1000 * place)
    people.to_parquet(lake / "contacts.parquet", index=False)
    settings = load_settings(folder / "sources.yaml")
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_refresh(settings, instance, with_workbook=True).success
        write_status(settings.home, settings.clock, settings.sources, instance)
    return Demo(folder, settings, {})


@pytest.fixture(scope="module")
def hostile_server(hostile_demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SupersetServer]:
    with serve_superset(hostile_demo.settings, tmp_path_factory.mktemp("hostile-superset")) as server:
        yield server


@pytest.fixture(scope="module")
def manager(hostile_server: SupersetServer) -> Visitor:
    return Visitor(hostile_server, "manager")


@pytest.fixture(scope="module")
def datasets(manager: Visitor) -> dict[str, int]:
    return {chart["slice_name"]: chart["datasource_id"] for chart in listed(manager, "chart")}


# ---------------------------------------------------------------- pages


# the pixel of Superset's own pages is refused by the policy, and is no name
DRAWN = r"""() => {
  const all = [...document.querySelectorAll('body *')];
  return {
    links: [...document.querySelectorAll('.grid-container a[href], .ant-tooltip a[href], body > div:not(#app) a[href]')]
      .map(a => a.getAttribute('href')),
    foreign: all.filter(e => [...e.attributes].some(a => /^on/i.test(a.name) ||
      (['src', 'href', 'xlink:href'].includes(a.name) && !/^data:|scarf\.sh/.test(a.value) &&
       (new URL(a.value, location).host !== location.host || /\/x-/.test(new URL(a.value, location)))))
      ).map(e => e.outerHTML),
    pictures: [...document.querySelectorAll('.grid-container td img, .grid-container td svg, .grid-container td b')]
      .map(e => e.outerHTML),
    title: document.title,
    text: document.body.innerText,
  }}"""


@pytest.mark.parametrize("slug", some_of_the_pages("call-list", "contacts", of=ALL_SLUGS))
@pytest.mark.long
def test_no_name_is_html_on_any_page(hostile_server: SupersetServer, browser: Any, slug: str) -> None:
    """Before: pictures and links of names were drawn, and Chromium asked for them."""
    context = browser.new_context(viewport={"width": 1400, "height": 4200})
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog opened: {dialog.message}"))
    # how CSMs answer is for their head alone
    log_in(page, hostile_server, "admin" if slug == "responses" else "manager")
    page.goto(f"{hostile_server.url}/superset/dashboard/{slug}/")
    page.wait_for_selector(".grid-container")
    wait_until_drawn(page)
    tabs, shown = page.locator("[role=tab]"), []
    for place in range(max(tabs.count(), 1)):
        if tabs.count():
            tabs.nth(place).click()
            wait_until_drawn(page)
        shown.append(page.evaluate(DRAWN))
        for canvas in page.locator("canvas >> visible=true").all()[:6]:
            box = canvas.bounding_box()
            for part in (0.3, 0.6, 0.9) if box else ():  # what the mouse stands on says its name in a tooltip
                page.mouse.move(box["x"] + part * box["width"], box["y"] + box["height"] / 2)
                page.wait_for_timeout(150)
                shown.append(page.evaluate(DRAWN))
    for state in shown:
        assert state["foreign"] == []
        assert state["pictures"] == []
        # a page may be headed by such a name; a script of one would have set the title to this
        assert not state["title"].startswith("pwned")
        # an administrator is led on to the chart itself
        ours = ("#", "/superset/dashboard/", "/explore/?dashboard_page_id=")
        links = [link for link in state["links"] if not link.startswith(ours)]
        links = [
            link for link in links if link not in ("/use-of-dashboards", "/kpi-sheets/newest", "/go/changes")
        ]  # of our own texts
        assert [link for link in links if not PATHS.fullmatch(link)] == []
        assert [link for link in links if "Another" in link and "%3C" not in link] == [], "a name is no link"
    elsewhere = [url for url in asked if "evil" in url or "/x-" in url]
    assert elsewhere == []
    everything = "".join(state["text"] for state in shown)
    if slug in ("applications-accounts", "call-list", "contacts"):
        assert "<\u2060img src=x-" in everything, "the names are there, as text"
    context.close()


@pytest.mark.long
def test_a_name_that_was_drawn_filters_as_the_name_that_is_stored(
    hostile_server: SupersetServer, manager: Visitor, datasets: dict[str, int]
) -> None:
    dataset = datasets[CHARTS["call_list"]["slice_name"]]
    rows = manager.post("/api/v1/chart/data", ask_for(dataset, columns=["account"])).json()["result"][0]["data"]
    names = [row["account"] for row in rows if "\u2060" in row["account"]]
    assert names
    for name in names:
        wanted = [{"col": "account", "op": "IN", "val": [name]}]
        answer = manager.post("/api/v1/chart/data", ask_for(dataset, columns=["account"], filters=wanted))
        assert answer.json()["result"][0]["data"] == [{"account": name}]


@pytest.mark.long
def test_sql_lab_gives_names_as_text(hostile_server: SupersetServer) -> None:
    admin = Visitor(hostile_server, "admin")
    database = next(
        item["id"] for item in admin.get("/api/v1/database/").json()["result"] if item["database_name"] == "Usage"
    )
    rows = admin.run("SELECT account FROM mart.call_list", database).json()["data"]
    assert not [row for row in rows if re.search(r"<[a-z]", row["account"])]
    assert [row for row in rows if "<\u2060img" in row["account"]]


# ---------------------------------------------------------------- downloads


@pytest.mark.long
def test_downloads_hold_names_as_texts_and_addresses_of_ours_only(
    hostile_server: SupersetServer, manager: Visitor, datasets: dict[str, int]
) -> None:
    """Before: `<a href="@evil.example">` became `http://this-server@evil.example`, `http://evil.example` a live link."""
    for chart in CHARTS.values():
        # how CSMs answer is for their head alone
        if chart["viz_type"] != "table" or chart["slice_name"] not in datasets:
            continue
        body = payload(chart["params"], datasets[chart["slice_name"]])
        csv = manager.post("/api/v1/chart/data", body | {"result_format": "csv"})
        assert csv.status_code == 200, csv.text[:300]
        cells = pd.read_csv(BytesIO(csv.content), dtype=str, header=None).to_numpy().ravel() if csv.text.strip() else []
        for value in cells:
            if isinstance(value, str):
                assert value[0] not in "=+@" and not (value[0] == "-" and not value[1:2].isdigit()), value
                assert "evil" not in (urlsplit(value).hostname or "") or value.startswith("http://evil"), value
                assert OUR_TAG not in value, "a link of ours is the name that is seen"
        made = manager.post("/api/v1/chart/data", body | {"result_format": "xlsx"})
        for sheet in openpyxl.load_workbook(BytesIO(made.content)):
            for item in (found for row in sheet.iter_rows() for found in row):
                assert item.data_type != "f", item.value
                assert not item.hyperlink, item.value


@pytest.mark.parametrize("name", [*hostile(len(HOSTILE)), "Town of X, NY", "a/b?c#d%", "Süd", "'\""])
def test_a_name_becomes_one_link_to_its_page_and_comes_back_as_the_name(name: str) -> None:
    made = link(name, "account", name)
    (tag,) = re.findall(r"<[^>]*>(?=.)", made)
    assert re.fullmatch(r'<a title="[^"<>]*" href="/a/[A-Za-z0-9._~%, -]+">', tag.replace("\u2060", ""))
    assert as_stored(made) == name == as_stored(as_text(name)) and as_stored([made]) == [name]
    assert not re.search(r"<[a-zA-Z/!?]", as_text(name))
    frame = drawn(pd.DataFrame({"account": [name], "reason": [name]}), frozenset({"account"}))
    assert frame["account"][0] == made and frame["reason"][0] == as_text(name)
    assert drawn(pd.DataFrame({"account": [name]}))["account"][0] == as_text(name), "a page that is not open"


@pytest.mark.parametrize("name", ["all applications", "", ".", ".."])
def test_what_names_no_page_is_no_link(name: str) -> None:
    assert link(name, "application", name) == name


def test_rows_of_another_name_lead_to_that_name() -> None:
    frame = pd.DataFrame({"account": ["A", None], "call_status_text": ["Open", "Open"]})
    shown = drawn(frame, frozenset({"record"}))["call_status_text"]
    assert [text.replace("\u2060", "") for text in shown] == ['<a title="Open" href="/r/A">Open</a>', "Open"]


@pytest.mark.parametrize("word", ["title", "href", "account", "record", "20", "2c"])
def test_the_search_of_a_table_meets_no_word_of_the_tag(word: str) -> None:
    """Before: `title` found every row, `account` every row that leads to one, `20` every name with a space."""
    assert word not in link("Town of Elk, NY", "account", "Town of Elk, NY").casefold()
    assert word not in link("Open", "record", "Town of Elk, NY").casefold()


def test_numbers_that_are_whole_are_written_so() -> None:
    frame = pd.DataFrame(
        {"n": [1.0, None, 3.0], "x": [1.5, None, 2.0], "big": [2.0**60, 1.0, None], "t": ["a", "b", "c"]}
    )
    made = as_whole_numbers(frame)
    assert made.to_csv(index=False).splitlines() == [
        "n,x,big,t",
        "1,1.5,1.152921504606847e+18,a",
        ",,1.0,b",
        "3,2.0,,c",
    ]
    assert list(frame["n"].dropna()) == [1.0, 3.0], "the frame itself stays"


@pytest.mark.parametrize("value", ["a < b", "<3", "1<2", "", None, 5, 2.5])
def test_what_can_begin_no_tag_stays_as_it_is(value: Any) -> None:
    assert cell("account", value) == value


# ---------------------------------------------------------------- mails and workbooks of the pipeline


@pytest.mark.long
def test_digests_hold_names_as_texts_and_links_to_our_pages_only(hostile_demo: Demo) -> None:
    pages = "https://usage.example.com"
    mail = hostile_demo.settings.mail.model_copy(update={"from_address": "usage@example.com", "pages_url": pages})
    settings = hostile_demo.settings.model_copy(update={"mail": mail})
    store = BuildStore(settings.home.published_dir)
    build = store.current()
    assert build is not None
    digests, _ = read_digests(store, build)
    assert digests
    for digest in digests:
        made = write(settings.mail, settings.name, digest, "somebody@example.com")
        (drawn,) = [part.get_content() for part in made.walk() if part.get_content_type() == "text/html"]
        assert all(link.startswith(f"{pages}/") for link in re.findall(r'href="([^"]*)"', drawn))
        assert not re.search(r"<(img|svg|script|b)\b", drawn)
        (sheet,) = [part.get_content() for part in made.walk() if part.get_filename()]
        _check_workbook(BytesIO(sheet))


@pytest.mark.long
def test_the_workbook_of_the_kpi_sheet_holds_names_as_texts(hostile_demo: Demo) -> None:
    files = sorted(Path(hostile_demo.settings.home.published_dir).glob("kpi-sheets/*/*.xlsx"))
    assert files
    _check_workbook(files[-1])


def _check_workbook(file: Any) -> None:
    for sheet in openpyxl.load_workbook(file):
        for row in sheet.iter_rows():
            assert all(cell.data_type != "f" and cell.hyperlink is None for cell in row)


@pytest.mark.long
def test_no_mart_holds_a_link_of_ours(hostile_demo: Demo) -> None:
    with duckdb.connect(str(hostile_demo.warehouse), read_only=True) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns "
            "WHERE table_schema = 'mart' AND data_type = 'VARCHAR'"
        ).fetchall()
        assert {column for _, column in columns} >= {named_by for _, named_by in LINKS.values() if named_by}
        for table, column in columns:
            found = connection.execute(
                f'SELECT "{column}" FROM mart."{table}" WHERE "{column}" LIKE \'<a title=%\' LIMIT 1'
            ).fetchone()
            assert found is None, f"{table}.{column}: {found}"
