"""What a token may not see stands in no answer of any door: every table is full of words that give a leak away.

Each text of an account says whose it is, and where it stands (`leaked-<table>-<column>`, `own-...`), and so does each text of
what all accounts did together; the names of people in contacts and of those who recorded outcomes are words of theirs.
"""

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.core.tables import CONTACT_TABLES, OUTCOME_TABLES, WAREHOUSE_TABLES, Table
from usage_pipeline.serving.access import OPEN_TO_ALL, Access
from usage_pipeline.serving.agents import agent_server
from usage_pipeline.serving.parts import ACCOUNT_PARTS
from usage_pipeline.serving.published import Published
from usage_pipeline.serving.tokens import TokenStore
from usage_pipeline.serving.web import make_api
from usage_pipeline_tests.support.hand_made_builds import outcomes_by_hand, publish_by_hand

WEEK, MONTH = datetime(2026, 11, 16), datetime(2026, 10, 1)
OWN = {"account_id": "A1", "account": "Acme Town", "owner": "Ann Lee", "region": "North", "segment": "Town"}
OTHER = {"account_id": "B2", "account": "Bolt City", "owner": "Bo Diaz", "region": "South", "segment": "City"}
# all that tells of the other account, of all accounts together, of people
FORBIDDEN = ("leaked", "ofeveryone", "777000", "B2", "Bolt", "Bo Diaz", "South", "City", "All accounts")
WHOSE = {"A1": "own", "B2": "leaked", "all": "ofeveryone", "method": "method"}
OF_PEOPLE = ("ofcontact", "ofrecorder")
FIXED = {
    "week_start": WEEK,
    "first_week": WEEK,
    "last_week": WEEK,
    "as_of_week": WEEK,
    "reference_month": MONTH,
    "kpi_period": "month",
    "is_complete": True,
    "is_complete_period": True,
    "application_key": "permits",
    "application": "Permits",
    "urgency": "Urgent",
    "confidence": "high",
    "kpi": "Clicks",
    "call_status": "open",
}
LIMITS: list[dict[str, list[str]]] = [
    {"owner": ["Ann Lee"]},
    {"region": ["North"]},
    {"segment": ["Town"]},
    {"region": ["North"], "owner": ["Ann Lee"]},
    {"region": ["North", "South"], "segment": ["Town"]},
]


