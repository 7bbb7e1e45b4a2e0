"""The KPI sheet as it is taken away: page, CSV, XLSX and workbook say the same as the raw files, whatever is picked."""

import io
from datetime import date
from pathlib import Path

import openpyxl
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner
from usage_superset.chart_queries import payload

from usage_pipeline.cli import app
from usage_pipeline.core.tables import METRICS
from usage_pipeline.kpis.catalogue import read_kpis
from usage_pipeline.kpis.selection import Selection, SelectionError, read_selection
from usage_pipeline.kpis.workbook import write_workbook
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.kpi_worlds import world_of
from usage_pipeline_tests.support.selections import (
    check_selections,
    expected_of,
)
from usage_pipeline_tests.support.servers import SupersetServer
from usage_pipeline_tests.support.superset_client import CHARTS, Client
from usage_pipeline_tests.support.visitors import Visitor

pytestmark = pytest.mark.superset


@pytest.mark.soak
def test_page_csv_xlsx_and_workbook_are_those_of_the_raw_files(
    superset: SupersetServer, demo: Demo, tmp_path: Path
) -> None:
    expected = expected_of(demo.settings, world_of(demo))
    assert check_selections(Client(superset, "viewer"), demo.settings, expected, tmp_path) > 2000


@pytest.mark.long
def test_no_figure_comes_out_where_rows_meet(superset: SupersetServer) -> None:
    admin = Client(superset, "admin")
    chart = CHARTS["kpis_of_entities"]
    names = [name for name in METRICS["kpi_report"] if name.startswith("single_")]
    for groups in ([], ["entity"], ["kpi"], ["entity", "kpi"]):
        params = chart["params"] | {"groupby": groups, "metrics": names, "timeseries_limit_metric": names[0]}
        answer = admin.post("/api/v1/chart/data", payload(params, admin.charts()[chart["slice_name"]]))
        assert answer.status_code == 200, answer.text
        rows = pd.DataFrame(answer.json()["result"][0]["data"])
        assert len(rows) > 0
        assert rows[names].isna().all(axis=None), groups


@pytest.mark.long
def test_the_line_shows_itself_when_few_enough_are_picked(superset: SupersetServer) -> None:
    viewer = Client(superset, "viewer")

    def lines(**picked: list[str]) -> tuple[pd.DataFrame, str]:
        filters = [{"col": name, "op": "IN", "val": values} for name, values in picked.items()]
        found = []
        for name in ("kpi_lines", "kpi_lines_hint"):
            body = payload(CHARTS[name]["params"], viewer.charts()[CHARTS[name]["slice_name"]], filters=filters)
            answer = viewer.post("/api/v1/chart/data", body)
            assert answer.status_code == 200, answer.text
            found.append(pd.DataFrame(answer.json()["result"][0]["data"]))
        return found[0]["monthly"].notna(), found[1]["line_hint"].item()

    is_shown, hint = lines(entity_type=["application"])
    assert not is_shown.any()
    assert hint.startswith("Pick one KPI and up to 8 entities, or one entity and up to 2 KPIs")
    is_shown, hint = lines(entity_type=["segment"], kpi=["Clicks"])
    assert is_shown.all()
    assert hint == "Single months, whatever the aggregation of the tables"
    assert not lines(entity_type=["application"], kpi=["Clicks"])[0].any(), "twenty lines"
    assert lines(entity_type=["all"], kpi=["Clicks", "Active users"])[0].all()
    assert not lines(entity_type=["all"], kpi=["Clicks", "Active users", "Seats"])[0].any()


# ---------------------------------------------------------------- workbook, pictures, command


