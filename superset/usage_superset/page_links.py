"""Short addresses that lead to pages with their filters set, and from page to page with the filters carried along.

- /account/Town of Elkdale, /application/Permits, /contacts/Town of Elkdale, /call-list/Ana Ortiz: the page of that
  name. A name that nobody has gets an answer that says so, and which names are close to it.
- /record/Town of Elkdale: the form that records what came of a call.
- /go/changes: that page, with the filters of the page that the link was clicked on: which page it was, the browser says
  (Referer), and what was chosen there, Superset keeps.
- /page-names/: which account and application the page that asks is about, for its heading (`static/pages.js`); and for
  who may see contacts, whom to phone there.
- /my-csm/of/Ana Ortiz: pages begin with the accounts of that CSM from then on, in this browser, until /my-csm/ is told
  otherwise.

Tables hold thousands of these links; a filter as Superset writes it (in Rison) would be four fifths of what a browser
has to load.
"""

import json
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from flask import redirect, render_template, request
from flask_login import current_user

from usage_superset.html_cells import as_stored
from usage_superset.page_addresses import DASHBOARD, LETTERS, PAGES, address_of, nearest
from usage_superset.rows import is_name, may_read, names_of, rows_of

# filters that mean the same on every page that has them
CARRIED = ("owner", "segment", "region", "account", "application")
_CSM = "usage_csm"
_CONTACTS_ROLE = "Usage viewer with contacts"
_YEAR = 365 * 86_400
_PLAIN = {"Cache-Control": "no-store"}


def may_see_contacts() -> bool:
    """Whether the person of the request may read who works for the accounts."""
    return may_read("account_contacts", "personal")


def own_csm() -> str | None:
    """Whose accounts pages begin with in this browser, where that was set."""
    return request.cookies.get(_CSM) or None


def add_links(app: Any) -> None:
    """Serves the short addresses; who may see a page is asked there."""

    for page in PAGES:

        def lead(name: str, page: str = page) -> Any:
            return logged_in() or _lead_to(page, name)

        app.add_url_rule(f"/{page}/<path:name>", f"link_to_{page}", lead)
        if page in LETTERS:
            app.add_url_rule(f"/{LETTERS[page]}/<path:name>", f"cell_to_{page}", lead)

    @app.get(f"/{LETTERS['data-status']}/")
    @app.get("/data-status/")
    def data_status() -> Any:
        return redirect(f"{DASHBOARD}health/")

    @app.get(f"/{LETTERS['record']}/<path:name>")
    @app.get("/record/<path:name>")
    def record(name: str) -> Any:
        if away := logged_in():
            return away
        found = rows_of("accounts_summary", ["account_id"], {"account": name})
        if not found:
            return no_such("account", name, "record")
        return redirect(f"/outcome/{quote(found[0]['account_id'], safe='')}")

    @app.get("/go/<page>")
    def go(page: str) -> Any:
        if away := logged_in():
            return away
        dashboard = _dashboard(page)
        if dashboard is None:
            return render_template("no_such.html", what="page", name=page, page="", near=[]), 404, _PLAIN
        return redirect(address_of(page, _fitting(dashboard, chosen_before())))

    @app.get("/page-names/")
    def page_names() -> Any:
        if not current_user.is_authenticated:
            return {}, 401, _PLAIN
        chosen = chosen_before()
        names = {column: as_stored(chosen.get(column, [])) for column in ("account", "application")}
        return names | {"contact": _whom_to_phone(names["account"])}, 200, _PLAIN

    @app.get("/my-csm/")
    def csms() -> Any:
        if away := logged_in():
            return away
        return render_template("my_csm.html", names=names_of("owner"), chosen=own_csm()), 200, _PLAIN

    @app.get("/my-csm/nobody")
    def every_csm() -> Any:
        answer = redirect("/my-csm/")
        answer.delete_cookie(_CSM)
        return answer

    @app.get("/my-csm/of/<path:name>")
    def my_csm(name: str) -> Any:
        if away := logged_in():
            return away
        if not is_name("owner", name):
            return no_such("owner", name, "my-csm/of")
        answer = redirect(address_of("call-list", {"owner": [name]}))
        secure = bool(app.config.get("SESSION_COOKIE_SECURE"))
        answer.set_cookie(_CSM, name, max_age=_YEAR, httponly=True, samesite="Lax", secure=secure)
        return answer


