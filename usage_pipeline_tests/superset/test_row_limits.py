"""Roles that are limited to some accounts: what they get through each door of a running Superset is theirs alone."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
import yaml

from usage_pipeline.operations.local import run_in_superset, superset_environment
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.servers import SupersetServer, copy_superset, serve_superset, serving
from usage_pipeline_tests.support.superset_client import listed
from usage_pipeline_tests.support.visitors import Visitor, ask_for

pytestmark = [pytest.mark.superset("second"), pytest.mark.long]

PASSWORD = "made for this test only"


class World:
    """A Superset with limited people, and whose accounts are whose by the delivered file."""

    def __init__(self, server: SupersetServer, demo: Demo, region: str, owner: str) -> None:
        self.server, self.demo, self.region, self.owner = server, demo, region, owner
        self.visitors: dict[str, Visitor] = {}
        with duckdb.connect(str(demo.warehouse), read_only=True) as c:
            self.accounts = c.execute("SELECT account_id, account, region, owner FROM mart.accounts_summary").fetchall()
        admin = Visitor(server, "admin")
        self.datasets = {d["table_name"]: d["id"] for d in listed(admin, "dataset")}
        self.columns = {
            name: [c["column_name"] for c in admin.get(f"/api/v1/dataset/{number}").json()["result"]["columns"]]
            for name, number in self.datasets.items()
        }
        databases = {d["database_name"]: d["id"] for d in listed(admin, "database")}
        self.warehouse = databases["Usage"]

    def visitor(self, name: str) -> Visitor:
        if name not in self.visitors:
            self.visitors[name] = Visitor(self.server, name)
        return self.visitors[name]

    def is_open(self, who: str, region: str, owner: str) -> bool:
        in_region, of_csm = region == self.region, owner == self.owner
        return {"north": in_region, "csm": of_csm, "both": in_region and of_csm}[who]

    def open_accounts(self, who: str) -> set[str]:
        return {account for _, account, region, owner in self.accounts if self.is_open(who, region, owner)}

    def closed_words(self, who: str) -> set[str]:
        """Names and ids of accounts that are not open, which no open one's holds."""
        own = "\n".join(f"{i}\n{a}" for i, a, region, owner in self.accounts if self.is_open(who, region, owner))
        closed = {w for i, a, r, o in self.accounts if not self.is_open(who, r, o) for w in (i, a)}
        return {word for word in closed if word not in own}

    def leaks(self, who: str, text: str) -> list[str]:
        return [word for word in self.closed_words(who) if word in text]


