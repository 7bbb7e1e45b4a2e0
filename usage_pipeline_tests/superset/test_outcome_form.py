"""The form for outcomes, asked over HTTP and filled in by a real browser, as each role."""

import html
import json
import re
import shutil
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import pytest
import requests

from usage_pipeline.core.files import keep_private
from usage_pipeline.operations.local import run_in_superset
from usage_pipeline.outcomes.database import renew_outcomes
from usage_pipeline.outcomes.records import Record, kept_folder, problems, read_records
from usage_pipeline.publishing.builds import store_of
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.servers import SupersetServer
from usage_pipeline_tests.support.superset_client import Client, data_of, log_in, open_dashboard
from usage_pipeline_tests.support.visitors import Places, Visitor, ask_for, token_of

pytestmark = pytest.mark.superset
HOSTILE = "<script>alert(1)</script> & <img src=x onerror=alert(2)> {{ 7*7 }}"


@pytest.fixture(autouse=True)
def feedback(demo: Demo) -> Iterator[Path]:
    """No record but those of the test."""
    keep_private()
    _forget(demo)
    yield demo.settings.home.feedback_dir
    _forget(demo)


def _forget(demo: Demo) -> None:
    kept = kept_folder(demo.settings.home.history_dir)
    files = [*demo.settings.home.feedback_dir.glob("*.json"), *kept.glob("*.json")]
    for file in files:
        file.unlink()
    if files:
        renew_outcomes(demo.settings.home, demo.settings.clock, demo.settings.outcomes)


@pytest.fixture
def call(demo: Demo) -> dict[str, Any]:
    """The first row of the call list."""
    return calls(demo)[0]


def calls(demo: Demo) -> list[dict[str, Any]]:
    with duckdb.connect(str(demo.warehouse.resolve()), read_only=True) as connection:
        return connection.execute("SELECT * FROM mart.call_list ORDER BY rank").df().to_dict("records")


def reasons_of(demo: Demo, account_id: str) -> set[tuple[str, str]]:
    with duckdb.connect(str(demo.warehouse.resolve()), read_only=True) as connection:
        sql = "SELECT application_key, call_reason FROM mart.call_reasons WHERE account_id = ?"
        return set(connection.execute(sql, [account_id]).fetchall())


def address(account_id: str) -> str:
    return f"/outcome/{quote(account_id, safe='')}"


def records(demo: Demo) -> list[Record]:
    return read_records(demo.settings.home.feedback_dir, demo.settings.home.history_dir)


def filled(page: str, **given: str) -> dict[str, str]:
    seen = re.search(r'name="seen" value="([^"]+)"', page)
    assert seen, page
    return {"csrf_token": token_of(page), "seen": seen[1], "status": "open", "reached": ""} | given


def send(visitor: Visitor, account_id: str, form: dict[str, str]) -> requests.Response:
    return visitor.session.post(f"{visitor.url}{address(account_id)}", data=form, timeout=60)


def plain(visitor: Visitor) -> Visitor:
    """Without the header that gives every request of a visitor a token."""
    visitor.session.headers.pop("X-CSRFToken", None)
    return visitor


# ---------------------------------------------------------------- who may


@pytest.mark.parametrize("who", ["admin", "manager", "viewer", "analyst"])
@pytest.mark.sample("viewer", rest="soak")
def test_whoever_sees_the_call_list_records_and_reads_it_back(
    visitors: dict[str, Visitor], demo: Demo, call: dict[str, Any], who: str
) -> None:
    page = visitors[who].get(address(call["account_id"]))
    assert page.status_code == 200 and html.escape(call["account"]) in page.text
    answer = send(visitors[who], call["account_id"], filled(page.text, status="done", reached="yes", note="they call"))
    assert answer.status_code == 200 and "Recorded." in answer.text and "they call" in answer.text
    (found,) = records(demo)
    assert (found.recorded_by, found.account_id, found.status, found.was_reached) == (
        *(who, call["account_id"]),
        *("done", True),
    )
    assert {(r.application_key, r.call_reason) for r in found.reasons} == reasons_of(demo, call["account_id"])
    current = store_of(demo.settings.home, demo.settings.publish).current()
    assert current and (found.build_id, str(found.week)) == (current.build_id, current.newest_week)
    assert problems(demo.settings.home.feedback_dir, demo.settings.home.history_dir) == []


