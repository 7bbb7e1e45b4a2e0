"""What one person does to others, tried over HTTP on a running Superset: stored charts, lists of people, the Host header."""

import ast
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from usage_superset.chart_queries import payload
from usage_superset.superset_internals import INTERFACES

from usage_pipeline.operations.local import SUPERSET, SUPERSET_PYTHON, superset_environment
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.hostile_sql import HIDDEN, TEMPLATED, nested
from usage_pipeline_tests.support.servers import SupersetServer
from usage_pipeline_tests.support.superset_client import CHARTS, listed
from usage_pipeline_tests.support.visitors import Places, Visitor, ask_for, in_sql

# of classes of ours that inherit from Superset's: what is not put over anything
OWN_METHODS = {"limits", "raise_for_database", "validate_old_password"}

pytestmark = pytest.mark.superset("second")

HOSTILE = {
    "a list": json.dumps({"metrics": [{"sqlExpression": ["sum(clicks)"]}]}),
    "a number": json.dumps({"metrics": [{"sqlExpression": 7}]}),
    "a dictionary": json.dumps({"adhoc_filters": [{"sqlExpression": {"a": 1}}]}),
    "nested lists": nested(400, "list"),
    "nested dictionaries": nested(400, "dict"),
    "nested brackets": json.dumps({"metrics": [{"sqlExpression": "(" * 400 + "1" + ")" * 400}]}),
}


def chart_on(dataset: int, params: str = "{}", **more: Any) -> dict[str, Any]:
    made = {"slice_name": "of an analyst", "viz_type": "table", "datasource_id": dataset, "datasource_type": "table"}
    return made | {"params": params} | more


@pytest.fixture
def stored(visitors: dict[str, Visitor]) -> Iterator[list[int]]:
    """Charts that a test stores; gone afterwards."""
    numbers: list[int] = []
    yield numbers
    for number in numbers:
        visitors["admin"].ask("DELETE", f"/api/v1/chart/{number}")


# ---------------------------------------------------------------- charts that others store


@pytest.mark.parametrize("what", list(HOSTILE))
@pytest.mark.long
def test_a_stored_chart_of_an_analyst_breaks_nobodys_page(
    visitors: dict[str, Visitor], places: Places, stored: list[int], what: str
) -> None:
    """Before: 500 to viewers and managers on every request for that dataset; now each is answered."""
    dataset = places.datasets["usage_by_week"]
    made = visitors["analyst"].post("/api/v1/chart/", chart_on(dataset, HOSTILE[what]))
    assert made.status_code == 201, made.text
    stored.append(made.json()["id"])
    for who in ("viewer", "manager", "analyst"):
        body = ask_for(dataset, columns=["account"], metrics=["clicks_sum"])
        answer = visitors[who].post("/api/v1/chart/data", body)
        assert answer.status_code == 200, f"{who}: {answer.text[:300]}"


@pytest.mark.long
def test_pages_learn_nothing_from_charts_that_are_not_managed(
    visitors: dict[str, Visitor], places: Places, stored: list[int]
) -> None:
    """Before: an analyst's chart opened its expression, whatever it was, to everybody who may not explore."""
    dataset = places.datasets["usage_by_week"]
    expression = in_sql("max(account) || 'learned'")
    made = visitors["analyst"].post("/api/v1/chart/", chart_on(dataset, json.dumps({"metrics": [expression]})))
    stored.append(made.json()["id"])
    assert visitors["viewer"].post("/api/v1/chart/data", ask_for(dataset, metrics=[expression])).status_code == 403


@pytest.mark.long
def test_nobody_but_set_up_makes_or_changes_a_managed_chart(
    visitors: dict[str, Visitor], places: Places, stored: list[int]
) -> None:
    """Before: whoever may write charts could call one managed, and write the query of one that is."""
    analyst, dataset = visitors["analyst"], places.datasets["usage_by_week"]
    answer = analyst.post("/api/v1/chart/", chart_on(dataset, is_managed_externally=True))
    assert answer.status_code in (403, 422), answer.text
    made = analyst.post("/api/v1/chart/", chart_on(dataset))
    stored.append(made.json()["id"])
    own = f"/api/v1/chart/{made.json()['id']}"
    assert analyst.ask("PUT", own, {"slice_name": "renamed"}).status_code == 200, "its author changes a chart"
    assert analyst.ask("PUT", own, {"is_managed_externally": True}).status_code in (403, 422)
    managed = f"/api/v1/chart/{places.charts[CHARTS['anomalies_per_week']['slice_name']]}"
    before = visitors["admin"].get(managed).json()["result"]["query_context"]
    answer = analyst.ask("PUT", managed, {"query_context": "{}", "query_context_generation": True})
    assert answer.status_code in (403, 422), answer.text
    assert visitors["admin"].get(managed).json()["result"]["query_context"] == before != "{}"


