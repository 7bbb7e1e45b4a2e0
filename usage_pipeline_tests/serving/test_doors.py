"""HTTP and tools for agents are the same questions: their filters, pages and refusals."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from fastapi.testclient import TestClient

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.serving.access import Access
from usage_pipeline.serving.agents import agent_server
from usage_pipeline.serving.published import Published
from usage_pipeline.serving.questions import QUESTIONS
from usage_pipeline.serving.tokens import TokenStore
from usage_pipeline.serving.web import make_api
from usage_pipeline_tests.serving.conftest import WEEK, publish
from usage_pipeline_tests.serving.test_leaks import in_thread


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> DataHome:
    root = tmp_path_factory.mktemp("doors")
    of_week = {"kpi": "Clicks", "kpi_period": "week", "reference_month": WEEK, "is_complete_period": True}
    publish(
        root, more={"kpi_report": [of_week | {"entity_type": "all", "entity_key": "all", "entity": "All accounts"}]}
    )
    return DataHome(root)


@pytest.fixture(scope="module")
def get(shared_home: DataHome) -> Iterator[Callable[[str], Any]]:
    headers = {"Authorization": f"Bearer {TokenStore(shared_home.api_dir).add('doors', ['contacts'], {})}"}
    with TestClient(make_api(shared_home), raise_server_exceptions=False) as client:
        yield lambda path: client.get(path, headers=headers)


@pytest.fixture(scope="module")
def agent(shared_home: DataHome) -> Callable[[Callable[[Any], Any]], Any]:
    """Runs a conversation with the tools."""
    server = agent_server(Published(shared_home), lambda _: Access("agent", ("read", "contacts")))

    def converse(ask: Callable[[Any], Any]) -> Any:
        async def session() -> Any:
            from mcp import Client

            async with Client(server) as client:
                return await ask(client)

        return in_thread(session)

    return converse


def called(agent: Any, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    """What each call is answered: an answer as it is, a refusal as its sentence."""

    async def ask(client: Any) -> list[Any]:
        told = []
        for tool, given in calls:
            answer = await client.call_tool(tool, given)
            told.append(answer.content[0].text if answer.is_error else json.loads(answer.content[0].text))
        return told

    found: list[Any] = agent(ask)
    return found


def test_each_tool_takes_what_its_address_takes_and_nothing_else(get: Any, agent: Any) -> None:
    """Of eight tools five lacked filters that HTTP has, and none had pages."""
    described = get("/openapi.json").json()["paths"]

    async def ask(client: Any) -> Any:
        return (await client.list_tools()).tools

    tools = {tool.name: tool.input_schema for tool in agent(ask)}
    addresses = {path for path in described if path.startswith("/v1/") and not path.endswith(".csv")}
    assert {question.address for question in QUESTIONS.values()} == addresses
    assert set(tools) == set(QUESTIONS)
    for name, question in QUESTIONS.items():
        parameters = {one["name"]: one for one in described[question.address]["get"].get("parameters", [])}
        arguments = tools[name]["properties"]
        assert set(arguments) == set(parameters), name
        assert tools[name]["additionalProperties"] is False
        for argument, schema in arguments.items():
            assert schema["description"] == parameters[argument]["description"], (name, argument)
        required = {one for one, parameter in parameters.items() if parameter.get("required")}
        assert set(tools[name].get("required", [])) == required, name


WRONG: list[tuple[str, dict[str, Any], str]] = [
    (
        "call_list",
        {"owner": ["Ann Lee"]},
        "there is no parameter 'owner'; did you mean csm? There are limit, offset, csm",
    ),
    ("call_list", {"staus": "done"}, "did you mean status?"),
    ("call_list", {"limit": "many"}, "limit takes a whole number from 1 to 1,000, not 'many'"),
    ("call_list", {"week": "1764000000"}, "week takes a day, written YYYY-MM-DD"),
    ("call_list", {"urgency": ["Now"]}, "one of: Urgent, This week, Watch"),
    ("anomalies", {"confidence": ["hihg"]}, "did you mean high?"),
    ("renewals", {"within_days": -1}, "within_days takes a whole number from 0 to 10,000, not"),
    ("kpi", {"period": "day"}, "one of: month, 3 months"),
    ("account", {"account": "A1", "parts": ["usage"]}, "there is no parameter 'parts'; did you mean part?"),
    ("contacts", {"account": "A1", "limit": 5}, "there is no parameter 'limit'"),
    ("explain", {}, "account is missing: account, by id or name"),
    ("definitions", {"names": ["clicks"]}, "did you mean name?"),
    ("build", {"x": 1}, "there is no parameter 'x': nothing is asked here"),
]


def test_what_is_not_understood_is_refused_in_one_sentence_through_both_doors(get: Any, agent: Any) -> None:
    """A tool left out an argument that it did not know, and answered the whole list."""
    told = called(agent, *((tool, given) for tool, given, _ in WRONG))
    for (tool, given, words), by_tool in zip(WRONG, told, strict=True):
        assert isinstance(by_tool, str) and words in by_tool, (tool, by_tool)
        assert "pydantic" not in by_tool and "\n" not in by_tool
        in_path = "{account}" in QUESTIONS[tool].address
        query = {name: value for name, value in given.items() if not (in_path and name == "account")}
        path = QUESTIONS[tool].address.replace("{account}", str(given.get("account", "")))
        by_address = get(f"{path}?{urlencode(query, doseq=True)}")
        assert by_address.status_code in (400, 422), tool
        # HTTP has text alone, so a value may be written in another way
        assert words.partition(", not")[0] in by_address.json()["detail"], (tool, by_address.text)


def test_agents_filter_and_page_as_programs_do(agent: Any) -> None:
    first, second, one_text, by_csm, empty, unknown = called(
        agent,
        ("anomalies", {"limit": 2}),
        ("anomalies", {"limit": 2, "offset": 2}),
        ("accounts", {"csm": "Ann Lee", "region": None}),
        ("kpi", {"region": ["North"], "entity_type": ["account"]}),
        ("accounts", {"csm": ["Ann Lee"], "region": ["South"]}),
        ("no_such_tool", {}),
    )
    assert (first["next_offset"], second["next_offset"], first["answer"]["rows"]["total"]) == (2, None, 3)
    assert one_text["asked"] == {"csm": ["Ann Lee"]}
    assert [row["account_id"] for row in one_text["answer"]["rows"]["rows"]] == ["A1"]
    assert [row["entity"] for row in by_csm["answer"]["rows"]["rows"]] == ["Acme Town"]
    assert "no row fits all filters together" in empty["notes"][0]
    assert "there is no tool 'no_such_tool'" in unknown


def test_a_failure_of_the_server_tells_an_agent_nothing_of_it(agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("/a/path/of/the/server")

    monkeypatch.setattr("usage_pipeline.serving.agents.understood", fails)
    assert called(agent, ("build", {})) == ["the server failed: its log says why"]


@pytest.mark.parametrize(
    ("query", "entities", "notes"),
    [
        ("csm=ann lee", set(), "no row fits"),
        ("region=North", {"North"}, ""),
        ("region=North&entity_type=account", {"Acme Town"}, ""),
        ("region=North&csm=Ann Lee", {"Acme Town"}, ""),
        ("region=North&csm=Bo Diaz", set(), "no row fits"),
        ("region=North&entity_type=all", set(), "filtered by region there are entities of type account, region"),
        ("region=North&application=permits", set(), "never about both"),
        ("account=Acme Town&period=week", set(), "no figure of entities of type account by week; it has by month"),
        ("entity_type=account&period=week", set(), "no figure of entities of type account by week; it has by month"),
        ("kpi=clicks&entity=A1", {"Acme Town"}, ""),
    ],
)
def test_the_kpi_sheet_is_filtered_truthfully_and_says_why_it_is_empty(
    get: Any, query: str, entities: set[str], notes: str
) -> None:
    """CSM and region together gave both whole, an account by week an empty sheet without a word."""
    told = get(f"/v1/kpis?{query}").json()
    assert {row["entity"] for row in told["rows"]} == entities, told
    assert notes in " ".join(told["notes"]) and bool(notes) == bool(told["notes"])


def test_renewals_say_through_which_day_they_are_known(get: Any) -> None:
    """365 days were asked for, and 180 answered."""
    assert "listed through 2027-05-23" in get("/v1/renewals?within_days=365").json()["notes"][0]


def test_a_page_behind_the_last_row_says_so(get: Any) -> None:
    assert get("/v1/accounts?offset=7").json()["notes"] == ["offset 7 is behind the last row: there are 2"]
