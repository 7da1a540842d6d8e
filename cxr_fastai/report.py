"""Figures of a run folder: training curves, the arms' ROC on the test rows, synthetic radiographs beside real ones.
Reads files, trains nothing."""
import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.metrics import RocCurveDisplay

from .files import atomic
from .quality import plot_memorised
from .readers import read_rows
from .synthesis import plot_synthetic, read_manifest

__all__ = ["plot_run", "plot_gan", "plot_curves", "plot_roc"]

def plot_curves(
    history:pd.DataFrame, # an arm's history.csv
):                        # the figure
    "Losses on the left, the paper's metrics on the right, over epochs."
    fig, (losses, rest) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    epochs = history.set_axis(range(1, len(history) + 1))
    epochs[["train_loss", "valid_loss"]].plot(ax=losses, xlabel="epoch", ylabel="loss", marker=".")
    epochs.drop(columns=["train_loss", "valid_loss"]).plot(ax=rest, xlabel="epoch", ylim=(0, 1), marker=".")
    return fig

def plot_roc(
    predictions:dict, # arm -> its test_predictions.csv as a DataFrame
    positive:str,     # the label that counts as positive
):                    # the figure
    "The arms' ROC curves on the same test rows, with their area."
    fig, ax = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
    for arm, table in predictions.items():
        RocCurveDisplay.from_predictions(table["label"] == positive, table["probability"], name=arm, ax=ax)
    ax.plot([0, 1], [0, 1], ls=":", color="gray")
    ax.set(xlabel="1 - specificity", ylabel="recall (sensitivity)")
    return fig

def _save(fig, file):
    with atomic(file) as tmp: fig.savefig(tmp, dpi=120)
    plt.close(fig)

def plot_run(
    folder, # a run folder of `study.run_backbone`
):
    "Write `curves.png` beside each arm's history, and `roc.png` for all arms."
    arms = {o.parent.name: o.parent for o in sorted(Path(folder).glob("*/scores.json"))}
    for arm in arms.values(): _save(plot_curves(pd.read_csv(arm/"history.csv")), arm/"curves.png")
    tables = {name: pd.read_csv(arm/"test_predictions.csv") for name, arm in arms.items()}
    positive = json.loads((Path(folder)/"settings.json").read_text())["positive"]
    if tables: _save(plot_roc(tables, positive), Path(folder)/"roc.png")

def plot_gan(
    folder, # a run folder of `study.run_gan`
):
    "Write `fig2.png` (real and synthetic of each class), and the nearest training images beside each synthesis."
    folder, made = Path(folder), {}
    for o in sorted(Path(folder).glob("*/quality.csv")):
        made[o.parent.name[:3]] = read_manifest(o.parent)
        _save(plot_memorised(pd.read_csv(o.parent/"memorised.csv")), o.parent/"memorised.png")
    if not made: return
    fig = plot_synthetic(read_rows(folder/"rows.csv"), made["a2b"], made.get("b2a"), n=4)
    _save(fig, folder/"fig2.png")