@pytest.mark.parametrize("who", ["pipeline", "nobody"])
def test_whoever_has_no_right_reads_and_records_nothing(
    visitors: dict[str, Visitor], demo: Demo, call: dict[str, Any], who: str
) -> None:
    send(visitors["viewer"], call["account_id"], filled(visitors["viewer"].get(address(call["account_id"])).text, note="secret"))  # fmt: skip
    form = filled(visitors["viewer"].get(address(call["account_id"])).text, status="done")
    page = visitors[who].session.get(f"{visitors[who].url}{address(call['account_id'])}", allow_redirects=False)
    assert page.status_code in (302, 403) and "secret" not in page.text
    form["csrf_token"] = visitors[who].token()
    answer = visitors[who].session.post(
        f"{visitors[who].url}{address(call['account_id'])}", data=form, allow_redirects=False, timeout=60
    )
    assert answer.status_code in (302, 403)
    assert [found.status for found in records(demo)] == ["open"]


def test_a_forged_request_is_refused(superset: SupersetServer, demo: Demo, call: dict[str, Any]) -> None:
    visitor = plain(Visitor(superset, "viewer"))
    form = filled(visitor.get(address(call["account_id"])).text, status="done")
    for token in ({}, {"csrf_token": ""}, {"csrf_token": "x" + form["csrf_token"]}):
        sent = {key: value for key, value in form.items() if key != "csrf_token"} | token
        answer = visitor.session.post(
            f"{visitor.url}{address(call['account_id'])}", data=sent, allow_redirects=False, timeout=60
        )
        assert answer.status_code in (302, 400), answer.status_code
    stranger = plain(Visitor(superset, "nobody"))
    form["csrf_token"] = stranger.token()
    stranger.session.post(f"{superset.url}{address(call['account_id'])}", data=form, timeout=60)
    assert records(demo) == []


# ---------------------------------------------------------------- what is taken


def test_what_people_write_is_text(visitors: dict[str, Visitor], demo: Demo, call: dict[str, Any]) -> None:
    page = visitors["viewer"].get(address(call["account_id"])).text
    answer = send(visitors["viewer"], call["account_id"], filled(page, note=HOSTILE + "\r\nsecond\x00\u202e line"))
    assert HOSTILE not in answer.text and html.escape(HOSTILE) in answer.text
    assert "<script" not in answer.text and "<img" not in answer.text
    (found,) = records(demo)
    assert found.note and found.note.text == HOSTILE + "\nsecond line"


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "gone"},
        {"status": ""},
        {"reached": "perhaps"},
        {"status": "snoozed", "until": "2020-01-01"},
        {"status": "snoozed", "until": "9999-12-31"},
        {"status": "snoozed", "until": "soon"},
        {"note": "x" * 1001},
        {"seen": "of another list"},
    ],
)
def test_what_makes_no_sense_is_said_and_not_taken(
    visitors: dict[str, Visitor], demo: Demo, call: dict[str, Any], wrong: dict[str, str]
) -> None:
    page = visitors["viewer"].get(address(call["account_id"])).text
    answer = send(visitors["viewer"], call["account_id"], filled(page, **wrong))
    assert answer.status_code == 400 and 'role="alert"' in answer.text
    assert records(demo) == []


def test_an_account_that_is_not_on_the_list_takes_none(visitors: dict[str, Visitor], demo: Demo, call: dict[str, Any]) -> None:  # fmt: skip
    form = filled(visitors["viewer"].get(address(call["account_id"])).text, status="done")
    for account_id in ("nowhere", "' OR 1=1 --", "../../etc/passwd", HOSTILE, "%"):
        page = visitors["viewer"].get(address(account_id))
        assert page.status_code == 200 and "not on the call list" in page.text and "<script" not in page.text
        assert send(visitors["viewer"], account_id, form).status_code == 400
    assert records(demo) == []


