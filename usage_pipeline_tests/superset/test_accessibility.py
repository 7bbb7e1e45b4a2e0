"""Pages for people who use a keyboard or a screen reader: axe on every page in both themes, tabs, names, the console."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe

from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.servers import SupersetServer
from usage_pipeline_tests.support.superset_client import (
    SLUGS,
    first_account,
    log_in,
    logged_in,
    path_to,
    tabs_of,
    wait_until_drawn,
)

pytestmark = [pytest.mark.superset, pytest.mark.long]

KNOWN = yaml.safe_load(Path(__file__).with_name("known_violations.yaml").read_text(encoding="utf-8"))
# all rules in one theme; in the other, those that a color decides
THEMES: dict[str, list[str]] = {"light": [], "dark": ["color-contrast", "link-in-text-block"]}
# pages that are ours alone
OURS = ("brief", "outcome", "my-csm", "no such")
SERIOUS = ("serious", "critical")
# of a violation's element: which of these selectors it answers to
_ANSWERS = "(element, selectors) => selectors.filter(selector => element.matches(selector))"


@dataclass(frozen=True)
class Violation:
    """What axe found in one element, and the places of the entries of the list that know it."""

    where: str
    rule: str
    element: str
    why: str
    known_as: tuple[int, ...]


def addresses(demo: Demo) -> dict[str, str]:
    """Every page that a reader meets: dashboards, and those that are ours alone."""
    account = quote(first_account(demo), safe="")
    dashboards = {slug: path_to(slug, demo) for slug in SLUGS}
    ours = {
        "brief": f"/brief/{account}",
        "outcome": f"/record/{account}",
        "my-csm": "/my-csm/",
        "no such": "/account/x",
    }
    return dashboards | ours


def found_by_axe(page: Any, where: str, *, only_tab: bool, rules: list[str]) -> Iterator[Violation]:
    """Of the whole page, or of the tab that is open: what is around it stays as it was."""
    context = ".grid-content .ant-tabs-tabpane-active" if only_tab else None
    options = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
    for violation in Axe().run(page, context, options).response["violations"]:
        if violation["impact"] not in SERIOUS:
            continue
        entries = [(n, entry["selector"]) for n, entry in enumerate(KNOWN) if entry["rule"] == violation["id"]]
        for node in violation["nodes"]:
            (target,) = node["target"]
            answered = page.locator(target).first.evaluate(_ANSWERS, [selector for _, selector in entries])
            known = tuple(n for n, selector in entries if selector in answered)
            yield Violation(where, violation["id"], node["html"][:200], node["failureSummary"], known)


def violations(superset: SupersetServer, browser: Any, demo: Demo, theme: str, name: str) -> list[Violation]:
    """Of every tab of a page."""
    page = logged_in(browser, superset, "viewer", theme)
    page.goto(f"{superset.url}{addresses(demo)[name]}")
    if name in SLUGS:
        page.wait_for_selector(".grid-container")
        wait_until_drawn(page)
    found: list[Violation] = []
    for place, tab in enumerate(tabs_of(page)):
        found += found_by_axe(page, f"{name} {tab}, {theme}", only_tab=place > 0, rules=THEMES[theme])
    page.context.close()
    return found


# a page takes up to a minute: those that are read most, and ours, each time; all of them in `make soak`
EACH_TIME = {("light", "call-list"), ("light", "account"), ("dark", "call-list"), *(("light", name) for name in OURS)}
EVERY = [
    pytest.param(theme, name, marks=() if (theme, name) in EACH_TIME else pytest.mark.soak)
    for theme in THEMES
    for name in (*SLUGS, *OURS)
]


@pytest.mark.parametrize(("theme", "name"), EVERY)
def test_axe_finds_nothing_serious_but_what_the_list_knows(
    superset: SupersetServer, browser: Any, demo: Demo, theme: str, name: str
) -> None:
    found = violations(superset, browser, demo, theme, name)
    unknown = [f"{one.where}: {one.rule}: {one.element}\n    {one.why}" for one in found if not one.known_as]
    assert not unknown, "\n".join(unknown)


@pytest.mark.soak
@pytest.mark.skipif(not KNOWN, reason="the list is empty")
def test_what_the_list_knows_is_still_found(superset: SupersetServer, browser: Any, demo: Demo) -> None:
    """It may only shrink: what Superset has mended, or we, goes."""
    everywhere = [violations(superset, browser, demo, theme, name) for theme in THEMES for name in (*SLUGS, *OURS)]
    met = {place for of_page in everywhere for one in of_page for place in one.known_as}
    gone = [entry for place, entry in enumerate(KNOWN) if place not in met]
    assert not gone, f"found no more, take it out of known_violations.yaml: {gone}"


def test_an_entry_of_the_list_says_what_was_tried_and_whose_it_is() -> None:
    for entry in KNOWN:
        assert set(entry) == {"rule", "selector", "tried", "why"}, entry
        assert all(isinstance(value, str) and value.strip() for value in entry.values()), entry


def test_the_first_account_of_the_call_list_is_within_twelve_tabs(superset: SupersetServer, browser: Any) -> None:
    """Before: 46, past the menu, the filters and every tile."""
    page = logged_in(browser, superset, "viewer")
    page.goto(f"{superset.url}/superset/dashboard/call-list/")
    page.wait_for_selector("td a[href^='/a/']")
    wait_until_drawn(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the table"
    page.keyboard.press("Enter")
    for _ in range(11):
        page.keyboard.press("Tab")
        if (page.evaluate("document.activeElement.getAttribute('href')") or "").startswith("/a/"):
            break
    else:
        pytest.fail("no account within 12 tabs")
    page.context.close()


def test_every_page_says_its_language_its_heading_and_the_names_of_its_controls(
    superset: SupersetServer, browser: Any, demo: Demo
) -> None:
    page = logged_in(browser, superset, "viewer")
    for name, address in addresses(demo).items():
        page.goto(f"{superset.url}{address}")
        if name in SLUGS:
            page.wait_for_selector("#MARKDOWN-frame h1")
            wait_until_drawn(page)
        assert page.locator("html").get_attribute("lang") == "en", name
        assert page.locator("h1").count() == 1, name
        nameless = page.evaluate(
            "[...document.querySelectorAll('button, input, select, textarea, a[href]')].filter(e => e.offsetParent && "
            "e.type !== 'hidden' && !e.labels?.length && !(e.getAttribute('aria-label') || e.innerText || e.title || "
            "e.getAttribute('aria-labelledby') || e.querySelector('img[alt]'))).map(e => e.outerHTML.slice(0, 200))"
        )
        assert nameless == [], name
    page.context.close()


@pytest.mark.parametrize("user", ["viewer", pytest.param("manager", marks=pytest.mark.soak)])
def test_the_console_of_every_page_is_without_errors(
    superset: SupersetServer, browser: Any, demo: Demo, user: str
) -> None:
    """Before: a 403 for colors that a page sends back, and a picture of another host that the policy refuses."""
    page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(f"thrown: {error}"))
    log_in(page, superset, user)
    found = {}
    dashboards = (
        {**addresses(demo), "contacts": "/superset/dashboard/contacts/"} if user == "manager" else addresses(demo)
    )
    for name, address in dashboards.items():
        if name == "no such":  # the browser itself says that a page of status 404 is one
            continue
        said.clear()
        page.goto(f"{superset.url}{address}")
        if name in SLUGS or name == "contacts":
            page.wait_for_selector(".grid-container")
        for _ in tabs_of(page):
            pass
        if said:
            found[name] = list(said)
    assert not found
    page.context.close()
