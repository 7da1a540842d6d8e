"""Figures of one learner: what a threshold costs, which films it is most wrong about, and those of `explain`.

`predictions_of` gives the table that a study's figures take (`plot_confusion`, `plot_roc`, `plot_pr`), so that they are
a learner's too. Figures are matplotlib's own and unknown to pyplot: none stays open."""
from functools import partial
from math import ceil
from pathlib import Path

import torch
import numpy as np
import pandas as pd
import torch.nn.functional as F
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from plum import dispatch

from ..cohort.radiograph import read_radiograph
from ..core.style import COLOURS, ENDS, GRID, MORE, show_film, STYLE
from ..data.given import as_rows
from ..models.learner import RadiographLearner
from ..models.predictions import predictions_of
from ..stats.draws import resample
from ..stats.predictions import check_scores

__all__ = ["border_heat", "border_ring", "enlarged", "plot_explained", "plot_patient", "plot_thresholds",
           "plot_top_losses", "said_of"]

BORDER = .1     # the ring's width, as a share of the film's side
RESAMPLES = 400 # behind a drawn band
HEAT, OPAQUE = "RdBu_r", .6 # of heat over a film: red for, blue against; how much of the film it hides at most
IMAGE, METADATA, COLUMN = COLOURS["real"], COLOURS["real-meta"], COLOURS["meta"]
WORDS = dict(auc_drop="AUC lost when shuffled", log_odds_change="log-odds moved when shuffled")

def _rates(label, prob, weights, thresholds):
    "Recall, specificity, precision and F1 `[B, t]` above each threshold; nan where nothing is counted."
    called = (prob[:, None] > thresholds).astype(float)
    tp, fp = (weights @ (called * o[:, None]) for o in (label, 1 - label))
    pos, neg = ((weights @ o)[:, None] for o in (label, 1 - label))
    with np.errstate(invalid="ignore"):
        return dict(recall=tp/pos, specificity=1 - fp/neg, precision=tp/(tp + fp), F1=2*tp/(tp + fp + pos))

@rc_context(STYLE)
def plot_thresholds(
    label:np.ndarray,   # 0/1, `[n]`
    prob:np.ndarray,    # probability of the positive class, `[n]`
    patients=None,      # whose each row is; None: each its own
    threshold:float=.5, # the chosen one, marked beside .5
    seed:int=0,         # of the bootstrap
):                      # the figure
    """Recall, specificity, precision and F1 over the threshold above which is called positive, with 95% bands of
    resampled patients. A threshold chosen on these very rows flatters: choose on valid, look at test."""
    label, prob = (o.astype(float) for o in check_scores(label, prob, patients))
    if prob.ndim > 1: raise ValueError("plot_thresholds draws one model's probabilities, [n].")
    draws = resample(range(len(label)) if patients is None else patients, label, RESAMPLES, seed=seed)
    fig = Figure(figsize=(5, 4), layout="constrained")
    ax = fig.subplots()
    ones = np.ones((1, len(label)))
    rates = _rates(label, prob, np.concatenate([ones, draws]), GRID)
    for (name, drawn), colour in zip(rates.items(), (IMAGE, METADATA, *MORE)):
        known = ~np.isnan(drawn[0])
        low, high = np.nanquantile(drawn[1:, known], ENDS, axis=0)
        ax.fill_between(GRID[known], low, high, color=colour, alpha=.12, lw=0)
        ax.plot(GRID[known], drawn[0, known], color=colour, label=name)
    for at in sorted({.5, threshold}):
        there = _rates(label, prob, ones, np.array([at]))
        told = ", ".join(f"{o} {there[o].item():.2f}" for o in ("recall", "specificity"))
        ax.axvline(at, color="0.3", lw=1, ls="-" if at == threshold else ":", label=f"{at:.3g}: {told}")
    ax.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="threshold", ylabel="rate")
    fig.legend(loc="outside lower center", ncols=2)
    return fig

def _film(file, size, white=None):
    "A film for a panel, 0..1."
    return read_radiograph(file, size, white) / 255

