"""Small lakes and their configuration, written where a test says."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from usage_pipeline.core.weeks import WeekFolder


def write_week(lake: Path, folder: WeekFolder | str, rows: list[dict[str, Any]], name: str = "part-0.parquet") -> Path:
    """Rows as one Parquet file of a week folder."""
    file = lake / str(folder) / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def event(
    day: str, account: str = "a", application: str = "permits", user: str = "u", clicks: int = 1
) -> dict[str, Any]:
    """One row of usage in our own shape, on `day` (YYYY-MM-DD) at noon."""
    moment = pd.Timestamp(f"{day} 12:00").to_pydatetime()
    return {"account_id": account, "application": application, "user_id": user, "event_time": moment, "clicks": clicks}


def write_config(folder: Path, **changes: Any) -> Path:
    """A small configuration over `folder`/lake; `changes` replace top-level keys."""
    content: dict[str, Any] = {
        "name": "Test",
        "home": "home",
        "timezone": "UTC",
        "as_of": "2025-03-05",
        "lookback_weeks": 30,
        "completeness": {"collapse_share": 0},
        "sources": {
            "usage": {
                "path": "lake",
                "partitioned": True,
                "columns": {c: c for c in ("account_id", "application", "user_id", "event_time", "clicks")},
            }
        },
    }
    file = folder / "sources.yaml"
    file.write_text(yaml.safe_dump(content | changes), encoding="utf-8")
    return file
