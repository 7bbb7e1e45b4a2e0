"""The read API: who gets in, what is open to whom, what answers say, and what wrong questions get."""

import csv
import io
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from usage_pipeline.cli import app
from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import OutcomeSettings
from usage_pipeline.core.tables import COLUMNS
from usage_pipeline.outcomes.database import renew_outcomes
from usage_pipeline.privacy.encryption import open_to_write
from usage_pipeline.serving import null_reasons
from usage_pipeline.serving.kept_answers import KeptAnswer, KeptAnswers
from usage_pipeline.serving.null_reasons import OF_ALL_ACCOUNTS
from usage_pipeline.serving.published import Published
from usage_pipeline.serving.reads import _plain
from usage_pipeline.serving.tokens import TokenError, TokenStore
from usage_pipeline.serving.web import make_api
from usage_pipeline_tests.serving.conftest import CLOCK, NORTH, PERMITS, WEEK, publish

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
        ("/v1/accounts?regoin=North", 422, "did you mean region?"),
        ("/v1/accounts?limit=0", 422, "limit"),
        ("/v1/accounts?limit=100000000", 422, "limit"),
        ("/v1/call-list?week=1764000000", 422, "YYYY-MM-DD"),
        ("/v1/anomalies?since=20261116", 422, "YYYY-MM-DD"),
        ("/v1/call-list?week=2020-01-01", 404, "2026-11-09"),
        ("/v1/accounts/A1?part=nothing", 400, "there is no part 'nothing'"),
        ("/v1/definitions?name=nothing at all", 400, "nothing is called"),
        ("/v1/accounts/A1/contacts", 403, "--contacts"),
        # one request kept a processor for minutes
        ("/v1/accounts?" + "account=A1&" * 101, 422, "at most 100"),
        (f"/v1/accounts/{'x' * 5000}", 422, "200 characters"),
        (f"/v1/explain?account={'x' * 5000}", 422, "200 characters"),
    ],
)
@pytest.mark.sample(every=4)
def test_a_wrong_question_is_told_with_the_remedy(reader: Program, path: str, status: int, words: str) -> None:
    answer = reader.get(path)
    assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"


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
    assert (other.status_code, "mart.call_list lacks reason" in other.json()["detail"]) == (503, True)
    (home.published_dir / "current").unlink()
    none = reader.get("/v1/accounts")
    assert (none.status_code, "usage-pipeline refresh" in none.json()["detail"]) == (503, True)
    Published(home).warm()
    publish(home.root, 4)
    (home.published_dir / "current" / "build.json").write_text("{")
    broken = reader.get("/v1/accounts")
    assert (broken.status_code, "the log of the server says why" in broken.json()["detail"]) == (503, True)
    # where builds are kept is nothing that a program has to know
    assert not any(str(home.root) in answer.text for answer in (other, none, broken))


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


def test_the_log_names_addresses_that_refuse_too(reader: Program, caplog: pytest.LogCaptureFixture) -> None:
    """Of what was refused, and of tools, it said that there is no such address."""
    with caplog.at_level("INFO", "usage_pipeline.serving"):
        reader.client.get("/v1/accounts/Acme Town")
        reader.client.post("/mcp", json={})
        reader.get("/openapi.json")
        reader.get("/v1/nothing")
    lines = [record.getMessage() for record in caplog.records if record.name == "usage_pipeline.serving"]
    assert [line.rpartition(" ")[0].rpartition(" ")[0] for line in lines] == [
        "nobody GET /v1/accounts/{account} 401",
        "nobody POST /mcp 401",
        "nobody GET /openapi.json 200",
        "reader GET (no such address) 404",
    ]


def test_an_account_is_found_by_any_name_in_a_path_and_head_answers_as_get(client: TestClient, home: DataHome) -> None:
    """An account with a slash in its name was no address, and HEAD was refused."""
    publish(home.root, 2, more={"accounts_summary": [{"account_id": "C3", "account": "Newtown / Slash?"}]})
    reader = Program(client, TokenStore(home.api_dir).add("paths", ["contacts"], {}))
    path = "/v1/accounts/Newtown %2F Slash%3F"
    assert (
        reader.get(path).json()["asked"]["account"] == reader.get(f"{path}/contacts").json()["asked"]["account"] == "C3"
    )
    for wanted in (path, "/v1/accounts.csv", "/v1/nothing"):
        head, full = client.head(wanted, headers=reader.headers), reader.get(wanted)
        assert (head.status_code, head.content) == (full.status_code, b"")
        assert head.headers["Content-Length"] == str(len(full.content))


