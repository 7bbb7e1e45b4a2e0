"""What tests share: a demo lake run through Dagster once, the real data set, a real Superset, a real browser."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.core.locks import file_lock
from usage_pipeline.core.weeks import WeekFolder
from usage_pipeline.definitions import build_definitions
from usage_pipeline.defs.schedules import window_tags
from usage_pipeline.demo.lake import write_demo_lake
from usage_pipeline.observability.status import write_status
from usage_pipeline.operations.local import (
    SUPERSET,
    SUPERSET_PYTHON,
    demo_accounts,
    set_up_superset,
    superset_command,
    superset_environment,
)
from usage_pipeline.publishing.builds import Build, BuildStore
from usage_pipeline.publishing.history import attach_pending, history_locked, promote

DEMO_AS_OF = date(2026, 11, 22)
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def run_refresh(
    settings: Settings,
    instance: dg.DagsterInstance,
    tags: dict[str, str] | None = None,
    only: list[str] | None = None,
    with_workbook: bool = False,
) -> dg.ExecuteInProcessResult:
    """The whole graph, or the assets named in `only`, through Dagster in this process.

    Nothing is made from the monthly KPI workbook, and its charts take a quarter of a small refresh: it is made for
    those who ask.
    """
    job = build_definitions(settings).resolve_job_def("refresh")
    names = only or [key.to_user_string() for key in job.asset_layer.selected_asset_keys]
    wanted = [dg.AssetKey(name) for name in names if with_workbook or only or name != "kpi_workbook"]
    return job.execute_in_process(
        instance=instance,
        tags=tags or window_tags(settings),
        raise_on_error=False,
        asset_selection=wanted,
        run_config={"loggers": {"console": {"config": {}}}},
    )


def keep_as_published(settings: Settings) -> Build:
    """Publishes what is pending for history in a build of nothing else, as `published_build` does it."""
    store = BuildStore(settings.published_dir)
    newest = max((build.newest_week for build in store.builds()), default=str(settings.running_week))
    as_of = settings.as_of.isoformat()
    build = Build(store.next_id(as_of, "0" * 8), as_of, newest, "0" * 8, {})
    with history_locked(settings):
        attach_pending(settings, build, store.path(build.build_id))
        store.path(build.build_id).mkdir(parents=True, exist_ok=True)
        (store.path(build.build_id) / "build.json").write_text(json.dumps(asdict(build)), encoding="utf-8")
        store.finish()
        promote(settings)
    return build


def upstream_of(settings: Settings, *assets: str) -> list[str]:
    """Assets with all that they rest on."""
    graph = build_definitions(settings).resolve_asset_graph()
    return sorted(key.to_user_string() for key in dg.AssetSelection.assets(*assets).upstream().resolve(graph))


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


# what `make test-fast` leaves out: tests on these, and files that run the whole graph or hundreds of lakes
_SLOW_FIXTURES = {"demo", "oulad", "superset", "browser"}
_SLOW_FILES = {
    *("test_alerts", "test_cases", "test_corruptions", "test_data_home", "test_dead_runs", "test_deliveries"),
    *("test_demo_store", "test_dependencies", "test_dagster_guard", "test_digest", "test_doctor", "test_encryption"),
    *("test_erase", "test_explain", "test_health", "test_histories", "test_history", "test_kpis", "test_lake_fuzzer"),
    *("test_network_faults", "test_parquet_zoo", "test_pipeline", "test_predictions", "test_ravenstack", "test_s3"),
    *("test_sensors", "test_spark", "test_weeks_go_by", "test_account_application_numbers", "test_lineage"),
}


def is_sampled(item: pytest.Item) -> bool:
    """Whether a test that stands for many inputs runs with this one in `make test`; see the marker `sample`."""
    marker = item.get_closest_marker("sample")
    if marker is None:
        return True
    one = item.callspec.id  # type: ignore[attr-defined]
    if "every" in marker.kwargs:
        return zlib.crc32(one.encode()) % int(marker.kwargs["every"]) == 0
    return any(fnmatch(one, wanted) for wanted in marker.args)


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run side by side, a file stays together, and so do those that ask the same Superset.

    There is one for `make test`. `make test-long` has a second one for about half of the work.
    """
    markers = {item.path: item.get_closest_marker("superset") for item in items}
    for item in items:
        marker = markers[item.path] or item.get_closest_marker("superset")
        if not is_sampled(item):
            item.add_marker(pytest.mark.long)
        names = marker.args if marker and item.get_closest_marker("long") else ()
        item.add_marker(pytest.mark.xdist_group("-".join(["superset", *names]) if marker else item.path.stem))
        if item.path.stem in _SLOW_FILES or _SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The ten files that take longest, set-up and all, where more than a few were run."""
    seconds: Counter[str] = Counter()
    for report in (r for found in terminalreporter.stats.values() for r in found if hasattr(r, "duration")):
        seconds[report.nodeid.split("::")[0]] += report.duration
    if len(seconds) > 5:
        terminalreporter.section("slowest 10 files")
        for file, took in seconds.most_common(10):
            terminalreporter.line(f"{took:8.1f}s {file}")


# for what fixtures of a session write
os.umask(0o077)


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Tests write for their owner only, as every entry point does; one that sets another leaves it to nobody else."""
    os.umask(0o077)
    yield
    os.umask(0o077)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@dataclass(frozen=True)
