"""A published build of two accounts, written by hand: what programs read of it can be counted on fingers."""

import json
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.core.tables import CONTACT_TABLES, WAREHOUSE_TABLES
from usage_pipeline.publishing.builds import Build
from usage_pipeline_tests.support.lakes import write_config

WEEK = datetime(2026, 11, 16)
NORTH = {"account_id": "A1", "account": "Acme Town", "segment": "Town", "region": "North", "owner": "Ann Lee"}
SOUTH = {"account_id": "B2", "account": "=Bolt City", "segment": "City", "region": "South", "owner": "Bo Diaz"}
PERMITS = {"application_key": "permits", "application": "Permits"}


def _rows() -> dict[str, list[dict[str, Any]]]:
    both = (NORTH, SOUTH)
    return {
        "build": [
            {
                "build_id": "x",
                "as_of": datetime(2026, 11, 24),
                "newest_week": WEEK,
                "data_through": datetime(2026, 11, 22),
            }
        ],
        "accounts_summary": [a | {"annual_value": v, "seats": None} for a, v in zip(both, (100.0, 250.5), strict=True)],
        "account_health": [a | {"application_key": "all", "health": 40.0, "health_color": "red"} for a in both],
        "call_list": [
            a | {"rank": n, "urgency": "Urgent", "urgency_rank": 1, "reason": f"about {a['account_id']}"}
            for n, a in enumerate(both, 1)
        ],
        "call_list_history": [a | {"rank": n, "as_of_week": datetime(2026, 11, 9)} for n, a in enumerate(both, 1)],
        "call_reasons": [a | PERMITS | {"call_reason": "inactive", "urgency_rank": 1} for a in both],
        "subscription_overview": [a | PERMITS for a in both],
        "usage_by_week": [
            a | PERMITS | {"week_start": WEEK, "clicks": c, "is_complete": True}
            for a, c in zip(both, (7, 9), strict=True)
        ],
        "anomaly_weeks": [
            *(
                a | PERMITS | {"week_start": WEEK, "first_week": WEEK, "last_week": WEEK, "confidence": "high"}
                for a in both
            ),
            {
                "week_start": WEEK,
                "first_week": WEEK,
                "last_week": WEEK,
                "confidence": "high",
                "what_happened": "all of us",
            },
        ],
        "renewals": [a | {"renewal_date": datetime(2026, 12, 24), "days_to_renewal": 30} for a in both],
        "kpi_report": [
            {"kpi": "Clicks", "kpi_rank": 1, "kpi_group": "Usage", "kpi_period": "month", "value": value}
            | {"entity_type": kind, "entity_key": key, "entity": name}
            | {"reference_month": datetime(2026, 10, 1), "is_complete_period": True}
            for kind, key, name, value in (
                ("all", "all", "All accounts", 16.0),
                ("account", "A1", "Acme Town", 7.0),
                ("account", "B2", "=Bolt City", 9.0),
                ("region", "North", "North", 7.0),
                ("region", "South", "South", 9.0),
            )
        ],
        "account_contacts": [
            a | {"user_id": f"u{a['account_id']}", "name": f"Kim of {a['account_id']}", "email": "kim@mail.invalid"}
            for a in both
        ],
    }


def publish(home: Path, number: int = 1) -> str:
    build_id = f"{number:05d}-2026-11-24-aaaaaaaa"
    folder = home / "published" / build_id
    folder.mkdir(parents=True)
    rows = _rows()
    for stem, tables in (("warehouse", WAREHOUSE_TABLES), ("contacts", CONTACT_TABLES)):
        with duckdb.connect(str(folder / f"{stem}.duckdb")) as connection:
            for table in tables:
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {table.schema}")
                columns = ", ".join(f'"{column.name}" {column.type}' for column in table.columns)
                connection.execute(f"CREATE TABLE {table.full_name} ({columns})")
                for row in rows.get(table.name, []):
                    kept = {name: value for name, value in row.items() if name in table.column_names}
                    named, marks = ", ".join(kept), ", ".join("?" for _ in kept)
                    connection.execute(f"INSERT INTO {table.full_name} ({named}) VALUES ({marks})", list(kept.values()))
            if stem == "warehouse":
                connection.execute("UPDATE mart.build SET build_id = ?", [build_id])
    build = Build(build_id, "2026-11-24", "2026-11-16", "aaaaaaaa", {})
    (folder / "build.json").write_text(json.dumps(asdict(build)))
    link = home / "published" / "current"
    link.unlink(missing_ok=True)
    link.symlink_to(build_id)
    return build_id


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, home="home")


@pytest.fixture
def home(config: Path) -> DataHome:
    publish(config.parent / "home")
    return DataHome(config.parent / "home")


@pytest.fixture
def program() -> list[str]:
    """The command line, as a process of its own."""
    return [sys.executable, "-W", "ignore", "-m", "usage_pipeline.cli"]