@pytest.mark.long
def test_two_at_once_are_both_recorded(visitors: dict[str, Visitor], demo: Demo, call: dict[str, Any]) -> None:
    who = ("admin", "manager", "viewer", "analyst")
    forms = {name: filled(visitors[name].get(address(call["account_id"])).text, note=f"by {name}") for name in who}
    start, answers = threading.Barrier(len(who)), {}

    def record(name: str) -> None:
        start.wait()
        answers[name] = send(visitors[name], call["account_id"], forms[name]).status_code

    threads = [threading.Thread(target=record, args=(name,)) for name in who]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == dict.fromkeys(who, 200)
    assert {found.recorded_by for found in records(demo)} == set(who)
    assert problems(demo.settings.home.feedback_dir, demo.settings.home.history_dir) == []
    page = visitors["viewer"].get(address(call["account_id"])).text
    assert all(f"by {name}" in page for name in who), "everybody reads all of them at once"


@pytest.mark.long
def test_after_a_rollback_answers_stay_and_new_ones_are_taken(
    visitors: dict[str, Visitor], demo: Demo, call: dict[str, Any]
) -> None:
    """The build before has other rows; what was recorded belongs to no build."""
    viewer, store = visitors["viewer"], store_of(demo.settings.home, demo.settings.publish)
    before = viewer.get(address(call["account_id"])).text
    send(viewer, call["account_id"], filled(before, status="done", note="before the rollback"))
    current = store.current()
    assert current
    older = store.path("00000-2026-11-15-00000000")
    shutil.copytree(store.path(current.build_id), older)
    for path in (older, *older.iterdir()):
        path.chmod(0o700 if path.is_dir() else 0o600)
    about = json.loads((older / "build.json").read_text()) | {"build_id": older.name}
    (older / "build.json").write_text(json.dumps(about))
    with duckdb.connect(str(older / "warehouse.duckdb")) as connection:
        connection.execute(
            "UPDATE mart.call_reasons SET urgency_rank = 3 WHERE account_id = $id", {"id": call["account_id"]}
        )
    try:
        store.rollback(older.name)
        answer = send(viewer, call["account_id"], filled(before, status="done"))
        assert answer.status_code == 400 and "the list has changed since" in answer.text
        page = viewer.get(address(call["account_id"])).text
        assert "before the rollback" in page
        assert send(viewer, call["account_id"], filled(page, note="after it")).status_code == 200
        assert [found.build_id for found in records(demo)] == [current.build_id, older.name]
    finally:
        store.release()
        shutil.rmtree(older)
    assert "after it" in viewer.get(address(call["account_id"])).text


# ---------------------------------------------------------------- what everybody sees


@pytest.mark.long
def test_everybody_sees_an_answer_at_the_next_look_without_a_refresh(
    superset: SupersetServer, visitors: dict[str, Visitor], browser: Any, demo: Demo
) -> None:
    """Another person, asked twice: nothing that was answered before is kept."""
    manager, urgent = Client(superset, "manager"), [row for row in calls(demo) if row["urgency"] == "Urgent"]
    done, snoozed, kept = urgent[:3]
    before = data_of(manager, "call_list")
    assert set(before["account"]) >= {done["account"], snoozed["account"]}
    assert data_of(manager, "handled_calls").empty
    tile = data_of(manager, "count_call_now")["urgent"].iloc[0]
    viewer = visitors["viewer"]
    for row, given in (
        (done, {"status": "done"}),
        (snoozed, {"status": "snoozed"}),
        (kept, {"status": "open", "reached": "no"}),
    ):
        page = viewer.get(address(row["account_id"])).text
        assert send(viewer, row["account_id"], filled(page, note="for this page only", **given)).status_code == 200
    assert renew_outcomes(demo.settings.home, demo.settings.clock, demo.settings.outcomes), (
        "what the sensor does every 15 s"
    )
    after, handled = data_of(manager, "call_list"), data_of(manager, "handled_calls")
    assert set(before["account"]) - set(after["account"]) == {done["account"], snoozed["account"]}
    assert set(handled["account"]) == {done["account"], snoozed["account"]}
    assert data_of(manager, "count_call_now")["urgent"].iloc[0] == tile - 2
    status = dict(zip(after["account"], after["call_status_text"], strict=True))[kept["account"]]
    assert status.startswith("Open: not reached ")
    assert not any("for this page only" in str(frame.to_dict()) for frame in (after, handled))
    assert not any("viewer" in str(frame.to_dict()) for frame in (after, handled)), "nor who recorded"
    context = browser.new_context()
    page = context.new_page()
    log_in(page, superset, "analyst")
    open_dashboard(page, superset, "call-list")
    row = page.locator("tr", has=page.locator("td", has_text=kept["account"])).first
    assert "Open: not reached" in row.inner_text()
    page.goto(superset.url + row.locator("a", has_text="Open: not reached").get_attribute("href"))
    assert page.locator("h1").inner_text() == kept["account"]
    assert "for this page only" in page.inner_text("body")
    context.close()


