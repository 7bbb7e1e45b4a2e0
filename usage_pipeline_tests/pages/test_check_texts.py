"""The check of texts: the real catalogue is whole, and each kind of mistake is found and named."""

import ast
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from usage_pipeline.core.texts import ENGLISH, TEXTS

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_texts.py"
spec = importlib.util.spec_from_file_location("check_texts", SCRIPT)
assert spec is not None and spec.loader is not None
check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The texts, with a second language that is a copy of the first."""
    made = tmp_path / "texts"
    shutil.copytree(TEXTS, made)
    shutil.copy(made / f"{ENGLISH}.yaml", made / "xx.yaml")
    monkeypatch.setattr(check, "TEXTS", made)
    return made


def change(file: Path, how: Any) -> None:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    how(content)
    file.write_text(yaml.safe_dump(content, sort_keys=True, allow_unicode=True, width=118), encoding="utf-8")


def test_the_texts_are_whole(folder: Path) -> None:
    assert list(check.problems()) == []


@pytest.mark.parametrize(
    ("file", "how", "said"),
    [
        ("xx", lambda t: t["digest"].pop("open"), "xx.yaml: digest.open: is missing; translate it"),
        ("xx", lambda t: t["digest"].update(more_of_it="x"), f"xx.yaml: digest.more_of_it: is no text of {ENGLISH}"),
        ("xx", lambda t: t["digest"].update(week="semana {semana}"), "xx.yaml: digest.week: has the values {'semana'}"),
        ("xx", lambda t: t["empty"].update(call_list='"Nadie"'), "xx.yaml: empty.call_list: holds a quotation mark"),
        ("xx", lambda t: t["brief"].update(print="<b>x</b>"), "xx.yaml: brief.print: holds markup"),
        ("xx", lambda t: t["help"].update(word="a|b"), "xx.yaml: help.word: holds |"),
        (ENGLISH, lambda t: t["digest"].update(nobody_says="x"), "digest.nobody_says: nothing uses it; delete it"),
        (ENGLISH, lambda t: t["digest"].pop("open"), "digest.html: there is no text digest.open; add it"),
        (ENGLISH, lambda t: t["chat"].pop("source"), "messages.py: there is no text chat.source; add it"),
        (ENGLISH, lambda t: t["script"].pop("skip"), "pages.js: there is no text script.skip; add it"),
    ],
)
@pytest.mark.sample(every=4)
def test_each_kind_of_mistake_is_named(folder: Path, file: str, how: Any, said: str) -> None:
    change(folder / f"{file}.yaml", how)
    problems = list(check.problems())
    assert any(said in problem for problem in problems), problems


def test_a_file_out_of_form_is_named_and_its_first_lines_stay(folder: Path) -> None:
    file = folder / f"{ENGLISH}.yaml"
    file.write_text(file.read_text(encoding="utf-8") + "aaa: {b: c}\n", encoding="utf-8")
    assert any("not in the normal form; run `make format`" in problem for problem in check.problems())
    assert check.normal(file).startswith("# Every text that people read")


def test_a_sentence_in_code_is_found_and_what_operators_read_is_not() -> None:
    code = '''
def told():
    """A docstring is none."""
    if x:
        raise ValueError("an error is none")
    say("what a log says is none")
    return "this one is", text("digest.open"), "code", "SELECT a FROM b"
'''
    assert [text for _, text in check._said_in(ast.parse(code))] == ["this one is"]
