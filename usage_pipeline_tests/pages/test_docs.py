"""The documentation says what is so: commands, options and make targets that it names exist, and links lead somewhere.

Does not: links between pages of the site, which `make docs` checks, nor references, which `make check` compares.
"""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

from usage_pipeline.cli import app

REPO = Path(__file__).parents[2]
ROOT_PAGES = sorted(REPO.glob("*.md"))
PAGES = [*ROOT_PAGES, *(f for f in sorted((REPO / "docs").rglob("*.md")) if "decisions" not in f.parts)]


def reference_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_reference", REPO / "scripts" / "docs_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_of(page: Path) -> list[str]:
    """Lines of code blocks, continued ones joined, and code in the text."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"(?ms)^ *```\w*\n(.*?)^ *```", text)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line.split(" # ")[0] for line in lines] + re.findall(r"`([^`\n]+)`", text)


def commands() -> dict[str, set[str]]:
    """Options of each command, by its name without `usage-pipeline`."""
    found = reference_script().commands_of(typer.main.get_command(app), "usage-pipeline")
    return {
        name.removeprefix("usage-pipeline "): {option for parameter in one.params for option in parameter.opts}
        for name, one in found
    }


def command_in(words: list[str], known: dict[str, set[str]]) -> str | None:
    return next((name for name in (" ".join(words[:2]), words[0]) if name in known), None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_every_command_and_option_that_a_page_names_exists(page: Path) -> None:
    known = commands()
    groups = {name.split()[0] for name in known}
    for line in code_of(page):
        for called in re.findall(r"(?:usage-pipeline|exec (?:-T )?code usage) ([a-z][^|;&]*)", line):
            words = called.split()
            name = command_in(words, known)
            if name is None:
                assert words[0] in groups and len(words) == 1, f"{called}: no such command"
                continue
            for option in re.findall(r"(?<=\s)--?[a-z][a-z-]*", called):
                assert option in known[name], f"{called}: {name} has no {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (REPO / "Makefile").read_text(encoding="utf-8")))
    for line in code_of(page):
        for target in re.findall(r"(?:^|&& )make ([a-z-]+)", line.strip()):
            assert target in targets, line


@pytest.mark.parametrize("page", ROOT_PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_beside_the_site_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (REPO / target).exists(), target


def test_the_readme_is_read_in_some_minutes() -> None:
    assert len((REPO / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_a_variable_that_nobody_described_is_named_with_the_file_that_reads_it(monkeypatch) -> None:
    script = reference_script()
    read = script.all_names_read() | {"USAGE_NEW_SWITCH": "superset/serve.py"}
    monkeypatch.setattr(script, "all_names_read", lambda: read)
    with pytest.raises(script.DescriptionError, match=r"USAGE_NEW_SWITCH \(superset/serve.py\): add a line"):
        script.environment_page()


def test_a_description_of_a_variable_that_nothing_reads_is_named(monkeypatch) -> None:
    script = reference_script()
    read = {name: file for name, file in script.all_names_read().items() if name != "USAGE_HTTPS"}
    monkeypatch.setattr(script, "all_names_read", lambda: read)
    with pytest.raises(script.DescriptionError, match="USAGE_HTTPS: remove it"):
        script.environment_page()


def test_a_reference_that_is_not_as_the_code_says_fails_the_check(monkeypatch, capsys) -> None:
    script = reference_script()
    monkeypatch.setattr(script, "pages", lambda: {script.DOCS / "reference" / "roles.md": "another text\n"})
    monkeypatch.setattr(script.sys, "argv", ["docs_reference.py", "--check"])
    assert script.main() == 1
    assert capsys.readouterr().out == "docs/reference/roles.md: not as the code says; run `make docs-reference`\n"


def test_the_changelog_has_the_version_that_the_command_shows() -> None:
    version = re.search(r'(?m)^version = "(.+)"$', (REPO / "pyproject.toml").read_text(encoding="utf-8"))
    assert version is not None
    assert f"## [{version[1]}]" in (REPO / "CHANGELOG.md").read_text(encoding="utf-8")


def test_ci_runs_what_a_bare_machine_runs() -> None:
    assert ".ci/run" in (REPO / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
