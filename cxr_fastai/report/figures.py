"""Figures of a study from its tables alone: the paper's Figs 3-5 as curves, and those that its reviewer would ask for.

Each function takes DataFrames with the columns of a study's csv files and gives a narrow matplotlib figure that pyplot
doesn't know: none stays open. Scores are of the real test rows: means over seeds, 95% bands by resampled patients."""
from itertools import cycle
from math import ceil

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..arms import Arm, arm_title, parse_arm
from ..core.files import few
from ..core.style import arm_colours, COLOURS, ENDS, GRID, MORE, N, STYLE
from ..stats.calibration import shifted, smooth_curve
from ..stats.draws import resample
from ..stats.intervals import spread
from ..stats.predictions import joined
from ..stats.prevalence import net_benefit
from ..stats.scoring import called as called_at, METRICS
from ..stats.subgroups import group_scores

__all__ = ["doses_of", "plot_calibration", "plot_confusion", "plot_curves", "plot_decision", "plot_dose",
           "plot_groups", "plot_pr", "plot_roc"]

def _figure(width, height, *shape, **kwargs):
    "A figure of so many inches, and its axes."
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(*shape, **kwargs)

def _legend(fig, ax):
    "The legend below everything, where it hides no line."
    handles, names = ax.get_legend_handles_labels()
    ncols = 2 if max(map(len, names)) < 22 else 1
    fig.set_figheight(fig.get_figheight() + .19*ceil(len(names) / ncols))
    fig.legend(handles, names, loc="outside lower center", ncols=ncols, columnspacing=1.2, handlelength=1.5)

def _weights(o, stratified=True):
    "`[1+N, rows]`: the rows as they are, then resamples of the patients."
    drawn = resample(o.patients, o.label, N, stratified=stratified)
    return np.concatenate([np.ones((1, len(o.label)), np.float32), drawn])

def _counted(label, prob, weights):
    "True and false positives `[B,k+1]` above each of k distinct probabilities, falling, and above all."
    label, order = label.astype(int), np.argsort(-prob, kind="stable")
    ends = np.r_[np.flatnonzero(np.diff(prob[order])), len(prob) - 1]
    sums = [np.cumsum(weights[:, order] * o[order], 1, dtype=float)[:, ends] for o in (label, 1 - label)]
    return [np.pad(o, ((0, 0), (1, 0))) for o in sums]

def _roc(label, prob, weights):
    "Sensitivity `[B,101]` at each false positive rate of `GRID`."
    tp, fp = (o / o[:, -1:] for o in _counted(label, prob, weights))
    return np.stack([np.interp(GRID, x, y) for x, y in zip(fp, tp)])

def _pr(label, prob, weights):
    "Precision `[B,100]` where each recall of `GRID` above 0 is first reached: a step, as no line joins two of them."
    tp, fp = _counted(label, prob, weights)
    at = np.stack([np.searchsorted(o / o[-1], GRID[1:]) for o in tp])
    return np.take_along_axis(tp, at, 1) / np.take_along_axis(tp + fp, at, 1)

def _banded(ax, x, drawn, **kwargs):
    "The first of the lines `[1+N,k]`, and a band around it from the others."
    low, high = np.nanquantile(drawn[1:], ENDS, axis=0)
    ax.fill_between(x, low, high, color=kwargs["color"], alpha=.12, lw=0)
    ax.plot(x, drawn[0], **kwargs)

def _each_arm(predictions, curve, score, x, xlabel, ylabel):
    "A figure with a banded curve an arm, named by its mean score; its axes, and the labels."
    fig, ax = _figure(4.4, 4.1)
    blocks = joined(predictions)
    colours, plain = arm_colours(blocks), all(o in COLOURS for o in blocks)
    for arm, o in blocks.items():
        w, value = _weights(o), np.mean([score(o.label, p) for p in o.rank])
        _banded(ax, x, np.mean([curve(o.label, p, w) for p in o.rank], 0), color=colours[arm],
                ls="-" if plain or arm not in COLOURS else "--", label=f"{arm_title(arm)}: {value:.3f}")
    name = predictions["backbone"].iloc[0]
    ax.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal", xlabel=xlabel, ylabel=ylabel, title=name)
    _legend(fig, ax)
    return fig, ax, o.label