def test_every_moment_has_its_zone(home: DataHome, reader: Program) -> None:
    """A midnight of Denver had no zone, and looked like one of Greenwich."""
    assert renew_outcomes(home, CLOCK, OutcomeSettings())
    assert reader.get("/v1/build").json()["as_of"] == "2026-11-24T00:00:00-07:00"
    past = reader.get("/v1/call-list?week=2026-11-11").json()["rows"][0]
    assert (past["issued_as_of"], past["as_of_week"]) == ("2026-11-16", "2026-11-09")
    outcome = {"recorded_at": datetime(2026, 11, 24, 9, 30), "account_id": "A1"}
    assert _plain("recorded_at", outcome["recorded_at"]) == "2026-11-24T09:30:00Z"
    described = reader.get("/openapi.json").json()["paths"]["/v1/call-list"]["get"]["responses"]["200"]
    columns = described["content"]["application/json"]["schema"]["properties"]["rows"]["items"]["properties"]
    assert (columns["outcome_at"]["format"], columns["issued_as_of"]["format"]) == ("date-time", "date")


def test_what_all_accounts_did_stands_in_no_column_of_a_limited_token(
    home: DataHome, reader: Program, north: Program
) -> None:
    """A token of one region read how all accounts did in a week."""
    of_all = {"platform_anomaly": "spike", "application_anomaly": "usage drop", "common_spread": 0.2}
    publish(home.root, 2, more={"usage_by_week": [NORTH | PERMITS | of_all | {"week_start": WEEK}]})
    for path in ("/v1/accounts/A1?part=usage", "/v1/explain?account=A1"):
        whole, limited = (program.get(path).json()["parts"]["usage"] for program in (reader, north))
        assert all({row[name] for row in whole["rows"]} & {value} for name, value in of_all.items())
        for name in of_all:
            assert {row[name] for row in limited["rows"]} == {None}
            assert limited["null_because"][name] == OF_ALL_ACCOUNTS


def test_words_that_are_none_do_not_hide_those_that_are(reader: Program) -> None:
    told = reader.get("/v1/definitions?name=clicks&name=clikcs").json()
    assert told["rows"][0]["name"] == "clicks"
    assert "nothing is called 'clikcs'; did you mean" in told["notes"][0]
    first = reader.get("/v1/definitions?limit=2").json()
    assert (len(first["rows"]), first["next_offset"], first["total"] > 100) == (2, 2, True)


def test_a_limit_that_no_account_is_within_is_told_when_the_token_is_made(home: DataHome, config: Path) -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, [*arguments, "-c", str(config)])

    made = run("tokens", "add", "ann", "--csm", "Ann Lee", "--csm", "Ann Lea", "--region", "North")
    assert made.exit_code == 0
    assert made.stderr.count("warning") == 1
    assert "no account has the csm 'Ann Lea'; did you mean Ann Lee? (`usage-pipeline tokens revoke ann`" in made.stderr
    # by the name of the option, not of the column
    assert "csm: Ann Lee, Ann Lea; region: North" in run("tokens", "list").stdout
    (home.published_dir / "current").unlink()
    assert "warning" not in run("tokens", "add", "bo", "--csm", "Bo Diaz").stderr
    assert run("api", "--port", "99999").exit_code == 2


def test_what_came_of_calls_is_told_of_the_build_that_is_asked_alone(home: DataHome, reader: Program) -> None:
    """After a publish the outcomes at hand were those of the build before: its status stood beside the new list."""
    early = reader.get("/v1/call-list").json()
    assert [row["call_status"] for row in early["rows"]] == [None, None]
    assert "no outcomes were written yet" in early["null_because"]["call_status"]
    assert renew_outcomes(home, CLOCK, OutcomeSettings())
    told = reader.get("/v1/call-list").json()
    assert ([row["call_status"] for row in told["rows"]], told["notes"]) == (["open", "open"], [])
    assert [row["account_id"] for row in reader.get("/v1/call-list?status=open").json()["rows"]] == ["A1", "B2"]
    publish(home.root, 2)
    for path, part in (("/v1/call-list", None), ("/v1/accounts/A1?part=call", "call")):
        other = reader.get(path).json()
        rows = other["parts"][part] if part else other
        assert {row["call_status"] for row in rows["rows"]} == {None}
        assert "of another build" in rows["null_because"]["call_status"]
        assert "of another build" in other["notes"][0]
    by_status = reader.get("/v1/call-list?status=open")
    assert (by_status.status_code, "of another build" in by_status.json()["detail"]) == (503, True)
    assert renew_outcomes(home, CLOCK, OutcomeSettings())
    assert {row["call_status"] for row in reader.get("/v1/call-list").json()["rows"]} == {"open"}