@pytest.mark.soak
def test_every_chart_answers_by_its_number_what_its_page_shows(visitors: dict[str, Visitor]) -> None:
    """Superset's own server for agents and reports of one chart ask so: no chart had an answer."""
    numbers = {found["slice_name"]: found for found in listed(visitors["admin"], "chart")}
    for chart in CHARTS.values():
        found = numbers[chart["slice_name"]]
        asked = payload(chart["params"], found["datasource_id"], as_rows=False)
        for who in ("viewer", "manager"):
            stored = visitors[who].get(f"/api/v1/chart/{found['id']}/data/")
            shown = visitors[who].post("/api/v1/chart/data", asked)
            # a chart that somebody may not see is not there for them
            refused = {403: 404}.get(shown.status_code, shown.status_code)
            assert stored.status_code == refused, (chart["slice_name"], who, stored.text[:300])
            if stored.status_code == 200:
                kept, fresh = ([query["data"] for query in answer.json()["result"]] for answer in (stored, shown))
                assert [len(rows) for rows in kept] == [len(rows) for rows in fresh], (chart["slice_name"], who)
                # of rows that are equal in what they are sorted by, any may be left out at the limit
                if all(len(rows) < chart["params"].get("row_limit", 1) for rows in kept):
                    for one, other in zip(kept, fresh, strict=True):
                        assert sorted(map(repr, one)) == sorted(map(repr, other)), (chart["slice_name"], who)


def test_nobody_stores_a_chart_on_a_dataset_that_they_may_not_read(
    visitors: dict[str, Visitor], places: Places, stored: list[int]
) -> None:
    """Before: an analyst stored one on contacts (201), which broke that page for managers."""
    analyst, people, dataset = visitors["analyst"], places.datasets["account_contacts"], places.datasets["build"]
    answer = analyst.post("/api/v1/chart/", chart_on(people, HOSTILE["a list"]))
    if answer.status_code == 201:
        stored.append(answer.json()["id"])
    assert answer.status_code in (403, 422), answer.text
    made = analyst.post("/api/v1/chart/", chart_on(dataset))
    stored.append(made.json()["id"])
    moved = {"datasource_id": people, "datasource_type": "table"}
    assert analyst.ask("PUT", f"/api/v1/chart/{made.json()['id']}", moved).status_code in (403, 422)
    assert analyst.post("/api/v1/chart/", chart_on(4711)).status_code in (403, 404, 422), "nor on one that is not there"
    form_data = json.dumps({"datasource": f"{people}__table", "viz_type": "table"})
    analyst.post(f"/explore/?action=saveas&slice_name=mine&datasource_id={people}&datasource_type=table", form_data)
    shown = visitors["manager"].post("/api/v1/chart/data", payload(CHARTS["people"]["params"], people))
    assert shown.status_code == 200, shown.text[:300]
    found = listed(visitors["admin"], "chart")
    assert len([chart for chart in found if chart["datasource_id"] == people]) == len(
        [chart for chart in CHARTS.values() if chart["dataset_uuid"] == CHARTS["people"]["dataset_uuid"]]
    )


@pytest.mark.parametrize("who", ["viewer", "manager", "analyst"])
@pytest.mark.parametrize("value", [["a"], 7, {"a": {}}, "(" * 400 + "1" + ")" * 400, "{{ 1 }}", True])
def test_a_request_of_any_form_is_answered_and_refused(
    visitors: dict[str, Visitor], places: Places, who: str, value: Any
) -> None:
    """Before: an expression that is no text was a 500."""
    dataset = places.datasets["build"]
    for query in ({"metrics": [in_sql(value)]}, {"columns": [in_sql(value)]}, {"orderby": [[in_sql(value), True]]}):
        answer = visitors[who].post("/api/v1/chart/data", ask_for(dataset, **({"columns": ["build_id"]} | query)))
        is_read = who == "analyst" and isinstance(value, str) and "(" in value
        assert answer.status_code in ((200, 400, 403, 422) if is_read else (400, 403, 422)), answer.text[:300]


# ---------------------------------------------------------------- SQL with two readings


