"""Dashboards as readers meet them: `make benchmark-dashboards` (LAKE=folder for another than the demo of 400 accounts).

charts   every chart's data for one user, from the build and from the cache, beside the same SQL sent to DuckDB
users    20 users who each load a dashboard, its requests six at a time as a browser's, wait 5 s, and load the next
pages    a dashboard in a browser that has been there before, until every chart is drawn

Superset is the product's own: two workers, set up from the tree, on a free port, ended at the end.
"""

import argparse
import json
import os
import platform
import random
import shutil
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import psutil
import requests

from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.demo.lake import write_demo_lake
from usage_pipeline.operations import local
from usage_pipeline.publishing.builds import store_of

sys.path.insert(0, str(local.SUPERSET))
from usage_superset.chart_queries import page_requests

REPO = Path(__file__).parents[1]
SLUGS = ("applications-accounts", "usage-over-time", "changes", "low-inactive")
USERS, PAUSE_SECONDS, MINUTES = 20, 5, 2
DRAWN = """() => {
  const charts = [...document.querySelectorAll('.dashboard-chart')].filter(c => c.offsetParent);
  const drawn = 'canvas, table tbody tr, .header-line, .superset-legacy-chart-big-number, .ant-empty';
  const loading = '.loading, [data-test=loading-indicator]';
  return charts.length && charts.every(c => c.querySelector(drawn) && !c.querySelector(loading));
}"""


def say(line: str = "") -> None:
    print(line, flush=True)


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def prepared(folder: Path | None, accounts: int) -> Settings:
    """A lake with a published build: the one in `folder`, as it is if it has one, or a demo made here."""
    if folder is not None:
        settings = load_settings(folder / "sources.yaml")
        if store_of(settings.home, settings.publish).current():
            return settings
    if folder is None:
        folder = REPO / "data" / "benchmarks" / f"dashboards-{accounts}"
        if not (folder / "sources.yaml").exists():
            shutil.rmtree(folder, ignore_errors=True)
            write_demo_lake(folder, date(2026, 11, 22), accounts=accounts, seed=7)
    settings = load_settings(folder / "sources.yaml")
    assert local.refresh(settings, only_if_changed=True, say=say), "the refresh failed: see its log above"
    return settings


@contextmanager
def serving(settings: Settings, folder: Path) -> Iterator[str]:
    """Superset as `make up` starts it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        os.environ["SUPERSET_PORT"] = str(probe.getsockname()[1])
    known = (folder / local.ACCOUNTS).exists()
    local.demo_accounts(folder)
    local.set_up_superset(settings.home, folder, only_if_changed=known, say=say)
    service = local.services(settings.home, settings.home.root, folder)["SUPERSET_PORT"]
    (folder / "superset.log").unlink(missing_ok=True)
    local.start({"SUPERSET_PORT": service}, folder, say, seconds=600)
    try:
        while " are warm, " not in (folder / "superset.log").read_text(encoding="utf-8"):
            time.sleep(1)
        yield service.address
    finally:
        local.stop(folder, "superset", say)


class Client:
    """Superset's API as one account."""

    def __init__(self, url: str, folder: Path, user: str = "viewer") -> None:
        accounts = json.loads((folder / "accounts.json").read_text(encoding="utf-8"))
        password = next(a["password"] for a in accounts if a["username"] == user)
        self.url, self.user, self.password = url, user, password
        self.session = requests.Session()
        self.session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=10))
        body = {"username": user, "password": password, "provider": "db"}
        token = self.session.post(f"{url}/api/v1/security/login", json=body, timeout=60).json()["access_token"]
        self.session.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str) -> Any:
        answer = self.session.get(f"{self.url}{path}", timeout=120)
        answer.raise_for_status()
        return answer.json()["result"]

    def ask(self, body: dict[str, Any], *, force: bool = False) -> tuple[float, list[dict[str, Any]]]:
        """Seconds and results of one chart's data."""
        started = time.perf_counter()
        answer = self.session.post(f"{self.url}/api/v1/chart/data", json=body | {"force": force}, timeout=120)
        answer.raise_for_status()
        return time.perf_counter() - started, answer.json()["result"]

    def page(self, slug: str) -> list[tuple[str, dict[str, Any]]]:
        """Name and body of what a browser asks for when it opens a dashboard."""
        dashboard = self.get(f"/api/v1/dashboard/{slug}")
        filters = json.loads(dashboard["json_metadata"])["native_filter_configuration"]
        shown = set(first_shown(json.loads(dashboard["position_json"]), "ROOT_ID"))
        charts = [
            (c["slice_name"], c["form_data"], int(c["form_data"]["datasource"].split("__")[0]))
            for c in self.get(f"/api/v1/dashboard/{slug}/charts")
            if c["id"] in shown
        ]
        return [(name, body) for name, body, as_opened in page_requests(filters, charts) if as_opened]


def first_shown(layout: dict[str, Any], place: str) -> Iterator[int]:
    """Ids of the charts below a place of a dashboard that are drawn without a click: of tabs, the first."""
    if layout[place]["type"] == "CHART":
        yield layout[place]["meta"]["chartId"]
    children = layout[place].get("children", [])
    for child in children[:1] if layout[place]["type"] == "TABS" else children:
        yield from first_shown(layout, child)


# ---------------------------------------------------------------- one user, chart by chart


