"""Anomalies in worlds that were written without looking at the detector: what it lists, what is right, what it misses.

`make benchmark-strangers` prints the tables of docs/benchmarks.md. Seeds for tuning and seeds kept unseen stand in
`worlds/__init__.py`; the tables are of the latter.
"""

import argparse
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.anomalies import interval, scores_of, table
from benchmarks.pooled import oracle, scores
from benchmarks.worlds import SEEDS_FOR_TUNING, SEEDS_KEPT_UNSEEN, CommonEvent, Event, World
from usage_pipeline.anomalies import usage_anomalies
from usage_pipeline.anomalies.detector import Judged, Series, judge
from usage_pipeline.config.settings import AnomalySettings

FAMILIES = ("agents", "mixed", "resampled")
FALSE_DOWN, FALSE_UP = 0.008, 0.002
SIZES = {"under 5": (0, 5), "5 to 20": (5, 20), "20 to 100": (20, 100), "100 and more": (100, np.inf)}
SCATTERS = {"under .25": (0, 0.25), ".25 to .5": (0.25, 0.5), ".5 and more": (0.5, np.inf)}
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def ours(world: World, rules: AnomalySettings | None = None) -> Judged:
    return judge(Series(world.counts, world.application, world.working_days), rules or AnomalySettings())


def cells(world: World) -> dict[tuple[str, str], Bools]:
    """Series by their typical mean and by the scatter that is not counting noise."""
    judged = np.s_[:, world.judged_from :]
    mean = np.median(world.mean[judged], axis=1)
    extra = np.maximum(world.variance[judged] - world.mean[judged], 0) / np.maximum(world.mean[judged], 1e-9) ** 2
    cv = np.sqrt(np.median(extra, axis=1))
    return {
        (size, scatter): (mean >= low) & (mean < high) & (cv >= least) & (cv < most)
        for size, (low, high) in SIZES.items()
        for scatter, (least, most) in SCATTERS.items()
    }


def drops_by_60(world: World, low: float, high: float) -> list[Event]:
    found = []
    for event in world.events:
        span = np.s_[event.series, event.week : event.week + event.weeks]
        is_wanted = event.kind == "drop" and event.weeks == 4 and event.factor == 0.4
        if is_wanted and low <= world.mean[span].mean() < high and not np.isnan(world.counts[span]).any():
            found.append(event)
    return found


def share_found(worlds: list[World], listed: list[Bools], low: float, high: float) -> tuple[int, int]:
    hits = there = 0
    for world, weeks in zip(worlds, listed, strict=True):
        events = drops_by_60(world, low, high)
        there += len(events)
        hits += sum(bool(weeks[e.series, e.week : e.week + e.weeks].any()) for e in events)
    return hits, there


def at_limit(worlds: list[World], of: list[dict[str, Floats]], side: str, share: float) -> list[Bools]:
    """Weeks beyond the limit that lists `share` of the ordinary ones."""
    ordinary = np.concatenate(
        [np.nan_to_num(s[side], nan=-np.inf)[w.ordinary()] for w, s in zip(worlds, of, strict=True)]
    )
    limit = np.partition(ordinary, -int(share * len(ordinary)))[-int(share * len(ordinary))]
    return [np.nan_to_num(s[side], nan=-np.inf) >= limit for s in of]