def test_what_is_null_says_why(home: DataHome, reader: Program) -> None:
    accounts = reader.get("/v1/accounts").json()
    nulls = {name for row in accounts["rows"] for name, value in row.items() if value is None}
    assert set(accounts["null_because"]) == nulls
    assert accounts["null_because"]["seats"].startswith("not delivered")
    assert "annual_value" not in nulls
    # no notice is an answer: it was called unknown
    noticed = NORTH | {"account_id": "C3", "notice_date": datetime(2026, 11, 2)}
    publish(home.root, 2, more={"accounts_summary": [noticed]})
    assert reader.get("/v1/accounts").json()["null_because"]["notice_date"] == "no notice was received"
    assert set(null_reasons.NONE) <= set(COLUMNS)
    anomalies = reader.get("/v1/anomalies").json()
    assert anomalies["null_because"]["account_id"] == "about all accounts together"
    parts = reader.get("/v1/accounts/A1?part=peers&part=renewals").json()["parts"]
    assert "not delivered" in parts["peers"]["null_because"]["rows"]
    assert parts["renewals"]["rows"]


def test_a_csv_says_in_its_headers_how_much_there_is(reader: Program) -> None:
    """A file of 100 rows looked like all of them."""
    first = reader.get("/v1/accounts.csv?limit=1")
    wanted = {"X-Usage-Total": "2", "X-Usage-Next-Offset": "1", "X-Usage-Data-Through": "2026-11-22"}
    assert {name: first.headers[name] for name in wanted} == wanted
    assert reader.get("/v1/accounts.csv").headers["X-Usage-Next-Offset"] == ""


def test_programs_with_the_same_rights_share_answers_and_others_do_not(client: TestClient, store: TokenStore) -> None:
    of_north = {"region": ["North"]}
    one, two = (Program(client, store.add(name, [], of_north)) for name in ("one", "two"))
    others = [
        Program(client, store.add("with-contacts", ["contacts"], of_north)),
        Program(client, store.add("south", [], {"region": ["South"]})),
        Program(client, store.add("both", [], {"region": ["North", "South"]})),
        Program(client, store.add("narrow", [], of_north | {"owner": ["Ann Lee"]})),
        Program(client, store.add("all", [], {})),
    ]
    for path in ("/v1/accounts", "/v1/accounts/A1", "/v1/kpis", "/v1/call-list.csv"):
        first = one.get(path)
        assert two.get(path, **{"If-None-Match": first.headers["ETag"]}).status_code == 304
        assert two.get(path).content == first.content
        for other in others:
            answer = other.get(path, **{"If-None-Match": first.headers["ETag"]})
            assert answer.status_code in (200, 404), path


def test_contacts_with_another_key_are_told_and_are_no_error_of_the_server(
    home: DataHome, client: TestClient, store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home.published_dir / "current" / "contacts.duckdb"
    file.unlink()
    monkeypatch.setenv("USAGE_CONTACTS_KEY", "a-key-of-this-test-alone-012345678901")
    with open_to_write(file) as connection:
        connection.execute("CREATE SCHEMA personal")
    monkeypatch.delenv("USAGE_CONTACTS_KEY")
    answer = Program(client, store.add("caller", ["contacts"], {})).get("/v1/accounts/A1/contacts")
    assert (answer.status_code, "USAGE_CONTACTS_KEY" in answer.json()["detail"]) == (503, True)


def test_a_page_in_a_browser_may_not_ask(reader: Program) -> None:
    assert reader.get("/v1/build", Origin="https://elsewhere.invalid").status_code == 403
    assert reader.get("/mcp", Origin="https://elsewhere.invalid").status_code == 403


def test_answers_that_are_kept_are_bounded() -> None:
    kept = KeptAnswers(most_bytes=5000)
    for number in range(5):
        kept.keep(str(number), KeptAnswer(b"x" * 1000, "text/plain", {}))
        kept.get("0")
    assert [number for number in range(5) if kept.get(str(number))] == [0, 4]
    kept.keep("large", KeptAnswer(b"x" * 5001, "text/plain", {}))
    assert kept.get("large") is None


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
