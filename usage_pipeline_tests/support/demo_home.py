"""The demo, built once: its lake, its settings and its published build."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.demo.lake import write_demo_lake
from usage_pipeline.observability.status import write_status
from usage_pipeline_tests.support.kept import REPO, kept
from usage_pipeline_tests.support.refreshes import run_refresh, upstream_of

DEMO_AS_OF = date(2026, 11, 22)
_BELOW_LAKE = re.compile(r"path: (?:\S+/)?lake/")


@dataclass(frozen=True)
class Demo:
    """A demo lake that went through the whole pipeline."""

    folder: Path
    settings: Settings
    truth: dict[str, Any]

    @property
    def warehouse(self) -> Path:
        return self.settings.home.published_dir / "current" / "warehouse.duckdb"

    def copied_to(self, folder: Path) -> Settings:
        """The settings of a copy, lake and all, that may be changed."""
        for part in ("lake", "truth"):
            shutil.copytree(self.folder / part, folder / part)
        shutil.copytree(self.settings.home.root, folder / "home", symlinks=True)
        (folder / "sources.yaml").write_text(self.configuration("lake"), encoding="utf-8")
        return load_settings(folder / "sources.yaml")

    def configuration(self, lake: str) -> str:
        """Its configuration with every source below `lake`, a folder or an address, in place of the shared one."""
        text, changed = _BELOW_LAKE.subn(f"path: {lake}/", (self.folder / "sources.yaml").read_text(encoding="utf-8"))
        assert changed >= 4, "a demo has usage, accounts, subscriptions, contacts and applications below its lake"
        return text

    def raw(self) -> pd.DataFrame:
        """The raw rows of the window, read by pandas: what every number on a page is checked against."""
        frames = [pd.read_parquet(f) for f in sorted((self.folder / "lake" / "usage").rglob("*.parquet"))]
        rows = pd.concat(frames, ignore_index=True)
        rows["week_start"] = (rows["event_time"] - pd.to_timedelta(rows["event_time"].dt.weekday, "D")).dt.normalize()
        return rows[rows["week_start"] >= pd.Timestamp(self.settings.clock.window_start)].reset_index(drop=True)


def make_demo(folder: Path, seed: int, accounts: int = 60, with_signs: bool = True, only: Sequence[str] = ()) -> Demo:
    """A demo lake that has run through the whole graph, or `only` up to some assets."""
    write_demo_lake(folder, DEMO_AS_OF, accounts=accounts, seed=seed, with_signs=with_signs)
    settings = load_settings(folder / "sources.yaml")
    with dg.DagsterInstance.ephemeral() as instance:
        if only:
            assert run_refresh(settings, instance, only=upstream_of(settings, *only)).success
        else:
            assert run_refresh(settings, instance, with_workbook=True).success
            write_status(settings.home, settings.clock, settings.sources, instance)
    return demo_in(folder)


def demo_in(folder: Path) -> Demo:
    """A demo that was made there."""
    truth = json.loads((folder / "truth" / "truth.json").read_text(encoding="utf-8"))
    return Demo(folder, load_settings(folder / "sources.yaml"), truth)


def kept_demo(folder: Path) -> Demo:
    """The demo of 60 accounts, its home copied into `folder`; its lake is shared, so nothing may change it.

    It is made once for this code, these libraries and this day, and kept below `data/`: a minute and a half of CPU
    that each process of each run would take again.
    """
    package = REPO / "usage_pipeline"
    made_of = [REPO / "requirements.lock", *sorted(f for f in package.rglob("*") if f.is_file() and f.suffix != ".pyc")]
    with kept("test-demo", made_of, lambda made: make_demo(made, seed=7), also=str(date.today())) as made:
        shutil.copytree(made / "home", folder / "home", symlinks=True)
        shutil.copytree(made / "truth", folder / "truth")
    (folder / "lake").symlink_to(made / "lake")
    # where facts say that they come from
    (folder / "sources.yaml").write_text(demo_in(made).configuration(f"{made}/lake"), encoding="utf-8")
    return demo_in(folder)
