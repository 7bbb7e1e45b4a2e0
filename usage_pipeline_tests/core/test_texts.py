"""The catalogue of texts: ids, values in braces, and what is said where a text is not there."""

from pathlib import Path

import pytest
from usage_superset import texts as of_superset

from usage_pipeline.core.sql import named_values
from usage_pipeline.core.texts import (
    TextError,
    counted,
    filled,
    number,
    positional,
    read_texts,
    section,
    shown,
    signed,
    slug,
    text,
    texts,
)


def test_a_text_is_found_by_the_way_to_it(tmp_path: Path) -> None:
    file = tmp_path / "xx.yaml"
    file.write_text("page:\n  call_list:\n    title: Call list\n    1: one\n", encoding="utf-8")
    assert read_texts(file) == {"page.call_list.title": "Call list", "page.call_list.1": "one"}


@pytest.mark.parametrize("value", ["yes", "1", "[a, b]", ""])
def test_what_is_no_text_is_refused_by_its_id(tmp_path: Path, value: str) -> None:
    file = tmp_path / "xx.yaml"
    file.write_text(f"page: {{title: {value}}}\n", encoding="utf-8")
    with pytest.raises(TextError, match=r"^xx.yaml: page.title: is .*; write a text, in quotes"):
        read_texts(file)


def test_a_text_that_is_not_there_is_named() -> None:
    with pytest.raises(TextError, match=r"^en.yaml: page.nowhere.title: there is no such text"):
        text("page.nowhere.title")


def test_ids_in_a_file_become_texts_in_keys_too_and_values_stay() -> None:
    title = texts()["page.call_list.title"]
    stays = ["{ content: x }", "{name}", "${contact.role}", 3, None]
    assert filled({"{page.call_list.title}": ["# {page.call_list.title}", *stays]}) == {title: [f"# {title}", *stays]}


def test_a_section_has_the_rest_of_the_ids() -> None:
    assert section("page")["call_list.title"] == texts()["page.call_list.title"]


def test_a_word_is_part_of_an_id() -> None:
    assert slug("fewer users, as many records") == "fewer_users_as_many_records"


def test_a_number_goes_with_its_noun() -> None:
    told = [counted("count.accounts", number) for number in (0, 1, 1234)]
    assert told == ["no account", "1 account", "1,234 accounts"]


def test_sql_is_given_the_texts_that_it_names_with_values_in_the_order_of_the_text() -> None:
    assert positional("users.did_not_come") == "{0} of {1} regular users did not come in the last {2} weeks"
    sql = "SELECT format($text__users__did_not_come, 1, 2, $weeks) -- not $text__users__one_user"
    assert named_values(sql, {"weeks": 3, "other": 4}) == {
        "weeks": 3,
        "text__users__did_not_come": positional("users.did_not_come"),
    }


def test_sql_that_names_no_text_of_the_catalogue_is_refused() -> None:
    with pytest.raises(TextError, match=r"users.gone: there is no such text"):
        named_values("SELECT $text__users__gone", {})


def test_superset_reads_the_same_texts_in_the_same_way() -> None:
    assert of_superset.texts() == texts()
    content = {"{page.call_list.title}": ["# {page.call_list.title}", "{ content: x }", "${contact.role}", 3, None]}
    assert of_superset.filled(content) == filled(content)
    assert of_superset.text("digest.week", week=3) == text("digest.week", week=3)
    assert of_superset.slug("no problem") == slug("no problem")


def test_a_language_without_texts_ends_the_process_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USAGE_LANGUAGE", "xx")
    with pytest.raises(SystemExit, match=r"USAGE_LANGUAGE is 'xx': there are no texts of it; give it en or es"):
        text("page.call_list.title")
    assert of_superset.language_problem() == "USAGE_LANGUAGE is 'xx': give it en or es"


def test_another_language_writes_numbers_and_values_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USAGE_LANGUAGE", "es")
    assert (number(1234.5, 1), signed(-0.31), counted("count.accounts", 1234)) == ("1.234,5", "-0,3", "1.234 cuentas")
    assert of_superset.number(1234.5, 1) == "1.234,5"
    assert shown("urgency", "Urgent") == of_superset.shown("urgency", "Urgent") == "Urgente"
    # values come to SQL in the order of the English text
    assert positional("users.did_not_come").startswith("sin entrar en las últimas {2} semanas: {0} de {1}")
    words = named_values("SELECT $words__week_status[x]", {})["words__week_status"]
    assert dict(zip(words["key"], words["value"], strict=True))["running"] == "en curso"
