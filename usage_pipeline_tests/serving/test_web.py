"""The read API: who gets in, what is open to whom, what answers say, and what wrong questions get."""

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.serving.tokens import TokenError, TokenStore
from usage_pipeline.serving.web import make_api
from usage_pipeline_tests.serving.conftest import publish

LISTS = ("accounts", "call-list", "anomalies", "renewals", "kpis")


class Program:
    def __init__(self, client: TestClient, token: str) -> None:
        self.client, self.headers = client, {"Authorization": f"Bearer {token}"}

    def get(self, path: str, **headers: str) -> Any:
        return self.client.get(path, headers=self.headers | headers)


@pytest.fixture
def client(home: DataHome) -> Iterator[TestClient]:
    with TestClient(make_api(home), raise_server_exceptions=False) as opened:
        yield opened


@pytest.fixture
def store(home: DataHome) -> TokenStore:
    return TokenStore(home.api_dir)


@pytest.fixture
def reader(client: TestClient, store: TokenStore) -> Program:
    return Program(client, store.add("reader", [], {}))


@pytest.fixture
def north(client: TestClient, store: TokenStore) -> Program:
    return Program(client, store.add("north", ["contacts"], {"region": ["North"]}))


def test_nobody_gets_in_without_a_token_or_with_one_that_was_revoked(client: TestClient, store: TokenStore) -> None:
    secret = store.add("crm", [], {})
    assert secret not in store.file.read_text()
    assert oct(store.file.stat().st_mode)[-2:] == "00"
    program = Program(client, secret)
    assert program.get("/v1/build").status_code == 200
    for path in ("/v1/build", "/v1/accounts", "/v1/accounts/A1/contacts", "/v1/definitions", "/mcp"):
        for headers in ({}, {"Authorization": "Bearer nothing"}, {"Authorization": f"Basic {secret}"}):
            refused = client.get(path, headers=headers)
            assert (refused.status_code, "tokens add" in refused.text) == (401, True), path
    store.revoke("crm")
    assert program.get("/v1/build").status_code == 401
    with pytest.raises(TokenError, match="these have: none"):
        store.revoke("crm")


@pytest.mark.parametrize("name", LISTS)
def test_a_list_has_the_rows_of_its_table_its_build_and_pages(home: DataHome, reader: Program, name: str) -> None:
    whole = reader.get(f"/v1/{name}").json()
    # a copy, since this process has the file open in another way
    copied = shutil.copy(home.published_dir / "current" / "warehouse.duckdb", home.root / "copy.duckdb")
    with duckdb.connect(str(copied), read_only=True) as connection:
        counted = connection.execute(f"SELECT count(*) FROM {whole['source']}").fetchone()
    assert (whole["total"],) == counted == (len(whole["rows"]),)
    assert whole["build"]["data_through"] == "2026-11-22"
    first = reader.get(f"/v1/{name}?limit=1").json()
    second = reader.get(f"/v1/{name}?limit=1&offset={first['next_offset']}").json()
    assert [first["rows"][0], second["rows"][0]] == whole["rows"][:2]
    table = list(csv.DictReader(io.StringIO(reader.get(f"/v1/{name}.csv").text)))
    assert len(table) == whole["total"]
    assert list(table[0]) == list(whole["rows"][0])[: len(table[0])]


def test_numbers_are_those_of_the_tables_and_what_is_not_known_is_null(reader: Program) -> None:
    rows = {row["account_id"]: row for row in reader.get("/v1/accounts").json()["rows"]}
    assert (rows["A1"]["annual_value"], rows["B2"]["annual_value"], rows["A1"]["seats"]) == (100.0, 250.5, None)
    account = reader.get("/v1/accounts/Acme Town").json()["parts"]
    assert account["usage"]["rows"][0]["clicks"] == 7
    values = {row["entity"]: row["value"] for row in reader.get("/v1/kpis?kpi=Clicks").json()["rows"]}
    assert values["All accounts"] == values["North"] + values["South"] == 16


def test_filters_are_named_as_on_the_pages(reader: Program) -> None:
    for query in ("csm=Ann Lee", "segment=Town", "region=North", "account=A1", "account=Acme Town"):
        for name in ("accounts", "call-list", "anomalies", "renewals"):
            found = {row["account_id"] for row in reader.get(f"/v1/{name}?{query}").json()["rows"]}
            assert found == {"A1"}, (name, query)
    assert reader.get("/v1/call-list?week=2026-11-11").json()["source"] == "mart.call_list_history"


def test_a_formula_in_a_name_runs_in_no_spreadsheet(reader: Program) -> None:
    names = [row["account"] for row in csv.DictReader(io.StringIO(reader.get("/v1/accounts.csv").text))]
    assert "'=Bolt City" in names


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/v1/accounts?regions=North", 422, "there is no parameter 'regions'"),
        ("/v1/accounts?region=Nroth", 400, "did you mean North"),
        ("/v1/accounts/Acme Twon", 404, "Acme Town"),
        ("/v1/accounts?limit=0", 422, "limit"),
        ("/v1/call-list?week=2020-01-01", 404, "2026-11-09"),
        ("/v1/accounts/A1?part=nothing", 400, "there is no part 'nothing'"),
        ("/v1/definitions?name=nothing at all", 400, "nothing is called"),
        ("/v1/accounts/A1/contacts", 403, "--contacts"),
    ],
)
def test_a_wrong_question_is_told_with_the_remedy(reader: Program, path: str, status: int, words: str) -> None:
    answer = reader.get(path)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text


