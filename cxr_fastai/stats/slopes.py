"""How far a row's weight moves a figure: its slopes, whose sums over a patient's rows are what it adds. No torch.

`label` is bool, `[n]`; `prob` the probability of the positive class, `[S,n]`, a line a seed. Each gives the figure of
every seed `[S]`, and its slopes `[S,n]`, which add up to 0 (the infinitesimal jackknife; Efron 1982)."""
from collections.abc import Callable

import numpy as np

from .areas import placements

__all__ = ["area_slopes", "average_precision_slopes", "brier_slopes", "influence", "share_slopes"]

def share_slopes(
    hit:np.ndarray, # bool, `[S,n]`
    of:np.ndarray,  # among which rows, bool, `[n]`
) -> tuple:         # share `[S]`, slopes `[S,n]`
    "Of a share of hits among some rows."
    value = hit[:, of].mean(1)
    return value, np.where(of, hit - value[:, None], 0)/of.sum()

def brier_slopes(
    label:np.ndarray, # bool, `[n]`
    prob:np.ndarray,  # `[S,n]`
) -> tuple:           # Brier score `[S]`, slopes `[S,n]`
    "Of the mean squared error."
    error = (prob - label)**2
    value = error.mean(1)
    return value, (error - value[:, None])/len(label)

def area_slopes(
    label:np.ndarray, # bool, `[n]`, both classes
    prob:np.ndarray,  # `[S,n]`
) -> tuple:           # area `[S]`, slopes `[S,n]`
    "Of the area under the ROC curve, by DeLong's placements."
    value, slopes = np.empty(len(prob)), np.empty(prob.shape)
    for i, one in enumerate(prob):
        above, below = placements(label, one)
        value[i] = above.mean()
        slopes[i, label] = (above - above.mean())/len(above)
        slopes[i, ~label] = (below - below.mean())/len(below)
    return value, slopes

def average_precision_slopes(
    label:np.ndarray, # bool, `[n]`
    prob:np.ndarray,  # `[S,n]`
) -> tuple:           # average precision `[S]`, slopes `[S,n]`
    "A row weighs by itself, and in the precision at every positive that ranks no higher."
    value, slopes = zip(*(_average_precision(label, o) for o in prob))
    return np.array(value), np.stack(slopes)

def _average_precision(label, prob):
    "Of one seed."
    order = np.argsort(-prob, kind="stable")
    y, starts = label[order], np.flatnonzero(np.diff(prob[order], prepend=np.inf))
    pos, neg = (np.add.reduceat(o.astype(float), starts) for o in (y, ~y))
    tp, fp, positives = pos.cumsum(), neg.cumsum(), label.sum()
    precision, called2 = tp/(tp + fp), (tp + fp)**2
    value = (pos @ precision)/positives
    def below(counts): # of ties with the row, and of what ranks below it
        return (pos*counts/called2)[::-1].cumsum()[::-1]/positives
    group = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(y)]))
    slopes = np.empty(len(y))
    slopes[order] = np.where(y, (precision[group] - value)/positives + below(fp)[group], -below(tp)[group])
    return value, slopes

def influence(
    label:np.ndarray,    # bool, `[n]`
    prob:np.ndarray,     # `[S,n]`
    who:np.ndarray,      # numbers of patients, `[n]`
    patients:int,        # how many there are, these rows' or not
    slopes_of:Callable=area_slopes, # of labels and probabilities: the figure and its slopes
) -> tuple:              # the figure of every seed `[S]`, and what each patient adds to their mean `[patients]`
    "A mean figure as a sum over patients, to first order: the squares sum up to its variance."
    value, slopes = slopes_of(label, prob)
    return value, np.bincount(who, slopes.mean(0), patients)
