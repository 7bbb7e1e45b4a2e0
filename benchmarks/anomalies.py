"""Spikes and usage drops: ours and its peers on the same made-up series, tuned to the same number of false anomalies.

`make benchmark-anomalies` prints the tables of docs/benchmarks.md and writes its plots. The worlds are of
anomaly_worlds.py,
the peers of anomaly_peers.py and farrington.R; R is left out, and said to be, where it is not installed.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.anomaly_worlds import JUDGED_FROM, WEEKS, Event, World, make_world
from usage_pipeline.anomalies.detector import DECLINE, DROP, SHIFT_DOWN, SHIFT_UP, SPIKE, Judged, Series, judge, tail_z
from usage_pipeline.config.settings import AnomalySettings

REPO = Path(__file__).parents[1]
PEERS = REPO / ".venv-benchmarks" / "bin" / "python"
SERIES = 300
EVENTS_A_WEEK = 0.02
BUDGETS = {"down": 0.008, "up": 0.002}
MEANS = {"0.5 to 5": (0, 5), "5 to 20": (5, 20), "20 and more": (20, np.inf)}
Scores = dict[str, NDArray[np.float64]]
Anomalies = dict[str, NDArray[np.bool_]]


@dataclass
class Case:
    """One world, with the series that everybody is compared on."""

    seed: int
    world: World

    @property
    def rows(self) -> NDArray[np.int64]:
        return np.arange(SERIES)


def say(line: str = "") -> None:
    print(line, flush=True)


# ---------------------------------------------------------------- contestants


def oracle(world: World) -> Scores:
    """Knows the true mean and variance of every week, and sums one, two and four weeks."""
    counts = np.where(np.isnan(world.counts), world.mean, world.counts)
    found = []
    for window in (1, 2, 4):
        sums = [np.cumsum(x, axis=1) for x in (counts, world.mean, world.variance)]
        of_window = [s - np.pad(s, ((0, 0), (window, 0)))[:, : s.shape[1]] for s in sums]
        found.append(np.where(np.isnan(world.counts), np.nan, tail_z(*of_window)))
    return {"down": -np.fmin.reduce(found), "up": np.fmax.reduce(found[:2])}


def peer(name: str, case: Case, folder: Path) -> tuple[Scores, float]:
    """A peer's scores of the series compared, and its seconds; kept in `folder` for the next run."""
    kept = folder / f"{name}-{case.seed}.npz"
    if not kept.exists():
        counts, source, target = case.world.counts[case.rows], folder / "in.npz", folder / "out.npy"
        np.savez(source, counts=counts, judged_from=JUDGED_FROM)
        started = time.perf_counter()
        if name == "farrington":
            scores = farrington(counts, folder)
        else:
            script = str(REPO / "benchmarks" / "anomaly_peers.py")
            subprocess.run([str(PEERS), script, name, str(source), str(target)], check=True)
            scores = np.load(target)
        np.savez(kept, scores=scores, seconds=time.perf_counter() - started)
    with np.load(kept) as found:
        return {"down": -found["scores"], "up": found["scores"]}, float(found["seconds"])


def farrington(counts: NDArray[np.float64], folder: Path) -> NDArray[np.float64]:
    """Mean and dispersion by R; the tail, in both directions, as ours."""
    source, target = folder / "in.csv", folder / "out.csv"
    lines = (",".join("" if np.isnan(v) else str(int(v)) for v in week) for week in counts.T)
    source.write_text("\n".join(lines), encoding="utf-8")
    script = str(REPO / "benchmarks" / "farrington.R")
    command = [str(shutil.which("Rscript")), script, str(source), str(target), str(JUDGED_FROM)]
    subprocess.run(command, check=True, capture_output=True)
    found = np.genfromtxt(target, delimiter=",").T
    mean, dispersion = found[0::2], np.maximum(found[1::2], 1.0)
    scores = np.full(counts.shape, np.nan)
    there = ~np.isnan(mean) & ~np.isnan(counts)
    scores[there] = tail_z(counts[there], mean[there], dispersion[there] * mean[there])
    return scores


def ours(world: World, rules: AnomalySettings) -> Judged:
    return judge(Series(world.counts, world.application, world.working_days), rules)