@dispatch
def plot_top_losses(
    learn:RadiographLearner, # trained, or of `load_bundle`
    rows:pd.DataFrame,       # with labels
    n:int=9,                 # how many
):                           # the figure
    "The rows that a learner is most wrong about, worst first: film (where `rows` has files), label and metadata."
    said, files = predictions_of(learn, rows), as_rows(rows).get("file")
    own = said["probability"].where(said["label"] == 1, 1 - said["probability"])
    loss, tfm, radiograph = -np.log(own.clip(1e-12)), learn.dls.metadata, learn.dls.radiograph
    white = radiograph.white if radiograph else None
    worst = loss.nlargest(n).index
    lines = ceil(len(worst) / 3)
    fig = Figure(figsize=(7.2, 2.9 * lines), layout="constrained")
    axs = fig.subplots(lines, 3, squeeze=False)
    for ax in axs.flat: ax.axis("off")
    for ax, i in zip(axs.flat, worst):
        if files is not None: show_film(ax, _film(files.iloc[i], 256, white))
        told = f"{learn.dls.vocab[said['label'][i]]}: {said['probability'][i]:.2f}, loss {loss[i]:.2f}"
        words = [str(tfm.decode(tfm(rows.iloc[i])))] if tfm else []
        ax.set_title("\n".join([told, *words]), fontsize="small")
    fig.suptitle(f"largest losses: label and probability of {learn.dls.vocab[1]}", fontsize="medium")
    return fig

# What `explain` found

def border_ring(
    size:int, # side of the film
) -> np.ndarray: # bool `[size, size]`
    "The outer tenth of a film on every side, 36% of its area, where little lung is."
    at = np.arange(size)
    edge = np.minimum(at, at[::-1]) < round(BORDER * size)
    return edge[:, None] | edge

def enlarged(
    heat:torch.Tensor, # `[n, 1, h, w]`
    size:int,          # side of the film that it is of
) -> torch.Tensor:     # `[n, size, size]`
    "Heat as large as its film."
    return F.interpolate(heat, (size, size), mode="bilinear")[:, 0]

def border_heat(
    heat:torch.Tensor, # `[n, 1, h, w]`, of either sign
    size:int,          # side of the films that it lies over
) -> np.ndarray:       # `[n]`; nan for films without heat
    "The share of each film's heat that is in the ring."
    ring = torch.from_numpy(border_ring(size))
    strengths = [enlarged(part, size).abs() for part in heat.split(64)] # as many films fit in memory at once
    inside = torch.cat([o[:, ring].sum(1) for o in strengths]).double().numpy()
    everywhere = torch.cat([o.sum((1, 2)) for o in strengths]).double().numpy()
    return np.divide(inside, everywhere, out=np.full(len(heat), np.nan), where=everywhere > 0)

def _draw_heat(ax, film, heat, share, pos):
    "All the heat over its film, the ring's inner edge, and how much is beyond it."
    side, edge = len(film), round(BORDER * len(film))
    show_film(ax, film, vmax=film.max())
    if top := np.abs(heat).max(): ax.imshow(heat, cmap=HEAT, vmin=-top, vmax=top, alpha=OPAQUE * np.abs(heat) / top)
    ax.add_patch(Rectangle((edge - .5,)*2, side - 2*edge, side - 2*edge, fill=False, ls=":", ec="yellow", lw=.9))
    told = f"{share} beyond the dots ({border_ring(side).mean():.0%} of the film)"
    ax.set_title(f"red for {pos}, blue against\n{told}", fontsize="small")

def _ends(values, low, high):
    "How far an interval reaches on both sides, `[2, n]`: not at all on one that its value lies beyond."
    return np.clip([values - low, high - values], 0, None)

def _bars(ax, names, values, title, ends=None):
    y = np.arange(len(names))
    ax.barh(y, values, xerr=ends, color=[_colour(o) for o in names], ecolor="0.3", height=.65, capsize=2)
    ax.axvline(0, color="0.3", lw=.8)
    ax.set_yticks(y, names)
    ax.set_ylim(len(names) - .4, -.6)
    ax.set_title(title, fontsize="small")
    ax.grid(False, axis="y")

def _panels(panels):
    "A figure of panels in a row, each drawn by a function of its axes."
    fig = Figure(figsize=(3.1 * len(panels), 3.5), layout="constrained")
    for ax, draw in zip(fig.subplots(1, len(panels), squeeze=False)[0], panels): draw(ax)
    return fig

