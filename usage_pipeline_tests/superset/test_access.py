"""Who may see what, tried over HTTP on a running Superset: every door by every role, and attacks on DuckDB behind it."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests
import yaml
from usage_superset.chart_queries import payload

from usage_pipeline.operations.local import (
    SUPERSET,
    run_in_superset,
    superset_command,
    superset_environment,
)
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.servers import SupersetServer, free_port
from usage_pipeline_tests.support.superset_client import CHARTS, listed, log_in, open_dashboard
from usage_pipeline_tests.support.visitors import GOOD_KEY, Places, Visitor, ask_for, in_sql, start_problems, token_of

pytestmark = pytest.mark.superset("second")

WITHOUT_CONTACTS = ["viewer", "analyst", "pipeline", "nobody"]


@pytest.fixture(scope="module")
def personal(demo: Demo) -> list[str]:
    """What nobody may see who may not see contacts: every address and number of the demo's people."""
    people = pd.read_parquet(demo.folder / "lake" / "contacts.parquet")
    return [*people["email"].dropna(), *people["phone"].dropna()]


def leaks(answer: requests.Response, personal: list[str]) -> bool:
    text = answer.text + (answer.content.decode("latin-1") if answer.content[:2] == b"PK" else "")
    return any(value in text for value in personal)


# ---------------------------------------------------------------- contacts, through every door


def doors(places: Places) -> list[tuple[str, str, Any]]:
    """Where contacts could come out: those that name them, and those that try to reach them from elsewhere."""
    people, build = places.datasets["account_contacts"], places.datasets["build"]
    contacts, usage = places.databases["Usage contacts"], places.databases["Usage"]
    page, chart = places.dashboards["contacts"], places.charts[CHARTS["people"]["slice_name"]]
    columns = ["name", "email", "phone"]
    data = "/api/v1/chart/data"
    table = "personal.account_contacts"
    found: list[tuple[str, str, Any]] = [
        ("POST", data, payload(CHARTS["people"]["params"], people)),
        ("POST", data, ask_for(people, columns=columns)),
        ("POST", data, ask_for(people, columns=columns) | {"result_format": "csv"}),
        ("POST", data, ask_for(people, columns=columns) | {"result_format": "xlsx"}),
        ("POST", data, ask_for(people) | {"result_type": "samples"}),
        ("POST", data, ask_for(people) | {"result_type": "drill_detail"}),
        ("POST", data, ask_for(people, columns=columns) | {"form_data": {"slice_id": chart, "dashboardId": page}}),
        ("POST", data, ask_for(build, columns=columns, datasource={"id": people, "type": "table"})),
        ("POST", data, ask_for(build, datasource={"id": people, "type": "table"}, result_type="samples")),
        ("POST", data, ask_for(build, metrics=[in_sql(f"(SELECT max(email) FROM {table})")])),
        (
            "POST",
            data,
            ask_for(build, metrics=[in_sql("(SELECT max(email) FROM query('FROM personal.account_contacts'))")]),
        ),
        ("POST", data, ask_for(build, columns=[in_sql(f"(SELECT max(email) FROM contacts.{table})")])),
        (
            "POST",
            data,
            ask_for(build, columns=["build_id"], extras={"where": f"1=1) UNION ALL SELECT email FROM {table} --"}),
        ),
        ("POST", data, ask_for(build, columns=["build_id"], annotation_layers=[_annotation(chart)])),
        ("POST", data, ask_for(people, columns=columns) | {"datasource": {"id": people, "type": "query"}}),
        ("POST", f"{data}?form_data=%7B%22slice_id%22%3A{chart}%7D", payload(CHARTS["people"]["params"], people)),
        ("GET", f"/api/v1/chart/{chart}/data/", None),
        ("GET", f"/api/v1/chart/{chart}", None),
        ("GET", f"/api/v1/chart/warm_up_cache?chart_id={chart}", None),
        ("PUT", "/api/v1/chart/warm_up_cache", {"chart_id": chart}),
        ("PUT", "/api/v1/dataset/warm_up_cache", {"db_name": "Usage contacts", "table_name": "account_contacts"}),
        ("GET", f"/api/v1/datasource/table/{people}/column/email/values/", None),
        ("POST", f"/api/v1/datasource/table/{people}/validate_expression/", {"expression": "email"}),
        ("POST", f"/datasource/samples?datasource_type=table&datasource_id={people}", {}),
        (
            "POST",
            f"/datasource/samples?datasource_type=table&datasource_id={people}&dashboard_id={page}",
            {"filters": []},
        ),
        ("POST", f"/superset/explore_json/?form_data=%7B%22datasource%22%3A%22{people}__table%22%7D", {}),
        ("GET", f"/api/v1/explore/?datasource_type=table&datasource_id={people}", None),
        ("POST", "/api/v1/explore/form_data", {"datasource_id": people, "datasource_type": "table", "form_data": "{}"}),
        ("POST", "/api/v1/explore/permalink", {"formData": {"datasource": f"{people}__table"}, "urlParams": []}),
        ("GET", "/api/v1/dashboard/export/?q=!({page})".replace("{page}", str(page)), None),
        ("GET", f"/api/v1/chart/export/?q=!({chart})", None),
        ("GET", f"/api/v1/dataset/export/?q=!({people})", None),
        ("GET", f"/api/v1/database/export/?q=!({contacts})", None),
        ("GET", "/api/v1/assets/export/", None),
        ("GET", f"/api/v1/database/{contacts}/select_star/account_contacts/personal/", None),
        ("GET", f"/api/v1/database/{contacts}/table_metadata/?name=account_contacts&schema=personal", None),
        ("POST", f"/api/v1/database/{contacts}/validate_sql/", {"sql": f"SELECT * FROM {table}", "schema": "personal"}),
        ("POST", "/api/v1/sqllab/estimate/", {"database_id": contacts, "sql": f"SELECT * FROM {table}"}),
        ("POST", f"/api/v1/dashboard/{page}/permalink", {"dataMask": {}, "activeTabs": [], "urlParams": []}),
        ("POST", f"/api/v1/dashboard/{page}/cache_dashboard_screenshot/", {}),
        ("GET", f"/api/v1/dashboard/{page}/embedded", None),
        (
            "POST",
            "/api/v1/security/guest_token/",
            {"user": {}, "resources": [{"type": "dashboard", "id": str(page)}], "rls": []},
        ),
    ]
    for database in (contacts, usage):
        for sql in (
            f"SELECT * FROM {table}",
            f"SELECT * FROM contacts.{table}",
            f"FROM {table}",
            f"FROM query('FROM {table}')",
            f"WITH a AS (FROM query('FROM {table}')) SELECT * FROM a",
            "FROM query_table('personal.account_contacts')",
            f"SELECT 1; SELECT * FROM {table}",
            f"SELECT /* */ * FROM {table} --",
            "SUMMARIZE personal.account_contacts",
            f"SELECT (SELECT max(email) FROM {table})",
        ):
            for schema in ("mart", "personal", None):
                found.append(
                    ("POST", "/api/v1/sqllab/execute/", {"database_id": database, "sql": sql, "schema": schema})
                )
    return found