def anomalies_of(found: Judged) -> Anomalies:
    return {"down": np.isin(found.kind, (DROP, SHIFT_DOWN, DECLINE)), "up": np.isin(found.kind, (SPIKE, SHIFT_UP))}


# ---------------------------------------------------------------- the same number of false anomalies


def tuned(cases: list[Case], scores: list[Scores]) -> list[Anomalies]:
    """Anomalies of scores, at the one limit for all cases that anomalies as many ordinary weeks as the budgets
    allow.
    """
    limits = {}
    for side, budget in BUDGETS.items():
        ordinary = np.concatenate(
            [s[side][:SERIES][c.world.ordinary()[c.rows]] for c, s in zip(cases, scores, strict=True)]
        )
        ordinary = np.where(np.isnan(ordinary), -np.inf, ordinary)
        limits[side] = np.partition(ordinary, -int(budget * len(ordinary)))[-int(budget * len(ordinary))]
    return [{side: np.nan_to_num(s[side], nan=-np.inf) >= limits[side] for side in BUDGETS} for s in scores]


def scores_of(found: Judged) -> Scores:
    """Normal values of the more telling side."""
    return {"down": -found.z, "up": found.z}


# ---------------------------------------------------------------- what is reported


def interval(hits: int, of: int) -> str:
    """Share with its 95 % interval (Wilson)."""
    if of == 0:
        return "-"
    share, z = hits / of, 1.96
    middle, half = share + z * z / (2 * of), z * np.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    low, high = (middle - half) / (1 + z * z / of), (middle + half) / (1 + z * z / of)
    return f"{100 * share:.0f} ({100 * max(low, 0):.0f}-{100 * min(high, 1):.0f})"


def found_events(
    cases: list[Case],
    anomalies: list[Anomalies],
    wanted: Callable[[Event], bool],
    means: tuple[float, float],
    rows: int,
) -> tuple[int, int, list[int]]:
    """Events found, events there, and after how many weeks."""
    hits, there, delays = 0, 0, []
    for case, anomaly in zip(cases, anomalies, strict=True):
        for event in case.world.events:
            span = slice(event.week, event.week + event.weeks)
            mean = case.world.mean[event.series, span].mean()
            is_known = not np.isnan(case.world.counts[event.series, span]).any()
            if event.series >= rows or not wanted(event) or not means[0] <= mean < means[1] or not is_known:
                continue
            seen = anomaly["up" if event.kind == "spike" else "down"][event.series, span]
            there += 1
            hits += bool(seen.any())
            delays += [int(np.argmax(seen))] if seen.any() else []
    return hits, there, delays


SHOWN: dict[str, Callable[[Event], bool]] = {
    "four weeks -30 %": lambda e: e.kind == "drop" and e.weeks == 4 and e.factor == 0.7,
    "four weeks -60 %": lambda e: e.kind == "drop" and e.weeks == 4 and e.factor == 0.4,
    "four weeks -100 %": lambda e: e.kind == "drop" and e.weeks == 4 and e.factor == 0,
    "one week -60 %": lambda e: e.kind == "drop" and e.weeks == 1 and e.factor == 0.4,
    "one week x2": lambda e: e.kind == "spike" and e.factor == 2,
    "one week x5": lambda e: e.kind == "spike" and e.factor == 5,
    "decline to 30 %": lambda e: e.kind == "decline",
}


def table(title: str, head: list[str], rows: Iterable[list[str]]) -> None:
    say(f"\n### {title}\n")
    say("| " + " | ".join(head) + " |")
    say("|" + "---|" * len(head))
    for row in rows:
        say("| " + " | ".join(row) + " |")


def report_false(cases: list[Case], named: dict[str, list[Anomalies]]) -> None:
    def line(name: str, anomalies: list[Anomalies]) -> list[str]:
        shares = []
        for is_holiday in (False, True):
            anomalous = []
            for case, anomaly in zip(cases, anomalies, strict=True):
                weeks = case.world.ordinary() & ((case.world.working_days < 1) == is_holiday)
                anomalous.append((anomaly["down"] | anomaly["up"])[case.rows][weeks[case.rows]])
            shares.append(f"{100 * np.concatenate(anomalous).mean():.2f} %")
        return [name, *shares]

    table(
        "False anomalies per series and week",
        ["method", "ordinary weeks", "holiday weeks"],
        [line(name, anomalies) for name, anomalies in named.items()],
    )