def test_templates_and_ctes_open_nothing_in_sql_lab(visitors: dict[str, Visitor], places: Places, demo: Demo) -> None:
    """Before: templates were rendered for one reader of two, and a CTE's name let `duckdb_databases` tell the path."""
    analyst, database = visitors["analyst"], places.databases["Usage"]
    hidden = [sql.format(t=table) for sql in HIDDEN for table in ("duckdb_databases", "sqlite_master")]
    for sql in [*TEMPLATED, *hidden]:
        answer = analyst.run(sql, database)
        # Superset says 500 of whatever its SQL Lab refuses
        assert answer.status_code >= 400 and "SECURITY_ACCESS_ERROR" in answer.text, f"{sql}: {answer.text[:300]}"
        assert str(demo.settings.home.published_dir) not in answer.text, sql
    for sql in TEMPLATED:
        assert "templates are switched off" in visitors["admin"].run(sql, database).text, "for administrators too"
    listed = analyst.get("/api/v1/query/?q=(page_size:100)")
    assert listed.status_code == 200, "what was refused is listed, and not rendered"


# ---------------------------------------------------------------- other people


@pytest.mark.long
@pytest.mark.parametrize(
    "who",
    ["viewer", "nobody", *(pytest.param(who, marks=pytest.mark.soak) for who in ("manager", "analyst", "pipeline"))],
)
def test_nobody_reads_who_else_there_is(
    superset: SupersetServer,
    visitors: dict[str, Visitor],
    places: Places,
    addresses: list[Any],
    stored: list[int],
    who: str,
) -> None:
    """Before: related/owners and its like gave every user with the mail address, related/roles every role."""
    made = visitors["admin"].post("/api/v1/chart/", chart_on(places.datasets["build"]))
    stored.append(made.json()["id"])
    others = {"admin", "manager", "viewer", "analyst", "warming", "usage-set-up"} - {who}
    related = [rule.replace("<column_name>", "{}") for rule, _ in addresses if rule.endswith("/related/<column_name>")]
    assert len(related) > 10
    columns = ["owners", "roles", "created_by", "changed_by", "user", "users", "groups", "last_saved_by", "modified_by"]
    for address in related:
        for column in columns:
            for asked in ("", "?q=(page_size:100)", "?q=(include_ids:!(1,2,3,4,5,6))", "?q=(filter:a)"):
                answer = visitors[who].get(address.format(column) + asked)
                assert answer.status_code in (200, 401, 403, 404), f"{address} {column}: {answer.text[:200]}"
                found = answer.json().get("result", []) if answer.status_code == 200 else []
                assert [item["text"].strip() for item in found] in ([], [who.capitalize()], [who]), answer.text[:300]
                assert "@usage.invalid" not in answer.text
                assert "Usage viewer" not in answer.text
    lists = [rule for rule, kinds in addresses if rule.startswith("/api/v1/") and rule.endswith("/") and not kinds]
    lists += [f"/api/v1/{kind}/?q=(page_size:200)" for kind in ("chart", "dashboard", "dataset", "theme", "log")]
    lists += [f"/api/v1/chart/{made.json()['id']}", f"/api/v1/dataset/{places.datasets['build']}"]
    lists += ["/api/v1/dashboard/call-list", f"/api/v1/dataset/{places.datasets['build']}/drill_info/"]
    for address in lists:
        text = visitors[who].get(address).text
        assert not [name for name in others if f"{name}@usage.invalid" in text or f'"username": "{name}"' in text], (
            address
        )


def test_an_administrator_reads_who_there_is(visitors: dict[str, Visitor]) -> None:
    listed = visitors["admin"].get("/api/v1/dashboard/related/owners").json()["result"]
    assert {"Admin", "Viewer"} <= {item["text"].strip() for item in listed}
    assert visitors["admin"].get("/api/v1/dashboard/related/roles").json()["count"] > 5


# ---------------------------------------------------------------- requests


@pytest.mark.long
@pytest.mark.parametrize("who", ["admin", "viewer", "nobody"])
@pytest.mark.sample("viewer")
def test_no_address_that_is_read_falls_over(
    superset: SupersetServer, visitors: dict[str, Visitor], addresses: list[Any], who: str
) -> None:
    """Before: /api/v1/database/oauth2/ was a 500, logged in or not."""
    visitor, failed = visitors[who], []
    for rule, kinds in addresses:
        if kinds or rule.startswith(("/logout", "/static", "/lang")):
            continue
        answer = visitor.session.get(f"{visitor.url}{rule}", allow_redirects=False, timeout=60)
        failed += [rule] if answer.status_code >= 500 else []
    assert failed == []
    for address in (
        "/api/v1/database/oauth2/",
        "/api/v1/database/oauth2/?state=a&code=b",
        "/api/v1/database/oauth2/?state=%7B%7B&error=x",
    ):
        assert visitor.session.get(f"{visitor.url}{address}", timeout=60).status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8088", "localhost.evil.example", "127.0.0.1@evil.example", "127.0.0.1.", "::1"])  # fmt: skip
