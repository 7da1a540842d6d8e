"""Resamples of patients, and thresholds that each of them finds anew. No torch.

Patients are drawn, not images, with replacement, within two strata (those with a positive image, and the others), so
that every resample has both classes."""
from collections.abc import Iterable

import numpy as np
import pandas as pd

from .calibration import threshold_at
from .predictions import check_scores, Side

__all__ = ["at_specificity_draws", "at_valid", "resample"]

def resample(
    patients:Iterable, # whose each row is, `[n]`
    label:np.ndarray,  # 0/1, `[n]`
    n:int=2000,        # resamples
    *,
    seed:int=0,        # of them
    stratified:bool=True, # as many patients of each class in every resample; False: by the draw, as for calibration
) -> np.ndarray: # float32 `[n, rows]`: how often each row is in each resample
    "A bootstrap over patients."
    who, names = pd.factorize(np.asarray(patients))
    ill = np.bincount(who, np.asarray(label)) > 0 if stratified else np.zeros(len(names), bool)
    times, rng = np.zeros((n, len(names)), np.float32), np.random.default_rng(seed)
    for stratum in np.flatnonzero(ill), np.flatnonzero(~ill):
        k = len(stratum)
        if k: times[:, stratum] = rng.multinomial(k, np.full(k, 1/k), n)
    return times[:, who]

def _up_to(prob, weights):
    "A function of levels `[b]`: the share of each line's weight that is no more than its level; nan without weight."
    order = np.argsort(prob, kind="stable")
    sums, rising = np.cumsum(weights[:, order], axis=1, dtype=weights.dtype), prob[order]
    def share(at):
        below = np.searchsorted(rising, at, side="right") - 1
        reached = np.where(below >= 0, sums[np.arange(len(at)), below], 0).astype(float)
        with np.errstate(invalid="ignore"): return reached / sums[:, -1]
    return share

def _thresholds(negatives, weights, specificities):
    "`threshold_at` `[b]` of every line of weights, a list over specificities; nan where it has no negative."
    order = np.argsort(negatives, kind="stable")
    sums = np.cumsum(weights[:, order], axis=1, dtype=float)
    for o in specificities:
        at = (sums < (o*sums[:, -1:] - 1e-9)).sum(1)
        yield np.where(sums[:, -1] > 0, negatives[order][np.minimum(at, len(negatives) - 1)], np.nan)

def at_specificity_draws(
    label:np.ndarray,       # of test rows, 0/1, `[n]`
    prob:np.ndarray,        # of the same, `[seeds, n]`
    draws:np.ndarray,       # of `resample`, for them, `[b,n]`
    valid_label:np.ndarray, # of valid rows, `[m]`
    valid_prob:np.ndarray,  # of the same, `[seeds, m]`
    valid_draws:np.ndarray, # of `resample` with another seed, for them, `[b,m]`
    specificity:float=.9,   # wanted on valid; or several
) -> dict:                  # recall and specificity on test, `[seeds, b]`; a list of such for several
    """What a threshold that was fixed on valid does on test, with the luck of both: in every draw the threshold is
    found anew on the valid patients that were drawn. ValueError without a negative valid row."""
    (label, prob), (valid_label, valid_prob) = check_scores(label, prob), check_scores(valid_label, valid_prob)
    if valid_label.all(): raise ValueError("There is no negative row to fix a threshold on.")
    ill, well, calm = draws[:, label], draws[:, ~label], valid_draws[:, ~valid_label]
    found = []
    for p, q in zip(np.atleast_2d(prob), np.atleast_2d(valid_prob), strict=True):
        missed, passed = _up_to(p[label], ill), _up_to(p[~label], well)
        ends = _thresholds(q[~valid_label], calm, np.atleast_1d(specificity))
        found.append([[np.where(np.isnan(at), np.nan, o) for o in (1 - missed(at), passed(at))] for at in ends])
    res = [dict(zip(("recall", "specificity"), o)) for o in np.array(found).transpose(1, 2, 0, 3)]
    return res if np.ndim(specificity) else res[0]

def at_valid(
    test:Side,              # rows that are judged
    valid:Side,             # rows of the same models, on which thresholds are fixed
    draws:np.ndarray,       # of `resample`, for the test rows, `[b,n]`
    valid_draws:np.ndarray, # of `resample` with another seed, for the valid rows, `[b,m]`
    specificities=(.9,),    # wanted on valid
) -> list:                  # of each: who is called positive, bool `[S,n]`; recall and specificity on test, `[S,b]`
    "`at_specificity_draws` where folds may have models, and so thresholds, of their own: their rows are then pooled."
    called, found = [np.zeros(test.prob.shape, bool) for _ in specificities], []
    for own, theirs in zip(test.parts(), valid.parts()):
        t, v, drawn = test.at(own), valid.at(theirs), draws[:, own]
        for o, hit in zip(specificities, called):
            hit[:, own] = t.prob > np.array([threshold_at(v.label, q, o) for q in v.prob])[:, None]
        rates = at_specificity_draws(t.label, t.prob, drawn, v.label, v.prob, valid_draws[:, theirs], specificities)
        found.append(([drawn[:, o].sum(1, dtype=float) for o in (t.label, ~t.label)], rates))
    return [(hit, _pooled([(sizes, rates[i]) for sizes, rates in found])) for i, hit in enumerate(called)]

def _pooled(parts):
    "Recall and specificity over all rows from each fold's, `[S,b]`, and its weight of either class, `[b]`."
    if len(parts) == 1: return parts[0][1]
    return {k: sum(sizes[i]*rates[k] for sizes, rates in parts)/sum(sizes[i] for sizes, _ in parts)
            for i, k in enumerate(("recall", "specificity"))}