def _annotation(chart: int) -> dict[str, Any]:
    shown = {"annotationType": "EVENT", "name": "a", "show": True, "showMarkers": False, "style": "solid"}
    return shown | {"sourceType": "table", "value": chart, "titleColumn": "email", "timeColumn": "last_used_on"}


@pytest.mark.parametrize("who", WITHOUT_CONTACTS)
def test_contacts_come_out_of_no_door(
    visitors: dict[str, Visitor], places: Places, personal: list[str], who: str
) -> None:
    for method, path, body in doors(places):
        answer = visitors[who].ask(method, path, body)
        assert not leaks(answer, personal), f"{who}: {method} {path} {json.dumps(body)[:300]}"
        if "data" in path and who != "nobody":
            assert answer.status_code >= 400 or "account_contacts" not in answer.text, f"{path} {body}"


def test_the_same_doors_are_open_to_those_who_may_see_contacts(
    visitors: dict[str, Visitor], places: Places, personal: list[str]
) -> None:
    """So that the test above proves something."""
    manager, people = visitors["manager"], places.datasets["account_contacts"]
    for kind in ("json", "csv"):
        body = ask_for(people, columns=["name", "email"]) | {"result_format": kind}
        assert leaks(manager.post("/api/v1/chart/data", body), personal)
    assert leaks(visitors["admin"].get(f"/api/v1/datasource/table/{people}/column/email/values/"), personal)
    in_sql_lab = visitors["admin"].run("FROM personal.account_contacts", places.databases["Usage contacts"])
    assert leaks(in_sql_lab, personal)


@pytest.mark.parametrize(
    "who", ["viewer", "nobody", *(pytest.param(who, marks=pytest.mark.soak) for who in ("analyst", "pipeline"))]
)
@pytest.mark.long
def test_no_address_at_all_shows_a_contact(
    superset: SupersetServer,
    visitors: dict[str, Visitor],
    places: Places,
    personal: list[str],
    addresses: list[Any],
    who: str,
) -> None:
    assert len(addresses) > 200
    # some address ends a session
    visitor = Visitor(superset, who)
    numbers = {
        *(places.datasets["account_contacts"], places.databases["Usage contacts"], places.dashboards["contacts"]),
        *(places.charts[CHARTS["people"]["slice_name"]], 1),
    }
    words = {
        "datasource_type": "table",
        "column_name": "email",
        "table_name": "account_contacts",
        "schema_name": "personal",
    }
    failed = []
    for rule, kinds in addresses:
        if rule.startswith(("/logout", "/static", "/lang")):
            continue
        for number in sorted(numbers) if kinds else [0]:
            path = re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", lambda m, n=number: words.get(m[1], str(n)), rule)
            answer = visitor.get(path)
            assert not leaks(answer, personal), f"{who}: {path}"
            if answer.status_code == 500:
                failed.append(path)
    assert visitor.get("/health").json()["ready"], failed
    assert visitor.get("/login/").status_code == 200, failed


