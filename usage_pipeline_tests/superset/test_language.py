"""Pages in another language: Superset set up in Spanish on the demo's build, whose sentences are English."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from usage_superset import words
from usage_superset.chart_queries import payload

from usage_pipeline.core.texts import TEXTS, read_texts, shown
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.servers import SupersetServer, serve_superset
from usage_pipeline_tests.support.superset_client import CHARTS, Client, logged_in, open_dashboard, wait_until_drawn

SPANISH = read_texts(TEXTS / "es.yaml")


@pytest.fixture
def in_spanish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USAGE_LANGUAGE", "es")


# ---------------------------------------------------------------- words without a server


def test_in_english_a_value_is_its_own_word() -> None:
    assert words.as_word("urgency", "Urgent") == "Urgent" == words.as_code("urgency", "Urgent")
    chart = {"params": {"conditional_formatting": [{"column": "urgency", "targetValue": "Urgent"}]}}
    assert words.asset_in_words(yaml.safe_load(yaml.safe_dump(chart))) == chart


def test_what_a_filter_sends_back_means_the_code(in_spanish: None) -> None:
    for key in (key for key in SPANISH if key.startswith("value.")):
        _, column, code = key.split(".", 2)
        assert words.as_word(column, code) == SPANISH[key] == shown(column, code)
        assert words.as_code(column, [SPANISH[key], "Town of Elkdale"]) == [code, "Town of Elkdale"]


def test_a_list_of_reasons_is_told_word_by_word(in_spanish: None) -> None:
    told = words.as_word("reasons", "usage drop, upcoming renewal")
    assert told == "caída de uso, renovación próxima"
    assert words.as_code("reasons", told) == "usage drop, upcoming renewal"


def test_colors_and_choices_are_of_the_words_that_are_shown(in_spanish: None) -> None:
    rules = [{"column": "urgency", "targetValue": "Urgent"}, {"column": "clicks", "targetValue": 3}]
    native = {
        "defaultDataMask": {
            "extraFormData": {"filters": [{"col": "call_status", "op": "IN", "val": ["open"]}]},
            "filterState": {"value": ["open"]},
        }
    }
    asset = {
        "params": {"conditional_formatting": rules},
        "metadata": {"label_colors": {"Urgent": "#d00"}, "native_filter_configuration": [native]},
    }
    made = words.asset_in_words(asset)
    assert [rule["targetValue"] for rule in made["params"]["conditional_formatting"]] == ["Urgente", 3]
    assert made["metadata"]["label_colors"] == {"Urgent": "#d00", "Urgente": "#d00"}
    mask = made["metadata"]["native_filter_configuration"][0]["defaultDataMask"]
    assert mask["filterState"]["value"] == mask["extraFormData"]["filters"][0]["val"] == ["abierta"]


# ---------------------------------------------------------------- a real Superset


@pytest.fixture(scope="module")
def spanish(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SupersetServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("USAGE_LANGUAGE", "es")
        with serve_superset(demo.settings, tmp_path_factory.mktemp("spanish")) as server:
            yield server


def rows_of(server: SupersetServer, title: str, filters: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """What the call list of a server shows, as stored in no language."""
    client = Client(server, "viewer")
    body = payload(CHARTS["call_list"]["params"], client.charts()[title], filters=filters or [])
    answer = client.post("/api/v1/chart/data", body)
    assert answer.status_code == 200, answer.text
    return answer.json()["result"][0]["data"]


@pytest.mark.long
@pytest.mark.superset("second")
def test_the_call_list_in_spanish_has_the_same_rows(spanish: SupersetServer, superset: SupersetServer) -> None:
    """A filter by a word finds the rows of its code."""
    title = SPANISH["chart.call_list.title"]
    ours = rows_of(spanish, title)
    theirs = rows_of(superset, CHARTS["call_list"]["slice_name"])
    assert [row["urgency"] for row in ours] == [SPANISH[f"value.urgency.{row['urgency']}"] for row in theirs]
    urgent = rows_of(spanish, title, [{"col": "urgency", "op": "IN", "val": ["Urgente"]}])
    assert len(urgent) == sum(row["urgency"] == "Urgent" for row in theirs) > 0


@pytest.mark.long
@pytest.mark.superset("second")
def test_the_call_list_is_drawn_in_spanish(spanish: SupersetServer, browser: Any) -> None:
    page = logged_in(browser, spanish, "viewer")
    open_dashboard(page, spanish, "call-list")
    wait_until_drawn(page)
    seen = page.inner_text("body")
    assert page.evaluate("document.documentElement.lang") == "es"
    for told in ("page.call_list.title", "frame.link.kpi_sheet", "chart.call_list.title", "value.urgency.Urgent"):
        assert SPANISH[told] in seen, told
    assert "This week" not in seen
    page.context.close()
