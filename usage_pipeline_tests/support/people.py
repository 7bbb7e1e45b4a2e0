"""A home with contacts in every place that can hold them."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pyarrow.parquet as pq
import yaml

from usage_pipeline.config.settings import load_settings
from usage_pipeline_tests.support.lakes import event, write_config, write_week
from usage_pipeline_tests.support.refreshes import run_refresh

WORDS = ("u-anna", "anna@springfield.example", "Anna Archer")


WEEKS = [date(2025, 1, 27) + timedelta(days=7 * n) for n in range(5)]


CONTACTS = (
    ("u-anna", "a", "Anna Archer", "anna@springfield.example"),
    ("u-bert", "a", "Bert Baker", "bert@springfield.example"),
    ("u-common", "a", "Cora Carter", "cora@springfield.example"),
    ("u-common", "b", "Dora Dyer", "dora@shelbyville.example"),
)


def write_contacts(folder: Path, *more: tuple[str, str, str, str]) -> None:
    frame = pd.DataFrame([*CONTACTS, *more], columns=["user_id", "account_id", "name", "email"])
    frame.to_csv(folder / "contacts.csv", index=False)


def week_rows(week: date) -> list[dict[str, Any]]:
    found = []
    for number, user in enumerate(("u-anna", "u-bert", "u-common"), 1):
        for day in range(number + 1):
            found.append(event(str(week + timedelta(days=day)), user=user, clicks=number))
            found.append(event(str(week + timedelta(days=day)), user=user, application="licensing", clicks=2))
    found += [event(str(week), account="b", user="u-common", clicks=7)]
    # rejected: one of hers, and one that names no account
    found += [event(str(week), user="u-anna", clicks=-1), event(str(week), user="u-anna") | {"account_id": None}]
    return found


def make_home(folder: Path) -> Path:
    """A lake with contacts in `folder`, and a home beside it that was refreshed twice."""
    for week in WEEKS:
        write_week(folder / "lake", f"year=2025/week={week.isocalendar().week:02d}", week_rows(week))
    write_contacts(folder)
    (folder / "accounts.csv").write_text("account_id,account_name\na,Springfield\nb,Shelbyville\n")
    config = write_config(folder)
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    content["completeness"]["rejected_share"] = 1
    content["sources"] |= {
        "contacts": {
            "path": "contacts.csv",
            "format": "csv",
            "columns": {name: name for name in ("user_id", "account_id", "name", "email")},
        },
        "accounts": {
            "path": "accounts.csv",
            "format": "csv",
            "columns": {name: name for name in ("account_id", "account_name")},
        },
    }
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_refresh(load_settings(config), instance).success
        write_contacts(folder, ("u-emil", "b", "Emil Egger", "emil@shelbyville.example"))
        assert run_refresh(load_settings(config), instance).success
    assert len(list((folder / "home" / "published").glob("0*"))) == 2
    return folder


def names_of(home: Path, words: tuple[str, ...]) -> list[str]:
    """Every place below a home that holds one of the words: cells of all tables, and bytes of all files."""
    found = []
    for file in sorted(home.rglob("*")):
        if file.is_symlink() or not file.is_file():
            continue
        cells: list[Any] = [file.read_bytes()]
        if file.suffix == ".parquet":
            cells += [*pq.read_table(file).to_pylist(), pq.read_metadata(file).metadata]
        if file.suffix == ".duckdb":
            with duckdb.connect(str(file), read_only=True) as connection:
                tables = connection.execute("SELECT schema_name || '.' || table_name FROM duckdb_tables()").fetchall()
                for (table,) in tables:
                    cells += connection.execute(f"FROM {table}").fetchall()
        found += [f"{file.relative_to(home)}: {word}" for word in words if word.encode() in cells[0]]
        found += [f"{file.relative_to(home)}: {cell}" for cell in cells[1:] if any(word in str(cell) for word in words)]
    return found


def left_over(home: Path) -> list[str]:
    """What only a killed process leaves."""
    found = []
    for path in sorted(home.rglob("*")):
        name = path.relative_to(home)
        hidden = path.name.startswith(".") and not path.name.startswith((".lock", ".holder"))
        headless = path.parent.name == "published" and path.name[0].isdigit() and not (path / "build.json").exists()
        if hidden or headless or path.name.endswith((".wal", ".tmp")):
            found.append(str(name))
    return found