def test_without_names_of_its_own_a_server_answers_to_this_machine_only(superset: SupersetServer, host: str) -> None:
    """Before: a redirect to the log-in carried whatever Host was sent, in `?next=`."""
    answer = requests.get(f"{superset.url}/dashboard/list/", headers={"Host": host}, allow_redirects=False, timeout=30)
    assert answer.status_code == 400, answer.text[:300]
    assert "evil" not in answer.headers.get("Location", "")
    assert requests.get(f"{superset.url}/health", headers={"Host": "probe"}, timeout=30).status_code == 200


def test_the_log_in_leads_on_to_a_path_and_to_no_host(superset: SupersetServer) -> None:
    for path in ("/dashboard/list/?a=1", "/users/", "/superset/dashboard/call-list/"):
        headers = {"Host": "localhost:9999"}
        answer = requests.get(f"{superset.url}{path}", headers=headers, allow_redirects=False, timeout=30)
        assert "9999" not in answer.headers["Location"], answer.headers["Location"]
        assert answer.headers["Location"].startswith("/login/?next=/"), answer.headers["Location"]


def test_no_page_is_framed(superset: SupersetServer, visitors: dict[str, Visitor]) -> None:
    """Before: the policy did not say who may frame a page."""
    for path in ("/login/", "/superset/dashboard/call-list/", "/api/v1/chart/", "/use-of-dashboards"):
        headers = visitors["admin"].get(path).headers
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"], path
        assert headers["X-Frame-Options"] == "DENY", path


# ---------------------------------------------------------------- Superset as it is installed


def run_in_superset(superset: SupersetServer, demo: Demo, code: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | superset_environment(demo.settings.home, superset.folder) | {"PYTHONPATH": str(SUPERSET)}
    return subprocess.run(
        [str(SUPERSET_PYTHON), "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.long
def test_a_superset_that_has_changed_does_not_start_and_says_what_has(superset: SupersetServer, demo: Demo) -> None:
    code = (
        "import superset.utils.excel as e\ndel e.quote_formulas\n"
        "import superset.dataframe as d\nd.df_to_records = lambda other: []\n"
        "from superset.app import create_app\ncreate_app()\n"
    )
    done = run_in_superset(superset, demo, code)
    assert done.returncode != 0
    for sentence in (
        "superset.utils.excel:quote_formulas is missing",
        "superset.dataframe:df_to_records takes no dframe",
        "is installed, which has changed: install the versions that superset/requirements.lock names",
    ):
        assert sentence in done.stderr, done.stderr[-2000:]


def test_whatever_we_replace_of_superset_stands_in_the_list() -> None:
    """Read from our files: what is assigned to attributes of Superset's, and what classes of ours put over its own."""
    listed = {part for name in INTERFACES for part in name.partition(":")[2].split(".")}
    replaced: set[str] = set()
    for file in sorted(SUPERSET.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        of_others = {
            (alias.asname or alias.name).split(".")[0]
            for node in imports
            for alias in node.names
            if (getattr(node, "module", None) or alias.name).startswith(
                ("superset", "flask_appbuilder", "flask_caching")
            )
        }
        # a loop over modules of theirs
        loops = {ast.unparse(node.target) for node in ast.walk(tree) if isinstance(node, ast.For) and "superset." in ast.unparse(node.iter)}  # fmt: skip
        for node in ast.walk(tree):
            for target in node.targets if isinstance(node, ast.Assign) else []:
                if isinstance(target, ast.Attribute) and ast.unparse(target).split(".")[0] in of_others | loops:
                    replaced.add(target.attr)
            if isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} & of_others:
                own = [part.name for part in node.body if isinstance(part, ast.FunctionDef)]
                replaced |= {name for name in own if not name.startswith("_")} - OWN_METHODS
    assert {"data", "related", "create", "df_to_excel", "get_df_payload", "process_jinja_sql"} <= replaced
    assert replaced <= listed, replaced - listed
