"""Heavy proofs, run by `make soak`: lakes drawn at random go through the whole graph, and runs are killed at any moment."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.ingestion.facts import read_manifests
from usage_pipeline.operations.erase import erase
from usage_pipeline.publishing.builds import BuildStore
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.lake_fuzzer import FolderStore, tree_of, write_config
from usage_pipeline_tests.support.lake_worlds import make_world
from usage_pipeline_tests.support.people import left_over
from usage_pipeline_tests.support.refreshes import run_refresh

pytestmark = pytest.mark.soak

# of nobody's tuning: neither those of the ordinary tests nor those held out for reading alone
SEEDS = range(30_000, 30_030)
# what a lake can be too little for; anything else that ends a run is a fault
_TOO_LITTLE = ("no complete week of usage", "no delivery of")
_PUBLISHING = ["published_build", "closed_months", "kpi_workbook", "digests"]
KILLS = 60


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lake_drawn_at_random_goes_through_the_whole_graph(
    seed: int, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    world = make_world(seed)
    step = world.steps[0]
    store = FolderStore(tmp_path)
    store.put(tree_of(world, step))
    settings = load_settings(write_config(world, step, store, tmp_path))
    result = run_refresh(settings, instance)
    if not result.success:
        said = [str(e.event_specific_data.error) for e in result.all_events if e.is_step_failure]  # type: ignore[union-attr]
        assert said and all(any(words in text for words in _TOO_LITTLE) for text in said), "\n".join(said)
        return
    assert clicks_published(settings) == clicks_of_facts(settings)


def clicks_of_facts(settings: Settings) -> int:
    """Clicks of the facts up to the day of as_of."""
    files = [str(file) for file in settings.home.facts_dir.glob("week=*/facts.parquet")]
    found = duckdb.execute(
        "SELECT coalesce(sum(clicks), 0) FROM read_parquet($1, hive_partitioning = false) WHERE day IS NULL OR day <= $2",
        [files, settings.clock.as_of_day],
    ).fetchone()
    assert found is not None
    return int(found[0])


def clicks_published(settings: Settings) -> int:
    current = BuildStore(settings.home.published_dir).current()
    assert current is not None
    file = settings.home.published_dir / current.build_id / "warehouse.duckdb"
    with duckdb.connect(str(file), read_only=True) as connection:
        found = connection.execute("SELECT coalesce(sum(clicks), 0) FROM mart.usage_by_week").fetchone()
    assert found is not None
    return int(found[0])


def in_a_child(work: Callable[[], None], seconds: float | None = None) -> tuple[float, bool]:
    """Runs the work in a process of its own, which is killed after so many seconds; how long, and whether it was."""
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
                work()
        finally:
            os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return time.monotonic() - started, False
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return time.monotonic() - started, seconds is not None


def test_killed_at_any_moment_a_plain_refresh_needs_no_help(demo: Demo, tmp_path: Path) -> None:
    """60 kills, the last third inside publish, the closing of months, the workbook and the digest."""
    settings = demo.copied_to(tmp_path / "copy")
    rng, killed = random.Random(22), 0

    def refresh(minutes: int, only: list[str] | None = None) -> None:
        moved = settings.model_copy(update={"as_of": settings.as_of + timedelta(minutes=minutes)})
        with dg.DagsterInstance.ephemeral() as made:
            run_refresh(moved, made, only=only)

    whole, _ = in_a_child(lambda: refresh(1))
    last, _ = in_a_child(lambda: refresh(2, _PUBLISHING))
    for number in range(KILLS):
        only = _PUBLISHING if number >= KILLS * 2 // 3 else None
        if only is None:
            forget_some_weeks(settings, rng)
        moment = rng.uniform(0, last if only else whole)
        took, was_killed = in_a_child(lambda n=number, o=only: refresh(3 + n, o), moment)  # type: ignore[misc]
        killed += was_killed
        # what else the machine does changes: a run that came to its end says how long one takes now
        if not was_killed and only:
            last = min(last, took)
        elif not was_killed:
            whole = min(whole, took)
    in_a_child(lambda: refresh(100))
    print(
        f"{killed} of {KILLS} kills hit a run that was under way ({whole:.1f} s whole, {last:.1f} s its end)",
        file=sys.stderr,
    )
    assert killed > KILLS // 2
    assert clicks_published(settings) == clicks_of_facts(settings)
    assert not left_over(settings.home.root)
    person = some_contact(settings)
    erase(settings, *person)
    assert not left_over(settings.home.root)


def forget_some_weeks(settings: Settings, rng: random.Random) -> None:
    """Has the next run read some weeks again."""
    for week in rng.sample(sorted(read_manifests(settings.home.facts_dir)), 6):
        (settings.home.facts_dir / f"week={week}" / "facts.parquet").unlink(missing_ok=True)


def some_contact(settings: Settings) -> tuple[str, str]:
    current = BuildStore(settings.home.published_dir).current()
    assert current is not None
    file = settings.home.published_dir / current.build_id / "contacts.duckdb"
    with duckdb.connect(str(file), read_only=True) as connection:
        found = connection.execute("SELECT account_id, user_id FROM personal.account_contacts LIMIT 1").fetchone()
    assert found is not None
    return found[0], found[1]
