"""Superset asked as a program, and its pages opened in a browser."""

from collections.abc import Iterator
from typing import Any, Protocol
from urllib.parse import quote

import pandas as pd
import pytest
import requests
from usage_superset.chart_queries import payload
from usage_superset.html_cells import as_stored

from usage_pipeline.pages.dashboards import chart_uuids, load_assets
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.servers import SupersetServer


class Asking(Protocol):
    def get(self, path: str) -> requests.Response: ...


_PAGE = 100


def listed(asking: Asking, what: str) -> list[dict[str, Any]]:
    """All that Superset lists of a kind; it gives a hundred at once, however many are asked for."""
    found: list[dict[str, Any]] = []
    while True:
        page = asking.get(f"/api/v1/{what}/?q=(page:{len(found) // _PAGE},page_size:{_PAGE})").json()["result"]
        found += page
        if len(page) < _PAGE:
            return found


class Client:
    """Superset's API as one account."""

    def __init__(self, server: SupersetServer, user: str | None) -> None:
        self.url = server.url
        self.session = requests.Session()
        if user is not None:
            body = {"username": user, "password": server.passwords[user], "provider": "db"}
            token = self.session.post(f"{self.url}/api/v1/security/login", json=body, timeout=30).json()["access_token"]
            self.session.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str) -> requests.Response:
        return self.session.get(f"{self.url}{path}", timeout=60)

    def post(self, path: str, body: Any) -> requests.Response:
        return self.session.post(f"{self.url}{path}", json=body, timeout=60)

    def charts(self) -> dict[str, int]:
        """Dataset ids by title of the charts that the account is listed."""
        charts = listed(self, "chart")
        return {chart["slice_name"]: chart["datasource_id"] for chart in charts if chart["datasource_id"]}


def assets_by_name() -> dict[str, dict[str, Any]]:
    assets, _ = load_assets()
    return {assets.files[uuid].stem: chart for uuid, chart in assets.charts.items()}


CHARTS = assets_by_name()


def data_of(client: Client, name: str, filters: list[dict[str, Any]] | None = None) -> pd.DataFrame:
    """The data of a chart as the page would get it."""
    chart = CHARTS[name]
    body = payload(chart["params"], client.charts()[chart["slice_name"]], filters=filters or [])
    answer = client.post("/api/v1/chart/data", body)
    assert answer.status_code == 200, answer.text
    shown = pd.DataFrame(answer.json()["result"][0]["data"])
    # names are links where a table is drawn
    return shown.apply(lambda column: column.map(as_stored) if column.dtype.kind == "O" else column)


PERIOD = [{"col": "period", "op": "IN", "val": ["Last 4 weeks"]}]


def log_in(page: Any, server: SupersetServer, user: str) -> None:
    page.goto(f"{server.url}/login/")
    # the form is drawn by a script: what is typed before it runs is lost
    page.wait_for_load_state("networkidle")
    page.fill("#username", user)
    page.fill("#password", server.passwords[user])
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "/login" not in url, timeout=60_000)


def logged_in(
    browser: Any, server: SupersetServer, user: str, theme: str = "light", size: tuple[int, int] = (1400, 900)
) -> Any:
    """A page of a browser of its own, of somebody who has logged in."""
    page = browser.new_context(viewport={"width": size[0], "height": size[1]}).new_page()
    page.add_init_script(f"localStorage.setItem('superset-theme-mode', '{theme}')")
    log_in(page, server, user)
    return page


def first_account(demo: Demo) -> str:
    """The name of the demo's first account."""
    return str(pd.read_csv(demo.folder / "lake" / "accounts.csv")["account_name"].iloc[0])


def path_to(slug: str, demo: Demo) -> str:
    """The path of a dashboard; of one about an account or an application, with one of the demo."""
    named = {"account": f"/account/{quote(first_account(demo), safe='')}", "application": "/application/Permits"}
    return named.get(slug, f"/superset/dashboard/{slug}/")


def open_path(page: Any, server: SupersetServer, path: str) -> None:
    """Opens a dashboard by its path, and waits until all that is in view is drawn."""
    page.goto(f"{server.url}{path}")
    page.wait_for_selector(".grid-container")
    wait_until_drawn(page)


def open_dashboard(page: Any, server: SupersetServer, slug: str, query: str = "") -> None:
    """Opens a dashboard, as high as it is, so that every chart is drawn, and waits until none is loading."""
    page.goto(f"{server.url}/superset/dashboard/{slug}/{query}")
    page.wait_for_selector(".grid-container")
    page.set_viewport_size({"width": 1400, "height": 4200})
    wait_until_drawn(page)


def tabs_of(page: Any) -> Iterator[str]:
    """Opens one tab after the other; a page without tabs as it is."""
    tabs = page.locator("[role=tab]")
    for place in range(tabs.count()):
        tabs.nth(place).click()
        wait_until_drawn(page)
        yield tabs.nth(place).inner_text()
    if not tabs.count():
        yield ""


def wait_until_drawn(page: Any) -> None:
    page.wait_for_timeout(1500)
    for _ in range(120):
        if page.locator(".loading, [data-test=loading-indicator]").count() == 0:
            break
        page.wait_for_timeout(250)
    page.wait_for_timeout(500)


ALL_SLUGS = [d["slug"] for d in load_assets()[0].dashboards.values()]
SLUGS = [slug for slug in ALL_SLUGS if slug not in ("contacts", "responses")]


def some_of_the_pages(*names: str, of: list[str] = SLUGS) -> list[Any]:
    """Pages as parameters of a test; those that are not named are left to `make soak`."""
    return [slug if slug in names else pytest.param(slug, marks=pytest.mark.soak) for slug in of]


def charts_of(slug: str) -> list[dict[str, Any]]:
    assets, _ = load_assets()
    dashboard = next(d for d in assets.dashboards.values() if d["slug"] == slug)
    return [assets.charts[uuid] for uuid in chart_uuids(dashboard)]
