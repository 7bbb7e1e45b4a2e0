"""The two pictures of docs/benchmarks.md on spikes: `python anomaly_plots.py DRAWN.json FOLDER`."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NAMES = {
    "ours": "ours",
    "oracle": "knows the truth",
    "farrington": "Farrington (R)",
    "rolling_z": "rolling z",
    "rolling_mad": "rolling MAD",
    "s_h_esd": "S-H-ESD",
    "auto_ets": "AutoETS band",
}

STYLES = {"ours": {"lw": 2.5, "color": "#1b6ca8"}, "oracle": {"ls": "--", "color": "grey"}}


def draw_curves(curves, target):
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    for panel, column, title in ((panels[0], 1, "5 to 20 clicks a week"), (panels[1], 2, "20 clicks a week and more")):
        for name, points in curves.items():
            line = sorted(points)
            style = STYLES.get(name, {"lw": 1})
            panel.plot([100 * p[0] for p in line], [100 * p[column] for p in line], label=NAMES[name], **style)
        panel.set(title=title, xlabel="ordinary weeks anomalous as a drop, %", xlim=(0, 2), ylim=(0, 102))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("drops by 60 % over four weeks found, %")
    panels[1].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(target, dpi=110)


def draw_example(example, target):
    figure, panel = plt.subplots(figsize=(11, 3.4))
    weeks = range(len(example["counts"]))
    panel.fill_between(weeks, example["low"], example["high"], color="#b8c2cc", alpha=0.5, label="expected")
    panel.plot(weeks, example["counts"], color="#1b6ca8", label="clicks a week")
    anomalous = [w for w in weeks if example["anomalous"][w]]
    panel.scatter(anomalous, [example["counts"][w] for w in anomalous], color="#d1495b", zorder=3, label="anomalous")
    panel.set(xlabel="week", ylim=(0, None), title="A drop by 60 % over four weeks, with the season around it")
    panel.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    drawn, folder = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])
    draw_curves(drawn["curves"], folder / "spikes-found.png")
    draw_example(drawn["example"], folder / "spikes-example.png")
