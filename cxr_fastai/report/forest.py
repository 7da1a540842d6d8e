"""Values with their intervals, a line each: as panels of a page, which fit any width; and split by split, as a figure.
No torch."""
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..arms import arm_title
from ..core.style import PAIR, STYLE
from ..stats.folds import each_fold_of, fold_differences
from ..stats.formats import number, with_ends
from ..stats.predictions import each_backbone, paired
from .svg import ink_of

__all__ = ["plot_folds"]

class Line(NamedTuple):
    "One of a panel."
    label:str                # in its first column
    value:float              # which is drawn as a dot
    low:float=float("nan")   # of its interval; nan: it has none
    high:float=float("nan")  # its other end
    colour:str="#000000"     # '#rrggbb'
    dots:tuple=()            # drawn in place of the value, which is their mean

def _scale(values, most):
    "Where a value stands, in percent of the width, and the round ones among all that stand there."
    low, high = np.nanmin(values), np.nanmax(values)
    if low == high: low, high = low - .1, high + .1
    ticks = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    inside = [round(x, 9) + 0 for x in ticks if low - 1e-9 <= x <= high + 1e-9]
    return lambda x: round(float(4 + 92*(x - low)/(high - low)), 2), inside

def panel(
    caption:str,  # of the panel
    groups:dict,  # title ('' for none): its `Line`s
    of:str,       # head of their labels
    head:str,     # of their values
    marks=(),     # values that a line marks in each
    ends=(),      # values that the scale holds, too
    sign:str="",  # '+': of what is above 0, too
    most:int=4,   # steps of the scale
) -> dict:        # for the templates, places in percent of the width
    "Lines on one scale, drawn beside their figures."
    lines = [o for part in groups.values() for o in part]
    every = [x for o in lines for x in (o.value, o.low, o.high, *o.dots)]
    at, ticks = _scale([*every, *marks, *ends], most)
    ruled = [dict(kind="tick", at=at(x)) for x in ticks] + [dict(kind="mark", at=at(x)) for x in marks]
    def row(o):
        ends = dict(low=None, high=None) if np.isnan(o.low) else dict(low=at(o.low), high=at(o.high))
        words = number(o.value, 3, sign) if np.isnan(o.low) else with_ends(o.value, o.low, o.high, sign)
        dots = [at(x) for x in o.dots or (o.value,) if not np.isnan(x)]
        return dict(label=o.label, words=words, ink=ink_of(o.colour.lower()), lines=ruled, dots=dots) | ends
    return dict(caption=caption, of=of, head=head, ticks=[dict(at=at(x), word=f"{x:g}") for x in ticks],
                groups=[dict(title=title, rows=[*map(row, own)]) for title, own in groups.items()])

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
        ax.plot(seeds.mean(), i, "o", ms=5, color=PAIR[0])
    all_of_them = found["rocauc"], found["pooled"] | dict(value=found["pooled"]["difference"])
    for i, o in enumerate(all_of_them, len(each)):
        ends = np.nan_to_num([[o["value"] - o["low"]], [o["high"] - o["value"]]])
        ax.errorbar(o["value"], i, xerr=ends, fmt="D", ms=5, capsize=2, color=PAIR[1])
    ax.axvline(0, color="0.3", lw=.8)
    names = [f"fold {o}" for o in np.unique(both[0].fold)]
    ax.set_yticks(range(len(each) + 2), [*names, "all folds, corrected t", "all films, DeLong"])
    ax.set(ylim=(len(each) + 1.6, -.6), xlabel=f"AUC, {arm_title(after)} less {arm_title(before)}",
           title=predictions["backbone"].iloc[0])
    return fig