def report(family: str, worlds: list[World], rules: AnomalySettings | None = None) -> dict[str, Any]:
    """Prints what came out in one family of worlds."""
    started = time.perf_counter()
    found = [ours(w, rules) for w in worlds]
    took = time.perf_counter() - started
    listed = [f.kind > 0 for f in found]
    ordinary = [w.ordinary() for w in worlds]
    false = np.concatenate([a[o] for a, o in zip(listed, ordinary, strict=True)]).mean()
    holiday = np.concatenate(
        [a[o & (w.working_days < 1)] for a, o, w in zip(listed, ordinary, worlds, strict=True)] or [np.zeros(1)]
    )
    rows = []
    for scatter in SCATTERS:
        line = [scatter]
        for size in SIZES:
            inside = [cells(w)[size, scatter][:, None] & o for w, o in zip(worlds, ordinary, strict=True)]
            of_cell = np.concatenate([a[i] for a, i in zip(listed, inside, strict=True)])
            line.append(f"{100 * of_cell.mean():.2f} ({len(of_cell) // 1000}k)" if len(of_cell) > 500 else "-")
        rows.append(line)
    print(
        f"\n## {family}: {100 * false:.2f} % of ordinary weeks listed, {100 * holiday.mean():.2f} % of holiday weeks; "
        f"{took / len(worlds):.1f} s a world"
    )
    table("Ordinary weeks listed, %, by scatter (rows) and mean (columns)", ["", *SIZES], rows)
    by_pooled, by_oracle = [scores(w) for w in worlds], [oracle(w) for w in worlds]
    report_right(worlds, found, ordinary, by_oracle)
    report_common(worlds, found, rules or AnomalySettings())
    by_us = [scores_of(f) for f in found]
    methods: dict[str, Callable[[], list[Bools]]] = {
        "ours, as shipped": lambda: [a & (np.nan_to_num(f.z) < 0) for a, f in zip(listed, found, strict=True)],
        "ours": lambda: at_limit(worlds, by_us, "down", FALSE_DOWN),
        "pooled reference": lambda: at_limit(worlds, by_pooled, "down", FALSE_DOWN),
        "truth": lambda: at_limit(worlds, by_oracle, "down", FALSE_DOWN),
    }
    lines = []
    for name, weeks_of in methods.items():
        weeks = weeks_of()
        lines.append(
            [name, *(interval(*share_found(worlds, weeks, low, high)) for low, high in ((5, 20), (20, np.inf)))]
        )
    table("Drops by 60 % over four weeks, found, %", ["method", "mean 5 to 20", "20 and more"], lines)
    return {"false": false}


def report_right(
    worlds: list[World], found: list[Judged], ordinary: list[Bools], by_oracle: list[dict[str, Floats]]
) -> None:
    high = [f.is_strong for f in found]
    happening = [w.happening() for w in worlds]
    right = sum((h & e).sum() for h, e in zip(high, happening, strict=True))
    wrong = sum((h & o).sum() for h, o in zip(high, ordinary, strict=True))
    share = np.mean([e[:, w.judged_from :].mean() for e, w in zip(happening, worlds, strict=True)])
    medium = [(f.kind > 0) & ~f.is_strong for f in found]
    medium_right = int(sum((m & e).sum() for m, e in zip(medium, happening, strict=True)))
    medium_wrong = int(sum((m & o).sum() for m, o in zip(medium, ordinary, strict=True)))
    by_us = strongest_right(worlds, [np.where(f.kind > 0, np.abs(f.z), 0) for f in found])
    by_truth = strongest_right(worlds, [np.fmax(s["down"], s["up"]) for s in by_oracle])
    at_best = [
        min(int((e & (f.kind > 0))[:, week].sum()), 20) / max(min(int((f.kind > 0)[:, week].sum()), 20), 1)
        for w, f, e in zip(worlds, found, happening, strict=True)
        for week in range(w.judged_from, w.counts.shape[1])
    ]
    print(
        f"\n{100 * share:.1f} % of series-weeks are events; high confidence: {int(right + wrong)}, of them right "
        f"{interval(int(right), int(right + wrong))} %; "
        f"medium: {interval(medium_right, medium_right + medium_wrong)} %; "
        f"a week's 20 strongest right: {100 * by_us:.0f} %, of those listed at most {100 * np.mean(at_best):.0f} %, "
        f"by the truth {100 * by_truth:.0f} %"
    )


def strongest_right(worlds: list[World], strengths: list[Floats]) -> float:
    """Of the 20 series that lie farthest out in each week, the share that is in an event; the mean of all weeks."""
    right: list[float] = []
    for world, strength in zip(worlds, strengths, strict=True):
        happening = world.happening()
        score = np.where(happening | world.ordinary(), np.nan_to_num(strength), 0)
        for week in range(world.judged_from, score.shape[1]):
            order = np.argsort(-score[:, week])[:20]
            order = order[score[order, week] > 0]
            if len(order):
                right.append(float(happening[order, week].mean()))
    return float(np.mean(right))