@pytest.fixture(scope="module")
def world(superset: SupersetServer, demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("superset-limited")
    copy_superset(superset.folder, folder)
    with duckdb.connect(str(demo.warehouse), read_only=True) as build:
        region, owner = build.execute(
            "SELECT region, owner FROM mart.accounts_summary WHERE owner <> 'no CSM' GROUP BY ALL ORDER BY count(*) DESC"
        ).fetchone() or ("", "")
    roles = {
        "Viewer of a region": {"includes": ["Usage viewer"], "accounts": {"region": [region]}},
        "Analyst of a region": {"includes": ["Usage analyst"], "accounts": {"region": [region]}},
        "Viewer of a CSM": {"includes": ["Usage viewer with contacts"], "accounts": {"owner": [owner]}},
        "Viewer of both": {"includes": ["Usage viewer"], "accounts": {"region": [region], "owner": [owner]}},
        "Viewer of odd names": {
            "includes": ["Usage viewer"],
            "accounts": {"region": ["O'Brien: 100 %(x)s :y", region]},
        },
    }
    file = folder / "roles-of-ours.yaml"
    file.write_text(yaml.safe_dump(roles), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("USAGE_ROLES", str(file))
        people = {
            "north": "Viewer of a region",
            "analyst-north": "Analyst of a region",
            "csm": "Viewer of a CSM",
            "both": "Viewer of both",
            "odd": "Viewer of odd names",
        }
        with serve_superset(demo.settings, folder) as server:
            for name, role in people.items():
                run_in_superset(demo.settings.home, folder, "users", ["add", name, role], print, given=PASSWORD)
            server.passwords.update(dict.fromkeys(people, PASSWORD))
            yield World(server, demo, region, owner)


def rows_of(world: World, who: str, table: str) -> list[dict[str, Any]]:
    body = ask_for(world.datasets[table], columns=world.columns[table], row_limit=10_000)
    answer = world.visitor(who).post("/api/v1/chart/data", body)
    assert answer.status_code == 200, f"{table}: {answer.text[:300]}"
    return list(answer.json()["result"][0]["data"])


@pytest.mark.parametrize("who", [*(pytest.param(who, marks=pytest.mark.soak) for who in ("north", "csm")), "both"])
def test_no_dataset_gives_a_word_of_an_account_that_is_not_open(world: World, who: str) -> None:
    filled = 0
    for table, number in world.datasets.items():
        body = ask_for(number, columns=world.columns[table], row_limit=10_000)
        answer = world.visitor(who).post("/api/v1/chart/data", body)
        if answer.status_code == 403:
            continue
        assert answer.status_code == 200, f"{table}: {answer.text[:300]}"
        assert world.leaks(who, json.dumps(answer.json(), ensure_ascii=False)) == [], table
        filled += bool(answer.json()["result"][0]["data"])
    assert filled > 15


@pytest.mark.parametrize("who", ["north", "csm", "both"])
def test_the_accounts_are_exactly_those_of_the_limit(world: World, who: str) -> None:
    found = {row["account"] for row in rows_of(world, who, "accounts_summary")}
    assert found == world.open_accounts(who) != set()


def test_the_sheet_has_the_limit_s_own_row_and_its_accounts_and_no_total_of_all(world: World) -> None:
    found = {(row["entity_type"], row["entity"]) for row in rows_of(world, "north", "kpi_months")}
    assert {entity for kind, entity in found if kind == "region"} == {world.region}
    assert {kind for kind, _ in found} == {"region", "account"}
    assert {entity for kind, entity in found if kind == "account"} <= world.open_accounts("north")
    assert {row["entity_type"] for row in rows_of(world, "both", "kpi_months")} <= {"account"}


def test_names_with_quotes_colons_and_percents_limit_as_they_are_written(world: World) -> None:
    assert {row["region"] for row in rows_of(world, "odd", "accounts_summary")} == {world.region}


def test_answers_are_kept_apart_by_what_is_open_and_given_again_to_the_same_person(world: World) -> None:
    body = ask_for(world.datasets["accounts_summary"], columns=["account"], row_limit=10_000) | {"force": False}
    first = {who: world.visitor(who).post("/api/v1/chart/data", body) for who in ("viewer", "north", "csm", "viewer")}
    again = {who: world.visitor(who).post("/api/v1/chart/data", body) for who in ("north", "viewer", "csm")}
    again = {who: world.visitor(who).post("/api/v1/chart/data", body) for who in ("north", "viewer", "csm")} | again
    for who, answer in (first | again).items():
        found = {row["account"] for row in answer.json()["result"][0]["data"]}
        assert found == ({a for _, a, *_ in world.accounts} if who == "viewer" else world.open_accounts(who)), who
    third = world.visitor("north").post("/api/v1/chart/data", body)
    assert third.headers.get("X-Usage-Kept") == "answer"
    assert third.json()["result"][0]["data"] == again["north"].json()["result"][0]["data"]


def test_downloads_hold_only_what_is_open(world: World) -> None:
    body = ask_for(world.datasets["call_list"], columns=world.columns["call_list"], row_limit=10_000)
    answer = world.visitor("north").post("/api/v1/chart/data", body | {"result_format": "csv"})
    assert answer.status_code == 200
    named = {row["Account"] for row in csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff")))}
    assert named <= world.open_accounts("north")
    assert world.leaks("north", answer.text) == []


def test_pages_of_our_own_know_only_open_accounts(world: World) -> None:
    closed = next(a for a in world.accounts if not world.is_open("north", a[2], a[3]))
    opened = next(a for a in world.accounts if world.is_open("north", a[2], a[3]))
    north = world.visitor("north")
    assert opened[1] in north.get(f"/brief/{opened[1]}").text
    for path in (f"/brief/{closed[1]}", f"/account/{closed[1]}", f"/outcome/{closed[0]}", f"/account/{closed[1][:-1]}"):
        page = north.get(path)
        others = [
            word for word in world.leaks("north", page.text) if word not in (closed[0], closed[1], closed[1][:-1])
        ]
        assert others == [], path
    refused = north.get("/kpi-sheets/newest")
    assert (refused.status_code, "limited to some" in refused.text) == (403, True)


# ---------------------------------------------------------------- SQL of an analyst


SPELLINGS = {
    "plain": "SELECT account FROM mart.accounts_summary",
    "an alias": "SELECT a.account FROM mart.accounts_summary AS a",
    "a query in FROM": "SELECT * FROM (SELECT account FROM mart.accounts_summary) AS t",
    "a part": "WITH t AS (SELECT account FROM mart.accounts_summary) SELECT * FROM t",
    "FROM first": "FROM mart.accounts_summary SELECT account",
    "UNION": "SELECT account FROM mart.accounts_summary UNION ALL SELECT account FROM mart.usage_by_week",
    "a join": "SELECT b.account FROM mart.call_list AS a RIGHT JOIN mart.accounts_summary AS b ON a.account = b.account",
    "a value": "SELECT (SELECT string_agg(account) FROM mart.accounts_summary) AS account",
    "a condition": "SELECT 'x' AS account WHERE EXISTS (SELECT 1 FROM mart.accounts_summary)",
    "OR TRUE": "SELECT account FROM mart.accounts_summary WHERE FALSE OR TRUE",
    "quoted": 'SELECT account FROM "mart"."accounts_summary"',
    "counted": "SELECT CAST(count(*) AS VARCHAR) AS account FROM mart.accounts_summary",
    "lateral": "SELECT b.account FROM mart.call_list AS a, LATERAL (SELECT account FROM mart.accounts_summary) AS b",
    "a window": "SELECT first(account) OVER () AS account FROM mart.accounts_summary",
    "another part of the same name": "WITH t AS (WITH t AS (SELECT account FROM mart.accounts_summary) FROM t) FROM t",
    "capitals": "SELECT account FROM MART.ACCOUNTS_SUMMARY",
    "no schema": "SELECT account FROM accounts_summary",
    "a catalog": "SELECT account FROM warehouse.mart.accounts_summary",
    "a part of a table's name": "WITH accounts_summary AS (SELECT account FROM mart.accounts_summary) FROM accounts_summary",
    "TABLE": "TABLE mart.accounts_summary",
    "pivot": "PIVOT mart.accounts_summary ON region USING count(*)",
    "unpivot": "UNPIVOT (SELECT account, owner FROM mart.accounts_summary) ON account, owner",
    "a comment": "SELECT account FROM mart./* */accounts_summary",
    "positional join": "SELECT account FROM mart.build POSITIONAL JOIN mart.accounts_summary",
    "summary": "SUMMARIZE mart.accounts_summary",
    "sample": "SELECT account FROM mart.accounts_summary USING SAMPLE 50",
    "except": "SELECT account FROM mart.accounts_summary EXCEPT SELECT 'x'",
    "recursive": "WITH RECURSIVE t AS (SELECT account FROM mart.accounts_summary UNION SELECT account FROM t) FROM t",
    "semi join": "SELECT account FROM mart.accounts_summary SEMI JOIN mart.build ON TRUE",
}


@pytest.mark.parametrize("spelling", list(SPELLINGS))
def test_sql_in_any_spelling_gives_only_open_accounts_or_is_refused(world: World, spelling: str) -> None:
    answer = world.visitor("analyst-north").run(SPELLINGS[spelling], world.warehouse)
    assert world.leaks("north", answer.text) == []
    if answer.status_code == 200:
        told = [row.get("account") for row in answer.json()["data"]]
        if spelling == "counted":
            assert told == [str(len(world.open_accounts("north")))]
    else:
        assert spelling not in list(SPELLINGS)[:14], answer.text[:500]
        refused = {error["error_type"] for error in answer.json()["errors"]}
        # the last where the condition makes a query that DuckDB does not take
        refusals = {"DATASOURCE_SECURITY_ACCESS_ERROR", "TABLE_SECURITY_ACCESS_ERROR", "INVALID_SQL_ERROR"}
        assert refused <= refusals | {"GENERIC_DB_ENGINE_ERROR"}


# ---------------------------------------------------------------- the file


def test_a_limited_role_whose_file_is_gone_opens_nothing(world: World) -> None:
    """A server that was started without the file."""
    environment = superset_environment(world.demo.settings.home, world.server.folder) | {"USAGE_ROLES": ""}
    with serving(environment, world.server.folder) as url:
        other = SupersetServer(url, world.server.passwords, world.server.folder)
        body = ask_for(world.datasets["accounts_summary"], columns=["account"], row_limit=10_000)
        answer = Visitor(other, "north").post("/api/v1/chart/data", body)
        assert (answer.status_code, answer.json()["result"][0]["data"]) == (200, [])
