"""Anomalies on usage: the subscription weeks taken through the detector, each measure by itself, and what it finds
put into words' reach.

Belongs here: from tables to arrays and back. Does not: what is out of the ordinary (`spikes.py`).
"""

from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr

from usage_pipeline.anomalies.common_events import Together, common_moves, slow_losses, usual_error
from usage_pipeline.anomalies.detector import KINDS, VERSION, Judged, Series, judge
from usage_pipeline.anomalies.holidays import is_known, working_days
from usage_pipeline.config.settings import AnomalySettings
from usage_pipeline.core.sql import load_sql
from usage_pipeline.core.weeks import weeks_between
from usage_pipeline.publishing.history import ANOMALIES, Proposal, propose_newest_week

# what is counted, and the column of the subscription weeks
MEASURES = {"clicks": "clicks", "records": "records_created", "users": "active_users"}
ANOMALY_COLUMNS = {
    "scope": "VARCHAR",
    "measure": "VARCHAR",
    "week_start": "DATE",
    "account_id": "VARCHAR",
    "application": "VARCHAR",
    "kind": "VARCHAR",
    "confidence": "VARCHAR",
    "weeks": "INTEGER",
    "observed": "DOUBLE",
    "expected": "DOUBLE",
    "variance": "DOUBLE",
    "p_value": "DOUBLE",
    "z": "DOUBLE",
    "basis": "VARCHAR",
    "peers_change": "DOUBLE",
    "accounts": "INTEGER",
    "accounts_moved": "INTEGER",
    "first_week": "DATE",
    "last_week": "DATE",
    "state": "VARCHAR",
    "is_new": "BOOLEAN",
    "method": "VARCHAR",
}
# of `core.expected_usage`
EXPECTED_COLUMNS = (
    "account_application_id",
    "week_start",
    "clicks_before",
    "common_spread",
    *(f"{kind}_{measure}" for measure in MEASURES for kind in ("expected", "variance")),
)
# of `core.anomaly_rates`
RATE_COLUMNS = {
    "measure": "VARCHAR",
    "is_calibrated": "BOOLEAN",
    "weeks_counted": "INTEGER",
    "account_weeks": "BIGINT",
    "listed": "BIGINT",
    "with_high_confidence": "BIGINT",
}
# thresholds are learned on the weeks before each, so that what is listed of the newest ones was not learned from
_COUNTED_WEEKS = 26
Floats = NDArray[np.float64]


def replace_anomalies(connection: duckdb.DuckDBPyConnection, rules: AnomalySettings) -> dict[str, Any]:
    """Replaces `core.anomalies` and `core.expected_usage`; returns what there is to say of the run."""
    span = connection.execute("SELECT min(week_start), max(week_start) FROM core.weeks WHERE is_complete").fetchone()
    assert span is not None
    weeks = list(weeks_between(span[0], span[1])) if span[0] else []
    account_applications = connection.execute(load_sql("anomalies", "series")).df()
    subscription_weeks = (
        connection.execute(load_sql("anomalies", "series_weeks"), {"first": span[0]}).df() if weeks else pd.DataFrame()
    )
    expected = (
        subscription_weeks[["account_application_id", "week"]].copy()
        if len(subscription_weeks)
        else pd.DataFrame({"account_application_id": [], "week": []})
    )
    expected["clicks_before"], expected["common_spread"] = np.nan, 0.0
    found: list[pd.DataFrame] = []
    rates: list[dict[str, Any]] = []
    number, keys = pd.factorize(account_applications["application"])
    application = number.astype(np.int64)
    days = _days_of(account_applications, weeks) if len(subscription_weeks) else np.empty((0, 0))
    for measure, column in MEASURES.items():
        mean = variance = np.full(len(subscription_weeks), np.nan)
        if len(subscription_weeks) and subscription_weeks[column].notna().any():
            row, week = subscription_weeks["series"].to_numpy(), subscription_weeks["week"].to_numpy()
            counts = np.full(days.shape, np.nan)
            counts[row, week] = subscription_weeks[column].to_numpy(dtype=float, na_value=np.nan)
            floor = rules.absolute_floor_users if measure == "users" else rules.absolute_floor
            judged = judge(Series(counts, application, days), rules, floor)
            anomalies = [
                _of_accounts(judged, account_applications, application, weeks, rules),
                _of_applications(judged, counts, application, np.asarray(keys), rules),
                _of_everything(judged, counts, rules),
            ]
            found += [frame.assign(measure=measure) for frame in anomalies]
            rates.append({"measure": measure, **_rates(judged)})
            mean, variance = judged.expected[row, week], judged.variance[row, week]
            if measure == "clicks":
                expected["clicks_before"] = judged.expected_before[row, week]
                expected["common_spread"] = _spread(judged)
        expected[f"expected_{measure}"], expected[f"variance_{measure}"] = mean, variance
    _write(connection, found, expected, weeks)
    _write_rates(connection, rates)
    unknown = account_applications.loc[
        [not is_known(c) for c in account_applications["country"]], "account_id"
    ].nunique()
    return {"weeks_judged": len(weeks), "accounts_without_known_holidays": int(unknown)}


