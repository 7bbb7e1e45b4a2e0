"""Pictures of every page, light and dark, into docs/screenshots: `make screenshots` on a demo that runs.

Logs in as the demo's manager, who may see every page (contacts are made up), at 1400 pixels.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

REPO = Path(__file__).parents[1]
RUN = REPO / "data" / "demo" / "home" / "run"
OUT = REPO / "docs" / "screenshots"
# in this order: a link of the call list opens the page of an account, and one of that the page of an application
PAGES = (
    *("call-list", "account", "application", "applications-accounts", "usage-over-time", "changes"),
    *("low-inactive", "kpi-sheet", "contacts", "health"),
)
# and the first letter of its address in tables
LINKED = {"account": "a", "application": "p"}
# other tabs of a page: picture, name of the tab, and what is picked where the tab waits for it
TABS: dict[str, tuple[tuple[str, str, dict[str, Any]], ...]] = {
    "kpi-sheet": (
        ("kpi-sheet-entities", "Entities of each KPI", {}),
        ("kpi-sheet-lines", "Month by month", {"kpi": ["Clicks"], "entity": ["Permits", "Payments", "Licensing"]}),
        ("kpi-sheet-changes", "Big changes", {}),
    ),
}
# of a long page the beginning shows what it is
_HEIGHT = 2200
_WAIT = 120


def main() -> int:
    if not (RUN / "superset.json").exists():
        print("there is no demo that runs: `make demo` first", file=sys.stderr)
        return 1
    url = f"http://127.0.0.1:{json.loads((RUN / 'superset.json').read_text())['port']}"
    people = {one["username"]: one["password"] for one in json.loads((RUN / "accounts.json").read_text())}
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for mode in ("light", "dark"):
            page = browser.new_context(viewport={"width": 1400, "height": _HEIGHT}).new_page()
            page.add_init_script(f"localStorage.setItem('superset-theme-mode', '{mode}')")
            _log_in(page, url, "manager", people["manager"])
            for slug in PAGES:
                address = f"/superset/dashboard/{slug}/"
                if slug in LINKED:
                    address = page.locator(f'a[href^="/{LINKED[slug]}/"]').first.get_attribute("href") or address
                _draw(page, f"{url}{address}")
                _shoot(page, slug, mode)
                for picture, tab, picked in TABS.get(slug, ()):
                    _draw(page, f"{url}{address}{_picking(picked)}")
                    page.get_by_role("tab", name=tab).click()
                    _wait(page)
                    _shoot(page, picture, mode)
        browser.close()
    return 0


def _shoot(page: Any, name: str, mode: str) -> None:
    file = OUT / f"{name}{'-dark' if mode == 'dark' else ''}.png"
    page.screenshot(path=file)
    print(f"  {file.relative_to(REPO)}", flush=True)


def _picking(picked: dict[str, list[str]]) -> str:
    """The part of an address that sets the KPI sheet's filters, as Superset writes it."""
    if not picked:
        return ""
    given = {"entity_type": ["application"], **picked}
    masks = [
        f"NATIVE_FILTER-{name}:(extraFormData:(filters:!((col:{name},op:IN,val:!({','.join(values)})))),"
        f"filterState:(value:!({','.join(values)})),id:NATIVE_FILTER-{name},ownState:())"
        for name, values in given.items()
    ]
    return f"?native_filters=({','.join(masks)})"


def _log_in(page: Any, url: str, name: str, password: str) -> None:
    page.goto(f"{url}/login/")
    page.wait_for_load_state("networkidle")
    page.fill("#username", name)
    page.fill("#password", password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda address: "/login" not in address, timeout=_WAIT * 1000)


def _draw(page: Any, address: str) -> None:
    page.goto(address)
    page.wait_for_selector(".grid-container", timeout=_WAIT * 1000)
    _wait(page)


def _wait(page: Any) -> None:
    """Until nothing on the page has been loading for two seconds."""
    quiet = 0
    for _ in range(4 * _WAIT):
        busy = page.locator(".loading, [data-test=loading-indicator], .ant-spin-spinning").count()
        quiet = 0 if busy else quiet + 1
        if quiet >= 8:
            return
        page.wait_for_timeout(250)


if __name__ == "__main__":
    sys.exit(main())