@mpl.rc_context(STYLE)
def plot_roc(
    predictions:pd.DataFrame, # of one backbone
):                            # the figure
    "ROC curves of a backbone's arms with bands, and their area. ValueError for predictions of two backbones."
    fig, ax, _ = _each_arm(predictions, _roc, METRICS["rocauc"], GRID, "1 - specificity", "recall (sensitivity)")
    ax.plot([0, 1], [0, 1], ls=":", color="gray", lw=1)
    return fig

@mpl.rc_context(STYLE)
def plot_pr(
    predictions:pd.DataFrame, # of one backbone
):                            # the figure
    "Precision over recall with bands, and its average; the dotted line is guessing. ValueError as `plot_roc`."
    fig, ax, label = _each_arm(predictions, _pr, METRICS["pr_auc"], GRID[1:], "recall (sensitivity)", "precision")
    ax.axhline(label.mean(), ls=":", color="gray", lw=1)
    return fig

def _smooth(label, prob, weights):
    "Share of positives `[B,101]` over the predictions of `GRID`; nan beyond those that were made."
    at, curve, _ = smooth_curve(label, prob, weights)
    return np.stack([np.interp(GRID, at, o, left=np.nan, right=np.nan) for o in curve])

def _cells_of(cells, backbone, arm): return cells[(cells["backbone"] == backbone) & (cells["arm"] == arm)]

@mpl.rc_context(STYLE)
def plot_calibration(
    predictions:pd.DataFrame, # of one backbone
    cells:pd.DataFrame,       # with `backbone arm seed train_prior prior`
):                            # the figure
    """Share of positives over predicted probability, as lowess draws it, before and after `prior_shift` to the real
    training rows' share."""
    fig, axs = _figure(4.4, 2.6, 1, 2, sharey=True)
    blocks, backbone = joined(predictions), predictions["backbone"].iloc[0]
    for arm, o in blocks.items():
        w = _weights(o, stratified=False)
        for ax, prob in zip(axs, (o.prob, shifted(o, _cells_of(cells, backbone, arm)))):
            drawn = np.mean([_smooth(o.label, p, w) for p in prob], 0)
            at, named = ~np.isnan(drawn[0]), dict(color=arm_colours(blocks)[arm], label=arm_title(arm))
            if at.any(): _banded(ax, GRID[at], drawn[:, at], **named)
            else: ax.plot(prob.mean(), o.label.mean(), "o", **named) # the predictions are all alike
    for ax, title, ylabel in zip(axs, ("as predicted", "prior-shift corrected"), ("share of positives", None)):
        ax.plot([0, 1], [0, 1], ls=":", color="gray", lw=1)
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel=ylabel, title=title)
    fig.suptitle(backbone, fontsize="medium")
    _legend(fig, axs[0])
    return fig

@mpl.rc_context(STYLE)
def plot_decision(
    predictions:pd.DataFrame, # of one backbone
    cells:pd.DataFrame,       # with `backbone arm seed train_prior`
    prevalence:float,         # share of positives where the model would be used
):                            # the figure
    """Decision curves: net benefit over the threshold probability at a stated prevalence, up to ten times of it, beside
    treating everyone and nobody."""
    fig, ax = _figure(4.4, 3.6)
    blocks, backbone = joined(predictions), predictions["backbone"].iloc[0]
    at = np.linspace(0, min(.9, 10*prevalence), 61)
    for arm, o in blocks.items():
        moved = shifted(o, _cells_of(cells, backbone, arm), prevalence)
        drawn = np.mean([net_benefit(o.label, p, at, prevalence, _weights(o)) for p in moved], 0)
        _banded(ax, at, drawn, color=arm_colours(blocks)[arm], label=arm_title(arm))
    ax.plot(at, prevalence - (1 - prevalence)*at/(1 - at), ls=":", color="gray", lw=1, label="everyone")
    ax.axhline(0, color="0.3", lw=.8, label="nobody")
    ax.set(xlim=(0, at[-1]), ylim=(-.3*prevalence, 1.05*prevalence), xlabel="threshold probability",
           ylabel="net benefit", title=f"{backbone}, prevalence {prevalence:g}")
    _legend(fig, ax)
    return fig