def _row(table: Table, whose: str, fixed: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for column in table.columns:
        if column.type == "VARCHAR":
            made[column.name] = f"{WHOSE[whose]}-{table.name}-{column.name}"
        elif column.type in ("BIGINT", "INTEGER", "DOUBLE"):
            made[column.name] = 1 if whose == "A1" else 777000
    return made | {name: value for name, value in (FIXED | fixed).items() if name in table.column_names}


def _rows_of(table: Table) -> list[dict[str, Any]]:
    columns = set(table.column_names)
    if table.name == "build":
        about = {"as_of": datetime(2026, 11, 24), "newest_week": WEEK, "data_through": datetime(2026, 11, 22)}
        return [about | {"build_id": "x", "sentence": "Data through Nov 22, 2026"}]
    if "entity_type" in columns:
        of_entities = [
            ("all", "all", "All accounts", "all"),
            *(("account", a["account_id"], a["account"], a["account_id"]) for a in (OWN, OTHER)),
            *(("region", a["region"], a["region"], a["account_id"]) for a in (OWN, OTHER)),
            *(("segment", a["segment"], a["segment"], a["account_id"]) for a in (OWN, OTHER)),
            *(("CSM", a["owner"], a["owner"], a["account_id"]) for a in (OWN, OTHER)),
        ]
        return [
            _row(table, whose, {"entity_type": kind, "entity_key": key, "entity": name})
            for kind, key, name, whose in of_entities
        ]
    if "account_id" not in columns:
        # what tells nothing of any account is open: it says nothing here either
        return [_row(table, "method" if (table.schema, table.name) in OPEN_TO_ALL else "all", {})]
    rows = [_row(table, account["account_id"], account) for account in (OWN, OTHER)]
    if table.name == "account_contacts":
        rows = [row | {"name": "ofcontact", "email": "ofcontact@mail.invalid", "phone": "ofcontact"} for row in rows]
    if table.name == "account_outcomes":
        rows = [row | {"recorded_by": "ofrecorder"} for row in rows]
    if table.name == "anomaly_weeks":
        rows.append(_row(table, "all", dict.fromkeys(OTHER)))
    return rows


@pytest.fixture(scope="module")
def full_home(tmp_path_factory: pytest.TempPathFactory) -> DataHome:
    root: Path = tmp_path_factory.mktemp("leaks")
    rows = {table.name: _rows_of(table) for table in (*WAREHOUSE_TABLES, *CONTACT_TABLES, *OUTCOME_TABLES)}
    build_id = publish_by_hand(root, 1, "2026-11-24", rows)
    outcomes_by_hand(root, build_id, rows)
    return DataHome(root)


@pytest.fixture(scope="module")
def client(full_home: DataHome) -> Iterator[TestClient]:
    with TestClient(make_api(full_home, 1_000_000), raise_server_exceptions=False) as opened:
        yield opened


def token(home: DataHome, scopes: list[str], limits: dict[str, list[str]]) -> dict[str, str]:
    number = len(TokenStore(home.api_dir).tokens())
    return {"Authorization": f"Bearer {TokenStore(home.api_dir).add(f'program-{number}', scopes, limits)}"}


_LISTS = ("accounts", "call-list", "anomalies", "renewals", "kpis")
# what a program that wants more than it may see could try, in every place that takes a word
WORDS = (
    "B2",
    "b2",
    " B2 ",
    "Bolt City",
    "bolt",
    "Bo Diaz",
    "South",
    "all",
    "All accounts",
    "%",
    "_2",
    "*",
    "' OR '1'='1",
    "x') OR TRUE --",
    "'; ATTACH 'contacts.duckdb' AS c; --",
    "') UNION SELECT name FROM personal.account_contacts --",
    "$limit_region",
    "$account",
    "B2\u200b",
    "\uff22\uff12",
    "B\u0000",
    "\ud7ff\U0001f600",
    "../B2",
    "..%2fB2",
    "A1/../B2",
    "A1;B2",
    "x" * 5000,
)


def _paths() -> Iterator[str]:
    for name in _LISTS:
        for kind in ("", ".csv"):
            yield f"/v1/{name}{kind}?limit=1000"
            yield f"/v1/{name}{kind}?limit=1000&offset=1"
    yield from ("/v1/call-list?week=2026-11-18", "/v1/call-list.csv?week=2026-11-18", "/v1/call-list?status=open")
    yield from (
        "/v1/build",
        "/v1/definitions",
        "/v1/accounts/A1",
        "/v1/accounts/A1?weeks=160",
        "/v1/accounts/A1/contacts",
    )
    yield from (f"/v1/accounts/A1?part={part}" for part in ACCOUNT_PARTS)
    yield from ("/v1/explain?account=A1", "/v1/explain?account=A1&application=permits&week=2026-11-18")


def _attacks() -> Iterator[str]:
    filters = ("csm", "segment", "region", "account", "application", "urgency", "confidence", "kpi", "entity", "limit")
    for word in map(quote, WORDS):
        yield from (f"/v1/accounts/{word}", f"/v1/accounts/{word}/contacts", f"/v1/explain?account={word}")
        yield from (f"/v1/definitions?name={word}", f"/v1/explain?account=A1&application={word}")
        yield from (f"/v1/{name}?{filter_}={word}" for name in ("accounts", "kpis") for filter_ in filters)
        yield from (f"/v1/call-list?csm={word}", f"/v1/call-list?week={word}", f"/v1/renewals.csv?account={word}")
    yield from (f"/v1/kpis?entity_type={kind}" for kind in ("all", "region", "segment", "CSM", "account"))
    yield from ("/v1/accounts?region=North&region=South", "/v1/accounts?limit_region=South", "/v1/accounts?access=all")
    yield from (
        "/v1/../v1/accounts/B2",
        "//v1/accounts/B2",
        "/v1/accounts//B2",
        "/v1/accounts/A1%2F..%2FB2",
        "/V1/accounts",
    )


def _untold(text: str, asked: str) -> str:
    """An answer without the words of the question that it repeats."""
    for word in sorted(WORDS, key=len, reverse=True):
        if word in asked or quote(word) in asked:
            text = text.replace(json.dumps(word, ensure_ascii=False)[1:-1], "").replace(word, "")
    return text


@pytest.mark.parametrize("limits", LIMITS, ids=lambda limits: "+".join(limits))
@pytest.mark.parametrize("scopes", [[], ["contacts"]], ids=["read", "contacts"])
@pytest.mark.sample("read-region", "contacts-owner")
def test_no_door_tells_a_limited_token_of_others(
    full_home: DataHome, client: TestClient, scopes: list[str], limits: dict[str, list[str]]
) -> None:
    headers, told = token(full_home, scopes, limits), 0
    # attacks are many: one limit meets them
    paths = itertools.chain(_paths(), _attacks() if limits == LIMITS[1] else ())
    mine = {value for values in limits.values() for value in values}
    for path in paths:
        answer = client.get(path, headers=headers)
        assert answer.status_code < 500, path
        text = _untold(answer.text, path)
        leaked = [word for word in FORBIDDEN if word in text and word not in mine]
        assert not leaked, (path, leaked, text[:300])
        assert scopes or not any(word in text for word in OF_PEOPLE), path
        told += "own-" in text
    assert told > 30, "what is its own it sees"


@pytest.mark.parametrize("scopes", [[], ["contacts"]], ids=["read", "contacts"])
def test_people_stand_behind_their_scope_in_every_door(
    full_home: DataHome, client: TestClient, scopes: list[str]
) -> None:
    headers = token(full_home, scopes, {})
    found = {path for path in _paths() if any(word in client.get(path, headers=headers).text for word in OF_PEOPLE)}
    wanted = {
        "/v1/accounts/A1/contacts",
        "/v1/accounts/A1",
        "/v1/accounts/A1?weeks=160",
        "/v1/accounts/A1?part=outcomes",
    }
    assert found == (wanted if scopes else set())


@pytest.mark.parametrize("limits", LIMITS[1:4], ids=lambda limits: "+".join(limits))
def test_no_tool_tells_an_agent_of_others(full_home: DataHome, limits: dict[str, list[str]]) -> None:
    access = Access("agent", ("read",), {column: tuple(values) for column, values in limits.items()})
    server = agent_server(Published(full_home), lambda _: access)
    mine = {value for values in limits.values() for value in values}

    async def session() -> list[tuple[str, str]]:
        from mcp import Client

        async with Client(server) as agent:
            seen = []
            for tool, given in _calls():
                content: Any = (await agent.call_tool(tool, given)).content
                seen.append((json.dumps(given, ensure_ascii=False), content[0].text))
            return seen

    for given, text in in_thread(session):
        untold = _untold(text, given)
        leaked = [word for word in (*FORBIDDEN, *OF_PEOPLE) if word in untold and word not in mine]
        assert not leaked, (given, leaked)


def _calls() -> Iterator[tuple[str, dict[str, Any]]]:
    for tool in ("accounts", "call_list", "anomalies", "renewals", "kpi"):
        yield tool, {"limit": 1000}
    yield from (("account", {"account": "A1"}), ("contacts", {"account": "A1"}), ("explain", {"account": "A1"}))
    yield "call_list", {"week": "2026-11-18"}
    yield "definitions", {"name": ["clicks"]}
    for word in WORDS:
        yield from ((tool, {"account": word}) for tool in ("account", "contacts", "explain"))
        yield from (("call_list", {"region": [word]}), ("kpi", {"entity": [word]}), ("definitions", {"name": [word]}))


def in_thread(session: Any) -> Any:
    """Runs a coroutine where no event loop of another test is."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(session())))
    thread.start()
    thread.join()
    return found[0]
