"""Short addresses of the pages of one account, application or owner: /account/Town of Elkdale leads there, filter set.

Tables hold thousands of these links and downloads carry them as addresses; the filter as Superset writes it (in Rison)
would be four fifths of what a browser has to load.
"""

from typing import Any
from urllib.parse import quote

from flask import redirect

# page, and the column that its filter is on
PAGES = {"account": "account", "application": "application", "contacts": "account", "call-list": "owner"}


def address_of(page: str, name: str) -> str:
    """The address of a page with its filter set to a name, whatever characters that has."""
    column = PAGES[page]
    value = "'" + name.replace("!", "!!").replace("'", "!'") + "'"
    chosen = f"(extraFormData:(filters:!((col:{column},op:IN,val:!({value})))),filterState:(value:!({value}))"
    chosen = f"(NATIVE_FILTER-{column}:{chosen},id:NATIVE_FILTER-{column},ownState:()))"
    return f"/superset/dashboard/{page}/?native_filters={quote(chosen, safe='')}"


def add_links(app: Any) -> None:
    """Serves the short addresses; who may see the page is asked there."""
    for page in PAGES:

        def lead(name: str, page: str = page) -> Any:
            return redirect(address_of(page, name))

        app.add_url_rule(f"/{page}/<path:name>", f"link_to_{page}", lead)
