"""What a table of predictions says as a whole: how many are called positive, beside training's share; how probabilities
lie; flags by kind; and, where labels are known, every figure with its interval. No torch."""
import numpy as np
import pandas as pd

from .draws import resample
from .formats import number
from .intervals import spread
from .scoring import called, title_of, wilson

__all__ = ["figures_at", "summary_table", "summary_words"]

QUARTILES = dict(least=0, quarter=.25, median=.5, three_quarters=.75, most=1)
SAID = "recall", "specificity", "rocauc", "brier", "calibration_slope", "calibration_intercept" # all are in the file
FAR = 2 # times training's share, or its inverse, beyond which a share of calls is said to be unlike

def figures_at(
    label:np.ndarray,   # 0/1, `[n]`
    prob:np.ndarray,    # probability of the positive class, `[n]`
    threshold:float=.5, # above it is called positive; it isn't chosen on these rows
    patients=None,      # whose rows they are; None: each row is another's
    n:int=1000,         # resamples
    seed:int=0,         # of them
) -> pd.DataFrame:      # a line a metric, `figure value low high`: values as `scores` has them, and calibration's
    "Every figure of one model's predictions with its 95% interval: the luck of these patients."
    who = np.arange(len(label)) if patients is None else np.asarray(patients)
    found = spread(label, prob, resample(who, label, n, seed=seed), threshold, patients=who, seed=seed)
    return found[["mean", "low", "high"]].rename_axis("figure").rename(columns=dict(mean="value")).reset_index()

def _line(kind, figure, value, low=np.nan, high=np.nan):
    return dict(kind=kind, figure=figure, value=value, low=low, high=high)

def summary_table(
    prob:np.ndarray,  # probability of the positive class, `[n]`; nan: the film gave none
    threshold:float,  # above it is called positive
    share:float,      # of positives among the real training rows; nan: not known
    flags:dict,       # kind -> films that have it
    expected:float=np.nan, # share that is called positive among films like those; nan: `share` stands for it
    label=None,       # 0/1, `[n]`, nan where it isn't known; None: there are none
    patients=None,    # whose rows they are; None: each row is another's
) -> pd.DataFrame:    # a line a figure: `kind figure value low high`
    "The summary of a table of predictions; figures are of the rows that have label and probability."
    prob = np.asarray(prob, float)
    there = ~np.isnan(prob)
    who = np.arange(len(prob)) if patients is None else np.asarray(patients)
    lines = [_line("films", "all", len(prob)), _line("films", "without a probability", int((~there).sum()))]
    if there.any():
        hit, n = called(prob[there], threshold).mean(), len(np.unique(who[there]))
        lines.append(_line("called positive", f"above {threshold:.9g}", hit, *wilson(hit*n, n)))
        lines.append(_line("called positive", "training rows that are", share))
        like = share if np.isnan(expected) else expected
        lines.append(_line("called positive", "expected of films like those", like))
        lines += [_line("probability", k, np.quantile(prob[there], q)) for k, q in QUARTILES.items()]
    lines += [_line("flag", k, n) for k, n in flags.items()]
    known = there & ~np.isnan(np.asarray(label, float)) if label is not None else there & False
    if known.any():
        label = np.asarray(label, float)[known].astype(int)
        lines += [_line("label", "films", len(label)), _line("label", "positive", int(label.sum()))]
        lines += [_line("score", *o) for o in figures_at(label, prob[known], threshold, who[known]).to_numpy().tolist()]
    return pd.DataFrame(lines)

def _share(line):
    ends = "" if np.isnan(line.low) else f" [{line.low:.0%}, {line.high:.0%}]"
    return f"{line.value:.0%}{ends}"

def _unlike(line, share):
    "Whether a share of calls is far from the one that is expected, and not by chance."
    return not line.low <= share <= line.high and not share/FAR < line.value < FAR*share

def summary_words(
    table:pd.DataFrame, # of `summary_table`
    positive:str,       # the positive class
) -> list:              # sentences
    "The same for a terminal."
    of = lambda kind: list(table[table["kind"] == kind].itertuples())
    (films, lost), said = of("films"), []
    if calls := of("called positive"):
        hit, before, like = calls
        known = "" if np.isnan(before.value) else f"; of its training rows {before.value:.0%} were"
        n = films.value - lost.value
        said.append(f"{_share(hit)} of {n:,.0f} films are called {positive}, {hit.figure}{known}.")
        if not np.isnan(like.value) and _unlike(hit, like.value):
            said.append(f"That is far from the {like.value:.0%} to be expected of films like those: these films, their "
                        "patients or the threshold are others, and no decision is to be believed before labels have "
                        "been seen.")
        low, *mid, high = (number(o.value, 3) for o in of("probability"))
        said.append(f"Probabilities lie from {low} to {high}, half of them from {mid[0]} to {mid[2]}, median {mid[1]}.")
    if lost.value: said.append(f"{lost.value:,.0f} of {films.value:,.0f} films have no probability: see their errors.")
    if flags := of("flag"): said.append("Flags: " + "; ".join(f"{o.value:,.0f} {o.figure}" for o in flags) + ".")
    if scored := {o.figure: o for o in of("score")}:
        n, ill = of("label")
        words = [f"{title_of(k)} {number(o.value, 3)}" + ("" if np.isnan(o.low) else f" [{o.low:.3f}, {o.high:.3f}]")
                 for k in SAID if not np.isnan((o := scored[k]).value)]
        said.append(f"By the labels of {n.value:,.0f} films, {ill.value:,.0f} of them positive: {', '.join(words)}.")
    return said
