"""The validator of the dashboards: the real tree is sound, and each kind of mistake is found and named."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from usage_pipeline.core.tables import CATALOGUE, COLUMNS, METRICS, CatalogueError, read_catalogue
from usage_pipeline.pages.dashboards import (
    ASSETS,
    AssetsError,
    chart_uuids,
    dump,
    load_assets,
    missing_columns,
    normalise,
    problems_of,
    used_columns,
    used_metrics,
)
from usage_pipeline_tests.support.demo_home import Demo


@pytest.fixture
def tree(tmp_path) -> Path:
    shutil.copytree(ASSETS, tmp_path / "assets")
    return tmp_path / "assets"


def change(file: Path, how: Any) -> None:
    content = yaml.safe_load(file.read_text())
    how(content)
    file.write_text(dump(content))


def test_the_tree_is_sound() -> None:
    assert problems_of() == []


def test_every_dashboard_has_its_slug_and_the_views_share_their_filters() -> None:
    assets, _ = load_assets()
    assert sorted(d["slug"] for d in assets.dashboards.values()) == [
        "account",
        "application",
        "applications-accounts",
        "call-list",
        "changes",
        "contacts",
        "health",
        "kpi-sheet",
        "low-inactive",
        "responses",
        "usage-over-time",
    ]
    for dashboard in assets.dashboards.values():
        if dashboard["slug"] in ("health", "kpi-sheet", "responses"):
            continue  # of the pipeline, of CSMs: no account stands on it; of any entity: it is picked by type
        names = {f["name"] for f in dashboard["metadata"]["native_filter_configuration"]}
        of_one = {"account": {"Account"}, "application": {"Application", "Segment", "Region", "CSM"}}
        assert of_one.get(dashboard["slug"], {"Account", "Segment", "Region", "CSM"}) <= names


def test_the_help_tab_tells_every_number_of_the_page_and_whether_it_adds_up() -> None:
    assets, _ = load_assets()
    for dashboard in assets.dashboards.values():
        text = dashboard["position"]["MARKDOWN-help"]["meta"]["code"]
        for uuid in chart_uuids(dashboard):
            params, table = assets.charts[uuid]["params"], assets.datasets[assets.charts[uuid]["dataset_uuid"]]
            for name in used_columns(params) | used_metrics(params):
                entry = METRICS.get(table["table_name"], {}).get(name) or COLUMNS[name]
                if entry.aggregation is not None:
                    assert f"| **{entry.title}** | {entry.description} |" in text
                for word in getattr(entry, "words", {}):
                    assert f"| **{word}** |" in text


@pytest.mark.parametrize(
    ("change_of", "said"),
    [
        (
            lambda c: c["columns"]["clicks"].pop("aggregation"),
            "clicks: the entry: Value error, aggregation belongs to every",
        ),
        (lambda c: c["columns"]["clicks"].update(type="NUMBER"), "clicks: type: Input should be 'BIGINT'"),
        (
            lambda c: c["columns"]["account"].update(aggregation="non_additive"),
            "account: the entry: Value error, aggregation belongs",
        ),
        (lambda c: c["metrics"]["growth"]["net_sum"].pop("format"), "net_sum: format: Field required"),
        (lambda c: c["columns"]["clicks"].update(unit="x"), "clicks: unit: Extra inputs are not permitted"),
        (lambda c: c["columns"]["clicks"].update(title="Clicks"), "clicks: title: texts stand in usage_pipeline/texts"),
        (lambda c: c["columns"].update(gone={"type": "VARCHAR"}), "gone: there is no text column.gone.title; add it"),
        (lambda c: c["columns"]["news"]["words"].append("old"), "news: there is no text column.news.word.old; add it"),
    ],
)
def test_a_mistake_in_the_catalogue_is_named(tmp_path, change_of: Any, said: str) -> None:
    content = yaml.safe_load(CATALOGUE.read_text(encoding="utf-8"))
    change_of(content)
    (tmp_path / "catalogue.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(CatalogueError, match=re.escape(said)):
        read_catalogue(tmp_path / "catalogue.yaml")


@pytest.mark.parametrize(
    ("file", "how", "said"),
    [
        ("charts/top_accounts", lambda c: c["params"]["groupby"].append("nobody"), "uses the column nobody"),
        ("charts/top_accounts", lambda c: c["params"]["metrics"].append("sum_of_x"), "uses the metric sum_of_x"),
        ("charts/top_accounts", lambda c: c.update(dataset_uuid="0" * 8), "dataset_uuid 00000000 is that of no file"),
        (
            "charts/new_reasons",
            lambda c: c["params"]["adhoc_filters"][0].update(comparator="fresh"),
            "compares news with 'fresh', which is none of its values: new this week, ongoing",
        ),
        (
            "charts/kpis_of_entities",
            lambda c: c["params"]["conditional_formatting"][0].update(targetValue="better"),
            "colors single_change where it is 'better', which is none of its values: big improvement, improved",
        ),
        (
            "charts/call_list",
            lambda c: c["params"]["conditional_formatting"][0].update(column="news"),
            "colors the column news, which it does not list",
        ),
        ("charts/top_accounts", lambda c: c.update(description=""), "has no description"),
        ("charts/top_accounts", lambda c: c.update(query_context="{}"), "holds query_context"),
        (
            "charts/top_accounts",
            lambda c: c.update(slice_name="{chart.bottom_accounts.title}"),
            "is that of another chart too",
        ),
        (
            "charts/top_accounts",
            lambda c: c.update(slice_name="Best"),
            "slice_name: holds the text 'Best'; put it into",
        ),
        (
            "charts/top_accounts",
            lambda c: c.update(description="{chart.gone.title}"),
            "description: there is no text chart.gone.title; add it",
        ),
        (
            "dashboards/changes",
            lambda d: d["position"]["TAB-growth"]["meta"].update(text="Growth"),
            "text: holds the text 'Growth'",
        ),
        ("charts/top_accounts", lambda c: c.update(uuid="x"), "uuid is missing or malformed"),
        ("dashboards/changes", lambda d: d.update(slug=""), "has no slug"),
        (
            "dashboards/changes",
            lambda d: d["position"]["CHART-top_gainers"]["meta"].update(uuid="1" * 8),
            "shows the chart 11111111",
        ),
        (
            "dashboards/changes",
            lambda d: d["metadata"]["native_filter_configuration"][1]["targets"][0]["column"].update(name="gone"),
            "uses the column gone",
        ),
        ("datasets/user_weeks", lambda d: d["columns"].pop(), "columns are not those of catalogue.yaml"),
        ("datasets/user_weeks", lambda d: d.update(sql="SELECT 1"), "is a virtual dataset"),
        ("datasets/user_weeks", lambda d: d.update(table_name="gone"), "table_name gone is not a table"),
        (
            "datasets/user_weeks",
            lambda d: d["metrics"][0].update(expression="SUM(nothing)"),
            "metric users cannot be computed",
        ),
    ],
)
@pytest.mark.sample(every=12)
def test_each_kind_of_mistake_is_named(tree: Path, file: str, how: Any, said: str) -> None:
    change(tree / f"{file}.yaml", how)
    problems = problems_of(tree)
    assert any(said in problem and file in problem for problem in problems), problems


@pytest.mark.long
def test_a_chart_on_no_dashboard_is_named(tree: Path) -> None:
    change(tree / "dashboards/changes.yaml", lambda d: d["position"].pop("CHART-top_gainers"))
    assert any("top_gainers.yaml: is on no dashboard" in problem for problem in problems_of(tree))


def test_personal_data_beside_other_charts_is_named(tree: Path) -> None:
    people = yaml.safe_load((tree / "charts/people.yaml").read_text())["uuid"]

    def place(dashboard: dict[str, Any]) -> None:
        dashboard["position"]["CHART-top_gainers"]["meta"]["uuid"] = people

    change(tree / "dashboards/changes.yaml", place)
    assert any("mixes personal data with other charts" in problem for problem in problems_of(tree))


@pytest.mark.long
def test_a_file_out_of_form_is_named_and_mended(tree: Path) -> None:
    file = tree / "charts/top_accounts.yaml"
    file.write_text("# a comment\n" + file.read_text())
    assert any("not in the normal form" in problem for problem in problems_of(tree))
    assert normalise(tree) == [file]
    assert problems_of(tree) == []


def test_every_column_of_every_dashboard_is_in_the_published_build(demo: Demo) -> None:
    assets, _ = load_assets()
    build = demo.settings.home.published_dir / "current"
    for dashboard in assets.dashboards.values():
        assert (
            missing_columns(dashboard, assets, build, demo.settings.home.status_path, demo.settings.home.outcomes_path)
            == []
        )


@pytest.mark.parametrize("kind", ["databases", "datasets", "charts", "dashboards"])
def test_a_tree_that_is_not_there_is_no_sound_tree(tree: Path, kind: str) -> None:
    shutil.rmtree(tree / kind)
    with pytest.raises(AssetsError, match=f"{kind}: no such folder; run from a checkout"):
        problems_of(tree)