def report_common(worlds: list[World], found: list[Judged], rules: AnomalySettings) -> None:
    """Of the events of applications and of all, how many are planted ones, or seasons and drifts of the true mean."""
    planted = moved = told = there = met = 0
    for world, judged in zip(worlds, found, strict=True):
        events = common_events(world, judged, rules)
        told += len(events)
        is_planted = [any(is_about(event, common) for common in world.common) for event in events]
        planted += sum(is_planted)
        moved += sum(bears_out(world, e) for e, known in zip(events, is_planted, strict=True) if not known)
        there += len(world.common)
        met += sum(any(is_about(event, common) for event in events) for common in world.common)
    print(
        f"\ncommon events: {told} told, planted {interval(planted, told)} %; "
        f"{moved} others are moves that the true mean makes, true with those {interval(planted + moved, told)} %; "
        f"{met} of {there} planted ones are told"
    )


def common_events(world: World, judged: Judged, rules: AnomalySettings) -> list[dict[str, Any]]:
    """Events of applications (from 0) and of all (-1) in the weeks judged: kind, weeks, observed and expected."""
    keys = np.arange(world.application.max() + 1)
    rows = usage_anomalies._of_applications(judged, world.counts, world.application, keys, rules).to_dict("records")
    of_all = usage_anomalies._of_everything(judged, world.counts, rules).to_dict("records")
    events: dict[tuple[int, str, int], dict[str, Any]] = {}
    for row in [*rows, *(row | {"application": -1} for row in of_all)]:
        if row["week"] < world.judged_from:
            continue
        event = events.setdefault(
            (int(row["application"]), row["kind"], int(row["first"])),
            {
                "application": int(row["application"]),
                "kind": row["kind"],
                "weeks": [],
                "observed": 0.0,
                "expected": 0.0,
            },
        )
        event["weeks"].append(int(row["week"]))
        event["observed"] += row["observed"]
        event["expected"] += row["expected"]
    return list(events.values())


def is_about(event: dict[str, Any], common: CommonEvent) -> bool:
    """Whether an event lies in a planted one or in the four weeks after it, in which its end is told."""
    if event["application"] != common.application:
        return False
    return any(common.week <= week < common.week + common.weeks + 4 for week in event["weeks"])


def bears_out(world: World, event: dict[str, Any]) -> bool:
    """Whether the true mean goes at least half of the way from what was expected to what came."""
    of = (
        np.ones(len(world.counts), dtype=bool)
        if event["application"] < 0
        else world.application == event["application"]
    )
    weeks = sorted(set(event["weeks"]))
    known = ~np.isnan(world.counts[np.ix_(of, weeks)])
    true = float(world.mean[np.ix_(of, weeks)][known].sum())
    half = (event["observed"] + event["expected"]) / 2
    return true <= half if event["observed"] < event["expected"] else true >= half


def worlds_of(family: str, seeds: range) -> list[World]:
    make = import_module(f"benchmarks.worlds.{family}").make
    return [make(seed) for seed in seeds]


def shapes() -> None:
    from benchmarks.worlds.shapes import SHAPES

    rows = []
    for name, make in SHAPES.items():
        world = make(1)
        judged = ours(world)
        listed, ordinary = judged.kind > 0, world.ordinary()
        events = sum(bool(listed[e.series, e.week : e.week + max(e.weeks, 8)].any()) for e in world.events)
        rows.append(
            [
                name,
                f"{100 * listed[ordinary].mean():.2f}" if ordinary.any() else "-",
                f"{100 * judged.is_strong[ordinary].mean():.2f}" if ordinary.any() else "-",
                f"{events} of {len(world.events)}",
            ]
        )
    table("Shapes", ["world", "ordinary weeks listed, %", "with high confidence, %", "events found"], rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tuning", action="store_true", help="the seeds that tuning may look at")
    parser.add_argument("--families", nargs="*", default=FAMILIES)
    parser.add_argument("--shapes", action="store_true")
    parser.add_argument("--seeds", type=int, default=4)
    given = parser.parse_args()
    seeds = list(SEEDS_FOR_TUNING if given.tuning else SEEDS_KEPT_UNSEEN)[: given.seeds]
    for family in given.families:
        report(family, worlds_of(family, range(seeds[0], seeds[-1] + 1)))
    if given.shapes:
        shapes()


if __name__ == "__main__":
    main()