def charts(client: Client, build: Path, cold_rounds: int = 3, warm_rounds: int = 7) -> None:
    duck = duckdb.connect(str(build / "warehouse.duckdb"), read_only=True, config={"threads": 2, "memory_limit": "1GB"})
    rows, all_cold, all_warm, all_direct = [], [], [], []
    for slug in SLUGS:
        for name, body in client.page(slug):
            cold = [client.ask(body, force=True) for _ in range(cold_rounds)]
            warm = [client.ask(body) for _ in range(warm_rounds)]
            assert all(result["is_cached"] for _, results in warm for result in results), f"{name} was not kept"
            direct = []
            for _ in range(cold_rounds):
                started = time.perf_counter()
                for result in cold[0][1]:
                    duck.execute(result["query"]).fetchall()
                direct.append(time.perf_counter() - started)
            seconds = [[s for s, _ in cold], [s for s, _ in warm], direct]
            all_cold, all_warm, all_direct = all_cold + seconds[0], all_warm + seconds[1], all_direct + direct
            rows.append((slug, name, *(statistics.median(s) for s in seconds)))
    say("\n| one user, seconds | p50 | p95 | worst |\n|---|---|---|---|")
    for what, seconds_of in (
        ("chart data, from the build (cold)", all_cold),
        ("chart data, from the cache (warm)", all_warm),
        ("the same SQL straight to DuckDB", all_direct),
    ):
        say(f"| {what} | {quantile(seconds_of, 0.5):.3f} | {quantile(seconds_of, 0.95):.3f} | {max(seconds_of):.3f} |")
    cold_times, warm_times = (statistics.median(s) / statistics.median(all_direct) for s in (all_cold, all_warm))
    say(f"\nAt the median cold is {cold_times:.1f} times DuckDB alone, warm {warm_times:.1f}.")
    say("\n| slowest, medians in seconds | cold | warm | DuckDB |\n|---|---|---|---|")
    for slug, name, cold_s, warm_s, direct_s in sorted(rows, key=lambda row: -row[2])[:12]:
        say(f"| {slug}: {name} | {cold_s:.3f} | {warm_s:.3f} | {direct_s:.3f} |")
    duck.close()


# ---------------------------------------------------------------- many users


@dataclass
class Load:
    """What 20 users met."""

    answers: list[float] = field(default_factory=list)
    pages: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def users(url: str, folder: Path, warm: bool, seconds: float) -> Load:
    load, end = Load(), time.monotonic() + seconds

    def one(place: int) -> None:
        client, dice = Client(url, folder), random.Random(place)
        pages = {slug: client.page(slug) for slug in SLUGS}
        time.sleep(dice.uniform(0, PAUSE_SECONDS))
        with ThreadPoolExecutor(6) as browser:
            while time.monotonic() < end:
                started, page = time.perf_counter(), pages[dice.choice(SLUGS)]
                for asked in [browser.submit(client.ask, body, force=not warm) for _, body in page]:
                    try:
                        load.answers.append(asked.result()[0])
                    except requests.RequestException as error:
                        load.failures.append(str(error))
                load.pages.append(time.perf_counter() - started)
                time.sleep(PAUSE_SECONDS)

    threads = [threading.Thread(target=one, args=[place]) for place in range(USERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return load


def many_users(url: str, folder: Path) -> None:
    title = f"{USERS} users, {PAUSE_SECONDS} s between loads"
    say(f"\n| {title} | chart data p50 | p95 | page p50 | p95 | pages | failed |")
    say("|---|---|---|---|---|---|---|")
    for warm in (True, False):
        load = users(url, folder, warm, 60 * MINUTES)
        numbers = [quantile(v, q) for v in (load.answers, load.pages) for q in (0.5, 0.95)]
        name = "from the cache" if warm else "from the build, each time"
        say(f"| {name} | {' | '.join(f'{n:.2f}' for n in numbers)} | {len(load.pages)} | {len(load.failures)} |")


# ---------------------------------------------------------------- a browser


def pages(url: str, client: Client, rounds: int = 5) -> None:
    from playwright.sync_api import sync_playwright

    chromium = next(p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n)))
    say("\n| a dashboard in a warm browser, seconds until every chart is drawn | median | worst |\n|---|---|---|")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(viewport={"width": 1400, "height": 4200}).new_page()
        page.goto(f"{url}/login/")
        page.wait_for_load_state("networkidle")
        page.fill("#username", client.user)
        page.fill("#password", client.password)
        page.click("button[type=submit]")
        page.wait_for_url(lambda where: "/login" not in where, timeout=60_000)
        for slug in SLUGS:
            seconds = []
            for _ in range(rounds + 1):
                started = time.perf_counter()
                page.goto(f"{url}/superset/dashboard/{slug}/", wait_until="commit")
                page.wait_for_function(DRAWN, timeout=60_000, polling=50)
                seconds.append(time.perf_counter() - started)
            say(f"| {slug} | {statistics.median(seconds[1:]):.1f} | {max(seconds[1:]):.1f} |")
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["charts", "users", "pages"])
    parser.add_argument("--lake", type=Path, help="a folder with sources.yaml; default: a demo made for it")
    parser.add_argument("--accounts", type=int, default=400)
    arguments = parser.parse_args()
    settings = prepared(arguments.lake, arguments.accounts)
    build = store_of(settings.home, settings.publish).current()
    assert build is not None
    say(f"{platform.machine()}, {psutil.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}; {build.build_id}:")
    say(f"{build.rows['usage_by_week']:,} rows of usage_by_week, {build.rows['user_weeks']:,} of user_weeks")
    folder = settings.home.root / "benchmark"
    with serving(settings, folder) as url:
        client = Client(url, folder)
        if "charts" in arguments.parts:
            charts(client, store_of(settings.home, settings.publish).path(build.build_id))
        if "users" in arguments.parts:
            many_users(url, folder)
        if "pages" in arguments.parts:
            pages(url, client)


if __name__ == "__main__":
    main()