def report_found(cases: list[Case], named: dict[str, list[Anomalies]]) -> None:
    for means, bounds in MEANS.items():
        rows = []
        for name, anomalies in named.items():
            found = [found_events(cases, anomalies, wanted, bounds, SERIES) for wanted in SHOWN.values()]
            rows.append([name, *(interval(hits, there) for hits, there, _ in found)])
        counts = [str(found_events(cases, anomalies, wanted, bounds, SERIES)[1]) for wanted in SHOWN.values()]
        rows.append(["events", *counts])
        table(f"Events found, %, mean {means} a week", ["method", *SHOWN], rows)


def report_all(cases: list[Case], named: dict[str, list[Anomalies]]) -> None:
    """Over the whole fleets, where the peers would take hours: narrower intervals."""
    wanted = [SHOWN[name] for name in ("four weeks -30 %", "four weeks -60 %", "one week -60 %", "one week x2")]
    rows = []
    for name, anomalies in named.items():
        line = [name]
        for bounds in ((5, 20), (20, np.inf)):
            line += [interval(*found_events(cases, anomalies, event, bounds, 10**9)[:2]) for event in wanted]
        rows.append(line)
    kinds = ["four weeks -30 %", "-60 %", "one week -60 %", "x2"]
    head = [f"{means}: {kind}" for means in ("5 to 20", "20 and more") for kind in kinds]
    table("Events found, %, over all 2,000 series", ["method", *head], rows)


def report_account_applications(cases: list[Case], named: dict[str, list[Anomalies]]) -> None:
    """Drops of 60 % over four weeks, event by event: which are found by one of two only."""

    def seen(anomalies: list[Anomalies], bounds: tuple[float, float]) -> NDArray[np.bool_]:
        found = []
        for case, anomaly in zip(cases, anomalies, strict=True):
            for event in case.world.events:
                span = slice(event.week, event.week + event.weeks)
                mean = case.world.mean[event.series, span].mean()
                is_known = not np.isnan(case.world.counts[event.series, span]).any()
                if (
                    event.series < SERIES
                    and SHOWN["four weeks -60 %"](event)
                    and bounds[0] <= mean < bounds[1]
                    and is_known
                ):
                    found.append(anomaly["down"][event.series, span].any())
        return np.array(found)

    rows = []
    for name, anomalies in named.items():
        line = [name]
        for bounds in ((5, 20), (20, np.inf)):
            by_us, by_them = seen(named["ours"], bounds), seen(anomalies, bounds)
            line.append(f"{(by_us & ~by_them).sum()} : {(by_them & ~by_us).sum()}")
        rows.append(line)
    head = ["method", "5 to 20: by ours alone : by it alone", "20 and more: by ours alone : by it alone"]
    table("Drops of -60 % over four weeks, event by event", head, [r for r in rows if not r[0].startswith("ours")])


def report_delay(cases: list[Case], named: dict[str, list[Anomalies]]) -> None:
    rows = []
    for name, anomalies in named.items():
        line = [name]
        for bounds in ((5, 20), (20, np.inf)):
            hits, there, delays = found_events(cases, anomalies, SHOWN["four weeks -60 %"], bounds, SERIES)
            at_once = 100 * sum(d == 0 for d in delays) / max(there, 1)
            line += [f"{at_once:.0f} %", f"{np.mean(delays):.1f}" if hits else "-"]
        rows.append(line)
    head = ["method", "5 to 20: in the first week", "weeks late, where found"]
    head += ["20 and more: in the first week", "weeks late, where found"]
    table("Drops of -60 % over four weeks: when", head, rows)


