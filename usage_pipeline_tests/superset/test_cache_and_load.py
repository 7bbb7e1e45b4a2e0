"""Results are cached by build, and right while builds are replaced: a real Superset, real publishes, many readers.

Each build tells its number: in `mart.build`, and in every count of clicks, which is that of the demo times the number.
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import psutil
import pytest
from usage_superset.chart_queries import payload

from usage_pipeline.operations.local import SUPERSET, SUPERSET_PYTHON, superset_environment
from usage_pipeline.publishing.builds import Build, BuildStore
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.servers import SupersetServer, serving
from usage_pipeline_tests.support.superset_client import (
    CHARTS,
    SLUGS,
    Client,
    charts_of,
    listed,
    log_in,
    open_dashboard,
    wait_until_drawn,
)

pytestmark = pytest.mark.superset("second")


@dataclass
class Publisher:
    """A private warehouse whose builds tell their number, and the store that they go to."""

    warehouse: Path
    store: BuildStore
    clicks: int = field(init=False)

    def __post_init__(self) -> None:
        with duckdb.connect(str(self.warehouse)) as connection:
            connection.execute("CREATE SCHEMA base; CREATE TABLE base.usage_by_week AS FROM mart.usage_by_week")
            found = connection.execute("SELECT sum(clicks) FROM mart.usage_by_week WHERE is_complete").fetchone()
        assert found is not None
        self.clicks = int(found[0])

    def prepare(self) -> Build:
        """Fills the private warehouse with the content of the next build."""
        build_id = self.store.next_id("2026-11-22", f"{random.randrange(16**8):08x}")
        with duckdb.connect(str(self.warehouse)) as connection:
            connection.execute("UPDATE mart.build SET build_id = ?, sentence = ?", [build_id, build_id])
            connection.execute(
                "CREATE OR REPLACE TABLE mart.usage_by_week AS "
                "SELECT * REPLACE (CAST(clicks * ? AS BIGINT) AS clicks) FROM base.usage_by_week",
                [number_of(build_id)],
            )
        return Build(build_id, "2026-11-22", "2026-11-09", build_id, {})

    def publish(self) -> int:
        return number_of(self.store.publish(self.warehouse, self.prepare()).build_id)

    def shown(self) -> int:
        return number_of(self.store.link.readlink().name)


def number_of(build_id: str) -> int:
    return int(build_id.split("-")[0])


@pytest.fixture(scope="module")
def publisher(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    folder = tmp_path_factory.mktemp("publisher")
    for path in (demo.settings.home.warehouse_path, demo.settings.home.private_contacts_path):
        shutil.copyfile(path, folder / path.name)
    made = Publisher(folder / "warehouse.duckdb", BuildStore(folder / "published"))
    made.publish()
    return made


@pytest.fixture(scope="module")
def environment(
    superset: SupersetServer, demo: Demo, publisher: Publisher, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """That of a second Superset, with the metadata of the first, on the publisher's builds."""
    folder = tmp_path_factory.mktemp("superset-of-the-publisher")
    for name in ("secret_key", "accounts.json", "superset/superset.db"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(superset.folder / name, folder / name)
    return superset_environment(demo.settings.home, folder) | {"USAGE_PUBLISHED": str(publisher.store.folder)}


@pytest.fixture(scope="module")
def server(environment: dict[str, str], superset: SupersetServer) -> Iterator[SupersetServer]:
    folder = Path(environment["SUPERSET_HOME"]).parent
    with serving(environment, folder) as url:
        yield SupersetServer(url, superset.passwords, folder)


# ---------------------------------------------------------------- what an answer tells


def ask(client: Client, chart: dict[str, Any], dataset: int) -> list[dict[str, Any]]:
    """The answers to a chart's queries, as a page asks for them."""
    answer = client.post("/api/v1/chart/data", payload(chart["params"], dataset, force=False))
    assert answer.status_code == 200, f"{chart['slice_name']}: {answer.status_code} {answer.text[:300]}"
    assert "max-age" not in answer.headers.get("Cache-Control", ""), "no browser keeps an answer"
    found: list[dict[str, Any]] = answer.json()["result"]
    return found


def build_told(chart: dict[str, Any], results: list[dict[str, Any]], publisher: Publisher) -> int | None:
    """The number of the build that the numbers of an answer are of; None where the chart tells none."""
    frames = [pd.DataFrame(result["data"]) for result in results]
    if "sentence" in frames[0]:
        return number_of(frames[0]["sentence"].iloc[0])
    if chart["viz_type"] != "mixed_timeseries":
        return None
    number, rest = divmod(int(frames[0]["clicks_sum"].sum()), publisher.clicks)
    assert rest == 0, "one answer, one build"
    by = [column for column in ("week_start", "application") if column in frames[0]]
    both = frames[0].merge(frames[1].dropna(subset="anomaly_clicks"), on=by)
    assert len(both)
    assert (both["clicks_sum"] == both["anomaly_clicks"]).all(), "both queries of a request see one build"
    return number


@pytest.fixture
def reader(server: SupersetServer) -> Client:
    return Client(server, "viewer")


def notified_by(client: Client, publisher: Publisher, name: str = "clicks_by_application") -> tuple[int | None, bool]:
    """Which build a chart shows now, and whether all of the answer came from the cache."""
    chart = CHARTS[name]
    results = ask(client, chart, client.charts()[chart["slice_name"]])
    return build_told(chart, results, publisher), all(result["is_cached"] for result in results)


# ---------------------------------------------------------------- the cache


@pytest.mark.long
def test_an_answer_is_kept_for_its_build_and_for_no_other(publisher: Publisher, reader: Client) -> None:
    first = publisher.publish()
    assert notified_by(reader, publisher) == (first, False)
    assert notified_by(reader, publisher) == (first, True)
    second = publisher.publish()
    assert notified_by(reader, publisher) == (second, False)
    assert notified_by(reader, publisher) == (second, True)


@pytest.mark.long
def test_a_rollback_shows_the_older_numbers_at_once_also_from_a_warm_cache(
    publisher: Publisher, reader: Client
) -> None:
    older = publisher.publish()
    assert notified_by(reader, publisher)[0] == older
    newer = publisher.publish()
    assert notified_by(reader, publisher)[0] == newer
    publisher.store.rollback()
    assert notified_by(reader, publisher) == (older, True), "kept from when it was shown before"
    assert notified_by(reader, publisher, "about_this_page")[0] == older
    publisher.store.release()
    assert notified_by(reader, publisher) == (newer, True)


@pytest.mark.long
def test_contacts_are_never_kept(
    server: SupersetServer, publisher: Publisher, demo: Demo, environment: dict[str, str]
) -> None:
    manager, people = Client(server, "manager"), CHARTS["people"]
    notified_by(manager, publisher)
    for _ in range(2):
        answer = ask(manager, people, manager.charts()[people["slice_name"]])[0]
        assert len(answer["data"]) > 10
        assert not answer["is_cached"]
    folder = Path(environment["SUPERSET_HOME"]) / "results"
    assert folder.stat().st_mode & 0o077 == 0
    emails = pd.read_parquet(demo.folder / "lake" / "contacts.parquet")["email"]
    kept = b"".join(file.read_bytes() for file in folder.iterdir())
    assert kept
    assert not any(email.encode() in kept for email in emails)
    body = payload(people["params"], manager.charts()[people["slice_name"]], force=False)
    assert "X-Usage-Kept" not in manager.post("/api/v1/chart/data", body).headers


@pytest.mark.long
def test_a_whole_answer_is_kept_for_readers_and_is_the_same(
    server: SupersetServer, publisher: Publisher, reader: Client
) -> None:
    chart = CHARTS["clicks_by_application"]
    body = payload(chart["params"], reader.charts()[chart["slice_name"]], force=False)
    publisher.publish()
    answers = [reader.post("/api/v1/chart/data", body) for _ in range(4)]
    kept = [answer.headers.get("X-Usage-Kept") == "answer" for answer in answers]
    assert (kept[0], kept[-1]) == (False, True)
    made = answers[kept.index(True) - 1].json()
    assert made["result"][0]["data"]
    assert answers[-1].json() == made
    reader.session.headers["Accept-Encoding"] = "identity"
    plain = reader.post("/api/v1/chart/data", body)
    assert (plain.headers.get("X-Usage-Kept"), plain.headers.get("Content-Encoding")) == ("answer", None)
    assert plain.json() == made
    for name in ("analyst", "admin"):
        assert "X-Usage-Kept" not in Client(server, name).post("/api/v1/chart/data", body).headers, name
    other = body | {
        "queries": [body["queries"][0] | {"metrics": [{"expressionType": "SQL", "sqlExpression": "1 + 1"}]}]
    }
    assert reader.post("/api/v1/chart/data", other).status_code == 403


@pytest.mark.long
def test_who_loses_a_right_gets_no_kept_answer(
    environment: dict[str, str], publisher: Publisher, reader: Client
) -> None:
    chart = CHARTS["clicks_by_application"]
    body = payload(chart["params"], reader.charts()[chart["slice_name"]], force=False)
    for _ in range(3):
        kept = reader.post("/api/v1/chart/data", body)
    assert kept.headers.get("X-Usage-Kept") == "answer"
    right = """
        SELECT rights.permission_view_id, rights.role_id FROM ab_permission_view_role AS rights
        JOIN ab_permission_view ON ab_permission_view.id = rights.permission_view_id
        JOIN ab_view_menu ON ab_view_menu.id = ab_permission_view.view_menu_id
        JOIN ab_role ON ab_role.id = rights.role_id
        WHERE ab_view_menu.name = '[Usage].[mart]' AND ab_role.name = 'Usage viewer'
    """
    metadata = sqlite3.connect(Path(environment["SUPERSET_HOME"]) / "superset.db", isolation_level=None)
    ((view, role),) = metadata.execute(right).fetchall()
    metadata.execute("DELETE FROM ab_permission_view_role WHERE permission_view_id = ? AND role_id = ?", (view, role))
    try:
        answer = reader.post("/api/v1/chart/data", body)
        assert answer.status_code == 403
        assert "X-Usage-Kept" not in answer.headers
    finally:
        metadata.execute(
            "INSERT INTO ab_permission_view_role (permission_view_id, role_id) VALUES (?, ?)", (view, role)
        )
        metadata.close()
    assert reader.post("/api/v1/chart/data", body).headers.get("X-Usage-Kept") == "answer"


_STORE = """
import os, resource, sys, time
from flask import Flask
from flask_caching import Cache
from usage_superset import build_cache
app = Flask("test")
cache = Cache(app, config={"CACHE_TYPE": "usage_superset.build_cache.results", "CACHE_DIR": sys.argv[1], "CACHE_MEGABYTES": 1})
with app.app_context():
    for number in range(30):
        assert cache.set(f"key {number}", b"x" * 100_000)
        os.utime(max(os.scandir(sys.argv[1]), key=lambda e: e.stat().st_mtime).path, (number, number))
    assert sum(e.stat().st_size for e in os.scandir(sys.argv[1])) <= 1_100_000
    assert cache.get("key 29") == b"x" * 100_000 and cache.get("key 0") is None, "the oldest go"
    build_cache.note_opened("usage_warehouse")
    assert cache.set("of a build", 1) and cache.get("of a build") == 1
    build_cache.note_opened("usage_contacts")
    assert not cache.set("of people", 1) and cache.get("of people") is None
with app.app_context():
    file = build_cache.ResultFiles._get_filename(cache.cache, "cut off")
    cache.set("cut off", "x" * 1000)
    os.truncate(file, 100)
    assert cache.get("cut off") is None, "what cannot be read is asked for again"
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    assert not cache.set("on a full disk", b"x" * 100_000) and cache.get("on a full disk") is None
print("fine")
"""


def test_the_files_stay_within_their_room_and_a_broken_or_full_store_is_an_empty_one(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    done = subprocess.run(
        [str(SUPERSET_PYTHON), "-W", "ignore", "-c", _STORE, str(tmp_path / "results")],
        env=os.environ | environment | {"PYTHONPATH": str(SUPERSET)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.endswith("fine\n"), done.stderr


# ---------------------------------------------------------------- refreshes that fail


@pytest.mark.long
def test_a_publish_that_is_killed_half_way_changes_nothing(publisher: Publisher, reader: Client) -> None:
    shown = publisher.publish()
    process = started_publish(publisher)
    while not [f for f in publisher.store.folder.glob(".0*/warehouse.duckdb") if f.stat().st_size]:
        assert process.poll() is None, "it was still at it"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert notified_by(reader, publisher)[0] == shown
    assert notified_by(reader, publisher, "about_this_page")[0] == shown
    assert publisher.publish() == shown + 1, "the next one needs no help"
    assert notified_by(reader, publisher)[0] == shown + 1


@pytest.mark.long
def test_a_publish_on_a_full_disk_changes_nothing(publisher: Publisher, reader: Client) -> None:
    shown = publisher.publish()
    before = sorted(file.name for file in publisher.store.folder.iterdir())
    process = started_publish(publisher, most_bytes=300_000)
    assert process.wait() != 0
    assert sorted(file.name for file in publisher.store.folder.iterdir()) == before
    assert notified_by(reader, publisher)[0] == shown


@pytest.mark.long
def test_a_damaged_warehouse_is_not_shown(publisher: Publisher, reader: Client) -> None:
    shown = publisher.publish()
    build = publisher.prepare()
    whole = publisher.warehouse.with_name("whole")
    shutil.copyfile(publisher.warehouse, whole)
    with publisher.warehouse.open("r+b") as file:
        file.seek(publisher.warehouse.stat().st_size // 3)
        file.write(os.urandom(publisher.warehouse.stat().st_size // 3))
    with pytest.raises(duckdb.Error):
        publisher.store.publish(publisher.warehouse, build)
    whole.replace(publisher.warehouse)
    assert notified_by(reader, publisher)[0] == shown


_PUBLISH = """
import json, resource, sys
from pathlib import Path
from usage_pipeline.publishing.builds import Build, BuildStore
warehouse, folder, build, most_bytes = sys.argv[1:]
if int(most_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most_bytes), int(most_bytes)))
BuildStore(Path(folder)).publish(Path(warehouse), Build(**json.loads(build)))
"""


def started_publish(publisher: Publisher, most_bytes: int = 0) -> subprocess.Popen[bytes]:
    """A publish in a process of its own, whose files may not grow beyond `most_bytes`."""
    build = json.dumps(publisher.prepare().__dict__)
    arguments = [str(publisher.warehouse), str(publisher.store.folder), build, str(most_bytes)]
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", _PUBLISH, *arguments])


# ---------------------------------------------------------------- readers while builds are replaced


@dataclass
class Readers:
    """Simulated users who load one dashboard after the other, and what they saw."""

    server: SupersetServer
    publisher: Publisher
    done: threading.Event = field(default_factory=threading.Event)
    failures: list[str] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    answers: int = 0
    from_cache: int = 0

    def read(self, place: int) -> None:
        client = Client(self.server, "viewer")
        datasets = client.charts()
        slugs = SLUGS[place % len(SLUGS) :] + SLUGS[: place % len(SLUGS)]
        while not self.done.is_set():
            for slug in slugs:
                # beside each page what says of itself which build it is of
                for chart in (CHARTS["about_this_page"], *charts_of_page[slug]):
                    try:
                        self._look(client, chart, datasets[chart["slice_name"]])
                    except Exception as error:
                        self.failures.append(f"{chart['slice_name']}: {error!r}")
                    if self.done.is_set():
                        return

    def _look(self, client: Client, chart: dict[str, Any], dataset: int) -> None:
        before = self.publisher.shown()
        results = ask(client, chart, dataset)
        told, after = build_told(chart, results, self.publisher), self.publisher.shown()
        self.answers += 1
        self.from_cache += all(result["is_cached"] for result in results)
        if told is not None:
            assert before <= told <= after, f"shown were {before} to {after}, the answer is of {told}"
            self.seen.add(told)


# the status file is read each time; which account, application or KPI will be picked nobody knows before
WARMED = [slug for slug in SLUGS if slug not in ("health", "account", "application", "kpi-sheet")]
charts_of_page = {slug: charts_of(slug) for slug in SLUGS}


def readers_and_publishes(
    server: SupersetServer, publisher: Publisher, users: int, publishes: int, pause: float
) -> None:
    readers = Readers(server, publisher)
    threads = [threading.Thread(target=readers.read, args=[place]) for place in range(users)]
    for thread in threads:
        thread.start()
    started = time.perf_counter()
    for _ in range(publishes):
        time.sleep(pause)
        publisher.publish()
    readers.done.set()
    for thread in threads:
        thread.join()
    print(
        f"{users} users, {publishes} publishes in {time.perf_counter() - started:.0f} s: {readers.answers} answers, "
        f"{readers.from_cache} from the cache, {len(readers.seen)} builds seen, {len(readers.failures)} failures"
    )
    assert readers.failures == []
    assert len(readers.seen) > publishes / 2
    assert readers.from_cache > 0


@pytest.mark.soak
def test_5_readers_see_whole_builds_and_no_older_one_while_10_are_published(
    server: SupersetServer, publisher: Publisher
) -> None:
    readers_and_publishes(server, publisher, users=5, publishes=10, pause=1)


@pytest.mark.soak
@pytest.mark.long
def test_20_readers_see_whole_builds_and_no_older_one_while_50_are_published(
    server: SupersetServer, publisher: Publisher
) -> None:
    readers_and_publishes(server, publisher, users=20, publishes=50, pause=2)


# ---------------------------------------------------------------- warming


@pytest.mark.soak
def test_a_new_build_is_warmed_and_a_browser_finds_all_of_every_page_kept(
    publisher: Publisher, environment: dict[str, str], superset: SupersetServer, browser: Any, tmp_path: Path
) -> None:
    with serving(environment | {"USAGE_WARM": "1"}, tmp_path) as url:
        build = publisher.publish()
        log = tmp_path / "gunicorn.log"
        told = wait_for(log, f"of build {publisher.store.link.readlink().name} are warm")
        answers = re.search(r"warming: (\d+) of (\d+) answers", told)
        assert answers is not None
        assert answers[1] == answers[2], log.read_text()
        server = SupersetServer(url, superset.passwords, tmp_path)
        assert notified_by(Client(server, "viewer"), publisher)[0] == build
        # outcomes and the state of the data are seen at once, so they are never kept
        of_builds = {d["id"] for d in listed(Client(server, "admin"), "dataset") if d["schema"] == "mart"}
        missed = {slug: not_kept(browser, server, slug, of_builds) for slug in WARMED}
        assert missed == {slug: [] for slug in WARMED}, f"chart_queries.py asks as browsers do, not for {missed}"
        watching = watches(environment)
        assert watching, "it goes on watching"
    psutil.wait_procs(watching, timeout=15)
    assert not [process for process in watching if process in watches(environment)], "it ends with the server"


def watches(environment: dict[str, str]) -> list[psutil.Process]:
    """The processes of that Superset which watch for another build."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it may end while it is looked at
            is_of_it = process.environ().get("SUPERSET_HOME") == environment["SUPERSET_HOME"]
            if is_of_it and process.cmdline()[-1:] == ["--watch"]:
                found.append(process)
    return found


def wait_for(log: Path, words: str, seconds: float = 600) -> str:
    """The line of a log that holds these words, once it is there."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for line in log.read_text(encoding="utf-8").splitlines():
            if words in line:
                return line
        time.sleep(0.5)
    raise AssertionError(f"{words}: not said within {seconds} s in {log.read_text(encoding='utf-8')[-3000:]}")


def not_kept(browser: Any, server: SupersetServer, slug: str, datasets: set[int]) -> list[str]:
    """The requests of a page for these datasets that were not answered from the cache."""
    context = browser.new_context(viewport={"width": 1400, "height": 4200})
    page, answers = context.new_page(), []

    def passed_on(route: Any) -> None:
        # read on its way: a browser that has taken in many bodies has forgotten some of them
        answer = route.fetch()
        answers.append((route.request.post_data, answer.json()["result"]))
        route.fulfill(response=answer)

    log_in(page, server, "viewer")
    page.route("**/api/v1/chart/data*", passed_on)
    open_dashboard(page, server, slug)
    tabs = page.locator("[role=tab]")
    for place in range(tabs.count()):
        tabs.nth(place).click()
        wait_until_drawn(page)
    page.unroute_all(behavior="wait")
    missed = [
        json.dumps(json.loads(asked)["queries"])
        for asked, results in answers
        if json.loads(asked)["datasource"]["id"] in datasets and not all(result["is_cached"] for result in results)
    ]
    assert len(answers) >= len(charts_of_page[slug])
    context.close()
    return missed


def test_warming_is_done_with_the_least_rights_and_nobody_logs_in_so(superset: SupersetServer) -> None:
    connection = sqlite3.connect(superset.folder / "superset" / "superset.db")
    found = connection.execute(
        "SELECT ab_user.active, ab_role.name FROM ab_user INNER JOIN ab_user_role ON ab_user.id = ab_user_role.user_id "
        "INNER JOIN ab_role ON ab_user_role.role_id = ab_role.id WHERE ab_user.username = 'warming'"
    ).fetchall()
    connection.close()
    assert found == [(0, "Usage service")]
