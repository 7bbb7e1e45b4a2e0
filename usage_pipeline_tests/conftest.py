"""What tests share: a demo lake run through Dagster once, the real data set, a real Superset, a real browser."""

import os
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import dagster as dg
import hypothesis
import pytest

from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline_tests.support.demo_home import Demo, kept_demo
from usage_pipeline_tests.support.refreshes import run_refresh
from usage_pipeline_tests.support.servers import SupersetServer, serve_superset

# a machine that others share is slow at times: that is no finding about the code
hypothesis.settings.register_profile("without deadlines", deadline=None)
hypothesis.settings.load_profile("without deadlines")

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# what `make test-fast` leaves out: tests on these, and files that run the whole graph or hundreds of lakes
_SLOW_FIXTURES = {"demo", "oulad", "superset", "browser"}
_SLOW_FILES = {
    *("test_alerts", "test_cases", "test_corruptions", "test_data_home", "test_dead_runs", "test_deliveries"),
    *("test_demo_store", "test_dependencies", "test_dagster_guard", "test_digest", "test_doctor", "test_encryption"),
    *(
        "test_erase",
        "test_explain",
        "test_flow",
        "test_health",
        "test_histories",
        "test_history",
        "test_kpis",
        "test_lake_fuzzer",
    ),
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
            # `make soak` takes the others where the marker says `rest="soak"`
            item.add_marker(item.get_closest_marker("sample").kwargs.get("rest", "long"))
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


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return kept_demo(tmp_path_factory.mktemp("demo"))


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