def report_precision(cases: list[Case], strengths: dict[str, list[NDArray[np.float64]]], title: str) -> None:
    """Of the 20 strongest anomalies of each week over the whole platform, how many series are in an event."""
    rows = []
    for name, strength in strengths.items():
        right, real = [], []
        for case, score in zip(cases, strength, strict=True):
            happening = _happening(case.world)
            # the weeks after an event are neither right nor wrong
            score = np.where(happening | case.world.ordinary(), score, 0)
            for week in range(JUDGED_FROM, WEEKS):
                column = score[:, week]
                if not (column > 0).any():
                    continue
                order = np.argsort(-column)[:20]
                order = order[column[order] > 0]
                right.append(happening[order, week].mean())
                real.append(happening[:, week].sum())
        rows.append([name, f"{100 * np.mean(right):.0f} %", f"{np.mean(real):.0f}"])
    table(title, ["method", "right among the 20 strongest", "series in an event, a week"], rows)


def _happening(world: World) -> NDArray[np.bool_]:
    found = np.zeros(world.counts.shape, dtype=bool)
    for event in world.events:
        found[event.series, event.week : event.week + event.weeks] = True
    for series in np.flatnonzero(world.shift >= 0):
        found[series, world.shift[series] : world.shift[series] + 8] = True
    return found


def curves(cases: list[Case], scored: dict[str, list[Scores]]) -> dict[str, list[list[float]]]:
    """Drops by 60 % over four weeks: share of ordinary weeks anomalous, share found at mean 5 to 20, at 20 and more."""
    wanted = SHOWN["four weeks -60 %"]
    found: dict[str, list[list[float]]] = {}

    def point(anomalies: list[Anomalies]) -> list[float]:
        account_applications = [
            (f["down"][c.rows], c.world.ordinary()[c.rows]) for c, f in zip(cases, anomalies, strict=True)
        ]
        shares = [found_events(cases, anomalies, wanted, bounds, SERIES)[:2] for bounds in ((5, 20), (20, np.inf))]
        return [
            float(np.concatenate([anomaly[weeks] for anomaly, weeks in account_applications]).mean()),
            *(hits / max(there, 1) for hits, there in shares),
        ]

    for name, of_cases in scored.items():
        ordinary = [s["down"][:SERIES][c.world.ordinary()[c.rows]] for c, s in zip(cases, of_cases, strict=True)]
        limits = np.nanquantile(np.concatenate(ordinary), [0.97, 0.98, 0.985, 0.99, 0.992, 0.995, 0.997, 0.999])
        found[name] = []
        for limit in limits:
            anomalies = [np.nan_to_num(scores["down"], nan=-np.inf) >= limit for scores in of_cases]
            found[name].append(point([{"down": anomaly, "up": np.zeros_like(anomaly)} for anomaly in anomalies]))
    found["ours"] = [
        point([anomalies_of(ours(c.world, AnomalySettings(listed_share=share))) for c in cases])
        for share in (0.04, 0.03, 0.02, 0.015, 0.01, 0.006, 0.003, 0.001)
    ]
    return found


def example(case: Case) -> dict[str, list[Any]]:
    """A series of about 40 clicks a week with a drop, for a picture."""
    judged = ours(case.world, AnomalySettings())
    event = next(
        e
        for e in case.world.events
        if SHOWN["four weeks -60 %"](e)
        and 25 < case.world.mean[e.series, e.week] < 60
        and 20 < e.week - JUDGED_FROM < 40
    )
    mean, spread = judged.expected[event.series], 2 * np.sqrt(judged.variance[event.series])
    columns = {
        "counts": case.world.counts[event.series],
        "expected": mean,
        "low": np.maximum(mean - spread, 0),
        "high": mean + spread,
        "anomalous": judged.kind[event.series] > 0,
    }
    return {name: values[JUDGED_FROM - 26 :].tolist() for name, values in columns.items()}


