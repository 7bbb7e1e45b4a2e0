"""Columns of the tables of predictions: written once, and light to load (`risks.py` brings scikit-learn along).

Does not belong here: what is published of them (`core/tables.py`).
"""

import pyarrow as pa

# of `core.risk_methods`: a row a target
CARD_COLUMNS = pa.schema(
    [
        ("target", pa.string()),
        ("title", pa.string()),
        ("definition", pa.string()),
        ("horizon_days", pa.int64()),
        ("version", pa.string()),
        ("method", pa.string()),
        ("kind", pa.string()),
        ("why", pa.string()),
        ("learned_from", pa.string()),
        ("learned_until", pa.string()),
        ("rows", pa.int64()),
        ("positives", pa.int64()),
        ("negatives", pa.int64()),
        ("base_rate", pa.float64()),
        ("probability_named", pa.float64()),
        ("probability_of_others", pa.float64()),
        ("lift", pa.float64()),
        ("lift_low", pa.float64()),
        ("lift_high", pa.float64()),
        ("has_signal", pa.bool_()),
        ("origins", pa.int64()),
        ("positive_origins", pa.int64()),
        ("best_baseline", pa.string()),
        ("difference", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
    ]
)
# of the back-test, with their types in pandas: figures, deciles, what was said
TRIAL_COLUMNS = {
    "target": str, "title": str, "origin": int, "contestant": str, "kind": str, "is_in_force": bool,
    "first_week": "datetime64[us]", "last_week": "datetime64[us]", "trained_until": "datetime64[us]",
    "rows": int, "positives": int, "base_rate": float, "average_precision": float, "auc": float,
    "precision_at_20": float, "recall_at_20": float, "top_decile_lift": float, "brier": float,
    "calibration_error": float,
}  # fmt: skip
DECILE_COLUMNS = {
    "target": str, "title": str, "origin": int, "decile": int, "rows": int, "said": float, "outcome": float,
    "low": float, "high": float,
}  # fmt: skip
SAID_COLUMNS = {
    "target": str, "title": str, "as_of_week": "datetime64[us]", "scored": int, "expected": float, "outcomes": int,
    "listed": int, "listed_outcomes": int,
}  # fmt: skip
# of `core.risk_scores`
NUMBERS = ("clicks_recent", "clicks_before", "clicks_usual")
SCORE_COLUMNS = {
    "target": "VARCHAR",
    "as_of_week": "DATE",
    "account_id": "VARCHAR",
    "application": "VARCHAR",
    "horizon_days": "INTEGER",
    "probability": "DOUBLE",
    "probability_text": "VARCHAR",
    "base_rate": "DOUBLE",  # the mean probability of the week
    "is_listed": "BOOLEAN",
    "has_signal": "BOOLEAN",  # whether anything of the target may be listed
    "strength": "DOUBLE",  # what the list is ordered by where values are equal or not known
    "method": "VARCHAR",
    "version": "VARCHAR",
    **dict.fromkeys(NUMBERS, "DOUBLE"),
    **dict.fromkeys(("reason_1", "reason_2", "reason_3", "positive_signal"), "VARCHAR"),
}
# of `core.score_snapshots`, as they lie in history; what was issued before a signal was asked for was shown as it was
# listed
_KEPT = (
    "target",
    "as_of_week",
    "account_id",
    "application",
    "horizon_days",
    "probability",
    "base_rate",
    "is_listed",
    "method",
    "version",
)
SNAPSHOT_COLUMNS = {name: SCORE_COLUMNS[name] for name in _KEPT} | {"has_signal": "BOOLEAN DEFAULT TRUE"}
