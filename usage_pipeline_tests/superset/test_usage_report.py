"""Who looks at which page: counted from Superset's log, for administrators, and out of no door for anybody else."""

import re
import sqlite3
from typing import Any

import pytest

from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.servers import SupersetServer
from usage_pipeline_tests.support.visitors import Visitor

pytestmark = [pytest.mark.superset, pytest.mark.long]
ADDRESS = "/use-of-dashboards"


@pytest.fixture(scope="module")
def visitors(superset: SupersetServer) -> dict[str, Visitor]:
    return {name: Visitor(superset, name) for name in ("admin", "manager", "viewer", "analyst", "nobody")}


def rows_of(page: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", page, flags=re.DOTALL)
    return [
        [re.sub("<[^>]+>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)] for row in rows
    ]


def looks(page: str, who: str, title: str) -> int:
    return next((int(row[2]) for row in rows_of(page) if row[:2] == [who, title]), 0)


def test_an_administrator_sees_who_opened_which_page_and_how_often(visitors: dict[str, Visitor]) -> None:
    admin, viewer = visitors["admin"], visitors["viewer"]
    before = looks(admin.get(ADDRESS).text, "viewer", "Usage over time")
    for _ in range(3):
        assert viewer.get("/superset/dashboard/usage-over-time/").status_code == 200
    viewer.get("/superset/dashboard/usage-over-time/?standalone=3")  # as a scheduled report does
    answer = admin.get(ADDRESS)
    assert looks(answer.text, "viewer", "Usage over time") == before + 3
    assert answer.headers["Cache-Control"] == "no-store"
    assert any(
        row[0] == "Usage over time" and int(row[1]) >= before + 3 for row in rows_of(answer.text) if len(row) == 4
    )
    assert "usage-set-up" not in answer.text
    assert "warming" not in answer.text


def test_what_lies_longer_back_is_not_counted(visitors: dict[str, Visitor], superset: SupersetServer) -> None:
    visitors["analyst"].get("/superset/dashboard/changes/")
    page = visitors["admin"].get(ADDRESS).text
    assert looks(page, "analyst", "Changes in usage") >= 1
    with sqlite3.connect(superset.folder / "superset" / "superset.db", timeout=30) as metadata:
        metadata.execute(
            "UPDATE logs SET dttm = datetime(dttm, '-40 days') WHERE action = 'dashboard' AND user_id = "
            "(SELECT id FROM ab_user WHERE username = 'analyst')"
        )
    assert looks(visitors["admin"].get(ADDRESS).text, "analyst", "Changes in usage") == 0


@pytest.mark.parametrize("who", ["manager", "viewer", "analyst"])
def test_nobody_else_gets_it_through_any_door(visitors: dict[str, Visitor], who: str) -> None:
    visitor, admin = visitors[who], visitors["admin"]
    admin.get("/superset/dashboard/call-list/")
    answer = visitor.get(ADDRESS)
    assert answer.status_code == 403
    assert answer.text == "Who looks at which page is for administrators only."
    databases = admin.get("/api/v1/database/?q=(page_size:100)").json()["result"]
    asked: list[tuple[str, str, Any]] = [
        ("GET", "/api/v1/log/", None),
        ("GET", "/api/v1/log/?q=(page_size:100)", None),
        ("GET", "/log/list/", None),
        ("GET", "/actionlogmodelview/list/", None),
        ("GET", "/api/v1/security/users/", None),
    ]
    for database in databases:
        for sql in ("SELECT * FROM logs", "SELECT * FROM sqlite_scan('superset.db', 'logs')", "FROM main.logs"):
            asked.append(("POST", "/api/v1/sqllab/execute/", {"database_id": database["id"], "sql": sql}))
    for method, path, body in asked:
        answer = visitor.ask(method, path, body)
        found = answer.status_code == 200 and "/login" not in answer.url and path not in ("/log/list/",)
        assert not found or '"result": []' in answer.text or "admin" not in answer.text, (path, answer.text[:300])
    assert "admin" not in visitor.get("/api/v1/log/recent_activity/?q=(page_size:100)").text


def test_who_is_not_logged_in_is_sent_to_log_in(visitors: dict[str, Visitor]) -> None:
    answer = visitors["nobody"].session.get(f"{visitors['nobody'].url}{ADDRESS}", allow_redirects=False, timeout=30)
    assert (answer.status_code, answer.headers["Location"]) == (302, f"/login/?next={ADDRESS}")


def test_the_link_of_a_digest_leads_to_the_call_list_with_the_owner_set(
    superset: SupersetServer, browser: Any, demo: Demo
) -> None:
    """From a mail: not logged in yet, logs in, and stands on the own call list."""
    import duckdb

    with duckdb.connect(str(demo.warehouse), read_only=True) as connection:
        found = connection.execute(
            "SELECT owner, count(*) FROM mart.call_list WHERE urgency != 'Watch' GROUP BY 1 ORDER BY 2 LIMIT 1"
        ).fetchone()
        assert found is not None
        listed = connection.execute("SELECT account, owner FROM mart.call_list WHERE urgency != 'Watch'").fetchall()
    context = browser.new_context(viewport={"width": 1400, "height": 2600})
    page = context.new_page()
    page.goto(f"{superset.url}/call-list/{found[0].replace(' ', '%20')}")
    page.wait_for_load_state("networkidle")
    page.fill("#username", "viewer")
    page.fill("#password", superset.passwords["viewer"])
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "/superset/dashboard/call-list/" in url and "/login" not in url, timeout=60_000)
    page.wait_for_load_state("networkidle")
    own, other = (next(a for a, owner in listed if (owner == found[0]) is mine) for mine in (True, False))
    page.get_by_text(own).first.wait_for(timeout=60_000)
    assert page.get_by_text(other, exact=True).count() == 0
    context.close()
