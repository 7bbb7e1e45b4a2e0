"""Addresses of pages with filters set, and the names that a wrong one is close to. Needs nothing of Superset."""

import difflib
from urllib.parse import quote

# the pages that a name leads to, and the column that their filter is on
PAGES = {"account": "account", "application": "application", "contacts": "account", "call-list": "owner"}
# the same pages, and the others that cells of tables lead to, by addresses that hold no word (`html_cells.py`)
LETTERS = {"account": "a", "application": "p", "contacts": "c", "record": "r", "data-status": "d"}
DASHBOARD = "/superset/dashboard/"


def address_of(page: str, chosen: dict[str, list[str]]) -> str:
    """The address of a page with filters set: values by column, whatever characters they have."""
    filters = ",".join(_filter(column, values) for column, values in chosen.items() if values)
    return f"{DASHBOARD}{page}/" + (f"?native_filters={quote(f'({filters})', safe='')}" if filters else "")


def _filter(column: str, values: list[str]) -> str:
    listed = ",".join("'" + value.replace("!", "!!").replace("'", "!'") + "'" for value in values)
    state = f"extraFormData:(filters:!((col:{column},op:IN,val:!({listed})))),filterState:(value:!({listed}))"
    return f"NATIVE_FILTER-{column}:({state},id:NATIVE_FILTER-{column},ownState:())"


def nearest(name: str, names: list[str], most: int = 5) -> list[str]:
    """Those of the names that may have been meant, the likeliest first."""
    by_small = {known.casefold(): known for known in names}
    small = name.casefold().strip()
    begun = [known for key, known in by_small.items() if small and (small in key or key in small)]
    alike = [by_small[key] for key in difflib.get_close_matches(small, by_small, n=most, cutoff=0.6)]
    return list(dict.fromkeys([*([by_small[small]] if small in by_small else []), *alike, *sorted(begun)]))[:most]
