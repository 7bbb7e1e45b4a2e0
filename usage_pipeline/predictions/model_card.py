"""The model's card: what is predicted, which method is in force, and the back-test behind it, as Markdown."""

import duckdb
import pandas as pd

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.core.formatting import day
from usage_pipeline.predictions.risks import read_cards

_COLUMNS = {
    "contestant": "measure",
    "positives": "positives",
    "base_rate": "base rate",
    "average_precision": "average precision",
    "precision_at_20": "precision at 20",
    "recall_at_20": "recall at 20",
    "top_decile_lift": "top-decile lift",
    "auc": "AUC",
    "calibration_error": "calibration error",
    "brier": "Brier",
}
_PERCENT = ("base_rate", "average_precision", "precision_at_20", "recall_at_20", "auc", "calibration_error")

_INTRODUCTION = (
    "Average precision decides: no order at all gives the base rate. Calibration error: mean distance of probability "
    "and observed share, over deciles. Figures of all back-tests are means over them."
)


def model_card(home: DataHome, name: str) -> str:
    """The card of what the published build rests on. Raises FileNotFoundError where there is none."""
    build = home.published_dir / "current" / "warehouse.duckdb"
    if not build.exists():
        raise FileNotFoundError(f"{home.published_dir}: no build yet; run `usage-pipeline refresh` first")
    with duckdb.connect(str(build), read_only=True) as connection:
        found = connection.execute("SELECT any_value(version) FROM mart.risk_methods").fetchone()
    folder = home.models_dir / str(found[0] if found else "")
    figures = pd.read_parquet(folder / "figures.parquet")
    deciles = pd.read_parquet(folder / "deciles.parquet")
    parts = [
        "# What is predicted, and how well",
        f"Written by `usage-pipeline model card` from the back-test of version {folder.name} of “{name}”.",
        _INTRODUCTION,
    ]
    for card in read_cards(folder):
        of_target = figures[figures["target"] == card["target"]]
        parts += [
            f"## {card['title'][0].upper()}{card['title'][1:]}",
            card["definition"],
            f"**In force: the {card['method']}.** {card['why'][0].upper()}{card['why'][1:]}.",
        ]
        if card["learned_from"]:
            parts.append(
                f"{card['rows']:,} probabilities as of {card['learned_from']} to {card['learned_until']}, "
                f"{card['positives']:,} accounts or applications with the outcome."
            )
        if len(of_target):
            parts += ["All back-tests together:", _table(of_target[of_target["origin"] == 0])]
            own = of_target[(of_target["contestant"] == "the model") & (of_target["origin"] > 0)].copy()
            own["contestant"] = [
                f"the model ({r.kind}), {day(r.first_week)} to {day(r.last_week)}" for r in own.itertuples()
            ]
            parts += ["The model, one by one:", _table(own)]
            parts.append(_held(deciles[deciles["target"] == card["target"]], card["method"]))
    return "\n\n".join(parts) + "\n"


def _table(rows: pd.DataFrame) -> str:
    rows = rows.sort_values(["origin", "average_precision"], ascending=[True, False])
    lines = [" | ".join(_COLUMNS.values()), " | ".join("---" for _ in _COLUMNS)]
    for row in rows.to_dict("records"):
        lines.append(" | ".join(_shown(name, row[name]) for name in _COLUMNS))
    return "\n".join(f"| {line} |" for line in lines)


def _shown(name: str, value: object) -> str:
    if isinstance(value, float):
        if value != value:
            return "not known"
        return f"{100 * value:.1f} %" if name in _PERCENT else f"{value:.4f}" if name == "brier" else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _held(deciles: pd.DataFrame, method: str) -> str:
    held = (deciles["low"] <= deciles["said"]) & (deciles["said"] <= deciles["high"])
    counts = held.groupby(deciles["origin"]).agg(["sum", "count"])
    told = ", ".join(f"{row['sum']} of {row['count']}" for _, row in counts.iterrows())
    about = f"Deciles of the probabilities by the {method} within their 95 % interval"
    return f"{about}, by back-test: {told}."