@pytest.mark.parametrize("who", WITHOUT_CONTACTS)
def test_lists_name_nothing_of_contacts(visitors: dict[str, Visitor], places: Places, who: str) -> None:
    for what in ("dashboard", "chart", "dataset", "database", "saved_query", "tag", "report", "log"):
        answer = visitors[who].get(f"/api/v1/{what}/?q=(page_size:200)")
        text = answer.text if answer.status_code == 200 else ""
        assert '"Contacts"' not in text, what
        assert "account_contacts" not in text, what
        assert "Usage contacts" not in text, what


# ---------------------------------------------------------------- what each may do


FORBIDDEN = {
    "viewer": [
        "sqllab",
        "explore",
        "database",
        "query",
        "saved_query",
        "security/users",
        "security/roles",
        "log",
        "report",
    ],
    "pipeline": [
        "sqllab",
        "explore",
        "database",
        "query",
        "saved_query",
        "security/users",
        "security/roles",
        "log",
        "report",
    ],
    "analyst": [
        "security/users",
        "security/roles",
        "security/permissions",
        "security/groups",
        "log",
        "report",
        "rowlevelsecurity",
    ],
}


@pytest.mark.parametrize("who", list(FORBIDDEN))
def test_what_a_role_does_not_hold_is_refused(visitors: dict[str, Visitor], who: str) -> None:
    for what in FORBIDDEN[who]:
        answer = visitors[who].get(f"/api/v1/{what}/")
        assert answer.status_code in (401, 403, 404), f"{what}: {answer.status_code} {answer.text[:200]}"


@pytest.mark.parametrize("who", ["viewer", "manager", "analyst", "pipeline"])
def test_nobody_but_an_administrator_changes_what_others_see(
    visitors: dict[str, Visitor], places: Places, who: str
) -> None:
    visitor = visitors[who]
    dashboard, chart = places.dashboards["changes"], places.charts[CHARTS["anomalies_per_week"]["slice_name"]]
    dataset, database = places.datasets["build"], places.databases["Usage"]
    tries = [
        ("PUT", f"/api/v1/dashboard/{dashboard}", {"dashboard_title": "mine"}),
        ("DELETE", f"/api/v1/dashboard/{dashboard}", None),
        ("POST", f"/api/v1/dashboard/{dashboard}/copy/", {"dashboard_title": "mine", "json_metadata": "{}"}),
        ("PUT", f"/api/v1/chart/{chart}", {"slice_name": "mine"}),
        ("DELETE", f"/api/v1/chart/{chart}", None),
        ("PUT", f"/api/v1/dataset/{dataset}", {"sql": "SELECT 1", "owners": [1]}),
        ("DELETE", f"/api/v1/dataset/{dataset}", None),
        ("POST", "/api/v1/dataset/", {"database": database, "table_name": "mine", "sql": "SELECT 1"}),
        ("PUT", f"/api/v1/database/{database}", {"expose_in_sqllab": True, "allow_dml": True}),
        ("POST", "/api/v1/database/", {"database_name": "mine", "sqlalchemy_uri": "duckdb:////etc/passwd"}),
        ("POST", "/api/v1/database/test_connection/", {"sqlalchemy_uri": "duckdb:///:memory:"}),
        ("POST", f"/api/v1/database/{database}/upload/", {}),
        ("POST", "/api/v1/assets/import/", {}),
        ("POST", "/api/v1/security/users/", {"username": "mine", "roles": [1], "password": "a long password"}),
        ("PUT", "/api/v1/security/users/1", {"roles": [1]}),
        ("POST", "/api/v1/rowlevelsecurity/", {"name": "mine", "clause": "1=1", "tables": [dataset]}),
    ]
    for method, path, body in tries:
        answer = visitor.ask(method, path, body)
        assert answer.status_code in (401, 403, 404, 405), f"{method} {path}: {answer.status_code} {answer.text[:200]}"