def _rates(judged: Judged) -> dict[str, Any]:
    """How many of the newest account-weeks were listed."""
    newest = np.s_[:, -_COUNTED_WEEKS:]
    there = ~np.isnan(judged.expected[newest])
    return {
        "is_calibrated": judged.is_calibrated,
        "weeks_counted": int(there.any(axis=0).sum()),
        "account_weeks": int(there.sum()),
        "listed": int((judged.kind[newest] > 0).sum()),
        "with_high_confidence": int(judged.is_strong[newest].sum()),
    }


def _write_rates(connection: duckdb.DuckDBPyConnection, rates: list[dict[str, Any]]) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in RATE_COLUMNS.items())
    connection.execute(f"CREATE OR REPLACE TABLE core.anomaly_rates ({columns})")
    for row in rates:
        marks = ", ".join(f"${name}" for name in RATE_COLUMNS)
        connection.execute(f"INSERT INTO core.anomaly_rates VALUES ({marks})", row)


def _days_of(account_applications: pd.DataFrame, weeks: list[date]) -> Floats:
    """Working days of every account x application and week, as a share of five."""
    places = (
        account_applications[["country", "state"]]
        .astype(object)
        .where(account_applications[["country", "state"]].notna(), None)
    )
    number, place = pd.factorize(pd.MultiIndex.from_frame(places))
    table = np.stack([working_days(country, state, weeks) for country, state in place])
    found: Floats = table[number]
    return found


def _of_accounts(
    judged: Judged,
    account_applications: pd.DataFrame,
    application: NDArray[Any],
    weeks: list[date],
    anomalies: AnomalySettings,
) -> pd.DataFrame:
    row, week = np.nonzero(judged.kind)
    at = (row, week)
    frame = pd.DataFrame(
        {
            "scope": "account",
            "week": week,
            "account_id": account_applications["account_id"].to_numpy()[row],
            "application": account_applications["application"].to_numpy()[row],
            "kind": np.array(KINDS)[judged.kind[at]],
            "confidence": np.where(judged.is_strong[at], "high", "medium"),
            "weeks": judged.window[at],
            "observed": judged.observed_in_window[at],
            "expected": judged.expected_in_window[at],
            "variance": judged.variance_in_window[at],
            "z": judged.z[at],
            "basis": np.where(judged.weeks_known[at] < anomalies.minimum_weeks, "peers", "own level"),
            "first": judged.first_week[at],
            "is_new": judged.is_new[at],
            "peers_change": np.where(
                np.bincount(application)[application[row]] > 1, _change_of_peers(judged)[application[row], week], np.nan
            ),
        }
    )
    return _with_state(frame, ["account_id", "application"], len(weeks))


def _spread(judged: Judged) -> float:
    """By what share all accounts of an application err together, when nobody's week is known yet."""
    return usual_error(np.log(judged.factor / judged.factor_before))


def _change_of_peers(judged: Judged) -> Floats:
    """What the accounts of each application did together, against the four weeks before."""
    change: Floats = np.full_like(judged.factor, np.nan)
    for week in range(4, len(judged.together)):
        before: Floats = np.mean(judged.factor[:, week - 4 : week], axis=1)
        change[:, week] = judged.factor[:, week] / before - 1
    return change


