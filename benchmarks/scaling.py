"""Curves of growth: `make benchmark-scaling` (PARTS="3000 9000 30000": accounts of the demo lake).

For each size, one after the other: a demo lake of 20 applications and 104 weeks is written (left out), refreshed as a
whole and once more with one new week, each refresh in a process of its own whose memory and CPU are watched step by
step; then what lies on disk is weighed, and every chart's SQL is sent to the published build. That SQL is what Superset
makes of the dashboards as a reader opens them; it is asked of a Superset on the first size, once, and kept in
`queries.json`. CPU seconds are compared, since others on the machine prolong what a clock shows.

Figures of a size go to `figures-N.json` as soon as they are there; `--table` prints those that are.
"""

import argparse
import json
import logging
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import psutil

REPO = Path(__file__).parents[1]
DASHBOARDS = ("call-list", "applications-accounts", "usage-over-time", "changes", "low-inactive", "kpi-sheet")
ROUNDS = 7


def say(line: str = "") -> None:
    print(line, flush=True)


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


# ---------------------------------------------------------------- a refresh, in a process of its own


def refresh(demo: Path) -> dict[str, Any]:
    """Seconds, CPU seconds and peak of memory of every step of one refresh, through Dagster in this process."""
    import dagster as dg

    from usage_pipeline.config.settings import load_settings
    from usage_pipeline.definitions import build_definitions
    from usage_pipeline.defs.schedules import window_tags

    logging.disable(logging.INFO)
    watched: list[tuple[float, float, int]] = []
    begun: dict[str, tuple[float, float]] = {}
    done, myself = threading.Event(), psutil.Process()

    def tell(entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None or event.step_key is None:
            return
        if event.is_step_start:
            begun[event.step_key] = (time.time(), _cpu(myself))
        elif event.step_key in begun and (event.is_step_success or event.is_step_failure):
            at, cpu = begun[event.step_key]
            ended = "failed" if event.is_step_failure else "done"
            size = myself.memory_info().rss / 1e6
            took = f"{_cpu(myself) - cpu:.0f} CPU seconds in {time.time() - at:.0f}, {size:.0f} MB"
            if time.time() - at > 1 or event.is_step_failure:
                say(f"  {event.step_key} {ended}: {took}")

    def watch() -> None:
        while not done.wait(0.1):
            watched.append((time.time(), _cpu(myself), myself.memory_info().rss))

    settings = load_settings(demo / "sources.yaml")
    definitions = build_definitions(settings)
    groups = {n.key.to_user_string(): n.group_name for n in definitions.resolve_asset_graph().asset_nodes}
    threading.Thread(target=watch, daemon=True).start()
    with dg.DagsterInstance.ephemeral() as instance:
        run_id = str(uuid4())
        instance.add_event_listener(run_id, tell)
        started = time.perf_counter()
        result = definitions.resolve_job_def("refresh").execute_in_process(
            instance=instance,
            run_id=run_id,
            tags=window_tags(settings.clock),
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {}}}},
        )
        seconds = time.perf_counter() - started
        done.set()
        steps = {}
        for step in instance.get_run_step_stats(result.run_id):
            if step.start_time is None or step.end_time is None:
                continue
            during = [(cpu, size) for at, cpu, size in watched if step.start_time - 0.1 <= at <= step.end_time + 0.1]
            steps[step.step_key] = {
                "seconds": step.end_time - step.start_time,
                "cpu": during[-1][0] - during[0][0] if during else 0,
                "mb": max((size for _, size in during), default=0) / 1e6,
                "group": groups.get(step.step_key, "other"),
            }
        failed = [e.step_key for e in result.get_step_failure_events()] if not result.success else []
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    cpu = _cpu(psutil.Process())
    return {"seconds": seconds, "cpu": cpu, "peak_mb": peak, "steps": steps, "failed": failed}


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def refreshed(demo: Path) -> dict[str, Any]:
    """The same, in a child that says each step as it ends; where the child dies, how."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.scaling", "--refresh", str(demo)]
    last = ""
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=errors, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if line.startswith("  "):
                    say(line.rstrip())
                else:
                    last = line
        if child.returncode:
            errors.seek(0)
            lines = errors.read().strip().splitlines() or ["without a word"]
            return {"died": child.returncode, "said": lines[-1][:500]}
    figures: dict[str, Any] = json.loads(last)
    return figures


# ---------------------------------------------------------------- what lies on disk, and what charts cost


def weight(folder: Path) -> float:
    """MB of a file or of all below a folder."""
    files = [folder] if folder.is_file() else [f for f in folder.rglob("*") if f.is_file() and not f.is_symlink()]
    return sum(file.stat().st_size for file in files) / 1e6


def queries_of(demo: Path) -> dict[str, dict[str, list[str]]]:
    """SQL by dashboard and chart, as a Superset that is set up on this lake makes it."""
    from benchmarks.dashboards import Client, serving
    from usage_pipeline.config.settings import load_settings

    settings = load_settings(demo / "sources.yaml")
    folder = settings.home.root / "benchmark"
    found: dict[str, dict[str, list[str]]] = {}
    with serving(settings, folder) as url:
        client = Client(url, folder)
        for slug in DASHBOARDS:
            for name, body in client.page(slug):
                _, results = client.ask(body)
                found.setdefault(slug, {}).setdefault(name, []).extend(r["query"] for r in results)
    return found


def charts(build: Path, queries: dict[str, dict[str, list[str]]]) -> list[tuple[str, str, float]]:
    """Dashboard, chart, least seconds of its SQL on one build, with the threads and memory that Superset gives."""
    options = {"threads": 2, "memory_limit": "1GB"}
    times = []
    with duckdb.connect(str(build / "warehouse.duckdb"), read_only=True, config=options) as duck:
        for slug, by_chart in queries.items():
            for name, statements in by_chart.items():
                seconds = []
                for _ in range(ROUNDS):
                    started = time.perf_counter()
                    for sql in statements:
                        duck.execute(sql).fetchall()
                    seconds.append(time.perf_counter() - started)
                times.append((slug, name, min(seconds)))
    return times


# ---------------------------------------------------------------- one size


def measure(folder: Path, accounts: int, *, keep: bool, once: bool) -> None:
    from usage_pipeline.config.settings import load_settings
    from usage_pipeline.demo.lake import add_week, write_demo_lake
    from usage_pipeline.publishing.builds import store_of

    demo, file = folder / f"demo-{accounts}", folder / f"figures-{accounts}.json"
    shutil.rmtree(demo, ignore_errors=True)
    say(f"{accounts} accounts: writing the lake")
    write_demo_lake(demo, date(2026, 11, 22), accounts=accounts, seed=7)
    usage = demo / "lake" / "usage"
    figures: dict[str, Any] = {
        "accounts": accounts,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB",
        "lake_mb": weight(usage),
        "rows": duckdb.execute(f"SELECT count(*) FROM read_parquet('{usage}/**/*.parquet')").fetchall()[0][0],
    }

    def note(what: str, of: Callable[[], Any]) -> Any:
        figures[what] = of()
        file.write_text(json.dumps(figures, indent=1), encoding="utf-8")
        return figures[what]

    for what in ("first", "weekly")[: 1 if once else 2]:
        load = f", load before {os.getloadavg()[0]:.1f}"
        found = note(what, lambda: refreshed(demo))
        if "died" in found or found["failed"]:
            say(f"{accounts} accounts: the {what} refresh stopped: {found.get('said') or found['failed']}")
            return
        took = f"{found['cpu']:.0f} CPU seconds in {found['seconds']:.0f} s, peak {found['peak_mb']:.0f} MB"
        say(f"{accounts} accounts: {what} refresh {took}{load}")
        if what == "first" and not once:
            add_week(demo)
    settings = load_settings(demo / "sources.yaml")
    current = store_of(settings.home, settings.publish).current()
    assert current is not None
    build = store_of(settings.home, settings.publish).path(current.build_id)
    places = {"facts": settings.home.facts_dir, "warehouse": settings.home.warehouse_path, "build": build}
    note("mb", lambda: {name: weight(place) for name, place in places.items()})
    note("build_rows", lambda: current.rows)
    kept = folder / "queries.json"
    if not kept.exists():
        kept.write_text(json.dumps(queries_of(demo), indent=1), encoding="utf-8")
    note("charts", lambda: charts(build, json.loads(kept.read_text(encoding="utf-8"))))
    say(f"{accounts} accounts: done")
    if not keep:
        shutil.rmtree(demo)


# ---------------------------------------------------------------- tables


def table(folder: Path) -> None:
    files = sorted(folder.glob("figures-*.json"), key=lambda f: int(f.stem.split("-")[1]))
    sizes = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    say(f"\n| {sizes[0]['machine']} | {' | '.join(format(f['accounts'], ',') for f in sizes)} | last : first |")
    say(f"|---|{'---|' * len(sizes)}---|")
    for what, cells in rows(sizes):
        numbers = [c for c in cells if isinstance(c, float | int)]
        grew = f"{numbers[-1] / numbers[0]:.1f}" if len(numbers) == len(cells) > 1 and numbers[0] else ""
        said = [c if isinstance(c, str) else _short(c) for c in cells]
        say(f"| {what} | {' | '.join(said)} | {grew} |")


def rows(sizes: list[dict[str, Any]]) -> Iterator[tuple[str, list[float | str]]]:
    def each(of: Callable[[dict[str, Any]], float]) -> list[float | str]:
        found: list[float | str] = []
        for figures in sizes:
            try:
                found.append(of(figures))
            except (KeyError, ValueError):
                found.append("")
        return found

    yield "rows of usage, millions", each(lambda f: f["rows"] / 1e6)
    yield "lake, MB", each(lambda f: f["lake_mb"])
    for name in ("facts", "warehouse", "build"):
        yield f"{name}, MB", each(lambda f, name=name: f["mb"][name])  # type: ignore[misc]
    for what in ("first", "weekly"):
        yield f"**{what} refresh**, CPU seconds", each(lambda f, what=what: f[what]["cpu"])  # type: ignore[misc]
        yield f"{what}, seconds on the clock", each(lambda f, what=what: f[what]["seconds"])  # type: ignore[misc]
        yield f"{what}, peak MB", each(lambda f, what=what: f[what]["peak_mb"])  # type: ignore[misc]
        groups = sorted({s["group"] for f in sizes for s in f.get(what, {}).get("steps", {}).values()})
        for group in groups:
            yield f"{what}: group {group}", each(lambda f, w=what, g=group: _group(f[w], g))  # type: ignore[misc]
        last = next((f[what]["steps"] for f in reversed(sizes) if f.get(what, {}).get("steps")), {})
        for step in sorted(last, key=lambda s: -last[s]["cpu"])[:10]:
            yield f"{what}: {step}", each(lambda f, w=what, s=step: f[w]["steps"][s]["cpu"])  # type: ignore[misc]
        for step in sorted(last, key=lambda s: -last[s]["mb"])[:5]:
            yield f"{what}: {step}, peak MB", each(lambda f, w=what, s=step: f[w]["steps"][s]["mb"])  # type: ignore[misc]
    for slug in DASHBOARDS:
        for share, title in ((0.5, "p50"), (0.95, "p95"), (1.0, "slowest")):
            yield (
                f"charts of {slug}, {title}, s",
                each(lambda f, slug=slug, share=share: quantile([s for d, _, s in f["charts"] if d == slug], share)),  # type: ignore[misc]
            )


def _group(refresh: dict[str, Any], group: str) -> float:
    return sum(float(step["cpu"]) for step in refresh["steps"].values() if step["group"] == group)


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.1f}" if number >= 1 else f"{number:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("accounts", nargs="*", type=int, default=[3000, 9000, 30000])
    parser.add_argument("--folder", type=Path, default=REPO / "data" / "benchmarks" / "scaling")
    parser.add_argument("--keep", action="store_true", help="leave the lakes and what was made of them")
    parser.add_argument("--once", action="store_true", help="only the first refresh, without the week after it")
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    parser.add_argument("--refresh", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.refresh:
        print(json.dumps(refresh(options.refresh)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    if not options.table:
        for accounts in options.accounts:
            measure(options.folder, accounts, keep=options.keep, once=options.once)
    table(options.folder)


if __name__ == "__main__":
    main()