def _percent(share): return "none" if np.isnan(share) else f"{share:.0%}"

def said_of(
    value:object, # of a patient's metadata; None: it is missing
) -> str:
    "A value in words."
    if value is None: return "missing"
    return f"{value:g}" if isinstance(value, float) else value

def _colour(name): return dict(image=IMAGE, metadata=METADATA).get(name, COLUMN)

@rc_context(STYLE)
def plot_patient(
    found:object, # an `Explanation`
    i:int,               # a row's number
):                       # the figure
    """A film, its heat, and what the inputs add to the log-odds: image and metadata beyond another patient's, each
    value beyond its being missing."""
    row, pos = found.table.iloc[i], found.classes[1]
    panels, bars = [], [(o, row[f"from_{o}"]) for o in ("image", "metadata") if f"from_{o}" in row]
    bars += [(f"{name} {said_of(value)}", row[f"knowing_{name}"]) for name, value in found.words[i].items()]
    if found.heat is not None:
        film = _film(found.files[i], len(found.film))
        heat, share = enlarged(found.heat[[i]], len(film))[0].numpy(), _percent(row["border_heat"])
        panels += [partial(show_film, film=film), partial(_draw_heat, film=film, heat=heat, share=share, pos=pos)]
    if bars:
        names, values = zip(*bars)
        panels.append(partial(_bars, names=names, values=values, title=f"log-odds of {pos}: what this adds"))
    fig = _panels(panels)
    told = [Path(str(row[o])).name for o in ("image", "label") if o in row]
    called = (f"probability of {pos} {row['probability']:.2f}: called {row['decision']} "
              f"(above {found.threshold:.3g} {pos})")
    fig.suptitle(", ".join([*told, called]), fontsize="medium")
    return fig

def _shuffled(found):
    "The permutation importances: of the AUC where there were labels, else of the log-odds."
    lines = found.importance[found.importance["measure"].isin(WORDS)]
    return lines[lines["measure"] == lines["measure"].iloc[0]]

def _mean_heat(found):
    "Over the films, as large as they are; each film's heat counts alike."
    each = found.heat / found.heat.abs().sum((1, 2, 3), keepdim=True)
    return enlarged(each.nan_to_num().mean(0, keepdim=True), len(found.film))[0]

@rc_context(STYLE)
def plot_explained(
    found:object, # an `Explanation`
):                       # the figure
    "Mean heat over the mean film; the importances of the inputs; the image's share."
    lines, share, border = _shuffled(found), found.of("decision_share"), found.of("border_heat")
    values = lines["value"].to_numpy()
    ends = _ends(values, *lines[["low", "high"]].to_numpy().T)
    names, title = list(lines["input"]), WORDS[lines["measure"].iloc[0]]
    panels = [partial(_bars, names=names, values=values, title=title, ends=ends)]
    if border:
        heat, beyond = _mean_heat(found).numpy(), "{:.0%} ({:.0%} to {:.0%})".format(*border)
        panels.insert(0, partial(_draw_heat, film=found.film.numpy(), heat=heat, share=beyond, pos=found.classes[1]))
    if share: panels.append(partial(_draw_share, value=share[0], low=share[1], high=share[2]))
    fig = _panels(panels)
    area = found.of("rocauc", "model")
    told = "; AUC on them {:.2f} ({:.2f} to {:.2f})".format(*area) if area else ""
    fig.suptitle(f"{len(found.table):,} rows{told}: what the model uses, which needn't be the illness",
                 fontsize="medium")
    return fig

def _draw_share(ax, value, low, high):
    "The decision as one bar of two colours, with the interval where they meet."
    ax.bar([0, 0], [value, 1 - value], bottom=[0, value], color=[IMAGE, METADATA], width=.5)
    ax.errorbar([0], [value], _ends(np.array([value]), low, high), color="0.2", capsize=6)
    for y, word in ((value/2, "image"), ((1 + value)/2, "metadata")): ax.text(.3, y, word, va="center")
    ax.set(xlim=(-.5, 1), xticks=[], ylim=(0, 1))
    ax.set_title(f"image's share of the decision\n{value:.0%} ({low:.0%} to {high:.0%})", fontsize="small")
