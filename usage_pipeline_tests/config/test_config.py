"""Configuration: one clear sentence for each kind of mistake, naming the file, the key and the remedy."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from usage_pipeline.config.settings import ConfigError, load_settings
from usage_pipeline.core.formatting import currency, day
from usage_pipeline_tests.support.lakes import write_config

_USAGE = {"path": "lake", "partitioned": True, "columns": {"account_id": "a", "application": "b", "event_time": "t"}}


def _problems(tmp_path, **changes: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        load_settings(write_config(tmp_path, **changes))
    message = "\n".join(raised.value.problems)
    assert str(tmp_path / "sources.yaml") in message, "names the file"
    return message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sources": {}}, "sources.usage: missing; add it"),
        ({"homme": "x"}, "homme: unknown key (did you mean home?)"),
        ({"timezone": "America/Denvr"}, "'America/Denvr' is not a time zone (did you mean America/Denver?)"),
        ({"lookback_weeks": 0}, "lookback_weeks: Input should be greater than or equal to 1 (given: 0)"),
        ({"lookback_weeks": "many"}, "lookback_weeks: Input should be a valid integer"),
        ({"as_of": "yesterday"}, "as_of: Input should be a valid datetime"),
        ({"activity": {"low_share": 2}}, "activity.low_share: Input should be less than or equal to 1 (given: 2)"),
        ({"sources": {"usage": _USAGE | {"path": "${NO_SUCH_VARIABLE}"}}}, "the environment variable NO_SUCH_VARIABLE"),
        ({"sources": {"usage": {"columns": {}}}}, "give either `path`"),
        ({"sources": {"usage": _USAGE | {"files": {"x": {"path": "y"}}, "query": "SELECT 1"}}}, "not both"),
        ({"sources": {"usage": {"files": {"x": {"path": "y"}}, "columns": {}}}}, "`files` and `query` go together"),
        (
            {"sources": {"usage": _USAGE | {"format": "xlsx"}}},
            "sources.usage.format: Input should be 'parquet' or 'csv'",
        ),
        ({"sources": {"usage": _USAGE | {"columns": {"account_id": "a"}}}}, "usage.columns lacks application, "),
        (
            {"sources": {"usage": _USAGE | {"columns": _USAGE["columns"] | {"cliks": "n"}}}},  # type: ignore[operator]
            "usage.columns.cliks is not a column of ours (did you mean clicks?)",
        ),
        (
            {"sources": {"usage": {"path": "l", "columns": {"account_id": "a", "application": "b"}}}},
            "usage.columns lacks event_time: without year=/week= folders nothing says when usage happened",
        ),
        ({"sources": {"usage": _USAGE, "clients": _USAGE}}, "sources.clients: unknown key"),
    ],
)
def test_each_kind_of_mistake_gets_a_sentence_with_its_remedy(tmp_path, changes: dict[str, Any], said: str) -> None:
    assert said in _problems(tmp_path, **changes)


def test_every_mistake_is_told_at_once(tmp_path) -> None:
    said = _problems(tmp_path, lookback_weeks=0, timezone="Nowhere")
    assert "lookback_weeks" in said
    assert "Nowhere" in said


def test_a_file_that_is_not_there_or_not_yaml_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_settings(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [", encoding="utf-8")
    with pytest.raises(ConfigError, match="not readable as YAML"):
        load_settings(broken)


def test_as_of_is_the_argument_else_the_environment_else_the_file(tmp_path, monkeypatch) -> None:
    file = write_config(tmp_path)
    assert load_settings(file).clock.as_of_day == date(2025, 3, 5)
    monkeypatch.setenv("USAGE_PIPELINE_AS_OF", "2025-03-06")
    assert load_settings(file).clock.as_of_day == date(2025, 3, 6)
    assert load_settings(file, as_of=date(2025, 3, 7)).clock.as_of_day == date(2025, 3, 7)


def test_without_as_of_the_clock_is_followed_and_said(tmp_path) -> None:
    content = yaml.safe_load(write_config(tmp_path).read_text())
    del content["as_of"]
    (tmp_path / "sources.yaml").write_text(yaml.safe_dump(content))
    assert load_settings(tmp_path / "sources.yaml").clock.is_pinned is False


def test_a_name_of_the_environment_can_have_a_default(tmp_path, monkeypatch) -> None:
    usage = _USAGE | {"path": "${SOME_LAKE:-elsewhere}/usage"}
    file = write_config(tmp_path, sources={"usage": usage})
    assert load_settings(file).sources.usage.path == str(tmp_path / "elsewhere" / "usage")
    monkeypatch.setenv("SOME_LAKE", "/there")
    assert load_settings(file).sources.usage.path == "/there/usage"


def test_the_window_is_the_complete_weeks_before_as_of_and_the_running_one(tmp_path) -> None:
    settings = load_settings(write_config(tmp_path, lookback_weeks=2))
    assert (settings.clock.window_start, settings.clock.running_week) == (date(2025, 2, 17), date(2025, 3, 3))


def test_the_examples_are_sound(monkeypatch) -> None:
    monkeypatch.setenv("USAGE_PIPELINE_REAL_DATA", "/somewhere")
    for name in ("company", "oulad", "ravenstack"):
        assert load_settings(f"examples/{name}.yaml").name


def test_a_home_of_a_version_with_other_names_is_refused_with_the_remedy(tmp_path: Path) -> None:
    file = write_config(tmp_path)
    (tmp_path / "home" / "ledger").mkdir(parents=True)
    with pytest.raises(ConfigError, match="made by a version with other names"):
        load_settings(file)


def test_one_setting_writes_the_days_and_one_the_money_of_every_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert day(date(2026, 11, 6)) == "Nov 6, 2026" and currency() == "$"
    monkeypatch.setenv("USAGE_DATE_FORMAT", "%d/%m/%Y")
    monkeypatch.setenv("USAGE_CURRENCY", "€")
    assert day(date(2026, 11, 6)) == "06/11/2026" and currency() == "€"
