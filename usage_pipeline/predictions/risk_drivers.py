"""Why a probability is what it is: what each theme adds to it, and the same in words.

What a theme adds is its Shapley value on log odds, against the middle account of its peers: themes are put in place
of the middle one in random orders, forth and back (Castro et al. 2009, antithetic); they add up to the whole
difference exactly, and for the logistic regression, which has no interactions, each is exact too.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from usage_pipeline.core.regular_users import RECENT_WEEKS
from usage_pipeline.core.texts import number, text
from usage_pipeline.predictions.risk_features import FEATURES, THEMES
from usage_pipeline.predictions.risk_models import Floats

_ORDERS = 6
# what adds less than this to log odds is no reason
_LEAST = 0.1
_REASONS = 3


def middle_of_peers(features: pd.DataFrame) -> pd.DataFrame:
    """Of each row, the median of every feature over the rows of the same application (or of all accounts)."""
    values = features[list(FEATURES)].astype(np.float32)
    found: pd.DataFrame = values.groupby(features["application"].fillna("")).transform("median")
    return found.fillna(values.median())


def contributions(
    log_odds: Callable[[NDArray[np.float32]], Floats],
    x: NDArray[np.float32],
    middle: NDArray[np.float32],
    seed: int,
) -> Floats:
    """(n, themes): what each theme adds to the log odds of each row of x (n, f), against `middle` (n, f)."""
    names = list(FEATURES)
    columns = [[names.index(feature) for feature in theme.features] for theme in THEMES]
    found = np.zeros((len(x), len(THEMES)))
    if not len(x):
        return found
    rng = np.random.default_rng(seed)
    start = log_odds(middle)
    orders = [order for _ in range(_ORDERS) for order in _forth_and_back(rng)]
    for order in orders:
        at, before = middle.copy(), start
        for theme in order:
            at[:, columns[theme]] = x[:, columns[theme]]
            after = log_odds(at)
            found[:, theme] += (after - before) / len(orders)
            before = after
    return found


def _forth_and_back(rng: np.random.Generator) -> list[NDArray[np.int64]]:
    order = rng.permutation(len(THEMES))
    return [order, order[::-1]]


def reasons(features: pd.DataFrame, middle: pd.DataFrame, added: Floats) -> pd.DataFrame:
    """reason_1 to reason_3, strongest first, and `against`: the strongest of what speaks against it; "" for none.

    What is said must also look the way it is meant: a model may lean on a number for reasons of its own.
    """
    rows, peers = features.to_dict("records"), middle.to_dict("records")
    order = np.argsort(-added, axis=1, kind="stable")
    found = []
    for i, row in enumerate(rows):
        told = [(added[i, t], *_WORDS[THEMES[t].name](row, peers[i])) for t in order[i]]
        said = [words for value, look, words in told if value >= _LEAST and look <= 0 and words][:_REASONS]
        positive_signal = [words for value, look, words in reversed(told) if value <= -_LEAST and look >= 0 and words]
        found.append([*said, *[""] * (_REASONS - len(said)), positive_signal[0] if positive_signal else ""])
    columns = [*(f"reason_{n + 1}" for n in range(_REASONS)), "positive_signal"]
    return pd.DataFrame(found, columns=columns, index=features.index)


def rule_reasons(features: pd.DataFrame, middle: pd.DataFrame) -> pd.DataFrame:
    """The same for rows that the rule names: what it looks at first, then what looks the same way."""
    names = [theme.name for theme in THEMES]
    bad = {
        "silence": features["weeks_since_use"] >= 2,
        "change": features["change"] < np.log(0.8),
        "users": features["share_of_users_gone"] >= 0.3,
        "account": features["account_change"] < np.log(0.85),
        "breadth": features["breadth_used"] < 0.6,
    }
    good = {"account": features["account_change"] > np.log(0.95), "users": features["share_of_users_gone"] == 0}
    added = np.zeros((len(features), len(names)))
    for place, (name, holds) in enumerate(bad.items()):
        added[:, names.index(name)] = np.where(holds.fillna(False), 2 - 0.2 * place, 0)
    for place, (name, holds) in enumerate(good.items()):
        added[:, names.index(name)] -= np.where(holds.fillna(False), 1 - 0.2 * place, 0)
    return reasons(features, middle, added)


def probability_text(probability: float) -> str:
    """A share as people say it: "about 1 in 4"."""
    if np.isnan(probability):
        return text("word.not_known")
    if probability >= 0.95:
        return text("driver.almost_certain")
    if probability < 0.005:
        return text("driver.less_than", one=1, of=200)
    ways = [(1, n) for n in (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 70, 100, 150, 200)]
    ways += [(2, 3), (3, 4), (9, 10), (4, 5), (2, 5), (3, 5)]
    a, b = min(ways, key=lambda way: abs(np.log(way[0] / way[1]) - np.log(probability)))
    return text("driver.about", one=a, of=b)


# ---------------------------------------------------------------- words


Row = dict[Any, Any]
# how it looks (-1 bad, 0 neither, 1 good), and what is said; "" where there is nothing to say
Told = tuple[int, str]
_NOTHING: Told = (0, "")


def _count(value: float, thing: str) -> str:
    """`1 click`, `2.5 clicks`; `thing`: the last part of the id."""
    written = number(value, 0 if value >= 10 or value == round(value) else 1)
    return text(f"driver.count.{thing}.{'one' if written == '1' else 'many'}", number=written)


def _percent(log_ratio: float) -> str:
    return f"{100 * np.expm1(log_ratio):+.0f} %"


def _looks(log_ratio: float) -> int:
    return int(np.sign(log_ratio)) if abs(log_ratio) >= 0.05 else 0


def _is_known(*values: float | None) -> bool:
    return all(value is not None and not np.isnan(value) for value in values)


def _level(row: Row, peers: Row) -> Told:
    if row["clicks_recent"] == 0:
        return -1, text("driver.no_click")
    if not _is_known(row["clicks_recent"], peers["level_recent"]):
        return _NOTHING
    usual = _count(np.expm1(peers["level_recent"]), "click")
    return 0, text("driver.level", clicks=_count(row["clicks_recent"], "click"), usual=usual)


def _change(row: Row, _: Row) -> Told:
    recent, before = row["clicks_recent"], row["clicks_before"]
    if not _is_known(recent, before, row["peers_change"]) or recent == before == 0:
        return _NOTHING
    told = {"recent": _count(recent, "click"), "before": _count(before, "click")}
    others = text("driver.its_accounts" if row["application"] else "driver.all_accounts")
    others = text("driver.others", accounts=others, change=_percent(row["peers_change"]))
    own = text("driver.own_change", change=f"{100 * (recent / before - 1):+.0f} %") if before >= 1 else ""
    said = text("driver.change", **told, own=own, others=others)
    looks = {_looks(row[name]) for name in ("change", "change_against_peers")}
    return (0 if looks == {-1, 1} else sum(looks)), said


def _silence(row: Row, _: Row) -> Told:
    weeks = row["weeks_since_use"]
    if not row["has_used"]:
        return -1, text("driver.never_adopted")
    if weeks >= 1:
        return -1, text("driver.no_use_for", weeks=text("driver.a_year") if weeks >= 52 else _count(weeks, "week"))
    share = row["share_of_weeks_used"]
    if not _is_known(weeks, share):
        return _NOTHING
    return 1 if share == 1 else -1, text("driver.used_in", share=f"{100 * share:.0f}")


def _users(row: Row, _: Row) -> Told:
    if not _is_known(row["regular_users"], row["regular_users_gone"]) or row["regular_users"] == 0:
        return _NOTHING
    regular, gone = int(row["regular_users"]), int(row["regular_users_gone"])
    if gone:
        users = _count(regular, "regular_user")
        return -1, text("driver.users_gone", gone=gone, users=users, weeks=RECENT_WEEKS)
    if regular == 1:
        kept = text("driver.one_still_comes", weeks=RECENT_WEEKS)
    else:
        kept = text("driver.all_still_come", users=regular, weeks=RECENT_WEEKS)
    change = row["change_of_users"]
    if _is_known(change) and abs(np.expm1(change)) >= 0.15:
        return _looks(change), text("driver.users_changed", kept=kept, change=_percent(change))
    if _is_known(row["top_user_share"]) and row["top_user_share"] >= 0.8 and row["users_recent"] > 1:
        return -1, text("driver.one_user", share=f"{100 * row['top_user_share']:.0f}")
    return 1, kept


def _records(row: Row, _: Row) -> Told:
    if not _is_known(row["level_of_records"], row["change_of_records"]):
        return _NOTHING
    recent = np.expm1(row["level_of_records"])
    before = (recent + 1) / np.exp(row["change_of_records"]) - 1
    now, then = (_count(max(value, 0), "record") for value in (recent, before))
    if now == then:
        return _NOTHING
    return _looks(row["change_of_records"]), text("driver.records", now=now, before=then)


def _breadth(row: Row, peers: Row) -> Told:
    used, owned, usual = row["applications_used"], row["applications_owned"], peers["breadth_used"]
    if not _is_known(used, owned, usual):
        return _NOTHING
    said = text(
        "driver.breadth",
        used=f"{used:.0f}",
        applications=_count(owned, "application"),
        usual=f"{100 * usual:.0f}",
    )
    return (-1 if used / owned < usual else 1), said


def _account(row: Row, _: Row) -> Told:
    change = row["account_change"]
    if not row["application"] or not _is_known(change):
        return _NOTHING
    return _looks(change), text("driver.account", change=_percent(change))


def _season(row: Row, _: Row) -> Told:
    ahead, peers_change = row["season_ahead"], row["peers_change"]
    if not _is_known(ahead):
        if not _is_known(peers_change):
            return _NOTHING
        return _looks(peers_change), text("driver.peers", change=_percent(peers_change))
    return _looks(ahead), text("driver.season", change=_percent(ahead))


def _subscription(row: Row, _: Row) -> Told:
    if not _is_known(row["subscription_age_days"]):
        return _NOTHING
    years = row["subscription_age_days"] / 365.25
    told = text("driver.years", number=number(years, 1)) if years >= 1.5 else _count(round(years * 12), "month")
    return 0, text("driver.subscribed_for", time=told)


def _renewal(row: Row, _: Row) -> Told:
    if not _is_known(row["days_to_renewal"]):
        return _NOTHING
    return 0, text("driver.renewal", days=_count(row["days_to_renewal"], "day"))


_WORDS: dict[str, Callable[[Row, Row], Told]] = {
    "level": _level,
    "change": _change,
    "silence": _silence,
    "users": _users,
    "records": _records,
    "breadth": _breadth,
    "account": _account,
    "season": _season,
    "subscription": _subscription,
    "renewal": _renewal,
}