@pytest.mark.long
def test_how_csms_answer_is_for_their_head_alone(
    superset: SupersetServer, visitors: dict[str, Visitor], places: Places, demo: Demo
) -> None:
    superset.passwords["lead"] = "made for this test only"
    password, added = superset.passwords["lead"], ["add", "lead", "Usage team lead"]
    run_in_superset(demo.settings.home, superset.folder, "users", added, print, given=password)
    dataset, database = places.datasets["csm_responses"], places.databases["Usage outcomes"]
    asked = ask_for(dataset, columns=["owner", "answered_share"])
    lead = Visitor(superset, "lead").post("/api/v1/chart/data", asked)
    assert lead.status_code == 200 and lead.json()["result"][0]["data"], lead.text[:300]
    owners = {row["owner"] for row in calls(demo)}
    assert {row["owner"] for row in lead.json()["result"][0]["data"]} == owners
    for who in ("viewer", "manager", "analyst", "pipeline", "nobody"):
        refused = visitors[who].post("/api/v1/chart/data", asked)
        assert refused.status_code in (401, 403), f"{who}: {refused.text[:300]}"
        if who != "nobody":
            listed = visitors[who].get("/api/v1/dashboard/?q=(page_size:100)").json()["result"]
            assert "responses" not in {dashboard["slug"] for dashboard in listed}
    for table in ("responses.csm_responses", "csm_responses", "usage_outcomes.responses.csm_responses"):
        answer = visitors["analyst"].run(f"SELECT * FROM {table}", database)
        assert answer.status_code >= 400, answer.text[:300]


# ---------------------------------------------------------------- in a browser


_OTHERS = [pytest.param(who, marks=pytest.mark.soak) for who in ("admin", "manager", "analyst")]


@pytest.mark.parametrize("who", ["viewer", *_OTHERS])
@pytest.mark.long
def test_the_form_works_on_a_telephone_without_scripts(
    superset: SupersetServer, browser: Any, demo: Demo, call: dict[str, Any], who: str
) -> None:
    with_scripts = browser.new_context()
    log_in(with_scripts.new_page(), superset, who)  # Superset's own form is drawn by a script
    state = with_scripts.storage_state()
    with_scripts.close()
    phone = browser.new_context(
        viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True, java_script_enabled=False, storage_state=state
    )  # fmt: skip
    page = phone.new_page()
    page.goto(f"{superset.url}{address(call['account_id'])}")
    width = page.locator("form").bounding_box()["width"]
    assert width <= 390, "nothing is cut off"
    until = datetime.now(UTC).date() + timedelta(days=14)
    page.get_by_label("Yes").first.check()
    page.get_by_label("Snooze, until the day below or something new").check()
    page.get_by_label("Snooze until (may be empty)").fill(until.isoformat())
    kind = sorted(kind for _, kind in reasons_of(demo, call["account_id"]))[0]
    page.locator(f'input[name="useful {kind}"][value=no]').check()
    page.locator(f'select[name="why {kind}"]').select_option("known already")
    page.get_by_label("Note").fill("in two weeks\n<b>again</b>")
    page.get_by_role("button", name="Record").click()
    assert page.get_by_role("status").inner_text().startswith("Recorded.")
    assert "<b>again</b>" in page.locator("pre").inner_text()
    phone.close()
    (found,) = records(demo)
    assert (found.recorded_by, found.status, found.snoozed_until) == (who, "snoozed", until)
    assert [(u.call_reason, u.is_useful, u.why_not) for u in found.useful] == [(kind, False, "known already")]
    (file,) = demo.settings.home.feedback_dir.glob("*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