@pytest.mark.parametrize("who", ["viewer", "manager", "pipeline"])
def test_who_may_not_explore_asks_only_for_what_pages_ask(
    visitors: dict[str, Visitor], places: Places, who: str
) -> None:
    visitor, dataset = visitors[who], places.datasets["usage_by_week"]
    refused = [
        ask_for(dataset, metrics=[in_sql("sum(clicks) * 2")]),
        ask_for(dataset, metrics=[in_sql("sum(clicks) * 2") | {"expressionType": "SIMPLE", "column": {"column_name": "clicks"}, "aggregate": "SUM"}]),
        ask_for(dataset, columns=[in_sql("upper(account)")]),
        ask_for(dataset, columns=[in_sql("upper(account)") | {"columnType": "BASE_AXIS"}]),
        ask_for(dataset, columns=["account"], orderby=[[in_sql("random()"), True]]),
        ask_for(dataset, columns=["account"], extras={"where": "1 = 1"}),
        ask_for(dataset, columns=["account"], extras={"where": "clicks > 0 OR 1 = 1"}),
        ask_for(dataset, columns=["account"], extras={"where": "(clicks > 0) AND (SELECT true)"}),
        ask_for(dataset, columns=["account"], metrics=["clicks_sum"], extras={"having": "sum(clicks) > 3"}),
        ask_for(dataset, columns=["account"], filters=[{"col": in_sql("1"), "op": "==", "val": 1}]),
        ask_for(dataset, columns=["account"], series_columns=["account"], series_limit=3, series_limit_metric=in_sql("sum(clicks)")),
        ask_for(dataset, columns=["week_start"], post_processing=[{"operation": "resample", "options": {"rule": "1ns", "method": "ffill"}}]),
        ask_for(dataset, columns=["account"]) | {"datasource": {"id": 1, "type": "query"}},
    ]  # fmt: skip
    for body in refused:
        answer = visitor.post("/api/v1/chart/data", body)
        assert answer.status_code in (400, 403, 404), f"{body['queries']}: {answer.status_code} {answer.text[:300]}"
    served = [
        ask_for(dataset, columns=["account"], metrics=["clicks_sum"], orderby=[["clicks_sum", False]]),
        ask_for(
            dataset, columns=["account"], filters=[{"col": "account", "op": "ILIKE", "val": "%a'); DROP TABLE x; --%"}]
        ),
        ask_for(dataset, columns=["account"], extras={"where": "(clicks > 0)"}),
    ]
    for body in served:
        answer = visitor.post("/api/v1/chart/data", body)
        assert answer.status_code == 200, f"{body['queries']}: {answer.text[:300]}"


@pytest.mark.long
def test_the_pipelines_account_warms_every_chart_of_the_published_tables(
    visitors: dict[str, Visitor], places: Places
) -> None:
    pipeline = visitors["pipeline"]
    found = listed(pipeline, "chart")
    by_name = {chart["slice_name"]: chart["params"] for chart in CHARTS.values()}
    apart = {CHARTS[name]["dataset_uuid"] for name in ("people", "csm_responses")}
    of_others = [chart for chart in CHARTS.values() if chart["dataset_uuid"] in apart]
    assert len(found) == len(CHARTS) - len(of_others), "all but the people to call, and how CSMs answer"
    for chart in found:
        body = payload(by_name[chart["slice_name"]], chart["datasource_id"])
        assert pipeline.post("/api/v1/chart/data", body).status_code == 200, chart["slice_name"]