def report_shifts(cases: list[Case], found: list[Judged]) -> None:
    told, late = [], []
    for case, judged in zip(cases, found, strict=True):
        for series in np.flatnonzero(case.world.shift >= 0):
            begin = case.world.shift[series]
            if case.world.mean[series, begin - 8 : begin].mean() < 20 or np.isnan(case.world.counts[series, -1]):
                continue
            kind = judged.kind[series, begin:]
            told.append(int(np.isin(kind, (SHIFT_UP, SHIFT_DOWN)).sum()))
            late.append((kind[12:] > 0).mean())
    table(
        "Lasting shifts (halved to doubled, mean 20 and more)",
        ["shifts", "told as a shift", "more than once", "weeks anomalous from the 13th on"],
        [[str(len(told)), f"{100 * np.mean(np.array(told) > 0):.0f} %", f"{100 * np.mean(np.array(told) > 1):.0f} %",
          f"{100 * np.mean(late):.1f} %"]],
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--peers", nargs="*", default=["rolling_z", "rolling_mad", "s_h_esd", "auto_ets", "farrington"])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "usage-pipeline-spikes")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if "farrington" in given.peers and not shutil.which("Rscript"):
        say("R is not installed (Debian: apt-get install r-cran-surveillance): Farrington is left out")
        given.peers.remove("farrington")
    say(f"{os.cpu_count()} cores; {given.seeds} worlds of 2,000 series, compared on {SERIES} of each over 52 weeks")
    cases = [Case(seed, make_world(seed, events_a_week=EVENTS_A_WEEK)) for seed in range(given.seeds)]

    named: dict[str, list[Anomalies]] = {}
    scored: dict[str, list[Scores]] = {}
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    found = [ours(case.world, AnomalySettings()) for case in cases]
    seconds["ours (2,000 series)"] = (time.perf_counter() - started) / len(cases)
    named["ours"] = tuned(cases, [scores_of(f) for f in found])
    named["ours, as shipped"] = [anomalies_of(f) for f in found]
    for name in given.peers:
        results = [peer(name, case, given.folder) for case in cases]
        named[name] = tuned(cases, [scores for scores, _ in results])
        seconds[name] = float(np.mean([took for _, took in results]))
        scored[name] = [scores for scores, _ in results]
    scored["oracle"] = [oracle(case.world) for case in cases]
    named["oracle"] = tuned(cases, scored["oracle"])

    report_false(cases, named)
    report_found(cases, named)
    report_account_applications(cases, named)
    whole = {"ours, as shipped": named["ours, as shipped"], "oracle": named["oracle"]}
    report_all(cases, whole)
    report_delay(cases, named)
    for rate, title in ((0.012, "events often"), (0.004, "events three times rarer")):
        worlds = [Case(c.seed, make_world(c.seed, events_a_week=rate)) for c in cases]
        by_us = [ours(c.world, AnomalySettings()) for c in worlds]
        by_oracle = [oracle(c.world) for c in worlds]
        strengths = {
            "ours": [np.where(f.kind > 0, np.abs(f.z), 0) for f in by_us],
            "oracle": [np.fmax(s["down"], s["up"]) for s in by_oracle],
        }
        report_precision(worlds, strengths, f"A week's 20 strongest, {title}")
    strong = [f.is_strong for f in found]
    every = sum(s[:, JUDGED_FROM:].sum() for s in strong)
    ordinary = sum((s & c.world.ordinary()).sum() for c, s in zip(cases, strong, strict=True))
    a_week = every / len(cases) / (WEEKS - JUDGED_FROM)
    say(f"\nstrong anomalies: {a_week:.1f} a week in 2,000 series, {100 * ordinary / every:.1f} % of them ordinary")
    report_shifts(cases, found)
    table(
        "Seconds",
        ["method", f"{SERIES} series, {WEEKS - JUDGED_FROM} weeks judged"],
        [[n, f"{s:.1f}"] for n, s in seconds.items()],
    )
    big = make_world(99, series=10_000, events_a_week=0)
    series = Series(big.counts[:, -104:], big.application, big.working_days[:, -104:])
    started = time.perf_counter()
    judge(series, AnomalySettings())
    say(f"\n10,000 series x 104 weeks: {time.perf_counter() - started:.1f} s")

    drawn = {"curves": curves(cases, scored), "example": example(cases[0])}
    (given.folder / "drawn.json").write_text(json.dumps(drawn), encoding="utf-8")
    script, target = REPO / "benchmarks" / "anomaly_plots.py", REPO / "docs" / "screenshots"
    subprocess.run([str(PEERS), str(script), str(given.folder / "drawn.json"), str(target)], check=True)
    say(f"plots: {target}/spikes-*.png")


if __name__ == "__main__":
    main()