class Demo:
    """A demo lake that went through the whole pipeline."""

    folder: Path
    settings: Settings
    truth: dict[str, Any]

    @property
    def warehouse(self) -> Path:
        return self.settings.published_dir / "current" / "warehouse.duckdb"

    def raw(self) -> pd.DataFrame:
        """The raw rows of the window, read by pandas: what every number on a page is checked against."""
        frames = [pd.read_parquet(f) for f in sorted((self.folder / "lake" / "usage").rglob("*.parquet"))]
        rows = pd.concat(frames, ignore_index=True)
        rows["week_start"] = (rows["event_time"] - pd.to_timedelta(rows["event_time"].dt.weekday, "D")).dt.normalize()
        return rows[rows["week_start"] >= pd.Timestamp(self.settings.window_start)].reset_index(drop=True)


def make_demo(folder: Path, seed: int, accounts: int = 60, with_signs: bool = True) -> Demo:
    write_demo_lake(folder, DEMO_AS_OF, accounts=accounts, seed=seed, with_signs=with_signs)
    settings = load_settings(folder / "sources.yaml")
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_refresh(settings, instance, with_workbook=True).success
        write_status(settings, instance)
    truth = json.loads((folder / "truth" / "truth.json").read_text(encoding="utf-8"))
    return Demo(folder, settings, truth)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return make_demo(tmp_path_factory.mktemp("demo"), seed=7)


@pytest.fixture(scope="session")
def oulad(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The real data set, run by its example configuration; skipped where the data is not named."""
    folder = os.environ.get("USAGE_PIPELINE_REAL_DATA")
    if not folder:
        pytest.skip("USAGE_PIPELINE_REAL_DATA is not set: the real data set is not checked")
    if not (Path(folder) / "oulad" / "clicks").is_dir():
        pytest.fail(f"USAGE_PIPELINE_REAL_DATA is {folder}, and {folder}/oulad/clicks is not there")
    os.environ["USAGE_PIPELINE_OULAD_HOME"] = str(tmp_path_factory.mktemp("oulad"))
    settings = load_settings(Path(__file__).parents[1] / "examples" / "oulad.yaml")
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_refresh(settings, instance).success
    return settings


@dataclass
class SupersetServer:
    """A Superset that serves the demo's build."""

    url: str
    passwords: dict[str, str]
    folder: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_from_migrated(folder: Path) -> None:
    """Puts a Superset into `folder` whose metadata is migrated and has its permissions, which takes half a minute.

    It is made once for this code and these locks, which shows that one comes from nothing, and kept below `data/`.
    """
    made_of = [SUPERSET / "requirements.lock", SUPERSET / "roles.yaml", *sorted(SUPERSET.rglob("*.py"))]
    name = hashlib.sha256(b"".join(file.read_bytes() for file in made_of)).hexdigest()[:16]
    kept = SUPERSET.parent / "data" / "test-superset"
    with file_lock(kept / "lock", 600, what=str(kept)):
        if not (kept / name).is_dir():
            for older in kept.glob("*/"):
                shutil.rmtree(older)
            with tempfile.TemporaryDirectory(dir=kept) as made:
                unpublished = load_settings(write_config(Path(made)))
                set_up_superset(unpublished, Path(made), only_if_changed=False, say=print)
                (Path(made) / "superset" / "set_up").unlink()
                (Path(made) / "secret_key").rename(Path(made) / "superset" / "secret_key")
                (Path(made) / "superset").rename(kept / name)
        shutil.copytree(
            kept / name, folder / "superset", ignore=shutil.ignore_patterns("secret_key"), dirs_exist_ok=True
        )
        shutil.copy(kept / name / "secret_key", folder / "secret_key")


@contextmanager
def serve_superset(settings: Settings, folder: Path) -> Iterator[SupersetServer]:
    """A Superset that is set up in `folder`, serving what a configuration has published."""
    if not SUPERSET_PYTHON.exists():
        pytest.fail("Superset's environment is missing: run `make setup`")
    if not (folder / "superset" / "superset.db").exists():
        start_from_migrated(folder)
    accounts = demo_accounts(folder)
    set_up_superset(settings, folder, only_if_changed=True, say=print)
    # so that a query without end does not hold up the tests for as long as it would a person
    environment = superset_environment(settings, folder) | {"USAGE_QUERY_SECONDS": "10"}
    with serving(environment, folder) as url:
        yield SupersetServer(url, {a["username"]: a["password"] for a in accounts}, folder)


@contextmanager
def serving(environment: dict[str, str], folder: Path, *options: str) -> Iterator[str]:
    """A Superset that was set up, on a free port; gives its address. `options` go to serve.py and gunicorn."""
    port = free_port()
    with (folder / "gunicorn.log").open("wb") as log:
        process = subprocess.Popen(
            superset_command("serve", "--bind", f"127.0.0.1:{port}", *options),
            env=os.environ | {"USAGE_WARM": "0"} | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2).close()  # noqa: S310
                break
            except OSError:
                assert process.poll() is None, (folder / "gunicorn.log").read_text()
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="session")
def superset(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SupersetServer]:
    with serve_superset(demo.settings, tmp_path_factory.mktemp("superset")) as server:
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    found = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    if found is None:
        pytest.fail("Chromium is missing: `make test` installs it, or says how")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=CHROMIUM_FLAGS)
        yield launched
        launched.close()