def test_an_analyst_makes_charts_of_his_own_and_runs_sql(visitors: dict[str, Visitor], places: Places) -> None:
    analyst = visitors["analyst"]
    answer = analyst.run(
        "SELECT application, sum(clicks) FROM mart.usage_by_week GROUP BY ALL", places.databases["Usage"]
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"]
    sql = "WITH a AS (SELECT account_id FROM mart.usage_by_week) SELECT count(*) AS n FROM a"
    assert analyst.run(sql, places.databases["Usage"]).json()["data"][0]["n"] > 0
    dataset = places.datasets["usage_by_week"]
    answer = analyst.post("/api/v1/chart/data", ask_for(dataset, metrics=[in_sql("sum(clicks) / count(*)")]))
    assert answer.status_code == 200, answer.text
    chart = {"slice_name": "mine", "viz_type": "table", "datasource_id": dataset, "datasource_type": "table"}
    made = analyst.post("/api/v1/chart/", chart | {"params": "{}"})
    assert made.status_code == 201, made.text
    assert analyst.ask("DELETE", f"/api/v1/chart/{made.json()['id']}").status_code == 200


# ---------------------------------------------------------------- attacks on DuckDB


ATTACKS = [
    # files
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_csv_auto('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM read_json('/etc/passwd')",
    "SELECT * FROM read_json_objects('/etc/passwd')",
    "SELECT * FROM read_ndjson_auto('/etc/passwd')",
    "SELECT * FROM read_parquet('/tmp/*.parquet')",
    "SELECT * FROM parquet_metadata('/tmp/x.parquet')",
    "SELECT * FROM parquet_scan('/tmp/x.parquet')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM '/etc/passwd'",
    'SELECT * FROM "/etc/passwd"',
    "FROM '/etc/passwd.csv'",
    "SELECT * FROM read_duckdb('/tmp/x.duckdb')",
    "COPY (SELECT 1) TO '{folder}/attack.csv'",
    "COPY mart.build TO '{folder}/attack.parquet' (FORMAT parquet)",
    "COPY mart.build FROM '/etc/passwd'",
    "EXPORT DATABASE '{folder}/attack'",
    "IMPORT DATABASE '/tmp'",
    # other databases, extensions, settings
    "ATTACH '{published}/contacts.duckdb' AS c",
    "ATTACH '{folder}/attack.duckdb'",
    "ATTACH ':memory:' AS m",
    "DETACH warehouse",
    "USE system",
    "INSTALL httpfs",
    "INSTALL httpfs FROM community",
    "LOAD httpfs",
    "LOAD '/tmp/x.duckdb_extension'",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET memory_limit = '100GB'",
    "SET temp_directory = '{folder}/attack'",
    "RESET memory_limit",
    "PRAGMA enable_profiling",
    "PRAGMA database_list",
    "PRAGMA memory_limit='100GB'",
    "CALL duckdb_settings()",
    "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "FORCE CHECKPOINT",
    "VACUUM",
    # network
    "SELECT * FROM read_csv('http://127.0.0.1:1/x.csv')",
    "SELECT * FROM 'https://127.0.0.1:1/x.parquet'",
    "SELECT * FROM read_parquet('s3://bucket/x.parquet')",
    # writing
    "CREATE TABLE mart.attack AS SELECT 1",
    "CREATE TEMP TABLE attack AS SELECT 1",
    "CREATE VIEW mart.attack AS SELECT 1",
    "CREATE MACRO attack() AS 1",
    "CREATE SCHEMA attack",
    "INSERT INTO mart.build SELECT * FROM mart.build",
    "UPDATE mart.build SET build_id = 'x'",
    "DELETE FROM mart.build",
    "TRUNCATE mart.build",
    "DROP TABLE mart.build",
    "ALTER TABLE mart.build ADD COLUMN x INT",
    "MERGE INTO mart.build USING mart.build b ON false WHEN NOT MATCHED THEN INSERT VALUES (1)",
    # what a path, a setting or a secret shows
    "SELECT getenv('SUPERSET_SECRET_KEY')",
    "SELECT current_setting('secret_directory')",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_databases()",
    "SELECT * FROM duckdb_databases",
    "SELECT * FROM pragma_database_list()",
    "SELECT * FROM pragma_database_list",
    "SELECT * FROM duckdb_extensions()",
    "SELECT * FROM information_schema.schemata",
    "SELECT * FROM which_secret('s3://a', 's3')",
    "SHOW DATABASES",
    "SHOW ALL TABLES",
    # the same in disguise
    "SELECT 1; DROP TABLE mart.build",
    "SELECT 1; ATTACH '{folder}/attack.duckdb'",
    "SELECT 1 /* ; */; COPY (SELECT 1) TO '{folder}/attack.csv' --",
    "/* SELECT */ COPY (SELECT 1) TO '{folder}/attack.csv'",
    "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
    "SELECT * FROM query('FROM duckdb_settings()')",
    "SELECT * FROM query_table('/etc/passwd')",
    "WITH a AS (SELECT * FROM read_text('/etc/passwd')) SELECT * FROM a",
    "WITH RECURSIVE a AS (SELECT * FROM glob('/*') UNION ALL SELECT * FROM a) SELECT * FROM a",
    "SELECT (SELECT content FROM read_text('/etc/passwd'))",
    "SELECT * FROM (SELECT * FROM ReAd_TeXt('/etc/passwd'))",
    "SELECT * FROM system.main.read_text('/etc/passwd')",
    "SELECT * FROM mart.build, LATERAL (SELECT * FROM read_text('/etc/passwd'))",
    "EXPLAIN ANALYZE SELECT * FROM read_text('/etc/passwd')",
    "PREPARE x AS SELECT * FROM read_text('/etc/passwd'); EXECUTE x",
    "SELECT * FROM os",
    "SELECT * FROM g",
]


@pytest.mark.long
def test_attacks_through_sql_lab_are_refused(
    visitors: dict[str, Visitor], places: Places, demo: Demo, tmp_path: Path
) -> None:
    """By SQL that is read before, and by DuckDB: the same again as an administrator, for whom nothing is read before."""
    published = demo.settings.home.published_dir / "current"
    before = {file.name: file.stat().st_mtime for file in published.iterdir()}
    for who in ("analyst", "admin"):
        for attack in ATTACKS:
            sql = attack.format(folder=tmp_path, published=published)
            answer = visitors[who].run(sql, places.databases["Usage"])
            text = answer.text.replace(sql, "").replace(json.dumps(sql)[1:-1], "")
            assert "root:" not in text, sql
            if who == "analyst":
                assert answer.status_code >= 400, f"{sql}: {text[:500]}"
                assert str(demo.settings.home.published_dir) not in text, sql
    assert list(tmp_path.iterdir()) == []
    assert {file.name: file.stat().st_mtime for file in published.iterdir()} == before
    assert served(visitors["viewer"], places)


def test_attacks_through_charts_are_refused(visitors: dict[str, Visitor], places: Places, tmp_path: Path) -> None:
    dataset = places.datasets["build"]
    expressions = [
        *("(SELECT content FROM read_text('/etc/passwd'))", "getenv('HOME')", "current_setting('secret_directory')"),
        *(
            "(SELECT max(path) FROM duckdb_databases())",
            "(FROM query('FROM duckdb_settings()'))",
            "1; DROP TABLE mart.build",
        ),
        *("1) FROM mart.build; COPY (SELECT 1) TO '/tmp/attack.csv' --", "(SELECT 1)"),
    ]
    for who in ("viewer", "analyst"):
        for expression in expressions:
            for query in (
                {"metrics": [in_sql(expression)]},
                {"columns": [in_sql(expression)]},
                {"columns": ["build_id"], "extras": {"where": expression}},
                {"columns": ["build_id"], "extras": {"having": expression}, "metrics": []},
                {"columns": ["build_id"], "orderby": [[in_sql(expression), True]]},
                {"columns": ["build_id"], "filters": [{"col": in_sql(expression), "op": "IS NOT NULL"}]},
            ):
                answer = visitors[who].post("/api/v1/chart/data", ask_for(dataset, **query))
                assert answer.status_code in (400, 403), f"{who}: {query}: {answer.status_code} {answer.text[:300]}"


EXHAUSTION = {
    "no end": "SELECT count(*) FROM range(1000000000000) a WHERE hash(a) = 1",
    "cross join": "SELECT count(*) FROM mart.usage_by_week a, mart.usage_by_week b, mart.usage_by_week c WHERE hash(a, b, c) = 1",
    "recursion": "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a) SELECT max(n) FROM a",
    "many groups": "SELECT count(*) FROM (SELECT range FROM range(1000000000) GROUP BY ALL)",
    "sorting": "SELECT * FROM range(1000000000) ORDER BY hash(range) LIMIT 10 OFFSET 900000000",
    "a long text": "SELECT length(repeat('x', 4000000000)) FROM mart.usage_by_week",
    "a long list": "SELECT len(list(range)) FROM range(1000000000)",
    "a constant": "SELECT list_sum(range(3000000000))",
    "a joined text": "SELECT string_agg(repeat('x', 1000000), '') FROM range(100000)",
    "large rows": "SELECT repeat('x', 1000000) AS x, range FROM range(100000)",
    "a wide text": "SELECT repeat('x', 900000000) AS x",
}


@pytest.mark.parametrize("what", list(EXHAUSTION))
@pytest.mark.sample("a long list", "a constant", "a long text")
@pytest.mark.alone
def test_what_would_take_all_memory_or_time_is_ended(
    visitors: dict[str, Visitor], places: Places, superset: SupersetServer, what: str
) -> None:
    started = time.monotonic()
    try:
        # as an administrator, whose SQL may use table functions: what bounds it is DuckDB and the process
        answer = visitors["admin"].run(EXHAUSTION[what], places.databases["Usage"], queryLimit=100_000)
        ended = answer.status_code >= 400 or "rror" in answer.text[:2000]
    except requests.ConnectionError:
        ended = True  # the worker was ended, and another one took its place
    taken = time.monotonic() - started
    assert ended, f"{what} was answered after {taken:.0f} s"
    assert taken < 45
    deadline = time.monotonic() + 30
    while not served(visitors["viewer"], places):
        assert time.monotonic() < deadline, "the service does not answer any more"
        time.sleep(1)
    print(f"{what}: ended after {taken:.1f} s")


def served(visitor: Visitor, places: Places) -> bool:
    """Whether an ordinary chart is answered."""
    try:
        answer = visitor.post("/api/v1/chart/data", ask_for(places.datasets["build"], columns=["build_id"]))
        return answer.status_code == 200
    except requests.ConnectionError:
        return False


# ---------------------------------------------------------------- roles and people


def rights_of(server: SupersetServer) -> dict[str, set[tuple[str, str]]]:
    import sqlite3

    connection = sqlite3.connect(server.folder / "superset" / "superset.db")
    rows = connection.execute(
        "SELECT r.name, p.name, v.name FROM ab_role r LEFT JOIN ab_permission_view_role pr ON pr.role_id = r.id "
        "LEFT JOIN ab_permission_view pv ON pv.id = pr.permission_view_id LEFT JOIN ab_permission p ON p.id = pv.permission_id "
        "LEFT JOIN ab_view_menu v ON v.id = pv.view_menu_id"
    ).fetchall()
    connection.close()
    found: dict[str, set[tuple[str, str]]] = {}
    for role, permission, view in rows:
        found.setdefault(role, set())
        if permission:
            found[role].add((permission, view))
    return found


def test_each_role_holds_what_the_file_grants_and_superset_s_own_hold_nothing(superset: SupersetServer) -> None:
    held = rights_of(superset)
    written = yaml.safe_load((SUPERSET / "roles.yaml").read_text(encoding="utf-8"))
    for name, content in written.items():
        granted = {(p, v) for p, v in content.get("rights", [])}
        for other in content.get("includes", []):
            granted |= {(p, v) for p, v in written[other]["rights"]}
        assert held[name] == granted, name
    assert all(held[name] == set() for name in ("Alpha", "Gamma", "Public", "sql_lab"))
    assert set(held) == {*written, "Admin"}


@pytest.mark.soak
def test_people_come_and_go_at_the_command_line(superset: SupersetServer, demo: Demo) -> None:
    def manage(*arguments: str, password: str = "") -> list[str]:
        said: list[str] = []
        run_in_superset(demo.settings.home, superset.folder, "users", list(arguments), said.append, given=password)
        return said

    password = "twelve or more"
    said = manage("add", "new person", "Usage viewer", password=password)
    assert said[-1] == "new person may log in as Usage viewer"
    superset.passwords["new person"] = password
    visitor = Visitor(superset, "new person")
    assert visitor.get("/api/v1/me/").json()["result"]["username"] == "new person"
    assert manage("remove", "new person")[-1] == "new person may no longer log in"
    assert visitor.get("/api/v1/me/").status_code == 401, "at once, with the cookie of before"
    body = {"username": "new person", "password": password, "provider": "db"}
    assert requests.post(f"{superset.url}/api/v1/security/login", json=body, timeout=30).status_code == 401
    assert any(line.split() == ["new", "person", "may", "not", "log", "in"] for line in manage("list"))
    from usage_pipeline.operations.local import LocalError

    with pytest.raises(LocalError, match="at least 12 characters"):
        manage("add", "another", "Usage viewer", password="short")
    with pytest.raises(LocalError, match="there is no role 'Gamma': choose one of Admin, Usage viewer"):
        manage("add", "another", "Gamma", password=password)


def test_nobody_logs_in_as_the_account_that_set_up_acts_as(superset: SupersetServer) -> None:
    import sqlite3

    connection = sqlite3.connect(superset.folder / "superset" / "superset.db")
    assert connection.execute("SELECT active FROM ab_user WHERE username = 'usage-set-up'").fetchall() == [(0,)]
    connection.close()


@pytest.mark.soak
def test_the_first_administrator_is_made_before_there_is_anything_and_own_data_gets_no_made_up_accounts(
    demo: Demo, tmp_path: Path
) -> None:
    assert superset_environment(demo.settings.home, tmp_path)["USAGE_ACCOUNTS"] == ""
    said: list[str] = []
    run_in_superset(
        demo.settings.home, tmp_path, "users", ["add", "first", "Admin"], said.append, given="twelve or more"
    )
    assert said[-1] == "first may log in as Admin"
    said.clear()
    run_in_superset(demo.settings.home, tmp_path, "users", ["list"], said.append)
    assert [line.split() for line in said if "first" in line] == [["first", "Admin"]]


# ---------------------------------------------------------------- switches


def test_a_server_of_half_a_configuration_says_everything_that_is_missing_at_once() -> None:
    assert "SUPERSET_SECRET_KEY is shorter" in start_problems(SUPERSET_SECRET_KEY="short")
    assert "SUPERSET_SECRET_KEY is shorter" in start_problems(SUPERSET_SECRET_KEY="ab" * 40)
    known = start_problems(SUPERSET_SECRET_KEY="CHANGE_ME_TO_A_COMPLEX_RANDOM_SECRET")
    assert "SUPERSET_SECRET_KEY is a well-known one" in known
    wrong = start_problems(SUPERSET_SECRET_KEY=GOOD_KEY, USAGE_HTTPS="yes", USAGE_SESSION_HOURS="forever")
    assert "USAGE_HTTPS is 'yes': give it 1 or 0" in wrong
    assert "USAGE_SESSION_HOURS is 'forever'" in wrong
    missing = start_problems(SUPERSET_SECRET_KEY=GOOD_KEY, USAGE_PRODUCTION="1")
    for name in (
        "USAGE_HTTPS is not set",
        "USAGE_PROXY_COUNT is not set",
        "USAGE_ALLOWED_HOSTS is not set",
        "METADATA_URI is SQLite",
    ):
        assert name in missing


@pytest.fixture(scope="module")
def production(superset: SupersetServer, demo: Demo) -> Iterator[str]:
    """A second server on the same metadata, as behind a proxy that ends TLS."""
    port = free_port()
    environment = superset_environment(demo.settings.home, superset.folder) | {
        "USAGE_PRODUCTION": "1",
        "USAGE_HTTPS": "1",
        "USAGE_PROXY_COUNT": "1",
        "USAGE_ALLOWED_HOSTS": "usage.example.com",
        "USAGE_ALLOW_SQLITE": "1",
    }
    serve = superset_command("serve")
    command = [*serve, "--bind", f"127.0.0.1:{port}", "--workers", "1"]
    environment["USAGE_WARM"] = "0"
    with (superset.folder / "production.log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        for _ in range(240):
            try:
                requests.get(f"http://127.0.0.1:{port}/health", timeout=10).raise_for_status()
                break
            except requests.RequestException:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=120)


PROXIED = {"Host": "usage.example.com", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "usage.example.com"}


@pytest.mark.long
def test_behind_tls_cookies_are_secure_and_browsers_stay_with_https(production: str) -> None:
    answer = requests.get(f"{production}/login/", headers=PROXIED | {"X-Forwarded-For": "203.0.113.1"}, timeout=30)
    assert answer.status_code == 200
    cookie = answer.headers["Set-Cookie"]
    assert "Secure" in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert answer.headers["Strict-Transport-Security"].startswith("max-age=31")
    policy = answer.headers["Content-Security-Policy"]
    assert "http" not in policy.replace("'self'", ""), "no other host"
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert requests.get(f"{production}/swagger/v1", headers=PROXIED, timeout=30).status_code == 404


@pytest.mark.long
def test_another_name_than_those_it_is_known_by_is_refused(production: str) -> None:
    answer = requests.get(f"{production}/login/", headers=PROXIED | {"X-Forwarded-Host": "evil.example"}, timeout=30)
    assert answer.status_code == 400
    assert requests.get(f"{production}/health", timeout=30).status_code == 200


@pytest.mark.long
@pytest.mark.parametrize("way", ["the API", "the form", "the form, in JSON"])
@pytest.mark.sample("the API")
def test_log_ins_that_fail_are_throttled_by_address_and_by_name(
    production: str, superset: SupersetServer, way: str
) -> None:
    here = len(way)

    def log_in_from(address: str, name: str, password: str) -> int:
        headers = PROXIED | {"X-Forwarded-For": address}
        body = {"username": name, "password": password, "provider": "db"}
        if way == "the API":
            return requests.post(
                f"{production}/api/v1/security/login", json=body, headers=headers, timeout=30
            ).status_code
        # a browser keeps the secure cookie; over plain HTTP it has to be handed on here
        page = requests.get(f"{production}/login/", headers=headers, timeout=30)
        cookie = page.headers["Set-Cookie"].split(";")[0]
        headers |= {"Cookie": cookie, "Referer": "https://usage.example.com/login/", "X-CSRFToken": token_of(page.text)}
        sent: dict[str, Any] = {"data" if way == "the form" else "json": body | {"csrf_token": token_of(page.text)}}
        answer = requests.post(f"{production}/login/", **sent, headers=headers, timeout=30, allow_redirects=False)
        assert answer.status_code in (302, 429), answer.text[:500]
        # both ways lead on: to the page wanted, or back to the form
        return 401 if "/login" in answer.headers.get("Location", "") else answer.status_code

    one = f"203.0.113.{here}"
    results = [log_in_from(one, f"guess {n}", "wrong") for n in range(22)]
    assert results[:20] == [401] * 20
    assert results[20:] == [429] * 2, "an address that guesses is stopped"
    assert log_in_from(one, "viewer", superset.passwords["viewer"]) == 429
    assert log_in_from("203.0.113.9", "viewer", superset.passwords["viewer"]) in (200, 302), "others are not"
    results = [log_in_from(f"198.51.100.{n}", f"target of {way}", "wrong") for n in range(22)]
    assert results == [401] * 22, "so few from many addresses shut nobody out (test_limits.py)"


def test_a_request_that_changes_something_needs_the_token_of_its_page(superset: SupersetServer) -> None:
    """Of whoever comes with a cookie, as a browser does; the data of charts changes nothing and needs none."""
    visitor = Visitor(superset, "admin")
    del visitor.session.headers["X-CSRFToken"]
    answer = visitor.post("/api/v1/chart/", {"slice_name": "forged", "datasource_id": 1, "datasource_type": "table"})
    assert answer.status_code == 400
    assert "CSRF" in answer.text


# ---------------------------------------------------------------- in the browser


@pytest.fixture
def browse(superset: SupersetServer, browser: Any) -> Iterator[Any]:
    contexts = []

    def as_user(user: str) -> Any:
        context = browser.new_context(viewport={"width": 1400, "height": 1000})
        contexts.append(context)
        page = context.new_page()
        log_in(page, superset, user)
        return page

    yield as_user
    for context in contexts:
        context.close()


@pytest.mark.parametrize(("who", "menu"), [("viewer", ["Dashboards"]), ("analyst", ["Dashboards", "Charts", "SQL"])])
@pytest.mark.long
def test_the_menu_offers_what_the_role_may_do(superset: SupersetServer, browse: Any, who: str, menu: list[str]) -> None:
    page = browse(who)
    open_dashboard(page, superset, "applications-accounts")
    offered = [text.strip() for text in page.locator("[role=menuitem]").all_inner_texts() if text.strip()]
    assert offered == [*menu, "Settings"]
    assert "Data error" not in page.inner_text("body")
    assert page.locator("text=Edit dashboard").count() == 0


@pytest.mark.long
def test_a_viewer_finds_no_way_to_sql_to_explore_or_to_edit(superset: SupersetServer, browse: Any) -> None:
    page = browse("viewer")
    open_dashboard(page, superset, "applications-accounts")
    page.locator("[aria-label='More Options'] >> visible=true").first.click()
    page.wait_for_selector("text=Force refresh")
    offered = " ".join(page.locator(".ant-dropdown-menu >> visible=true").all_inner_texts())
    assert "Force refresh" in offered
    for word in ("Edit chart", "View query", "Drill", "Share"):
        assert word not in offered
    for path in ("/sqllab/", "/explore/?slice_id=1", "/chart/add", "/users/", "/roles/", "/databaseview/list/"):
        page.goto(f"{superset.url}{path}")
        page.wait_for_url("**/superset/dashboard/call-list/**", timeout=60_000)


@pytest.mark.long
def test_an_analyst_runs_sql_in_the_browser_and_finds_no_contacts(
    superset: SupersetServer, browse: Any, places: Places
) -> None:
    page = browse("analyst")
    sql = "SELECT%20count(*)%20AS%20rows_found%20FROM%20mart.usage_by_week"
    page.goto(f"{superset.url}/sqllab/?dbid={places.databases['Usage']}&sql={sql}")
    page.wait_for_selector(".ace_content", timeout=60_000)
    page.locator("button", has_text="Run").first.click()
    page.wait_for_selector("text=rows_found >> nth=1", timeout=60_000)
    assert "Usage contacts" not in page.content()