def test_the_workbook_says_what_it_is_and_repeats_nothing_by_colour_alone(demo: Demo, tmp_path: Path) -> None:
    sheet = read_selection(
        demo.settings.home.published_dir / "current", Selection(entity_type=("segment", "application"))
    )
    write_workbook(sheet, tmp_path / "sheet.xlsx")
    book = openpyxl.load_workbook(tmp_path / "sheet.xlsx")
    pages = ["About", "KPIs of each entity", "Entities of each KPI", "Big changes", "As reported"]
    assert book.sheetnames == [*pages, "Charts", "Months", "Definitions"]
    about = {row[0].value: row[1].value for row in book["About"].iter_rows(min_row=3)}
    assert about["data through"].startswith("Nov 15, 2026")
    assert about["build"] == (demo.settings.home.published_dir / "current").readlink().name
    assert about["entity type"] == "segment, application"
    assert about["period"] == "Oct 1, 2026 to Oct 31, 2026"
    table = book["KPIs of each entity"]
    assert table.auto_filter.ref is not None
    assert table.freeze_panes == "A2"
    formats = {(row[2].value, row[4].number_format) for row in table.iter_rows(min_row=2) if row[4].value is not None}
    assert {("Clicks", "#,##0"), ("ARR", '"$"#,##0'), ("Seat utilization a month", "#,##0.0")} <= formats
    rules = [rule for rules in table.conditional_formatting for rule in rules.rules]
    assert {rule.formula[0] for rule in rules} == {'"improved"', '"declined"'}
    definitions = [row[0].value for row in book["Definitions"].iter_rows(min_row=2)]
    assert definitions == [kpi.title for kpi in read_kpis().kpis]
    assert len(book["Charts"]._charts) >= 19
    assert not any(str(c.value).startswith("=") for page in book for row in page.iter_rows() for c in row if c.value)


def test_the_command_writes_workbook_and_pictures_and_says_what_there_is(demo: Demo, tmp_path: Path) -> None:
    config = ["--config", str(demo.folder / "sources.yaml")]
    out, charts = tmp_path / "out.xlsx", tmp_path / "charts"
    options = ["--kpi", "Clicks", "--entity-type", "segment", "--month", "2026-09", "--aggregation", "3 months"]
    result = CliRunner().invoke(app, ["kpi", "export", *config, *options, "--out", str(out), "--charts", str(charts)])
    assert result.exit_code == 0, result.output
    assert "3 months to Sep 2026" in result.output
    rows = pd.read_excel(out, sheet_name="KPIs of each entity")
    assert set(rows["KPI"]) == {"Clicks"}
    with Image.open(charts / "clicks.png") as picture:
        assert picture.size == (1650, 825)
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 50
    for wrong, words in {
        ("--kpi", "Click"): "there is no KPI 'Click'; did you mean Clicks?",
        ("--month", "2019-01"): "no complete month ends with 2019-01; there are those that end with 2024-12 to 2026-10",
        ("--month", "soon"): "soon is no month: write it as YYYY-MM",
        ("--aggregation", "decade"): "there is no aggregation 'decade'; there are month, 3 months",
    }.items():
        result = CliRunner().invoke(app, ["kpi", "export", *config, *wrong, "--out", str(out)])
        assert result.exit_code == 1
        assert words in result.output


def test_nothing_of_what_is_picked_is_said(demo: Demo) -> None:
    build = demo.settings.home.published_dir / "current"
    with pytest.raises(SelectionError, match="nothing was in use or subscribed"):
        read_selection(build, Selection(entity_type=("CSM",), entity_group=("Pilot customers",)))
    week = read_selection(build, Selection("week", date(2026, 11, 12), entity_type=("all",)))
    assert week.reference == "week of Nov 9, 2026"


def test_readers_find_the_workbook_of_the_closed_month_on_the_page(superset: SupersetServer, demo: Demo) -> None:
    viewer, nobody = Visitor(superset, "viewer"), Visitor(superset, "nobody")
    answer = viewer.get("/kpi-sheets/newest")
    assert answer.status_code == 200
    assert "kpi-sheet-2026-10.xlsx" in answer.headers["Content-Disposition"]
    book = openpyxl.load_workbook(io.BytesIO(answer.content))
    assert book["About"]["A1"].value == "KPI sheet, month to Oct 2026"
    assert viewer.get("/kpi-sheets/2026-10").content == answer.content
    missing = viewer.get("/kpi-sheets/2019-01")
    assert (missing.status_code, missing.text) == (404, "There is no workbook of '2019-01'; there are: 2026-10.")
    for odd in ("..%2fcurrent", "2026-10%2f..", "<script>"):
        assert viewer.get(f"/kpi-sheets/{odd}").status_code == 404
    turned_away = nobody.session.get(f"{superset.url}/kpi-sheets/newest", timeout=30, allow_redirects=False)
    assert (turned_away.status_code, turned_away.headers["Location"]) == (302, "/login/?next=/kpi-sheets/newest")
    folder = demo.settings.home.published_dir / "kpi-sheets" / "2026-10"
    assert len(list(folder.glob("*.png"))) >= 19
