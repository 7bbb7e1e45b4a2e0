"""What every page has alike: the line on top, and the bar of filters.

Belongs here: the way to the other pages, the state of the data beside it, the order of filters, what charts without a
row say. `make format` writes it into the YAML, with ids in place of texts. Does not: how it looks
(`superset/usage_superset/static/pages.css`), and how filters are carried along (`usage_superset/page_links.py`).
"""

import json
from typing import Any

ROW, LINE, STATE = "ROW-frame", "MARKDOWN-frame", "CHART-frame"
# by slug, in the order in which somebody asks: whom to call, how things are, how good the data is
PAGES = (
    *("call-list", "applications-accounts", "usage-over-time", "changes", "low-inactive"),
    *("kpi-sheet", "health"),
)
# pages of one account or application: reached by its name, not from the line
_BESIDE = {"account", "application", "contacts", "responses"}
# one order everywhere; what a page has besides stands behind it
FILTERS = ("owner", "segment", "region", "account", "application", "application_type", "period", "time")
# pages with charts of another schema alone (personal data, how CSMs answer) hold no other chart
_WITHOUT_STATE = {"contacts", "responses"}
_HEIGHT = 6
# where the name of what a page is about stands above the line
_HEIGHT_WITH_NAME = 10
# one color a meaning, on every page: good, attention, bad, plain, and what is past or not known
_GOOD, _ATTENTION, _BAD, _PLAIN, _PAST = "#4c9f70", "#edae49", "#d1495b", "#1b6ca8", "#9aa5b1"
_WEEKS = "metric.usage_by_week"
# series are called by the titles of their metrics, by a value of a column, or by both
LABEL_COLORS = {
    **dict.fromkeys(("green", "active", "expansion"), _GOOD),
    # beside expansion in one picture: good too, and another
    **dict.fromkeys(("reactivated", "Reactivated"), "#9bd0b0"),
    **dict.fromkeys(("amber", "This week", "low", "lapsed", "contraction", "notice received"), _ATTENTION),
    f"{{{_WEEKS}.spikes.title}}": _ATTENTION,
    **dict.fromkeys(("red", "Urgent", "churned", "inactive", "anomaly_clicks"), _BAD),
    **dict.fromkeys((f"{{{_WEEKS}.usage_drops.title}}", f"{{{_WEEKS}.anomaly_clicks.title}}"), _BAD),
    **dict.fromkeys(("new", "came", "clicks_sum", f"{{{_WEEKS}.clicks_sum.title}}"), _PLAIN),
    **dict.fromkeys(("users", "{metric.user_weeks.users.title}"), "#2a9d8f"),
    **dict.fromkeys(("records_sum", f"{{{_WEEKS}.records_sum.title}}"), "#7a5195"),
    **dict.fromkeys(("not known", "Watch", "expired", "ended", "never adopted", "said"), _PAST),
    **dict.fromkeys(("clicks_last_year_sum", f"{{{_WEEKS}.clicks_last_year_sum.title}}"), _PAST),
    **dict.fromkeys(("records_last_year_sum", f"{{{_WEEKS}.records_last_year_sum.title}}"), _PAST),
    "{metric.predictions_vs_outcomes.Actual.title}, as issued": "#D9730D",
    "{metric.predictions_vs_outcomes.Actual.title}, back-test": _PLAIN,
    "{metric.predictions_vs_outcomes.Predicted.title}, as issued": "#F2B880",
    "{metric.predictions_vs_outcomes.Predicted.title}, back-test": "#9DB4C9",
}


def frame_text(slug: str, title: str) -> str:
    """The line on top in Markdown: the page's title, and links to the others."""
    names = {page: f"{{frame.link.{page.replace('-', '_')}}}" for page in PAGES}
    links = [f"**{name}**" if page == slug else f"[{name}](/go/{page})" for page, name in names.items()]
    brief = ["[{frame.account_brief}](/brief/)"] if slug == "account" else []
    return f"# {title}\n\n" + " ".join([*links, "[{frame.my_accounts}](/my-csm/)", *brief]) + "\n"


def empty_css(texts: dict[str, str]) -> str:
    """The style sheet of a page: what charts without a row say, by their title; both as ids."""
    return "".join(
        f'[data-test-chart-name={json.dumps(title)}] [aria-label="empty"] + div > p:first-child::after '
        f"{{ content: {json.dumps(text)}; }}\n"
        for title, text in sorted(texts.items())
    )


def place_frame(dashboard: dict[str, Any], state: dict[str, Any]) -> None:
    """Puts the line and the filters of a dashboard in place; `state` is the chart of the data's state.

    Raises ValueError for a page that is neither in the line nor known to be reached otherwise.
    """
    slug = dashboard["slug"]
    if slug not in PAGES and slug not in _BESIDE:
        raise ValueError(f"{slug}: no line of pages leads to it; add it to PAGES or to _BESIDE of page_frame.py")
    position, parents = dashboard["position"], ["ROOT_ID", "GRID_ID", ROW]
    with_state = slug not in _WITHOUT_STATE
    height = _HEIGHT if slug in PAGES else _HEIGHT_WITH_NAME
    position["GRID_ID"]["children"] = [ROW, *(cell for cell in position["GRID_ID"]["children"] if cell != ROW)]
    position[ROW] = {
        "children": [LINE, STATE] if with_state else [LINE],
        "id": ROW,
        "meta": {"background": "BACKGROUND_TRANSPARENT"},
        "parents": parents[:-1],
        "type": "ROW",
    }
    position[LINE] = {
        "children": [],
        "id": LINE,
        "meta": {
            "code": frame_text(slug, dashboard["dashboard_title"]),
            "height": height,
            "width": 8 if with_state else 12,
        },
        "parents": parents,
        "type": "MARKDOWN",
    }
    position.pop(STATE, None)
    if with_state:
        position[STATE] = {
            "children": [],
            "id": STATE,
            "meta": {"height": height, "sliceName": state["slice_name"], "uuid": state["uuid"], "width": 4},
            "parents": parents,
            "type": "CHART",
        }
    dashboard["metadata"]["label_colors"] = dict(LABEL_COLORS)
    _order_filters(dashboard["metadata"])


def _order_filters(metadata: dict[str, Any]) -> None:
    metadata["filter_bar_orientation"] = "HORIZONTAL"

    def place(native: dict[str, Any]) -> int:
        column = str(native["id"]).removeprefix("NATIVE_FILTER-")
        return FILTERS.index(column) if column in FILTERS else len(FILTERS)

    metadata["native_filter_configuration"].sort(key=place)
