"""Metrics of weighted rows for all resamples of a bootstrap at once, and the intervals they give. No torch.

Patients are drawn, not images, with replacement, within two strata (those with a positive image, and the others), so
that every resample has both classes."""
from collections.abc import Iterable
import numpy as np
import pandas as pd
from .calibration import *
from .predictions import check_scores

__all__ = ["at_specificity_draws", "resample", "spread", "weighted_metrics"]

BLOCK = 2**22 # weights at a time: some 30 MB an array

def resample(
    patients:Iterable, # whose each row is, `[n]`
    label:np.ndarray,  # 0/1, `[n]`
    n:int=2000,        # resamples
    seed:int=0,        # of them
) -> np.ndarray: # float32 `[n, rows]`: how often each row is in each resample
    "A stratified bootstrap over patients."
    who, names = pd.factorize(np.asarray(patients))
    ill = np.bincount(who, np.asarray(label)) > 0
    times, rng = np.zeros((n, len(names)), np.float32), np.random.default_rng(seed)
    for stratum in np.flatnonzero(ill), np.flatnonzero(~ill):
        k = len(stratum)
        if k: times[:, stratum] = rng.multinomial(k, np.full(k, 1/k), n)
    return times[:, who]

def _ranked(label, prob, w):
    "Area under the ROC curve, ties half, and average precision, `[b]` each."
    order = np.argsort(-prob, kind="stable")
    starts = np.flatnonzero(np.diff(prob[order], prepend=np.inf))
    pos, neg = (np.add.reduceat(w[:, order] * o[order], starts, axis=1) for o in (label, ~label))
    tp, fp = pos.cumsum(1), neg.cumsum(1)
    with np.errstate(all="ignore"):
        area = (neg * (tp - pos/2)).sum(1) / (tp[:, -1] * fp[:, -1])
        precision = np.where(tp + fp > 0, tp / (tp + fp), 0)
        return area, (pos * precision).sum(1) / tp[:, -1]

def _decided(label, prob, w, threshold):
    called = prob > threshold
    tp, fp, fn, tn = (w @ np.stack([label & called, ~label & called, label & ~called, ~label & ~called], 1)).T
    ratio = lambda a, b: np.divide(a, b, out=np.zeros_like(a), where=b > 0)
    recall, specificity = ratio(tp, tp + fn), ratio(tn, tn + fp)
    return dict(accuracy=(tp + tn)/(tp + fp + fn + tn), precision=ratio(tp, tp + fp), recall=recall,
                specificity=specificity, balanced_accuracy=(recall + specificity)/2, f1=ratio(2*tp, 2*tp + fp + fn))

def _calibrated(label, prob, w):
    slope, intercept = recalibration(label, prob, w)
    error = calibration_error(label, prob, w)
    return dict(calibration_slope=slope, calibration_intercept=intercept, calibration_error=error)

def _block(label, prob, w, threshold, calibration):
    area, average = _ranked(label, prob, w)
    scored = dict(rocauc=area, pr_auc=average, brier=w @ (prob - label)**2 / w.sum(1))
    return _decided(label, prob, w, threshold) | scored | (_calibrated(label, prob, w) if calibration else {})