def _of_applications(
    judged: Judged, counts: Floats, application: NDArray[Any], keys: NDArray[Any], rules: AnomalySettings
) -> pd.DataFrame:
    ratio = judged.factor / judged.factor_expected
    far = _is_far(judged.factor_z, ratio, rules)
    spread = np.array([usual_error(np.log(line)) for line in judged.factor / judged.factor_before])
    together = Together.of(judged, counts, application, len(keys))
    found = [
        common_moves(together, ratio, judged.factor_z, far, spread, rules),
        slow_losses(judged, counts, application, together, far, rules),
    ]
    frame = pd.concat(found, ignore_index=True)
    return frame.assign(scope="application", application=keys[frame["group"].to_numpy(dtype=int)]).drop(columns="group")


def _of_everything(judged: Judged, counts: Floats, rules: AnomalySettings) -> pd.DataFrame:
    ratio, z = judged.together[None, :], judged.together_z[None, :]
    everybody = np.zeros(len(counts), dtype=np.int64)
    together = Together.of(judged, counts, everybody, 1)
    spread = np.array([usual_error(np.log(judged.together))])
    found = common_moves(together, ratio, z, _is_far(z, ratio, rules), spread, rules)
    return found.assign(scope="all").drop(columns="group")


def _is_far(z: Floats, ratio: Floats, rules: AnomalySettings) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (np.abs(np.nan_to_num(z)) >= rules.common_z) & (np.abs(ratio - 1) >= rules.common_share)
    return found


def _with_state(frame: pd.DataFrame, key: list[str], weeks: int) -> pd.DataFrame:
    """Last week and state of each event, on the newest week judged."""
    frame["last"] = frame.groupby([*key, "first"])["week"].transform("max")
    # a decline is told once, and is no better a week later
    is_running = frame["last"] >= np.where(frame["kind"] == "slow decline", weeks - 8, weeks - 1)
    began_now = frame.groupby([*key, "first"])["week"].transform("min") == weeks - 1
    frame["state"] = np.select([is_running & began_now, is_running], ["new", "ongoing"], "ended")
    return frame


def _write(
    connection: duckdb.DuckDBPyConnection, found: list[pd.DataFrame], expected: pd.DataFrame, weeks: list[date]
) -> None:
    mondays = np.array(weeks, dtype="datetime64[D]")
    columns = ", ".join(f"{name} {kind}" for name, kind in ANOMALY_COLUMNS.items())
    connection.execute(f"CREATE OR REPLACE TABLE core.anomalies ({columns})")
    frames = [frame for frame in found if len(frame)]
    if frames:
        anomalies = pd.concat(frames, ignore_index=True)
        for column, name in (("week", "week_start"), ("first", "first_week"), ("last", "last_week")):
            anomalies[name] = mondays[anomalies[column].to_numpy(dtype=np.int64)]
        # one-sided, of the strongest of three windows looked at
        anomalies["p_value"] = np.minimum(1.0, 3 * ndtr(-np.abs(anomalies["z"].to_numpy(dtype=float))))
        anomalies["method"] = VERSION
        connection.register("anomalies", anomalies)
        connection.execute(
            "INSERT INTO core.anomalies BY NAME FROM (SELECT * EXCLUDE (week, first, last) FROM anomalies)"
        )
        connection.unregister("anomalies")
    expected["week_start"] = mondays[expected["week"].to_numpy(dtype=int)]
    connection.register("expected", expected.drop(columns="week"))
    connection.execute(
        "CREATE OR REPLACE TABLE core.expected_usage AS "
        "SELECT CAST(account_application_id AS INTEGER) AS account_application_id, "
        "CAST(week_start AS DATE) AS week_start, "
        "nullif(CAST(clicks_before AS DOUBLE), 'NaN'::DOUBLE) AS clicks_before, common_spread, "
        + ", ".join(
            f"nullif(CAST({kind}_{measure} AS DOUBLE), 'NaN'::DOUBLE) AS {kind}_{measure}"
            for measure in MEASURES
            for kind in ("expected", "variance")
        )
        + " FROM expected"
    )
    connection.unregister("expected")


def propose_anomaly_snapshot(connection: duckdb.DuckDBPyConnection, history_dir: Path, as_of: datetime) -> Proposal:
    """Proposes the newest week's anomalies for history; the caller holds it."""
    sql = "FROM core.anomalies WHERE week_start = $week ORDER BY scope, measure, account_id, application"
    return propose_newest_week(connection, history_dir, as_of, ANOMALIES, sql)