def logged_in() -> Any:
    """None for whoever is; else the way to the log-in and back."""
    if current_user.is_authenticated:
        return None
    return redirect(f"/login/?next={quote(request.full_path.rstrip('?'))}")


def _lead_to(page: str, name: str) -> Any:
    if page == "contacts" and not may_see_contacts():
        return render_template("no_contacts.html", name=name, role=_CONTACTS_ROLE), 403, _PLAIN
    column = PAGES[page]
    if not is_name(column, name):
        return no_such(column, name, page)
    return redirect(address_of(page, {column: [name]}))


def _whom_to_phone(accounts: list[str]) -> dict[str, Any] | None:
    """The primary contact of the one account; None where there is none, or the person may not see contacts."""
    if len(accounts) != 1 or not may_see_contacts():
        return None
    columns, filters = ["name", "role", "phone", "email"], {"account": accounts[0], "to_call": "primary contact"}
    found = rows_of("account_contacts", columns, filters, schema="personal", limit=1)
    return found[0] if found else None


def no_such(column: str, name: str, page: str) -> Any:
    """The answer to a name that nobody has, with those that may have been meant."""
    near = nearest(name, names_of(column))
    return render_template("no_such.html", what=column, name=name, page=page, near=near), 404, _PLAIN


# ---------------------------------------------------------------- filters of the page before


def _dashboard(slug: str) -> Any:
    from superset.extensions import db
    from superset.models.dashboard import Dashboard

    column = Dashboard.id == int(slug) if slug.isdecimal() else Dashboard.slug == slug
    return db.session.query(Dashboard).filter(column).one_or_none()


def chosen_before() -> dict[str, list[str]]:
    """What was chosen on the page that the link was clicked on, by column; on none, the person's own CSM."""
    before = urlsplit(request.referrer or "")
    own = {"owner": [csm]} if (csm := own_csm()) else {}
    if before.netloc != request.host or not before.path.startswith(DASHBOARD):
        return own
    dashboard = _dashboard(before.path.removeprefix(DASHBOARD).strip("/"))
    key = parse_qs(before.query).get("native_filters_key", [""])[0]
    state = _state_of(dashboard, key) if dashboard is not None and key else None
    return own if state is None else _values(state)


def _state_of(dashboard: Any, key: str) -> Any:
    """What Superset keeps of the filters of a page, or None: it forgets, and gives a page only to who may see it."""
    from superset.commands.dashboard.filter_state.get import GetFilterStateCommand
    from superset.commands.temporary_cache.exceptions import TemporaryCacheGetFailedError
    from superset.commands.temporary_cache.parameters import CommandParameters
    from superset.exceptions import SupersetException

    try:
        kept = GetFilterStateCommand(CommandParameters(resource_id=dashboard.id, key=key)).run()
        return json.loads(kept) if kept else None
    except (SupersetException, TemporaryCacheGetFailedError, ValueError, RecursionError):
        return None


def _values(state: Any) -> dict[str, list[str]]:
    """The chosen values by column; whatever else a browser sent to be kept is left out."""
    found: dict[str, list[str]] = {}
    for column in CARRIED:
        mask = state.get(f"NATIVE_FILTER-{column}") if isinstance(state, dict) else None
        kept = mask.get("filterState") if isinstance(mask, dict) else None
        values = kept.get("value") if isinstance(kept, dict) else None
        if isinstance(values, list) and values and all(isinstance(value, str) for value in values):
            found[column] = values
    return found


def _fitting(dashboard: Any, chosen: dict[str, list[str]]) -> dict[str, list[str]]:
    """Those of the chosen values that the filters of a page can hold."""
    fitting = {}
    for native in json.loads(dashboard.json_metadata or "{}").get("native_filter_configuration", []):
        column = str(native.get("id", "")).removeprefix("NATIVE_FILTER-")
        values = chosen.get(column, [])
        if values and (len(values) == 1 or native.get("controlValues", {}).get("multiSelect")):
            fitting[column] = values
    return fitting
