"""Reading a lake: ours and its peers side by side in one run. `make benchmark` runs all of it and prints tables.

Six parts, most in processes of their own:
peers    25 million skewed events in 104 weeks: scanning, the plain roll-up, and facts with weekly usage
growth   one new week after 104 weeks against one after 10
refresh  the whole weekly refresh of 3,000 accounts through Dagster, step by step
activity subscriptions, subscription weeks and states of 3,000 accounts x 20 applications x 104 weeks
risks    features, back-test, training and scoring of the same
memory   one week of 50 million events: the peak of the process that reads it
"""

import argparse
import json
import logging
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.lake import write_lake

REPO = Path(__file__).parents[1]
PEERS = REPO / ".venv-benchmarks" / "bin" / "python"
# contestant, environment, tasks
CONTESTANTS = (
    ("polars", "peer", ("scan", "rollup", "facts")),
    ("ours", "ours", ("rollup", "facts")),
    ("duckdb_per_week", "peer", ("rollup", "facts")),
    ("duckdb_one_query", "peer", ("rollup", "facts")),
    ("chdb", "peer", ("rollup", "facts")),
    ("pandas_per_week", "peer", ("rollup", "facts")),
    ("pandas_one_frame", "peer", ("rollup", "facts")),
)


def say(line: str = "") -> None:
    print(line, flush=True)