@mpl.rc_context(STYLE)
def plot_confusion(
    predictions:pd.DataFrame,       # of one backbone
    names=("negative", "positive"), # of the classes
):                                  # the figure
    """Confusion matrices of a backbone's arms: rows by mean over seeds, and their share of the row. Called at .5, a
    study's rule, or at the one `threshold` that a learner's predictions carry. ValueError for several."""
    at = predictions["threshold"].unique() if "threshold" in predictions else [.5]
    if len(at) != 1: raise ValueError(f"These predictions have the thresholds {few(at)}: a figure is of one.")
    blocks = joined(predictions)
    fig, axs = _figure(4.4, 2.1*((len(blocks) + 1)//2), (len(blocks) + 1)//2, 2, squeeze=False)
    for ax in axs.flat[len(blocks):]: ax.axis("off")
    for ax, (arm, o) in zip(axs.flat, blocks.items()):
        called = np.mean([np.bincount(2*o.label + called_at(p, at[0]), minlength=4) for p in o.prob], 0).reshape(2, 2)
        share = called / called.sum(1, keepdims=True)
        for (i, j), s in np.ndenumerate(share):
            ax.add_patch(Rectangle((j - .5, i - .5), 1, 1, color=COLOURS["real"], alpha=.05 + .5*s, lw=0))
            count = f"{called[i, j]:,.1f}".removesuffix(".0")
            ax.text(j, i, f"{count}\n{s:.0%}", ha="center", va="center")
        ax.set_yticks([0, 1], names, rotation=90, va="center")
        ax.set(xticks=[0, 1], xticklabels=names, title=arm_title(arm), aspect="equal", xlim=(-.5, 1.5), ylim=(1.5, -.5))
        ax.grid(False)
    fig.supxlabel(f"across: called above {at[0]:.3g}; down: is", fontsize="medium")
    return fig

def doses_of(
    arms:list, # names of a study
) -> dict: # those of the dose-response curve -> their share of the synthetic rows that would balance the classes
    "Real-Meta as 0, then Ensembles by number of synthetic rows, rising; empty where no arm has a dose."
    doses = [(arm.dose, o) for o in arms if (arm := parse_arm(o)).dose and arm == Arm("real-synth-meta", dose=arm.dose)]
    return {o: 0 for o in arms if o == "real-meta" and doses} | {o: dose for dose, o in sorted(doses)}

@mpl.rc_context(STYLE)
def plot_dose(
    predictions:pd.DataFrame, # of any backbones
):                            # the figure
    "AUC, recall and specificity at .5 over the number of synthetic rows, a line a backbone. ValueError without doses."
    doses = doses_of(predictions["arm"].unique())
    if not doses: raise ValueError("No arm is an Ensemble with a dose, as real-synth-meta+1/8.")
    shown = dict(rocauc="AUC", recall="recall at .5", specificity="specificity at .5")
    fig, axs = _figure(4.4, 5.6, 3, 1, sharex=True)
    for i, (backbone, rows) in enumerate(predictions.groupby("backbone", sort=False)):
        blocks = joined(rows[rows["arm"].isin(doses)])
        found = {arm: spread(o.label, o.prob, resample(o.patients, o.label), calibration=False, patients=o.patients,
                             rank=o.rank) for arm, o in blocks.items()}
        arms = [o for o in doses if o in found]
        for ax, (metric, title) in zip(axs, shown.items()):
            mean, low, high = np.array([found[o].loc[metric, ["mean", "low", "high"]] for o in arms], float).T
            x, ends = np.array([float(doses[o]) for o in arms]) + .008*i, np.clip([mean - low, high - mean], 0, None)
            ax.errorbar(x, mean, ends, marker="o", ms=4, capsize=2, color=MORE[i % len(MORE)], label=backbone)
            ax.set(ylabel=title)
    axs[-1].set_xticks([float(o) for o in doses.values()], map(str, doses.values()))
    axs[-1].set_xlabel("synthetic films, share of full balance")
    _legend(fig, axs[0])
    return fig

@mpl.rc_context(STYLE)
def plot_groups(
    predictions:pd.DataFrame,    # of one backbone
    rows:pd.DataFrame,           # with `image` and the columns `names`
    names=("sex", "age", "view"),# what makes a group; those that `rows` lacks are left out
):                               # the figure
    """Whom each plain arm (each, where none is plain) calls positive at .5, by group, of the negatives and of the
    positives: the figures of `subgroups`. An arm that takes a group for the illness calls more of both there. A group
    of fewer than ten patients of a class has its counts alone."""
    joined(predictions) # of one backbone
    if set(predictions["arm"]) & set(COLOURS): predictions = predictions[predictions["arm"].isin(list(COLOURS))]
    found = group_scores(predictions, rows, names)
    arms, colours = found["arm"].unique(), arm_colours(found["arm"].unique())
    ticks = list(found.groupby(["column", "group"], sort=False).groups)
    fig, axs = _figure(4.4, 1 + .5*len(ticks), 1, 2, sharey=True, sharex=True)
    for i, arm in enumerate(arms):
        for ax, metric in zip(axs, ("specificity", "recall")):
            own = found[(found["arm"] == arm) & (found["metric"] == metric)]
            value, low, high = own[["value", "low", "high"]].to_numpy().T
            if metric == "specificity": value, low, high = 1 - value, 1 - high, 1 - low
            y = [ticks.index(o) + (i - (len(arms) - 1)/2)*.13 for o in zip(own["column"], own["group"])]
            ends = np.nan_to_num(np.clip([value - low, high - value], 0, None))
            ax.errorbar(value, y, xerr=ends, fmt="o", ms=3.5, lw=.9, color=colours[arm], label=arm_title(arm))
    counts = found.groupby(["column", "group"], sort=False)[["n", "positives"]].first()
    said = [f"{c} {g}\n{o.positives} of {o.n} positive" for (c, g), o in counts.iterrows()]
    axs[0].set_yticks(range(len(ticks)), said)
    axs[0].set(xlim=(-.02, 1.02), xlabel="negatives called positive", ylim=(len(ticks) - .5, -.6))
    axs[1].set(xlabel="positives called positive")
    fig.suptitle(predictions["backbone"].iloc[0], fontsize="medium")
    _legend(fig, axs[0])
    return fig

@mpl.rc_context(STYLE)
def plot_curves(
    history:pd.DataFrame,                # an arm's history.csv, or several with a column `seed`
    losses=("train_loss", "valid_loss"), # what the upper panel shows; the lower one shows all else, from 0 to 1
    title:str="",                        # of the figure
):                                       # the figure
    "Losses, and below them the paper's metrics, over epochs: thin lines a seed, thick their mean."
    runs = [o for _, o in history.groupby("seed")] if "seed" in history else [history]
    runs, names = [o.reset_index(drop=True) for o in runs], [o for o in history if o != "seed"]
    fig, axs = _figure(4.4, 4.6, 2, 1, sharex=True)
    for ax, shown in zip(axs, ([o for o in names if o in losses], [o for o in names if o not in losses])):
        for name, colour in zip(shown, cycle([*COLOURS.values(), *MORE])):
            table = pd.concat([o[name] for o in runs], axis=1).set_axis(range(len(runs)), axis=1)
            if len(runs) > 1: ax.plot(table.index + 1, table, lw=.6, alpha=.45, color=colour)
            ax.plot(table.index + 1, table.mean(axis=1), marker=".", color=colour, label=name.replace("_", " "))
        ax.legend(ncols=2)
    axs[1].set(ylim=(0, 1.01), xlabel="epoch")
    axs[1].xaxis.get_major_locator().set_params(integer=True)
    fig.suptitle(title, fontsize="medium")
    return fig
