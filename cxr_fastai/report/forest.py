"""Forest plots: a difference split by split, and over all of them. No torch."""
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..arms import arm_title
from ..core.style import STYLE
from ..stats.folds import each_fold_of, fold_differences
from ..stats.predictions import each_backbone, paired

__all__ = ["plot_folds"]

@mpl.rc_context(STYLE)
def plot_folds(
    predictions:pd.DataFrame, # of one backbone, with `fold`
    before:str,               # an arm
    after:str,                # another
):                            # the figure
    """The difference of AUC, after minus before, in each fold (small: its seeds), then over all folds by the corrected
    t, and over all films out of fold by DeLong. ValueError for arms without a seed in common."""
    (_, test, valid), = each_backbone(predictions)
    if (both := paired(test, before, after)) is None: raise ValueError(f"{before} and {after} have no seed in common.")
    found = fold_differences(*both, *(valid[arm].of_seeds(both[0].seeds) for arm in (before, after)))
    each = each_fold_of("rocauc", both[1]) - each_fold_of("rocauc", both[0])
    fig = Figure(figsize=(4.6, 1.3 + .24*len(each)), layout="constrained")
    ax = fig.subplots()
    for i, seeds in enumerate(each):
        ax.plot(seeds, np.full(len(seeds), i), ".", ms=4, color="0.6")
        ax.plot(seeds.mean(), i, "o", ms=5, color="C0")
    all_of_them = found["rocauc"], found["pooled"] | dict(value=found["pooled"]["difference"])
    for i, o in enumerate(all_of_them, len(each)):
        ends = np.nan_to_num([[o["value"] - o["low"]], [o["high"] - o["value"]]])
        ax.errorbar(o["value"], i, xerr=ends, fmt="D", ms=5, capsize=2, color="C1")
    ax.axvline(0, color="0.3", lw=.8)
    names = [f"fold {o}" for o in np.unique(both[0].fold)]
    ax.set_yticks(range(len(each) + 2), [*names, "all folds, corrected t", "all films, DeLong"])
    ax.set(ylim=(len(each) + 1.6, -.6), xlabel=f"AUC, {arm_title(after)} less {arm_title(before)}",
           title=predictions["backbone"].iloc[0])
    return fig
