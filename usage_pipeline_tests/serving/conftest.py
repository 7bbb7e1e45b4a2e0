"""A published build of two accounts, written by hand: what programs read of it can be counted on fingers."""

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from usage_pipeline.config.clock import Clock
from usage_pipeline.config.data_home import DataHome
from usage_pipeline_tests.support.hand_made_builds import publish_by_hand
from usage_pipeline_tests.support.lakes import write_config

WEEK = datetime(2026, 11, 16)
CLOCK = Clock(datetime(2026, 11, 24, tzinfo=UTC), "UTC", True, 104, None)
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
                "sentence": "Data through Nov 22, 2026",
            }
        ],
        "accounts_summary": [a | {"annual_value": v, "seats": None} for a, v in zip(both, (100.0, 250.5), strict=True)],
        "account_health": [a | {"application_key": "all", "health": 40.0, "health_color": "red"} for a in both],
        "call_list": [
            a | {"rank": n, "urgency": "Urgent", "urgency_rank": 1, "reason": f"about {a['account_id']}"}
            for n, a in enumerate(both, 1)
        ],
        "call_list_history": [
            a | {"rank": n, "as_of_week": datetime(2026, 11, 9), "issued_as_of": datetime(2026, 11, 16)}
            for n, a in enumerate(both, 1)
        ],
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


def publish(home: Path, number: int = 1, more: dict[str, list[dict[str, Any]]] | None = None) -> str:
    rows = _rows()
    for table, added in (more or {}).items():
        rows[table] = [*rows[table], *added]
    return publish_by_hand(home, number, "2026-11-24", rows)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, home="home")


@pytest.fixture(scope="session")
def published_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the build: to make its tables takes longer than to copy them."""
    folder = tmp_path_factory.mktemp("published") / "home"
    publish(folder)
    return folder


@pytest.fixture
def home(config: Path, published_once: Path) -> DataHome:
    return DataHome(Path(shutil.copytree(published_once, config.parent / "home", symlinks=True)))


@pytest.fixture
def program() -> list[str]:
    """The command line, as a process of its own."""
    return [sys.executable, "-W", "ignore", "-m", "usage_pipeline.cli"]