def run(name: str, where: str, task: str, lake: Path, out: Path) -> dict[str, Any] | None:
    """One contestant in a process of its own; None where it fails, with what it said."""
    shutil.rmtree(out, ignore_errors=True)
    python = sys.executable if where == "ours" else str(PEERS)
    done = subprocess.run(
        [python, "-W", "ignore", str(REPO / "benchmarks" / "contestants.py"), name, task, str(lake), str(out)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPO)},
        check=False,
    )
    shutil.rmtree(out, ignore_errors=True)
    if done.returncode:
        say(f"  {name} {task} failed: {(done.stderr.strip().splitlines() or ['without a word'])[-1]}")
        return None
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def peers(folder: Path, events: int, weeks: int, rounds: int) -> None:
    """Every contestant in turn, `rounds` times, so that noise of the machine falls on all; medians are shown."""
    lake = folder / "lake"
    if not lake.exists():
        say(f"writing a lake of {events:,} events in {weeks} weeks")
        write_lake(lake, weeks=weeks, events_a_week=events // weeks)
        write_lake(folder / "warm-up", weeks=2, events_a_week=2000)
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for number in range(rounds):
        for name, where, tasks in CONTESTANTS:
            for task in tasks:
                figures = run(name, where, task, lake, folder / "out")
                if figures:
                    found.setdefault((task, name), []).append(figures)
                    say(f"  round {number + 1}: {task:7} {name:17} {figures['seconds']:6.1f} s")
    for task in ("rollup", "facts"):
        results = {str(f["totals"]) for (of, _), all_ in found.items() if of == task for f in all_}
        say(f"{task}: rows, clicks and active users are {'the same' if len(results) == 1 else results}")
        _print_table(task, found)


def _print_table(task: str, found: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    def median(name: str, of: str, what: str) -> float:
        return statistics.median(f[what] for f in found[of, name])

    floor, ours = median("polars", "scan", "seconds"), median("ours", task, "seconds")
    say()
    say(f"| {task} | seconds | times the floor | times ours | CPU seconds | peak MB |")
    say("|---|---|---|---|---|---|")
    say(f"| floor: reading the columns | {floor:.1f} | 1.0 | {floor / ours:.2f} | | |")
    for name in sorted({n for of, n in found if of == task}, key=lambda n: median(n, task, "seconds")):
        seconds = median(name, task, "seconds")
        cells = f"{seconds:.1f} | {seconds / floor:.1f} | {seconds / ours:.2f}"
        more = f"{median(name, task, 'cpu_seconds'):.1f} | {median(name, task, 'peak_mb'):.0f}"
        say(f"| {name.replace('_', ' ')} | {cells} | {more} |")
    say()


def growth(folder: Path, events_a_week: int) -> None:
    """One new week, ingest and facts and weekly usage, where 10 or 104 weeks were there before."""
    from benchmarks.ours import load_week, settings_of
    from usage_pipeline.core.weeks import weeks_between
    from usage_pipeline.ingestion.facts import ingest_weeks

    times: dict[tuple[int, str], list[float]] = {}
    for before in (10, 104):
        lake = folder / f"growth-{before}"
        shutil.rmtree(lake, ignore_errors=True)
        write_lake(lake / "lake", weeks=before + 9, events_a_week=events_a_week)
        settings = settings_of(lake / "lake", lake / "out")
        weeks = list(weeks_between(settings.clock.window_start, settings.clock.running_week))
        ingest_weeks(settings, weeks[:before], now="benchmark")
        load_week(settings, weeks[0], weeks[before - 1])
        for number in range(before, before + 9):
            started = time.perf_counter()
            ingest_weeks(settings, [weeks[number]], now="benchmark")
            written = time.perf_counter()
            load_week(settings, weeks[number], weeks[number])
            times.setdefault((before, "ingest and facts"), []).append(written - started)
            times.setdefault((before, "weekly usage"), []).append(time.perf_counter() - written)
        shutil.rmtree(lake)
    for what in ("ingest and facts", "weekly usage"):
        few, many = (statistics.median(times[before, what]) for before in (10, 104))
        ratio = f"{many / few:.2f} times"
        title = f"one new week of {events_a_week:,} events, {what}"
        say(f"{title}: {few:.2f} s after 10 weeks, {many:.2f} s after 104: {ratio}")


def refresh(folder: Path, accounts: int) -> None:
    """The weekly refresh of a demo lake through Dagster, step by step; Dagster's own time is what is left."""
    from datetime import date

    import dagster as dg

    from usage_pipeline.config.settings import load_settings
    from usage_pipeline.definitions import build_definitions
    from usage_pipeline.defs.schedules import window_tags
    from usage_pipeline.demo.lake import add_week, write_demo_lake

    logging.disable(logging.INFO)
    demo = folder / "demo"
    shutil.rmtree(demo, ignore_errors=True)
    say(f"writing a demo lake of {accounts} accounts")
    write_demo_lake(demo, date(2026, 11, 22), accounts=accounts)
    for title in ("first, all weeks", "weekly, one new week"):
        settings = load_settings(demo / "sources.yaml")
        with dg.DagsterInstance.ephemeral() as instance:
            started = time.perf_counter()
            result = (
                build_definitions(settings)
                .resolve_job_def("refresh")
                .execute_in_process(
                    instance=instance,
                    tags=window_tags(settings.clock),
                    raise_on_error=False,
                    run_config={"loggers": {"console": {"config": {}}}},
                )
            )
            seconds = time.perf_counter() - started
            assert result.success
            steps = {s.step_key: s.end_time - s.start_time for s in instance.get_run_step_stats(result.run_id)}
        compute = sum(steps.values())
        say(
            f"refresh, {title}: {seconds:.0f} s, of which {compute:.0f} s in steps, {seconds - compute:.0f} s Dagster's"
        )
        for step, took in sorted(steps.items(), key=lambda item: -item[1])[:8]:
            say(f"    {took:6.1f} s  {step}")
        add_week(demo)
    shutil.rmtree(demo)


def activity(folder: Path) -> None:
    """States of every account, application and week of a fleet."""
    from benchmarks.activity import measure
    from benchmarks.ours import settings_of

    lake = folder / "few"
    write_lake(lake / "lake", weeks=2, events_a_week=1000)
    seconds = measure(settings_of(lake / "lake", lake / "out"))
    parts = ", ".join(f"{table} {took:.1f}" for table, took in seconds.items())
    say(f"activity of 3,000 accounts x 20 applications x 104 weeks: {sum(seconds.values()):.1f} s ({parts})")
    shutil.rmtree(lake)


def risks(folder: Path) -> None:
    """Learning and scoring the risks of every account and application of a fleet."""
    from benchmarks.ours import settings_of
    from benchmarks.risks import measure

    lake = folder / "few"
    write_lake(lake / "lake", weeks=2, events_a_week=1000)
    say("risks of 3,000 accounts x 20 applications x 104 weeks:")
    for name, took in measure(settings_of(lake / "lake", lake / "out")).items():
        say(f"  {name}: {took:.1f}")
    shutil.rmtree(lake)


def memory(folder: Path, events: int) -> None:
    """The peak of a process that reads one week of so many events."""
    week = folder / "one-week"
    shutil.rmtree(week, ignore_errors=True)
    say(f"writing a week of {events:,} events")
    write_lake(week / "lake", weeks=1, events_a_week=events)
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.ours", str(week / "lake"), str(week / "out")], cwd=REPO
    )
    peak, watched = 0, psutil.Process(process.pid)
    while process.poll() is None:
        try:
            peak = max(peak, watched.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.05)
    assert process.wait() == 0
    seconds = time.perf_counter() - started
    say(f"one week of {events:,} events: {seconds:.0f} s, peak {peak / 1e9:.2f} GB of memory")
    shutil.rmtree(week)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["peers", "growth", "activity", "risks", "refresh", "memory"])
    parser.add_argument("--events", type=int, default=25_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=REPO / "data" / "benchmarks")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    memory_gb = f"{psutil.virtual_memory().total / 1e9:.0f} GB"
    say(f"{platform.machine()}, {os.cpu_count()} cores, {memory_gb}, Python {platform.python_version()}")
    if "peers" in options.parts:
        peers(options.folder, options.events, 104, options.rounds)
    if "growth" in options.parts:
        growth(options.folder, options.events // 104)
    if "activity" in options.parts:
        activity(options.folder)
    if "risks" in options.parts:
        risks(options.folder)
    if "refresh" in options.parts:
        refresh(options.folder, 3000)
    if "memory" in options.parts:
        memory(options.folder, 2 * options.events)


if __name__ == "__main__":
    main()
