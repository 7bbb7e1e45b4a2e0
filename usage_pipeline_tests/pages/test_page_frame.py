"""The line on top of every page, the order of its filters, and its colors."""

import copy

import pytest

from usage_pipeline.core.texts import filled
from usage_pipeline.pages.dashboards import STATE_CHART, load_assets
from usage_pipeline.pages.page_frame import FILTERS, LABEL_COLORS, PAGES, place_frame

ASSETS, _ = load_assets()
STATE = ASSETS.charts[STATE_CHART]


def test_every_page_of_the_line_is_there_and_every_page_has_the_line() -> None:
    slugs = {dashboard["slug"] for dashboard in ASSETS.dashboards.values()}
    assert set(PAGES) <= slugs
    for dashboard in ASSETS.dashboards.values():
        text = dashboard["position"]["MARKDOWN-frame"]["meta"]["code"]
        assert all(f"(/go/{slug})" in text for slug in PAGES if slug != dashboard["slug"])
        assert text.startswith(f"# {dashboard['dashboard_title']}\n")
        assert dashboard["metadata"]["label_colors"] == filled(LABEL_COLORS)


def test_filters_stand_in_one_order() -> None:
    for dashboard in ASSETS.dashboards.values():
        filters = dashboard["metadata"]["native_filter_configuration"]
        columns = [native["id"].removeprefix("NATIVE_FILTER-") for native in filters]
        known = [column for column in columns if column in FILTERS]
        assert known == sorted(known, key=FILTERS.index), dashboard["slug"]


def test_placing_it_again_changes_nothing() -> None:
    for dashboard in ASSETS.dashboards.values():
        again = copy.deepcopy(dashboard)
        place_frame(again, STATE)
        assert filled(again) == dashboard


def test_pages_of_personal_data_and_of_people_hold_no_chart_of_the_line() -> None:
    for dashboard in ASSETS.dashboards.values():
        has_state = "CHART-frame" in dashboard["position"]
        assert has_state == (dashboard["slug"] not in ("contacts", "responses"))


def test_a_page_that_no_line_leads_to_is_refused() -> None:
    dashboard = copy.deepcopy(next(iter(ASSETS.dashboards.values())))
    dashboard["slug"] = "somewhere"
    with pytest.raises(ValueError, match="no line of pages leads to it"):
        place_frame(dashboard, STATE)
