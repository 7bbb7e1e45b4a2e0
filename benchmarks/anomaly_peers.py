"""What the field ships, on weekly counts: each gives a score a week, higher for more, from the weeks before it only.

Run in the benchmarks' own environment: `python anomaly_peers.py NAME IN.npz OUT.npy`. IN holds counts (n, T) with
NaN and the first week to judge; OUT is (n, T), standard deviations or the like.
"""

import sys
import warnings

import numpy as np
import pandas as pd

HISTORY = 26
YEAR = 52


def rolling(counts, center, spread):
    """The last 26 known weeks: how far is this one from their middle?"""
    frame = pd.DataFrame(counts.T)
    before = frame.shift(1).rolling(HISTORY, min_periods=8)
    return ((frame - center(before)) / np.maximum(spread(before), 0.5)).to_numpy().T


def rolling_z(counts, _):
    return rolling(counts, lambda weeks: weeks.mean(), lambda weeks: weeks.std())


def rolling_mad(counts, _):
    def mad(weeks):
        return 1.4826 * weeks.apply(lambda x: np.nanmedian(np.abs(x - np.nanmedian(x))), raw=True)

    return rolling(counts, lambda weeks: weeks.median(), mad)


def s_h_esd(counts, judged_from):
    """Seasonal hybrid ESD: what STL's season and the median leave over, in robust deviations."""
    from statsmodels.tsa.seasonal import STL

    scores = np.full(counts.shape, np.nan)
    for i, line in enumerate(counts):
        for week in range(judged_from, len(line)):
            history = line[: week + 1]
            known = np.flatnonzero(~np.isnan(history))
            if np.isnan(history[-1]) or len(known) < 8:
                continue
            values = np.interp(np.arange(known[0], week + 1), known, history[known])
            left = values - np.median(values)
            if len(values) >= 2 * YEAR:
                left = left - STL(values, period=YEAR).fit().seasonal
            middle = np.median(left)
            scores[i, week] = (left[-1] - middle) / max(1.4826 * np.median(np.abs(left - middle)), 0.5)
    return scores


def auto_ets(counts, judged_from):
    """A band around AutoETS's forecast, one to four weeks ahead: fitted anew every four weeks."""
    from statsforecast import StatsForecast
    from statsforecast.models import AutoETS

    scores, step = np.full(counts.shape, np.nan), 4
    for start in range(judged_from, counts.shape[1], step):
        frames = []
        for i, line in enumerate(counts[:, :start]):
            known = np.flatnonzero(~np.isnan(line))
            # a subscription that has ended, or hardly begun, is not forecast
            if len(known) < 12 or start - known[-1] > 3:
                continue
            values = np.interp(np.arange(known[0], start), known, line[known])
            frames.append(pd.DataFrame({"unique_id": i, "ds": np.arange(known[0], start), "y": values}))
        found = StatsForecast(models=[AutoETS(season_length=1)], freq=1, n_jobs=1).forecast(
            df=pd.concat(frames), h=min(step, counts.shape[1] - start), level=[68.27]
        )
        i, week = found["unique_id"].to_numpy(), found["ds"].to_numpy()
        spread = (found["AutoETS-hi-68.27"] - found["AutoETS-lo-68.27"]).to_numpy() / 2
        scores[i, week] = (counts[i, week] - found["AutoETS"].to_numpy()) / np.maximum(spread, 0.5)
    return scores


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    name, source, target = sys.argv[1:]
    given = np.load(source)
    np.save(target, globals()[name](given["counts"], int(given["judged_from"])))