def test_contacts_come_with_their_scope_alone(client: TestClient, store: TokenStore, reader: Program) -> None:
    caller = Program(client, store.add("caller", ["contacts"], {}))
    answer = caller.get("/v1/accounts/A1/contacts")
    assert [row["name"] for row in answer.json()["rows"]] == ["Kim of A1"]
    assert answer.headers["Cache-Control"] == "no-store"
    for path in [f"/v1/{name}" for name in LISTS] + ["/v1/accounts/A1", "/v1/explain?account=A1"]:
        assert "Kim of" not in reader.get(path).text, path


def test_a_limited_token_gets_no_word_of_other_accounts(north: Program) -> None:
    paths = [f"/v1/{name}{kind}" for name in LISTS for kind in ("", ".csv")]
    paths += ["/v1/accounts/A1", "/v1/accounts/A1/contacts", "/v1/explain?account=A1", "/v1/call-list?week=2026-11-11"]
    paths += ["/v1/accounts/B2", "/v1/accounts/Bolt City", "/v1/explain?account=B2", "/v1/accounts?region=South"]
    paths += ["/v1/accounts/B2/contacts", "/v1/kpis?entity=South", "/v1/kpis?csm=Bo Diaz", "/v1/accounts?csm=Bo Diax"]
    for path in paths:
        answer = north.get(path)
        asked = path.partition("?")[2] + path
        for word in ("B2", "Bolt City", "South", "Bo Diaz", "all of us", "All accounts"):
            assert word not in answer.text or word in asked, (path, word)
    assert north.get("/v1/accounts/B2").status_code == north.get("/v1/accounts/nobody").status_code == 404
    assert {row["entity"] for row in north.get("/v1/kpis").json()["rows"]} == {"Acme Town", "North"}


def test_an_answer_that_did_not_change_is_not_sent_again(home: DataHome, reader: Program, north: Program) -> None:
    first = reader.get("/v1/accounts")
    again = reader.get("/v1/accounts", **{"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert north.get("/v1/accounts", **{"If-None-Match": first.headers["ETag"]}).status_code == 200
    wrong = reader.get("/v1/accounts?region=Nroth", **{"If-None-Match": first.headers["ETag"]})
    assert wrong.status_code == 400, "what another address was answered is none of its own"
    build_id = publish(home.root, 2)
    newer = reader.get("/v1/accounts", **{"If-None-Match": first.headers["ETag"]})
    assert (newer.status_code, newer.headers["X-Usage-Build"], newer.json()["build"]["build_id"]) == (
        200,
        build_id,
        build_id,
    )


def test_without_a_build_or_with_one_of_another_version_it_says_so(home: DataHome, reader: Program) -> None:
    file = home.published_dir / "00003-2026-11-24-aaaaaaaa"
    publish(home.root, 3)
    with duckdb.connect(str(file / "warehouse.duckdb")) as connection:
        connection.execute("ALTER TABLE mart.call_list DROP COLUMN reason")
    other = reader.get("/v1/accounts")
    assert (other.status_code, "mart.call_list lacks reason" in other.json()["error"]) == (503, True)
    (home.published_dir / "current").unlink()
    none = reader.get("/v1/accounts")
    assert (none.status_code, "usage-pipeline refresh" in none.json()["error"]) == (503, True)


def test_a_program_that_asks_too_fast_is_told_when_to_ask_again(home: DataHome, store: TokenStore) -> None:
    secret, other = store.add("fast", [], {}), store.add("other", [], {})
    with TestClient(make_api(home, per_minute=3)) as client:
        statuses = [Program(client, secret).get("/v1/build").status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        assert int(Program(client, secret).get("/v1/build").headers["Retry-After"]) >= 1
        assert Program(client, other).get("/v1/build").status_code == 200


def test_the_log_names_the_program_and_no_account(reader: Program, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "usage_pipeline.serving"):
        reader.get("/v1/accounts/Acme Town?part=summary")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "usage_pipeline.serving"]
    assert line.startswith("reader GET /v1/accounts/{account} 200")
    assert "Acme" not in line


def test_what_is_described_is_what_is_answered(home: DataHome, store: TokenStore) -> None:
    """Requests that are made from the description, right and wrong ones: none ends in an error of the server."""
    headers = {"Authorization": f"Bearer {store.add('fuzzer', ['contacts'], {})}"}
    api = make_api(home, per_minute=100_000)
    schema = schemathesis.openapi.from_asgi("/openapi.json", api)
    tried: list[str] = []

    checks = [not_a_server_error, status_code_conformance, response_schema_conformance]

    for operation in schema.get_all_operations():

        @given(case=operation.ok().as_strategy())
        @settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        def one(case: Any) -> None:
            tried.append(case.path)
            case.call_and_validate(headers=headers, checks=checks)

        one()
    assert len(set(tried)) >= 14


def test_tokens_are_made_with_sound_names_scopes_and_limits(tmp_path: Path) -> None:
    store = TokenStore(tmp_path / "api")
    store.add("one", ["read"], {"owner": ["Ann Lee"]})
    for name, scopes, limits, words in (
        ("One!", [], {}, "is no name"),
        ("one", [], {}, "has a token"),
        ("two", ["write"], {}, "there is no scope 'write'"),
        ("two", [], {"city": ["x"]}, "limited by csm, region, segment"),
    ):
        with pytest.raises(TokenError, match=words):
            store.add(name, scopes, limits)
    store.file.write_text("{")
    with pytest.raises(TokenError, match=r"tokens\.json cannot be read"):
        store.tokens()
