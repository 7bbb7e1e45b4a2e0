"""lineage.yaml is what the SQL says; what is missing or stale is told with the asset and the remedy."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from usage_pipeline.defs import lineage
from usage_pipeline.defs.lineage import FILE, REMEDY, LineageError, Step

SCRIPT = Path(__file__).parents[2] / "scripts" / "lineage.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lineage_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def queries(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """SQL files of the test's own: their text by name."""
    found: dict[str, str] = {}
    monkeypatch.setattr(script, "sql_of", found.__getitem__)
    monkeypatch.setattr(script, "check_files", lambda *_: None)
    return found


SOURCE = Step(python={"ref.a": ("id", "day"), "ref.b": ("id", "name")})


def test_what_an_asset_reads_and_what_its_columns_are_made_of_is_found(
    script: ModuleType, queries: dict[str, str]
) -> None:
    queries["x"] = (
        "WITH named AS (SELECT * EXCLUDE (name), upper(name) AS label FROM ref.b) "
        "SELECT a.id, named.label, 1 AS one FROM ref.a AS a INNER JOIN named ON a.id = named.id INNER JOIN temp_ids USING (id)"
    )
    queries["y"] = "SELECT * FROM core.x"
    steps = {
        "source": SOURCE,
        "x": Step(tables={"core.x": "x"}, passing={"temp_ids": ("id",)}),
        "y": Step(tables={"mart.y": "y"}, reads=["files"]),
    }
    assert script.found_in(steps, {*steps, "files"}) == {
        "source": {"reads": {}},
        "x": {
            "reads": {"source": ["ref.a", "ref.b"]},
            "columns": {"id": ["source.a.id"], "label": ["source.b.name"], "one": []},
        },
        "y": {
            "reads": {"files": [], "x": ["core.x"]},
            "columns": {"id": ["x.id"], "label": ["x.label"], "one": ["x.one"]},
        },
    }


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ({"x": Step(tables={"core.x": "x"})}, "x: x.sql reads ref.a, which no asset makes"),
        ({"s": SOURCE, "x": Step(tables={"core.x": "x"}, reads=["files"])}, "names files, which is neither"),
        ({"s": SOURCE, "t": SOURCE}, "t and s both make ref.a"),
        ({"s": Step(python={"ref.a": ()}), "x": Step(tables={"core.x": "star"})}, "x: the columns of core.x cannot be"),
        ({"s": SOURCE, "x": Step(python={"core.x": ()}, checks=["x"])}, "its check x.sql reads ref.a"),
        (
            {"s": Step(python=SOURCE.python, reads=["core.x"]), "x": Step(tables={"core.x": "x"})},
            "assets read each other in a circle",
        ),
    ],
)
def test_what_is_not_declared_is_told(
    script: ModuleType, queries: dict[str, str], steps: dict[str, Step], said: str
) -> None:
    queries |= {
        "x": "SELECT id FROM ref.a",
        "star": "SELECT a.*, a.id + 1 AS more FROM ref.a AS a, ref.a AS b ORDER BY id",
    }
    with pytest.raises(script.DeclarationError, match=said):
        script.found_in(steps, set(steps))


def test_a_sql_file_that_no_asset_runs_is_told(script: ModuleType) -> None:
    with pytest.raises(script.DeclarationError, match=r"no asset runs .*defs/usage/weeks"):
        script.check_files({})


def test_a_stale_file_is_told_with_the_asset(script: ModuleType) -> None:
    now = {"x": {"reads": {"a": ["core.a"], "b": ["core.b"]}}, "y": {"reads": {}, "columns": {"c": ["x.c"]}}}
    before = {"x": {"reads": {"a": ["core.a"], "old": []}}, "y": {"reads": {}, "columns": {"c": []}}}
    assert list(script.stale(now, now)) == []
    assert list(script.stale(before, now)) == ["x: -old +b", "y: other columns or tables"]


def test_the_check_names_asset_and_remedy(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `make check` runs it, on a file from which a dependency was taken by hand."""
    committed = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    broken = {asset: dict(entry) for asset, entry in committed.items()}
    broken["subscription_weeks"]["reads"] = {
        name: tables
        for name, tables in committed["subscription_weeks"]["reads"].items()
        if name != "account_applications"
    }
    file = tmp_path / FILE.name
    file.write_text(yaml.safe_dump(broken), encoding="utf-8")
    monkeypatch.setattr(script, "FILE", file)
    monkeypatch.setattr(script, "found_in", lambda *_: committed)
    monkeypatch.setattr(script, "declared", lambda: ())
    monkeypatch.setattr(sys, "argv", ["lineage.py", "--check"])
    assert script.main() == 1
    said = capsys.readouterr().err
    assert "subscription_weeks: +account_applications" in said
    assert REMEDY[1:] in said
    monkeypatch.setattr(sys, "argv", ["lineage.py"])
    assert script.main() == 0
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == committed


def test_an_asset_that_the_file_does_not_know_is_refused() -> None:
    with pytest.raises(LineageError, match="does not know the asset brand_new: run `make lineage`"):
        lineage.recorded("brand_new")