def weighted_metrics(
    label:np.ndarray,   # 0/1, `[n]`
    prob:np.ndarray,    # probability of the positive class, `[n]`
    weights=None,       # `[b,n]`; None: one line of ones
    threshold:float=.5, # above it is called positive
    calibration:bool=True, # its slope, intercept and error too, which take longest
) -> dict:              # metric -> `[b]`
    "The metrics of `scoring.METRICS`, and of calibration, of every line of weights."
    label, prob = check_scores(label, prob)
    if prob.ndim != 1: raise ValueError("prob must be of one seed, [n]: spread takes several.")
    prob = prob.astype(float)
    weights = np.ones((1, len(label))) if weights is None else weights
    parts = [_block(label, prob, w.astype(float), threshold, calibration)
             for w in np.array_split(weights, 1 + weights.size // BLOCK)]
    return {k: np.concatenate([o[k] for o in parts]) for k in parts[0]}

def _up_to(prob, weights, at):
    "Share of the weight `[b]` of rows whose probability is no more than `at` `[b]`; nan where a line weighs nothing."
    order = np.argsort(prob, kind="stable")
    sums = np.pad(np.cumsum(weights[:, order], axis=1, dtype=float), ((0, 0), (1, 0)))
    below = np.searchsorted(prob[order], at, side="right")
    with np.errstate(invalid="ignore"): return sums[np.arange(len(at)), below] / sums[:, -1]

def _thresholds(negatives, weights, specificity):
    "`threshold_at` `[b]` of every line of weights; nan where it has no negative."
    order = np.argsort(negatives, kind="stable")
    sums = np.cumsum(weights[:, order], axis=1, dtype=float)
    at = (sums < (specificity*sums[:, -1] - 1e-9)[:, None]).sum(1)
    return np.where(sums[:, -1] > 0, negatives[order][at], np.nan)

def at_specificity_draws(
    label:np.ndarray,       # of test rows, 0/1, `[n]`
    prob:np.ndarray,        # of the same, `[seeds, n]`
    draws:np.ndarray,       # of `resample`, for them, `[b,n]`
    valid_label:np.ndarray, # of valid rows, `[m]`
    valid_prob:np.ndarray,  # of the same, `[seeds, m]`
    valid_draws:np.ndarray, # of `resample` with another seed, for them, `[b,m]`
    specificity:float=.9,   # wanted on valid
) -> dict:                  # recall and specificity on test, `[seeds, b]`
    """What a threshold that was fixed on valid does on test, with the luck of both: in every draw the threshold is found
    anew on the valid patients that were drawn. ValueError without a negative valid row."""
    (label, prob), (valid_label, valid_prob) = check_scores(label, prob), check_scores(valid_label, valid_prob)
    if valid_label.all(): raise ValueError("There is no negative row to fix a threshold on.")
    prob, valid_prob, found = np.atleast_2d(prob), np.atleast_2d(valid_prob), []
    for p, q in zip(prob, valid_prob, strict=True):
        at = _thresholds(q[~valid_label], valid_draws[:, ~valid_label], specificity)
        recall, passed = 1 - _up_to(p[label], draws[:, label], at), _up_to(p[~label], draws[:, ~label], at)
        found.append([np.where(np.isnan(at), np.nan, o) for o in (recall, passed)])
    return dict(zip(("recall", "specificity"), np.array(found).transpose(1, 0, 2)))

def spread(
    label:np.ndarray, # 0/1, `[n]`
    prob:np.ndarray,  # `[n]`, or `[seeds, n]`
    draws:np.ndarray, # of `resample`, for the same rows
    thresholds=.5,    # one, or one a seed
    level:float=.95,  # confidence
    calibration:bool=True, # its metrics too
    patients=None,    # whose rows they are; None: rows that are always drawn together are one patient's
) -> pd.DataFrame:    # a line a metric: `mean low high sd`
    """The mean over seeds of every metric, the percentile interval that `draws` give for it (the luck of the test
    patients, for these trained models), and the standard deviation over seeds (the luck of training; nan for one)."""
    label, prob = check_scores(label, prob, patients)
    prob = np.atleast_2d(prob)
    thresholds = np.broadcast_to(thresholds, len(prob))
    of = lambda w: [weighted_metrics(label, p, w, t, calibration) for p, t in zip(prob, thresholds)]
    once, drawn = of(None), of(draws)
    each = pd.DataFrame([{k: v[0] for k, v in o.items()} for o in once])
    ends = {k: percentiles(np.mean([o[k] for o in drawn], 0), level) for k in each}
    low, high = np.array(list(ends.values())).T
    return pd.DataFrame(dict(mean=each.mean(), low=low, high=high, sd=each.std(ddof=1)), index=list(each))

def percentiles(
    values,         # of resamples, `[b]`; nan: undefined in that one
    level:float=.95,# confidence
) -> tuple:         # low, high; nan where none is defined
    "A percentile interval of values that occur: infinities have no mean."
    values = np.sort(values[~np.isnan(values)])
    if not len(values): return np.nan, np.nan
    return tuple(np.quantile(values, [(1 - level)/2, (1 + level)/2], method="inverted_cdf").tolist())
