"""Usage states: never adopted, new, active, low or inactive, for every account x application and week.

A week is judged by what was known in it, from complete subscribed weeks; that something was used is known of any
week. "Never adopted" is about the subscription that runs: use before it began is none of it.

Millions of weeks are judged at once, with arrays: a chain of SQL windows sorts them anew for each rule and took eight
times as long (docs/benchmarks.md).
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import bottleneck
import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from usage_pipeline.config.settings import ActivitySettings
from usage_pipeline.core.sql import load_sql

# of `core.usage_states`
COLUMNS = (
    "account_application_id",
    "week_start",
    "period_number",
    "subscription_state",
    "usage_state",
    "state_since",
    "clicks",
    "recent_clicks",
    "usual_clicks",
    "full_weeks",
    "weeks_without_use",
    "last_used_week",
    "came_back",
)
USAGE_STATES = ("new", "never adopted", "inactive", "low", "active")
_SUBSCRIPTION_STATES = ("active subscription", "notice received")
_PART_ROWS = 250_000
_STATES = f"""
CREATE OR REPLACE TABLE core.usage_states AS
SELECT * REPLACE (
    CAST(subscription_state AS ENUM {_SUBSCRIPTION_STATES}) AS subscription_state,
    CAST(usage_state AS ENUM {USAGE_STATES}) AS usage_state
)
FROM judged
"""

Array = NDArray[Any]


def replace_usage_states(connection: duckdb.DuckDBPyConnection, rules: ActivitySettings) -> None:
    """Replaces `core.usage_states`: a row is account x application x complete week of seven subscribed days."""
    subscription_weeks = _in_order(
        {
            name: np.asarray(values)
            for name, values in connection.execute(load_sql("activity", "weeks_to_judge")).fetchnumpy().items()
        }
    )

    def judged(part: slice) -> pa.RecordBatch:
        return _as_columns(judge({name: values[part] for name, values in subscription_weeks.items()}, rules))

    with ThreadPoolExecutor() as pool:
        batches = list(pool.map(judged, _parts(subscription_weeks["account_application_id"])))
    connection.register("judged", pa.Table.from_batches(batches))
    connection.execute(_STATES)
    connection.unregister("judged")


def _in_order(subscription_weeks: dict[str, Array]) -> dict[str, Array]:
    """By account x application and week, as `subscription_weeks` is stored; to ask for it costs as much as a sort."""
    account_application, week = subscription_weeks["account_application_id"], subscription_weeks["week"]
    follows = (account_application[1:] > account_application[:-1]) | (
        (account_application[1:] == account_application[:-1]) & (week[1:] > week[:-1])
    )
    if follows.all():
        return subscription_weeks
    order = np.lexsort((week, account_application))
    return {name: values[order] for name, values in subscription_weeks.items()}


def _parts(account_application: Array) -> list[slice]:
    """Runs of whole accounts x applications, each about as many rows as stay near the processor; one empty part
    where there is no row.
    """
    first = np.unique(_first_of_run(account_application)[::_PART_ROWS]).tolist() or [0]
    return [slice(start, end) for start, end in pairwise([*first, len(account_application)])]


def judge(subscription_weeks: dict[str, Array], rules: ActivitySettings) -> dict[str, Array]:
    """The usage state of every full week.

    subscription weeks: n subscribed weeks that are complete or used, sorted by account x application and week, as
    arrays (n,): account_application_id, week (its
    Monday, days since 1970), period_number, is_full (complete, seven subscribed days), has_notice, is_used, clicks.
    Returns arrays (m,), one element a full week; levels are clicks a week, NaN where there is none, and -1 stands for
    a week that does not exist.
    """
    account_application, clicks, is_full, is_used = (
        subscription_weeks[name] for name in ("account_application_id", "clicks", "is_full", "is_used")
    )
    first = _first_of_run(account_application)
    first_of_period = np.maximum(first, _first_of_run(subscription_weeks["period_number"]))
    full_weeks = _count_so_far(is_full, first)
    last_use = _last_place(is_used, first)
    weeks_without_use = full_weeks - np.where(last_use >= 0, full_weeks[last_use], 0)
    # a return ends a silence between two uses; the time before the first is none
    before = np.maximum(np.arange(len(account_application)) - 1, 0)
    has_used_before = (before >= first) & (last_use[before] >= 0)
    came_back = is_used & has_used_before & (weeks_without_use[before] >= rules.inactive_weeks)

    has_used = last_use >= first_of_period

    full = np.flatnonzero(is_full)
    nth = full_weeks[full] - 1
    levels = _levels(nth, clicks[full], rules)
    state = np.select(
        [
            _count_so_far(is_full, first_of_period)[full] <= rules.new_weeks,
            ~has_used[full],
            weeks_without_use[full] >= rules.inactive_weeks,
            (levels["usual_clicks"] >= rules.low_floor_clicks)
            & (levels["recent_clicks"] < rules.low_share * levels["usual_clicks"]),
        ],
        range(4),
        4,
    ).astype(np.int8)
    first_full = np.arange(len(full)) - nth
    has_changed = (nth == 0) | (state != np.roll(state, 1))
    return levels | {
        "account_application_id": account_application[full],
        "week_start": subscription_weeks["week"][full],
        "period_number": subscription_weeks["period_number"][full],
        "subscription_state": subscription_weeks["has_notice"][full].astype(np.int8),
        "usage_state": state,
        "state_since": subscription_weeks["week"][full][_last_place(has_changed, first_full)],
        "clicks": clicks[full],
        "full_weeks": full_weeks[full],
        "weeks_without_use": weeks_without_use[full],
        "last_used_week": np.where(has_used, subscription_weeks["week"][last_use], -1)[full],
        "came_back": came_back[full],
    }


def _levels(nth: Array, clicks: Array, rules: ActivitySettings) -> dict[str, Array]:
    """The recent and the usual level of full weeks; `nth` counts them from 0 for each account x application."""
    place = np.arange(len(clicks))
    total = np.concatenate([[0], np.cumsum(clicks)])
    start = np.maximum(place - nth, place - rules.recent_weeks + 1)
    recent = (total[place + 1] - total[start]) / (place + 1 - start)

    # a line an account x application, its full weeks from the left
    line = np.cumsum(nth == 0) - 1
    table = np.full((line.max(initial=-1) + 1, nth.max(initial=-1) + 1), np.nan)
    table[line, nth] = clicks
    if table.size:
        # the window may be no longer than the line
        window = min(rules.usual_weeks, table.shape[1])
        table = bottleneck.move_median(table, window, min_count=1, axis=1)
    earlier = nth - rules.recent_weeks
    usual = np.where(earlier >= 0, table[line, np.maximum(earlier, 0)], np.nan)
    return {"recent_clicks": recent, "usual_clicks": usual}


def _first_of_run(values: Array) -> Array:
    """The place where the run of equal values began that each element lies in."""
    is_first = np.ones(len(values), dtype=bool)
    is_first[1:] = values[1:] != values[:-1]
    first: Array = np.maximum.accumulate(np.where(is_first, np.arange(len(values)), 0))
    return first


def _count_so_far(mask: Array, first: Array) -> Array:
    """How often the mask was true from `first` up to each place."""
    counted: Array = np.cumsum(mask)
    return counted - counted[first] + mask[first]


def _last_place(mask: Array, first: Array) -> Array:
    """The last place up to each one where the mask was true, -1 where it was not since `first`."""
    place = np.maximum.accumulate(np.where(mask, np.arange(len(mask)), -1))
    return np.where(place >= first, place, -1)


def _as_columns(states: dict[str, Array]) -> pa.RecordBatch:
    def day(name: str) -> pa.Array:
        return pa.array(states[name].astype(np.int32), pa.date32(), mask=states[name] < 0)

    def word(name: str, words: tuple[str, ...]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(states[name], pa.array(words))

    def level(name: str) -> pa.Array:
        return pa.array(states[name], mask=np.isnan(states[name]))

    columns = {
        "account_application_id": pa.array(states["account_application_id"]),
        "week_start": day("week_start"),
        "period_number": pa.array(states["period_number"]),
        "subscription_state": word("subscription_state", _SUBSCRIPTION_STATES),
        "usage_state": word("usage_state", USAGE_STATES),
        "state_since": day("state_since"),
        "clicks": pa.array(states["clicks"]),
        "recent_clicks": level("recent_clicks"),
        "usual_clicks": level("usual_clicks"),
        "full_weeks": pa.array(states["full_weeks"].astype(np.int32)),
        "weeks_without_use": pa.array(states["weeks_without_use"].astype(np.int32)),
        "last_used_week": day("last_used_week"),
        "came_back": pa.array(states["came_back"]),
    }
    return pa.record_batch({name: columns[name] for name in COLUMNS})
